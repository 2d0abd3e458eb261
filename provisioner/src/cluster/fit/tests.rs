use std::time::Instant;

use bedplate_api::names;

use super::*;
use crate::cluster::claim::{Judgement, judge};
use crate::cluster::testing::{add_local, claim, class, local, view};

fn order(name: &str, mib: u64) -> Order {
    let size = serde_json::json!({"spec": {"resources": {"requests": {"storage": format!("{mib}Mi")}}}});
    match judge(&claim(name, size), Some(&class("ssd", &[]))) {
        Judgement::Make(order) => *order,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_ordered_and_not_yet_counted_by_its_node_takes_room() {
    let now = Instant::now();
    let mut view = view(now);
    let sixty = order("a", 60);
    assert_eq!(place(&view, "n1", &[&sixty]).unwrap()[0].pool, "fast");
    add_local(&mut view, crate::cluster::objects::Local { bytes: 60 << 20, ..local("b", 0, None) }, now);
    let misfit = place(&view, "n1", &[&sixty]).unwrap_err();
    assert!(misfit.contains("no matching pool has room") && misfit.contains("60 MiB promised"), "{misfit}");
}

#[test]
fn orders_under_way_take_room_until_they_are_answered() {
    let mut view = view(Instant::now());
    view.promise(1, &crate::cluster::objects::Local { bytes: 60 << 20, ..local("b", 0, None) });
    let sixty = order("a", 60);
    assert!(place(&view, "n1", &[&sixty]).is_err());
    view.kept(1);
    assert!(place(&view, "n1", &[&sixty]).is_ok());
}

#[test]
fn claims_of_a_pod_are_placed_together() {
    let view = view(Instant::now());
    let (a, b) = (order("a", 60), order("b", 60));
    assert!(place(&view, "n1", &[&a]).is_ok());
    assert!(place(&view, "n1", &[&a, &b]).unwrap_err().contains("do not fit together"));
}

#[test]
fn a_class_has_the_room_of_the_pools_that_it_may_use() {
    let view = view(Instant::now());
    let node = view.ledger().node("n1").unwrap();
    let of = |parameters: &[(&str, &str)], fs| {
        let class = class("x", parameters);
        room(node, &Class::parse(&class.parameters).unwrap(), fs)
    };
    assert_eq!(of(&[], FsType::Ext4), (100 << 20, 100 << 20));
    assert_eq!(of(&[], FsType::Xfs), (0, 0), "the node lacks the filesystem");
    assert_eq!(of(&[(names::PARAMETER_MEDIA, "hdd")], FsType::Ext4), (0, 0));
    assert_eq!(of(&[(names::PARAMETER_POOL, "slow")], FsType::Ext4), (0, 0));
    assert_eq!(of(&[(names::PARAMETER_WIPE, "clear")], FsType::Ext4), (0, 0), "the pool states no level");
}
