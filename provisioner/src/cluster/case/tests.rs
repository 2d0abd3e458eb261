use bedplate_api::local_volume::Phase;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cluster::objects::{NodeSeen, Storage};
use crate::cluster::testing::{
    add_claim, add_local, add_pod, add_volume, claim, later, local, meta, patience, pod, view, volume,
};
use crate::cluster::view::{Change, Key, Op};

fn kinds(decision: &Decision) -> Vec<&'static str> {
    let kind = |action: &Action| match action {
        Action::Order(_) => "order",
        Action::Bind { .. } => "bind",
        Action::Confirm { .. } => "confirm",
        Action::Release { kind: ReleaseKind::Reclaimed, .. } => "reclaim",
        Action::Release { kind: ReleaseKind::NeverBound, .. } => "void",
        Action::Release { kind: ReleaseKind::Retained, .. } => "retain",
        Action::Bounce { .. } => "bounce",
        Action::DropVolume { .. } => "drop-volume",
        Action::DropLocal { .. } => "drop-local",
        Action::Say(_) => "say",
        Action::Look { .. } => "look",
        Action::Rebuild { .. } | Action::Publish { .. } | Action::Unpublish(_) => "other",
    };
    decision.actions.iter().map(kind).collect()
}

/// What is decided about claim `c` when these exist.
fn about(claims: &[Claim], volumes: &[Volume], locals: &[Local], at: fn(Instant) -> Instant) -> Vec<&'static str> {
    let now = Instant::now();
    let mut view = view(now);
    for claim in claims {
        add_claim(&mut view, claim.clone(), now);
    }
    for volume in volumes {
        add_volume(&mut view, volume.clone(), now);
    }
    for local in locals {
        add_local(&mut view, local.clone(), now);
    }
    kinds(&decide(&view, "c", at(now), &patience()))
}

fn now(now: Instant) -> Instant {
    now
}

fn bound(phase: Option<Phase>) -> Local {
    Local { mark: Mark::Bound, ..local("c", 0, phase) }
}

#[test]
fn a_fresh_claim_is_ordered_then_bound_when_ready() {
    let fresh = [claim("c", json!({}))];
    assert_eq!(about(&fresh, &[], &[], now), ["order"]);
    assert_eq!(about(&fresh, &[], &[local("c", 0, None)], now), [""; 0]);
    assert_eq!(about(&fresh, &[], &[local("c", 0, Some(Phase::Reserved))], now), [""; 0]);
    assert_eq!(about(&fresh, &[], &[local("c", 0, Some(Phase::Ready))], now), ["bind"]);
}

#[test]
fn a_claim_that_no_pod_is_seen_to_use_is_looked_for_live_first() {
    let instant = Instant::now();
    let mut view = view(instant);
    view.looked("ns", instant.checked_sub(std::time::Duration::from_secs(1)).unwrap());
    add_claim(&mut view, claim("c", json!({})), instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience())), ["look"]);
    add_pod(&mut view, pod("p", &["c"]), instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience())), ["order"]);
}

#[test]
fn a_released_volume_is_reclaimed_then_let_go_after_the_wipe_and_its_record_last() {
    let released = [volume("c", 0, VolumePhase::Released)];
    assert_eq!(about(&[], &released, &[bound(Some(Phase::Ready))], now), ["reclaim"]);
    let given = |phase| Local { release: Some(ReleaseKind::Reclaimed), ..bound(Some(phase)) };
    for phase in [Phase::Released, Phase::Quarantined, Phase::Wiping, Phase::Verifying, Phase::Verified, Phase::Stuck] {
        assert_eq!(about(&[], &released, &[given(phase)], later), [""; 0], "{phase:?}");
    }
    assert_eq!(about(&[], &released, &[given(Phase::Freed)], now), ["drop-volume"]);
    assert_eq!(about(&[], &[], &[given(Phase::Freed)], now), ["drop-local"]);
}

#[test]
fn a_volume_whose_record_is_missing_waits_and_says_so() {
    // And asks for the receipt, without which a live read does not let it go (`authority`).
    assert_eq!(about(&[], &[volume("c", 0, VolumePhase::Released)], &[], later), ["say", "drop-volume"]);
}

