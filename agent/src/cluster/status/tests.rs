use std::collections::BTreeMap;

use bedplate_core::volume::{Claim, Mode};
use bedplate_provisioner::engine::Progress;

use super::*;

fn outline(phase: &'static str) -> Outline {
    Outline {
        id: "vol-1".parse().unwrap(),
        name: "pvc-1-0".to_owned(),
        pool: "fast".parse().unwrap(),
        absent: None,
        bytes: 1 << 30,
        mode: Mode::Block,
        file: Some("vol-1.img".to_owned()),
        claim: Claim::default(),
        demand: None,
        parameters: BTreeMap::new(),
        origin: None,
        phase,
        detail: String::new(),
        ever_staged: false,
        receipt: None,
        progress: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn every_state_of_the_ledger_is_a_phase_and_an_absent_pool_makes_a_debt() {
    for (ledger, here, absent) in [
        ("Reserved", Phase::Reserved, Phase::Reserved),
        ("Ready", Phase::Ready, Phase::Ready),
        ("Retained", Phase::Retained, Phase::Retained),
        ("Released", Phase::Released, Phase::Debt),
        ("Quarantined", Phase::Quarantined, Phase::Debt),
        ("Wiping", Phase::Wiping, Phase::Debt),
        ("Flushed", Phase::Verifying, Phase::Debt),
        ("Verifying", Phase::Verifying, Phase::Debt),
        ("Verified", Phase::Verified, Phase::Debt),
        ("Stuck", Phase::Stuck, Phase::Debt),
        ("Freed", Phase::Freed, Phase::Freed),
        ("Discarded", Phase::Discarded, Phase::Discarded),
        ("Forgotten", Phase::Forgotten, Phase::Forgotten),
    ] {
        assert_eq!(phase(&outline(ledger)), here, "{ledger}");
        let gone = Outline { absent: Some("not mounted".to_owned()), ..outline(ledger) };
        assert_eq!(phase(&gone), absent, "{ledger} in an absent pool");
    }
}

#[test]
fn a_wipe_is_told_in_steps_of_a_twentieth() {
    let told = |done| {
        let progress = Progress { stage: Stage::Wiping, done, total: 1000 };
        of_volume(&Outline { progress: Some(progress), ..outline("Wiping") }, None, None).wipe.unwrap().done
    };
    assert_eq!([told(0), told(49), told(50), told(99), told(999), told(1000)], [0, 0, 50, 50, 950, 1000]);
}

#[test]
fn conditions_keep_the_time_since_when_they_hold() {
    let ready = of_volume(&outline("Ready"), None, Some("/pool"));
    assert_eq!(ready.device.as_deref(), Some("/pool/vol-1.img"));
    let first = with_conditions(ready.clone(), &[], Some(1), false, at(10));
    assert_eq!((first.conditions[0].status.as_str(), first.conditions[0].last_transition_time.0), ("True", at(10)));
    let again = with_conditions(ready.clone(), &first.conditions, Some(1), false, at(99));
    assert_eq!(again, first, "nothing changed, so nothing is written");
    let absent = with_conditions(ready, &first.conditions, Some(1), true, at(99));
    assert_eq!((absent.conditions[0].status.as_str(), absent.conditions[0].last_transition_time.0), ("False", at(99)));
}

#[test]
fn wiped_is_true_only_of_what_is_freed() {
    let wiped = |phase| {
        let status = with_conditions(of_volume(&outline(phase), None, None), &[], None, false, at(0));
        status.conditions.iter().find(|c| c.type_ == "Wiped").map(|c| c.status.clone())
    };
    assert_eq!(wiped("Ready"), None);
    assert_eq!(wiped("Verified").as_deref(), Some("False"));
    assert_eq!(wiped("Stuck").as_deref(), Some("False"));
    assert_eq!(wiped("Freed").as_deref(), Some("True"));
}
