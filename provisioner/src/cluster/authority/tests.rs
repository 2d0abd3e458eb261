use proptest::prelude::*;

use super::*;
use crate::cluster::testing::{claim, local, volume};

fn released() -> Volume {
    volume("c", 0, VolumePhase::Released)
}

fn ready() -> Local {
    Local { mark: Mark::Bound, ..local("c", 0, Some(Phase::Ready)) }
}

#[test]
fn a_released_volume_of_a_claim_that_is_gone_may_be_reclaimed() {
    assert_eq!(release(ReleaseKind::Reclaimed, &ready(), Some(&released()), None), Ok(()));
    let deleted_first = Volume { phase: VolumePhase::Bound, deleting: true, ..released() };
    assert_eq!(release(ReleaseKind::Reclaimed, &ready(), Some(&deleted_first), None), Ok(()));
}

#[test]
fn an_api_answer_of_nothing_there_never_justifies_a_release() {
    for kind in [ReleaseKind::Reclaimed, ReleaseKind::Retained, ReleaseKind::NeverBound] {
        assert!(release(kind, &ready(), None, None).is_err(), "{kind:?}");
    }
}

#[test]
fn a_living_claim_keeps_its_volume_whatever_else_is_said() {
    let alive = claim("c", serde_json::json!({}));
    assert!(release(ReleaseKind::Reclaimed, &ready(), Some(&released()), Some(&alive)).is_err());
    let namesake = Claim { meta: crate::cluster::testing::meta("other"), ..alive };
    assert_eq!(release(ReleaseKind::Reclaimed, &ready(), Some(&released()), Some(&namesake)), Ok(()));
}

#[test]
fn what_differs_between_volume_and_local_volume_forbids() {
    let strangers = [
        Volume { handle: "another".into(), ..released() },
        Volume { local: "another".into(), ..released() },
        Volume { claim: Some(("ns".into(), "c".into(), "another".into())), ..released() },
        Volume { ours: false, ..released() },
        Volume { policy: Policy::Other, ..released() },
        Volume { policy: Policy::Retain, ..released() },
        Volume { phase: VolumePhase::Bound, ..released() },
        Volume { phase: VolumePhase::Pending, ..released() },
    ];
    for stranger in strangers {
        assert!(release(ReleaseKind::Reclaimed, &ready(), Some(&stranger), None).is_err(), "{stranger:?}");
    }
}

#[test]
fn retain_needs_a_deleted_volume_and_lets_it_go_without_a_wipe() {
    let kept = Volume { policy: Policy::Retain, ..released() };
    assert!(release(ReleaseKind::Retained, &ready(), Some(&kept), None).is_err());
    let kept = Volume { deleting: true, ..kept };
    assert_eq!(release(ReleaseKind::Retained, &ready(), Some(&kept), None), Ok(()));
    assert!(drop_volume(&kept, Some(&ready())).is_err());
    let recorded = Local { release: Some(ReleaseKind::Retained), ..ready() };
    assert_eq!(drop_volume(&kept, Some(&recorded)), Ok(()));
}

#[test]
fn a_receipt_of_exactly_this_volume_stands_for_a_local_volume_that_was_torn_out() {
    let receipt = |volume: &str, local: &str, claim: &str, node: &str| {
        let receipt = serde_json::json!({
            "number": 1, "ledgerID": "l1", "node": node, "volume": volume, "localVolume": local, "claimUID": claim,
            "claim": {"namespace": "ns", "name": "c"}, "pool": "fast", "identity": "weak", "bytes": 1, "ranges": 1,
            "method": "direct-writes", "passes": 1, "level": "clear", "started": "2026-01-01T00:00:00Z",
            "ended": "2026-01-01T00:00:01Z", "agent": "0", "previous": "", "hash": "",
            "verification": {"kind": "full", "bytes": 1, "boundPPM": 0, "boundPpm": 0, "seed": ""},
        });
        serde_json::from_value::<WipeReceiptSpec>(receipt).unwrap()
    };
    let own = receipt("handle-c-0", "pvc-c-0", "c", "n1");
    assert_eq!(drop_volume_by(Some(&own), &released()), Ok(()));
    assert!(drop_volume_by(None, &released()).is_err());
    for other in [
        receipt("handle-c-1", "pvc-c-0", "c", "n1"),
        receipt("handle-c-0", "pvc-c-1", "c", "n1"),
        receipt("handle-c-0", "pvc-c-0", "d", "n1"),
        receipt("handle-c-0", "pvc-c-0", "c", "n2"),
    ] {
        assert!(drop_volume_by(Some(&other), &released()).is_err(), "{other:?}");
    }
    let stranger = Volume { ours: false, ..released() };
    assert!(drop_volume_by(Some(&own), &stranger).is_err());
}