#[test]
fn a_claim_ref_that_was_changed_by_hand_is_told_of_and_releases_nothing() {
    let stranger = |uid: &str| Some(("ns".to_owned(), "other".to_owned(), uid.to_owned()));
    for claim in [None, stranger("another"), stranger("")] {
        let changed = [Volume { claim, ..volume("c", 0, VolumePhase::Released) }];
        assert_eq!(about(&[], &changed, &[bound(Some(Phase::Ready))], later), ["say"]);
        // A person gave it up on the node.
        assert_eq!(about(&[], &changed, &[bound(Some(Phase::Freed))], later), ["say", "drop-volume"]);
    }
}

#[test]
fn a_volume_that_a_second_persistent_volume_names_is_not_wiped_under_it() {
    let released = volume("c", 0, VolumePhase::Released);
    let by_hand = |phase| Volume { meta: meta("mine"), ours: false, phase, ..released.clone() };
    let ready = [bound(Some(Phase::Ready))];
    for phase in [VolumePhase::Pending, VolumePhase::Bound, VolumePhase::Other] {
        assert_eq!(about(&[], &[released.clone(), by_hand(phase)], &ready, later), ["say"]);
    }
    let kept = Volume { policy: Policy::Retain, ..by_hand(VolumePhase::Released) };
    assert_eq!(about(&[], &[released.clone(), kept], &ready, later), ["say"], "its bytes are to be kept");
    assert_eq!(about(&[], &[released.clone(), by_hand(VolumePhase::Released)], &ready, later), ["reclaim"]);
    // A person gave it up on the node.
    let freed = [bound(Some(Phase::Freed))];
    assert_eq!(about(&[], &[released.clone(), by_hand(VolumePhase::Bound)], &freed, later), ["drop-volume"]);
    let elsewhere = Volume { handle: "another".to_owned(), ..by_hand(VolumePhase::Bound) };
    assert_eq!(about(&[], &[released, elsewhere], &ready, later), ["reclaim"]);
}

#[test]
fn a_volume_is_looked_at_again_when_the_other_persistent_volume_goes() {
    let now = Instant::now();
    let mut view = view(now);
    add_volume(&mut view, volume("c", 0, VolumePhase::Released), now);
    add_local(&mut view, bound(Some(Phase::Ready)), now);
    let other = Volume { meta: meta("mine"), ours: false, ..volume("c", 0, VolumePhase::Bound) };
    add_volume(&mut view, other.clone(), now);
    assert_eq!(kinds(&decide(&view, "c", later(now), &patience())), ["say"]);
    let woken = view.apply(Change::Volume(Op::Deleted(other)), now);
    assert_eq!(woken, [Key::Case("c".to_owned())]);
    assert_eq!(kinds(&decide(&view, "c", later(now), &patience())), ["reclaim"]);
}

#[test]
fn attempts_of_a_claim_that_came_to_be_refused_are_void() {
    let asks = json!({
        "metadata": {"annotations": { names::ANNOTATION_SELECTED_NODE: "" }},
        "spec": {"accessModes": ["ReadWriteMany"]},
    });
    assert_eq!(about(&[claim("c", asks)], &[], &[local("c", 0, Some(Phase::Ready))], later), ["void"]);
}

#[test]
fn what_was_retained_goes_though_its_claim_ref_was_cleared() {
    let cleared =
        Volume { policy: Policy::Retain, deleting: true, claim: None, ..volume("c", 0, VolumePhase::Released) };
    let kept = Local { release: Some(ReleaseKind::Retained), ..bound(Some(Phase::Retained)) };
    assert_eq!(about(&[], &[cleared], &[kept], now), ["say", "drop-volume"]);
}

#[test]
fn a_second_volume_of_a_claim_is_told_of_and_kept() {
    let alive = [claim("c", json!({"spec": {"volumeName": "pvc-c"}}))];
    let second = Local { node: "n2".to_owned(), mark: Mark::Bound, ..local("c", 1, Some(Phase::Ready)) };
    let both = [bound(Some(Phase::Ready)), second];
    assert_eq!(about(&alive, &[volume("c", 0, VolumePhase::Bound)], &both, later), ["say"]);
}

