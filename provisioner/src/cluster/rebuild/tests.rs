use bedplate_api::local_volume::Phase;
use serde_json::json;

use super::*;
use crate::cluster::action::Kind;
use crate::cluster::objects::{CsiSeen, Local, Record};
use crate::cluster::testing::{add_claim, add_local, claim, later, local, meta, patience, storage, view};
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
fn a_volume_whose_name_another_node_has_by_now_is_told_to_its_claim_and_never_rebuilt() {
    let now = Instant::now();
    let said = |view: &View| -> Vec<Notice> {
        let actions = decide(view, "n1", later(now), &patience()).actions;
        let notices = actions.into_iter().filter_map(|action| match action {
            Action::Say(notice) => Some(notice),
            _ => None,
        });
        notices.collect()
    };
    let there = |node: &str, phase| {
        let mut view = with_record(now, phase);
        add_local(&mut view, Local { node: node.to_owned(), ..local("c", 0, Some(Phase::Ready)) }, now);
        view
    };
    let mut view = there("n2", Phase::Ready);
    assert_eq!(said(&view), [], "there is nobody to be told");
    for (node, phase) in [("n1", Phase::Ready), ("n2", Phase::Freed)] {
        let mut view = there(node, phase);
        add_claim(&mut view, claim("c", json!({})), now);
        assert_eq!(said(&view), [], "{node} {phase:?}");
    }
    add_claim(&mut view, claim("c", json!({})), now);
    let [notice] = &said(&view)[..] else { panic!("{:?}", said(&view)) };
    assert_eq!((notice.kind, notice.name.as_str(), notice.reason), (Kind::Claim, "c", "OtherVolumeKept"));
    for part in ["node n1", "pvc-c-0", "not wiped", "release it there with `bedplate volumes`"] {
        assert!(notice.message.contains(part), "{part} is not in: {}", notice.message);
    }
    assert_eq!(rebuilds(&view, later(now)), 0);
}

#[test]
fn a_node_without_records_ends_nothing() {
    let now = Instant::now();
    let mut view = view(now);
    add_local(&mut view, local("c", 0, Some(Phase::Ready)), now);
    let decision = decide(&view, "n1", later(now), &patience());
    assert!(decision.actions.iter().all(|action| matches!(action, Action::Publish { .. })), "{decision:?}");
}

#[test]
fn a_node_that_is_gone_or_whose_agent_is_offers_nothing_until_it_is_back() {
    let now = Instant::now();
    let mut view = view(now);
    let offered = |view: &View| {
        let decision = decide(view, "n1", now, &patience());
        let largest = decision.actions.iter().filter_map(|action| match action {
            Action::Publish { largest, .. } => Some(*largest),
            _ => None,
        });
        largest.max()
    };
    assert!(offered(&view).is_some_and(|largest| largest > 0));
    let driver = |registered| CsiSeen { meta: meta("n1"), registered };
    view.apply(Change::Csi(Op::Applied(driver(false))), now);
    assert_eq!(offered(&view), Some(0), "pods would be sent there and back for ever");
    view.apply(Change::Csi(Op::Applied(driver(true))), now);
    assert!(offered(&view).is_some_and(|largest| largest > 0));
    view.apply(Change::Node(Op::Gone("n1".to_owned())), now);
    assert_eq!(offered(&view), Some(0));
}
