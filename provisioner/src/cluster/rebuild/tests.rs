use bedplate_api::local_volume::Phase;

use super::*;
use crate::cluster::objects::Record;
use crate::cluster::testing::{add_local, later, local, patience, storage, view};
use crate::cluster::view::{Change, Op};

fn with_record(now: Instant, phase: Phase) -> View {
    let mut view = view(now);
    let record = Record { name: "pvc-c-0".into(), claim_uid: "c".into(), attempt: 0, phase };
    let mut storage = storage(100);
    storage.records.push(record);
    view.apply(Change::Storage(Op::Applied(storage)), now);
    view
}

fn rebuilds(view: &View, now: Instant) -> usize {
    let decision = decide(view, "n1", now, &patience());
    decision.actions.iter().filter(|action| matches!(action, Action::Rebuild { .. })).count()
}

#[test]
fn a_record_without_an_object_is_rebuilt_after_a_while_and_not_at_once() {
    let now = Instant::now();
    let view = with_record(now, Phase::Ready);
    assert_eq!(rebuilds(&view, now), 0);
    assert_eq!(decide(&view, "n1", now, &patience()).again, Some(patience().record));
    assert_eq!(rebuilds(&view, later(now)), 1);
}

#[test]
fn what_is_there_or_over_or_was_let_go_here_is_not_rebuilt() {
    let now = Instant::now();
    let mut there = with_record(now, Phase::Ready);
    add_local(&mut there, local("c", 0, Some(Phase::Ready)), now);
    assert_eq!(rebuilds(&there, later(now)), 0);
    assert_eq!(rebuilds(&with_record(now, Phase::Freed), later(now)), 0);
    let mut finished = with_record(now, Phase::Verified);
    finished.finish("pvc-c-0", now);
    assert_eq!(rebuilds(&finished, later(now)), 0);
}

#[test]
fn a_node_without_records_ends_nothing() {
    let now = Instant::now();
    let mut view = view(now);
    add_local(&mut view, local("c", 0, Some(Phase::Ready)), now);
    let decision = decide(&view, "n1", later(now), &patience());
    assert!(decision.actions.iter().all(|action| matches!(action, Action::Publish { .. })), "{decision:?}");
}