#[test]
fn an_attempt_that_its_node_never_made_and_nobody_wants_goes() {
    let lost = Local { release: Some(ReleaseKind::NeverBound), ..local("c", 0, Some(Phase::Lost)) };
    assert_eq!(about(&[], &[], std::slice::from_ref(&lost), later), ["drop-local"]);
    let marked = Local { mark: Mark::Bound, ..lost };
    assert_eq!(about(&[], &[], &[marked], later), [""; 0], "a PersistentVolume may have been");
}

#[test]
fn a_claim_with_a_volume_on_any_node_gets_no_second_one() {
    let instant = Instant::now();
    let mut view = view(instant);
    let mut elsewhere = crate::cluster::testing::storage(100);
    elsewhere.meta = crate::cluster::testing::meta("n2");
    let record = |phase| crate::cluster::objects::Record {
        name: "pvc-c-4".to_owned(),
        claim_uid: "c".to_owned(),
        attempt: 4,
        phase,
    };
    let told = |view: &mut View, phase| {
        let storage = Storage { records: vec![record(phase)], ..elsewhere.clone() };
        view.apply(Change::Storage(Op::Applied(storage)), instant);
    };
    let n2 = NodeSeen { meta: crate::cluster::testing::meta("n2") };
    view.apply(Change::Node(Op::Applied(n2)), instant);
    add_claim(&mut view, claim("c", json!({})), instant);
    told(&mut view, Phase::Ready);
    let decision = decide(&view, "c", instant, &patience());
    assert_eq!(
        (kinds(&decision).len(), decision.again),
        (0, Some(patience().record)),
        "its object is made again first"
    );
    told(&mut view, Phase::Freed);
    let decision = decide(&view, "c", instant, &patience());
    let [Action::Order(order)] = &*decision.actions else { panic!("{decision:?}") };
    assert_eq!(order.spec.attempt, 5, "no number twice, wherever it was used");
}

#[test]
fn after_the_server_went_back_in_time_the_nodes_speak_before_anything_is_ordered() {
    let instant = Instant::now();
    let mut view = view(instant);
    add_claim(&mut view, claim("c", json!({})), instant);
    view.distrust(instant);
    let decision = decide(&view, "c", instant, &patience());
    assert_eq!((kinds(&decision).len(), decision.again), (0, Some(patience().rewound)));
    assert_eq!(kinds(&decide(&view, "c", later(instant), &patience())), ["order"]);
}

#[test]
fn a_bound_volume_is_left_alone_even_when_it_is_deleted() {
    let alive = [claim("c", json!({"spec": {"volumeName": "pvc-c"}}))];
    let deleted = [Volume { deleting: true, ..volume("c", 0, VolumePhase::Bound) }];
    assert_eq!(about(&alive, &deleted, &[bound(Some(Phase::Ready))], later), [""; 0]);
}

#[test]
fn retain_waits_for_the_volume_to_be_deleted() {
    let kept = Volume { policy: Policy::Retain, ..volume("c", 0, VolumePhase::Released) };
    assert_eq!(about(&[], std::slice::from_ref(&kept), &[bound(Some(Phase::Ready))], later), [""; 0]);
    let kept = [Volume { deleting: true, ..kept }];
    assert_eq!(about(&[], &kept, &[bound(Some(Phase::Ready))], now), ["retain"]);
    let recorded = Local { release: Some(ReleaseKind::Retained), ..bound(Some(Phase::Ready)) };
    assert_eq!(about(&[], &kept, &[recorded], now), ["drop-volume"]);
}

#[test]
fn a_marked_attempt_without_volume_gets_it_and_one_that_had_it_is_left_to_people() {
    let marked = Local { mark: Mark::Binding, ..local("c", 0, Some(Phase::Ready)) };
    assert_eq!(about(&[], &[], &[marked], now), ["bind"]);
    assert_eq!(about(&[], &[], &[bound(Some(Phase::Ready))], later), ["say"]);
    assert_eq!(about(&[], &[], &[bound(Some(Phase::Retained))], later), [""; 0]);
    assert_eq!(about(&[], &[], &[local("c", 0, Some(Phase::Ready))], now), ["void"]);
}

