use super::*;
use crate::cluster::objects::{Meta, NodeSeen};

fn node(uid: &str, version: &str) -> NodeSeen {
    NodeSeen { meta: Meta { name: "n".into(), uid: uid.into(), version: version.into() } }
}

fn version(store: &Store<NodeSeen>) -> Option<&str> {
    store.get("n").map(|node| node.meta.version.as_str())
}

#[test]
fn an_older_event_does_not_undo_an_own_write() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.apply(Op::Written(node("a", "7")), now);
    assert!(store.apply(Op::Applied(node("a", "6")), now).is_empty());
    assert_eq!(version(&store), Some("7"));
    store.apply(Op::Applied(node("b", "3")), now);
    assert_eq!(version(&store), Some("3"), "another object of the name is news");
}

#[test]
fn a_list_without_an_object_removes_it_unless_it_was_written_a_moment_ago() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.apply(Op::Written(node("a", "7")), now);
    for at in [now, now + ASSUMED * 2] {
        store.apply(Op::Begin, at);
        store.apply(Op::Listing, at);
        assert_eq!(store.get("n").is_some(), at == now);
    }
}

#[test]
fn a_list_may_go_back_in_time() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.apply(Op::Applied(node("a", "7")), now);
    store.apply(Op::Begin, now);
    store.apply(Op::Listed(node("a", "2")), now);
    store.apply(Op::Listing, now);
    assert_eq!(version(&store), Some("2"));
}

#[test]
fn an_answer_that_comes_after_the_deletion_does_not_bring_it_back() {
    let (mut store, now) = (Store::default(), Instant::now());
    store.apply(Op::Applied(node("a", "7")), now);
    store.apply(Op::Deleted(node("a", "9")), now);
    assert!(store.apply(Op::Written(node("a", "8")), now).is_empty());
    assert!(store.is_empty());
}

#[test]
fn it_is_listed_only_when_a_list_has_ended() {
    let (mut store, now) = (Store::<NodeSeen>::default(), Instant::now());
    store.apply(Op::Applied(node("a", "7")), now);
    store.apply(Op::Begin, now);
    assert!(!store.is_listed());
    store.apply(Op::Listing, now);
    assert!(store.is_listed());
}