#[test]
fn an_attempt_of_a_living_claim_stays_until_the_claim_remembers_it() {
    let over = local("c", 0, Some(Phase::Refused));
    let claim_at = |attempt| Claim { attempt, ..claim("c", serde_json::json!({})) };
    assert!(drop_local(&over, None, Some(&claim_at(0))).is_err());
    assert_eq!(drop_local(&over, None, Some(&claim_at(1))), Ok(()));
    assert_eq!(drop_local(&over, None, None), Ok(()));
}

#[test]
fn a_claim_is_sent_back_only_from_where_it_was_to_go_and_never_with_a_volume() {
    let unbound = claim("c", serde_json::json!({}));
    assert_eq!(bounce(&unbound, "n1", None), Ok(()));
    assert!(bounce(&unbound, "n2", None).is_err());
    assert!(bounce(&unbound, "n1", Some(&released())).is_err());
    assert!(bounce(&Claim { volume_name: Some("v".into()), ..unbound }, "n1", None).is_err());
}

fn phases() -> impl Strategy<Value = Option<Phase>> {
    prop::sample::select(vec![
        None,
        Some(Phase::Reserved),
        Some(Phase::Ready),
        Some(Phase::Refused),
        Some(Phase::Lost),
        Some(Phase::Released),
        Some(Phase::Quarantined),
        Some(Phase::Wiping),
        Some(Phase::Verifying),
        Some(Phase::Verified),
        Some(Phase::Freed),
        Some(Phase::Discarded),
        Some(Phase::Retained),
        Some(Phase::Stuck),
        Some(Phase::Debt),
        Some(Phase::Forgotten),
    ])
}

proptest! {
    #[test]
    fn our_finalizer_never_leaves_a_volume_whose_bytes_are_neither_wiped_nor_retained(
        phase in phases(),
        release in prop::sample::select(vec![
            None, Some(ReleaseKind::Reclaimed), Some(ReleaseKind::NeverBound), Some(ReleaseKind::Retained),
        ]),
        policy in prop::sample::select(vec![Policy::Delete, Policy::Retain, Policy::Other]),
        deleting: bool,
    ) {
        let record = Local { release, phase, ..ready() };
        let volume = Volume { policy, deleting, ..released() };
        let wiped = matches!(phase, Some(Phase::Freed | Phase::Discarded));
        let kept = policy == Policy::Retain && deleting && release == Some(ReleaseKind::Retained);
        prop_assert_eq!(drop_volume(&volume, Some(&record)).is_ok(), wiped || kept);
        prop_assert!(drop_volume(&volume, None).is_err());
    }

    #[test]
    fn never_bound_is_for_unmarked_attempts_without_a_volume_only(marked: bool, named: bool, phase in phases()) {
        let mark = if marked { Mark::Binding } else { Mark::Unbound };
        let attempt = Local { mark, ..local("c", 0, phase) };
        let volume = Volume { local: if named { attempt.meta.name.clone() } else { "pvc-c-1".into() }, ..released() };
        let allowed = release(ReleaseKind::NeverBound, &attempt, Some(&volume), None).is_ok();
        prop_assert_eq!(allowed, !marked && !named);
    }
}