#[test]
fn a_volume_that_is_made_again_without_a_claim_keeps_its_bytes_whatever_the_class_says() {
    let instant = Instant::now();
    let mut view = view(instant);
    assert_eq!(view.class("ssd").map(|class| class.policy.as_str()), Some("Delete"));
    add_local(&mut view, Local { mark: Mark::Binding, ..local("c", 0, Some(Phase::Ready)) }, instant);
    let decision = decide(&view, "c", instant, &patience());
    let [Action::Bind { terms, .. }] = &*decision.actions else { panic!("{decision:?}") };
    assert_eq!(terms.policy, "Retain", "somebody may have written there and said Retain before it vanished");
}

#[test]
fn the_claims_of_a_pod_wait_for_each_other_and_are_bound_together() {
    let instant = Instant::now();
    let mut view = view(instant);
    add_pod(&mut view, pod("p", &["c", "d"]), instant);
    add_claim(&mut view, claim("c", json!({})), instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience())), [""; 0], "d does not exist yet");
    add_claim(&mut view, claim("d", json!({})), instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience())), ["order", "order"]);
    let followed = decide(&view, "d", instant, &patience());
    assert_eq!((followed.actions.len(), followed.follow.as_deref()), (0, Some("c")));
    add_local(&mut view, local("c", 0, Some(Phase::Ready)), instant);
    add_local(&mut view, local("d", 0, Some(Phase::Reserved)), instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience())), [""; 0], "one is not Ready");
    add_local(&mut view, local("d", 0, Some(Phase::Refused)), instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience()))[..1], ["void"], "the made one is given up first");
    let voided = Local { release: Some(ReleaseKind::NeverBound), ..local("c", 0, Some(Phase::Ready)) };
    add_local(&mut view, voided.clone(), instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience())), [""; 0], "not confirmed");
    add_local(&mut view, Local { phase: Some(Phase::Discarded), ..voided }, instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience())), ["bounce", "bounce"]);
    // The claims remember, and the records may go.
    for name in ["c", "d"] {
        let sent_back = json!({"metadata": {"resourceVersion": "2", "annotations": {
            "volume.kubernetes.io/selected-node": "", "bedplate.dev/attempt": "1",
        }}});
        add_claim(&mut view, claim(name, sent_back), instant);
        assert_eq!(kinds(&decide(&view, name, instant, &patience())), ["drop-local"], "{name}");
    }
}

#[test]
fn a_pod_that_the_scheduler_has_not_finished_with_does_not_hold_up_one_that_it_has() {
    let instant = Instant::now();
    let mut view = view(instant);
    add_claim(&mut view, claim("c", json!({})), instant);
    add_pod(&mut view, pod("placed", &["c"]), instant);
    add_pod(&mut view, pod("pending", &["c", "nowhere"]), instant);
    assert_eq!(kinds(&decide(&view, "c", instant, &patience())), ["order"]);
}

#[test]
fn a_pod_that_is_never_finished_with_is_scheduled_anew() {
    let instant = Instant::now();
    let mut view = view(instant);
    add_claim(&mut view, claim("c", json!({})), instant);
    add_pod(&mut view, pod("pending", &["c", "nowhere"]), instant);
    let decision = decide(&view, "c", instant, &patience());
    assert_eq!((decision.actions.len(), decision.again), (0, Some(patience().sibling)));
    assert_eq!(kinds(&decide(&view, "c", later(instant), &patience())), ["bounce"]);
}

#[test]
fn the_next_attempt_never_takes_a_number_that_a_node_has_seen() {
    let remembered = claim("c", json!({"metadata": {"annotations": {"bedplate.dev/attempt": "3"}}}));
    let old = Local { release: Some(ReleaseKind::NeverBound), ..local("c", 5, Some(Phase::Discarded)) };
    let instant = Instant::now();
    let mut view = view(instant);
    add_claim(&mut view, remembered, instant);
    add_local(&mut view, old, instant);
    let decision = decide(&view, "c", instant, &patience());
    let Some(Action::Order(order)) = decision.actions.iter().find(|a| matches!(a, Action::Order(_))) else {
        panic!("{decision:?}")
    };
    assert_eq!(order.spec.attempt, 6);
}

