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
fn an_id_is_never_used_again() {
    let mut ledger = Ledger::new(LedgerId(Uuid::nil()), "n".parse().unwrap());
    ledger.apply(Event::Reserved { spec: spec(1) }).unwrap();
    ledger.apply(Event::Volume { id: spec(1).id, change: Change::Discarded }).unwrap();
    assert_eq!(ledger.apply(Event::Reserved { spec: spec(1) }), Err(IllegalEvent::Reused { id: spec(1).id }));
    assert_eq!(ledger.withheld(&spec(1).pool), 0);
}
