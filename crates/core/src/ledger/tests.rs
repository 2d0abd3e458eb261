use jiff::Timestamp;

use super::*;
use crate::extent::PhysicalMap;
use crate::volume::{Claim, FileIdentity, Mode};
use crate::wipe::VerifyDemand;

fn spec(i: usize) -> Spec {
    Spec {
        id: format!("v{i}").parse().unwrap(),
        name: format!("n{i}"),
        pool: "p".parse().unwrap(),
        bytes: 4096,
        mode: Mode::Block,
        file: format!("f{i}"),
        demand: None,
        verify: VerifyDemand::Full,
        mkfs_options: Vec::new(),
        claim: Claim::default(),
        parameters: BTreeMap::new(),
        created: Timestamp::UNIX_EPOCH,
        origin: None,
    }
}

#[test]
fn pruning_keeps_every_living_volume_and_the_newest_tombstones() {
    let mut ledger = Ledger::new(LedgerId(Uuid::nil()), "n".parse().unwrap());
    let backing = Backing { identity: FileIdentity { inode: 1, born: 1 }, map: PhysicalMap::default() };
    for i in 0..TOMBSTONES + 50 {
        ledger.apply(Event::Reserved { spec: spec(i) }).unwrap();
        let change = if i % 10 == 0 { Change::Ready { backing: backing.clone() } } else { Change::Discarded };
        ledger.apply(Event::Volume { id: spec(i).id, change }).unwrap();
    }
    let living = ledger.volumes.values().filter(|v| !v.is_over()).count();
    ledger.prune();
    assert_eq!(ledger.volumes.values().filter(|v| !v.is_over()).count(), living);
    assert!(ledger.volumes.len() - living <= TOMBSTONES);
}

#[test]
fn of_several_volumes_of_one_name_the_living_one_is_meant_else_the_newest() {
    let mut ledger = Ledger::new(LedgerId(Uuid::nil()), "n".parse().unwrap());
    let mut add = |i: usize, created: i64, name: &str, over: bool| {
        let created = Timestamp::from_second(created).unwrap();
        ledger.apply(Event::Reserved { spec: Spec { created, name: name.to_owned(), ..spec(i) } }).unwrap();
        if over {
            ledger.apply(Event::Volume { id: spec(i).id, change: Change::Discarded }).unwrap();
        }
    };
    add(1, 30, "gone", true);
    add(2, 20, "gone", true);
    add(3, 10, "here", false);
    add(4, 40, "here", true);
    add(5, 50, "alone", true);
    for (name, id) in [("gone", "v1"), ("here", "v3"), ("alone", "v5")] {
        assert_eq!(ledger.named(name).unwrap().spec().id.as_str(), id, "{name}");
    }
    let all = ledger.all_named();
    assert_eq!(all.len(), 3);
    for (name, volume) in all {
        assert_eq!(ledger.named(name), Some(volume), "{name}");
    }
    assert_eq!(ledger.named("never"), None);
}

#[test]
fn an_id_is_never_used_again() {
    let mut ledger = Ledger::new(LedgerId(Uuid::nil()), "n".parse().unwrap());
    ledger.apply(Event::Reserved { spec: spec(1) }).unwrap();
    ledger.apply(Event::Volume { id: spec(1).id, change: Change::Discarded }).unwrap();
    assert_eq!(ledger.apply(Event::Reserved { spec: spec(1) }), Err(IllegalEvent::Reused { id: spec(1).id }));
    assert_eq!(ledger.withheld(&spec(1).pool), 0);
}

#[test]
fn a_name_that_an_object_asked_for_is_never_free_again_also_after_its_tombstone_is_gone() {
    let mut ledger = Ledger::new(LedgerId(Uuid::nil()), "n".parse().unwrap());
    for i in 0..TOMBSTONES + 2 {
        // One that an object asked for, one that a CSI call did.
        let origin = (i == 0).then(crate::volume::Origin::default);
        ledger.apply(Event::Reserved { spec: Spec { origin, ..spec(i) } }).unwrap();
        ledger.apply(Event::Volume { id: spec(i).id, change: Change::Discarded }).unwrap();
    }
    assert!(ledger.named("n0").is_some() && !ledger.is_used_up("n0"));
    ledger.prune();
    assert!(ledger.named("n0").is_none() && ledger.is_used_up("n0"));
    assert!(ledger.named("n1").is_none() && !ledger.is_used_up("n1"), "CSI names may come again");
    // It survives the journal.
    let json = serde_json::to_string(&ledger).unwrap();
    assert!(serde_json::from_str::<Ledger>(&json).unwrap().is_used_up("n0"));
}

#[test]
fn a_ledger_of_before_origins_and_used_names_is_read() {
    let mut ledger = Ledger::new(LedgerId(Uuid::nil()), "n".parse().unwrap());
    ledger.apply(Event::Reserved { spec: spec(1) }).unwrap();
    let json = serde_json::to_value(&ledger).unwrap();
    assert!(json.get("usedNames").is_none() && !json.to_string().contains("origin"), "as it was written before");
    assert_eq!(serde_json::from_value::<Ledger>(json).unwrap(), ledger);
}

#[test]
fn promises_of_volumes_in_service_are_summed_by_pool() {
    use crate::volume::{Origin, Promise};
    let mut ledger = Ledger::new(LedgerId(Uuid::nil()), "n".parse().unwrap());
    for (i, iops) in [(1, 100), (2, 30), (3, 7)] {
        let promise = Some(Promise { iops: Some(iops), ..Promise::default() });
        let origin = Some(Origin { promise, ..Origin::default() });
        ledger.apply(Event::Reserved { spec: Spec { origin, ..spec(i) } }).unwrap();
    }
    ledger.apply(Event::Volume { id: spec(2).id, change: Change::Discarded }).unwrap();
    assert_eq!(ledger.promised_iops(&spec(1).pool), 107);
    assert_eq!(ledger.promised_iops(&"other".parse().unwrap()), 0);
}