fn locals() -> impl Strategy<Value = Local> {
    let phases = prop::sample::select(vec![
        None,
        Some(Phase::Reserved),
        Some(Phase::Ready),
        Some(Phase::Refused),
        Some(Phase::Lost),
        Some(Phase::Wiping),
        Some(Phase::Freed),
        Some(Phase::Discarded),
        Some(Phase::Retained),
    ]);
    let marks = prop::sample::select(vec![Mark::Unbound, Mark::Binding, Mark::Bound]);
    let releases = prop::sample::select(vec![
        None,
        Some(ReleaseKind::Reclaimed),
        Some(ReleaseKind::NeverBound),
        Some(ReleaseKind::Retained),
    ]);
    (0..3_i64, phases, marks, releases, any::<bool>(), any::<bool>()).prop_map(
        |(attempt, phase, mark, release, deleting, elsewhere)| Local {
            mark,
            release,
            deleting,
            node: if elsewhere { "n2" } else { "n1" }.to_owned(),
            ..local("c", attempt, phase)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn whatever_stands_in_the_api_no_rule_of_giving_up_is_broken(
        here: bool, attempt in 0..3_i64, bound_to_it: bool, claim_deleting: bool,
        there in prop::option::of((0..3_i64, 0..3_usize, any::<bool>(), any::<bool>())),
        all in prop::collection::vec(locals(), 0..4), late: bool,
    ) {
        let instant = Instant::now();
        let mut view = view(instant);
        if here {
            let claim = Claim {
                attempt, deleting: claim_deleting, ..claim("c", if bound_to_it {
                    json!({"spec": {"volumeName": "pvc-c"}})
                } else {
                    json!({})
                })
            };
            add_claim(&mut view, claim, instant);
        }
        if let Some((attempt, phase, retains, deleting)) = there {
            let phase = [VolumePhase::Pending, VolumePhase::Bound, VolumePhase::Released][phase];
            let policy = if retains { Policy::Retain } else { Policy::Delete };
            add_volume(&mut view, Volume { policy, deleting, ..volume("c", attempt, phase) }, instant);
        }
        for local in &all {
        add_local(&mut view, local.clone(), instant);
    }
        let at = if late { later(instant) } else { instant };
        let decision = decide(&view, "c", at, &patience());
        let known = |meta: &crate::cluster::objects::Meta| view.local(&meta.name).unwrap();
        let alive = |local: &&Local| !local.is_over() && local.release.is_none();
        for action in &decision.actions {
            match action {
                Action::Release { local, kind, .. } => {
                    let local = known(local);
                    prop_assert!(local.release.is_none());
                    prop_assert!(*kind == ReleaseKind::NeverBound || !here, "a living claim's volume is given up");
                    prop_assert!(*kind != ReleaseKind::NeverBound || local.mark == Mark::Unbound);
                    prop_assert!(*kind != ReleaseKind::NeverBound || there.is_none_or(|(a, ..)| a != local.attempt));
                }
                Action::DropVolume { .. } => {
                    prop_assert!(!here, "a living claim's volume is let go");
                }
                Action::DropLocal { local, .. } => prop_assert!(known(local).may_go()),
                Action::Order(order) => {
                    prop_assert!(here && there.is_none());
                    prop_assert!(view.locals_of("c").iter().filter(|l| alive(l)).count() == 0, "two attempts alive");
                    prop_assert!(view.local(order.metadata.name.as_deref().unwrap()).is_none());
                }
                Action::Bind { local, .. } => {
                    let local = known(local);
                    prop_assert!(there.is_none() && local.phase == Some(Phase::Ready) && local.release.is_none());
                }
                Action::Bounce { .. } => {
                    let attempts = view.locals_of("c");
                    let on_its_node = attempts.iter().filter(|l| l.node == "n1" && l.phase != Some(Phase::Lost));
                    prop_assert!(on_its_node.filter(|l| !l.is_over()).count() == 0, "sent back with an attempt alive");
                }
                Action::Confirm { .. } | Action::Say(_) | Action::Look { .. } => {}
                Action::Rebuild { .. } | Action::Publish { .. } | Action::Unpublish(_) => prop_assert!(false),
            }
        }
    }
}
