use std::collections::{BTreeMap, BTreeSet};

use bedplate_core::bytes::MIB;
use bedplate_core::placement::{PodDemand, Reason, evaluate};
use proptest::prelude::*;

use super::*;
use crate::local_volume::{LocalVolume, LocalVolumeSpec, LocalVolumeStatus, Phase, Release, ReleaseKind};
use crate::storage_node::{PoolStatus, StorageNode, StorageNodeStatus, VolumeRecord};

fn node(name: &str, pools: &[(&str, i64)], volumes: &[&str]) -> StorageNode {
    let mut node = StorageNode::new(name, crate::StorageNodeSpec {});
    let pools = pools.iter().map(|(pool, mib)| PoolStatus {
        name: (*pool).to_owned(),
        media: "ssd".to_owned(),
        capacity: 1000 << 20,
        free: mib << 20,
        largest_volume: mib << 20,
        ..PoolStatus::default()
    });
    let volumes = volumes.iter().map(|name| VolumeRecord {
        name: (*name).to_owned(),
        volume_handle: String::new(),
        pool: String::new(),
        bytes: 0,
        mode: VolumeMode::Block,
        fs_type: None,
        class_name: String::new(),
        parameters: BTreeMap::new(),
        demand: None,
        wipe: None,
        claim_uid: String::new(),
        claim: crate::local_volume::ClaimReference::default(),
        attempt: 0,
        phase: Phase::Ready,
    });
    node.status = Some(StorageNodeStatus {
        ledger_id: "l1".to_owned(),
        pools: pools.collect(),
        volumes: volumes.collect(),
        ..StorageNodeStatus::default()
    });
    node
}

fn volume(name: &str, node: &str, pool: &str, mib: i64, phase: Option<Phase>) -> VolumeFacts {
    let spec = LocalVolumeSpec {
        node_name: node.to_owned(),
        pool: pool.to_owned(),
        bytes: mib << 20,
        ..LocalVolumeSpec::default()
    };
    let mut volume = LocalVolume::new(name, spec);
    volume.status = Some(LocalVolumeStatus { phase, ..LocalVolumeStatus::default() });
    VolumeFacts::from(&volume)
}

fn room(ledger: &Ledger, node: &str, pool: &str) -> u64 {
    ledger.node(node).unwrap().pools.iter().find(|p| &*p.name == pool).unwrap().room() / MIB
}

#[test]
fn a_volume_is_counted_once_on_its_way_from_promise_to_ledger_to_nothing() {
    let mut ledger = Ledger::default();
    ledger.apply_node((&node("n1", &[("a", 100)], &[])).into());
    ledger.apply_volume(&volume("v", "n1", "a", 30, None));
    assert_eq!(room(&ledger, "n1", "a"), 70, "promised");
    ledger.apply_volume(&volume("v", "n1", "a", 30, Some(Phase::Ready)));
    assert_eq!(room(&ledger, "n1", "a"), 70, "made, but the node did not say so yet");
    ledger.apply_node((&node("n1", &[("a", 70)], &["v"])).into());
    assert_eq!(room(&ledger, "n1", "a"), 70, "the node counts it");
    ledger.apply_volume(&volume("v", "n1", "a", 30, Some(Phase::Freed)));
    assert_eq!(room(&ledger, "n1", "a"), 70, "freed but still listed");
    ledger.apply_node((&node("n1", &[("a", 100)], &[])).into());
    assert_eq!(room(&ledger, "n1", "a"), 100);
    ledger.remove_volume("v");
    assert_eq!(room(&ledger, "n1", "a"), 100);
}

#[test]
fn volumes_that_come_before_their_node_count_as_soon_as_it_comes() {
    let mut ledger = Ledger::default();
    ledger.apply_volume(&volume("v", "n1", "b", 30, None));
    assert!(ledger.node("n1").is_none());
    ledger.apply_node((&node("n1", &[("a", 100), ("b", 50)], &[])).into());
    assert_eq!((room(&ledger, "n1", "a"), room(&ledger, "n1", "b")), (100, 20));
}

#[test]
fn a_storage_node_that_vanishes_takes_no_volume_with_it() {
    let mut ledger = Ledger::default();
    ledger.apply_node((&node("n1", &[("a", 100)], &[])).into());
    ledger.apply_volume(&volume("pvc-u1-0", "n1", "a", 30, Some(Phase::Ready)));
    ledger.remove_node("n1");
    assert!(ledger.node("n1").is_none());
    assert_eq!(&*ledger.of_claim("u1").unwrap().node, "n1");
    ledger.apply_node((&node("n1", &[("a", 100)], &[])).into());
    assert_eq!(room(&ledger, "n1", "a"), 70);
}

#[test]
fn pools_keep_their_places_when_others_come_and_go() {
    let mut ledger = Ledger::default();
    ledger.apply_node((&node("n1", &[("b", 10), ("c", 20)], &[])).into());
    ledger.apply_node((&node("n1", &[("a", 5), ("c", 20)], &[])).into());
    let pools = &ledger.node("n1").unwrap().pools;
    let seen: Vec<_> = pools.iter().map(|p| (&*p.name, p.present)).collect();
    assert_eq!(seen, [("b", false), ("c", true), ("a", true)]);
}

#[test]
fn a_claim_has_the_latest_attempt_that_serves() {
    let mut ledger = Ledger::default();
    ledger.apply_volume(&volume("pvc-u1-9", "n9", "a", 1, Some(Phase::Refused)));
    assert_eq!(ledger.of_claim("u1"), None);
    ledger.apply_volume(&volume("pvc-u1-2", "n2", "a", 1, None));
    ledger.apply_volume(&volume("pvc-u1-10", "n10", "a", 1, None));
    ledger.apply_volume(&volume("pvc-u10-11", "n11", "a", 1, None));
    assert_eq!(&*ledger.of_claim("u1").unwrap().node, "n10");
    let mut released = LocalVolume::new("pvc-u1-10", LocalVolumeSpec { node_name: "n10".into(), ..Default::default() });
    released.spec.release = Some(Release { claim_uid: "u1".into(), kind: ReleaseKind::NeverBound });
    ledger.apply_volume(&VolumeFacts::from(&released));
    assert_eq!(&*ledger.of_claim("u1").unwrap().node, "n2");
}

#[test]
fn a_lost_volume_takes_no_room_that_its_node_does_not_count() {
    let mut ledger = Ledger::default();
    ledger.apply_node((&node("n1", &[("a", 100)], &[])).into());
    ledger.apply_volume(&volume("v", "n1", "a", 30, Some(Phase::Lost)));
    assert_eq!(room(&ledger, "n1", "a"), 100);
}

#[test]
fn pools_on_one_filesystem_share_its_room() {
    let mut both = node("n1", &[("a", 100), ("b", 100)], &[]);
    for pool in &mut both.status.as_mut().unwrap().pools {
        pool.filesystem = Some("f".to_owned());
    }
    let mut ledger = Ledger::default();
    ledger.apply_node((&both).into());
    ledger.apply_volume(&volume("v", "n1", "a", 70, None));
    let claim = demand("c", "40Mi", VolumeMode::Block, &Class::default()).unwrap();
    let pod = PodDemand { claims: vec![claim], fixed: Vec::new() };
    assert_eq!(evaluate("n1", ledger.node("n1"), &pod, &[]), Err(Reason::NoRoom));
}

#[test]
fn a_node_is_ready_by_its_own_word() {
    let mut told = node("n1", &[], &[]);
    assert!(NodeFacts::from(&told).ready);
    told.status.as_mut().unwrap().conditions = serde_json::from_value(serde_json::json!([
        { "type": "Ready", "status": "False", "reason": "LedgerClosed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }
    ]))
    .unwrap();
    assert!(!NodeFacts::from(&told).ready);
    assert!(!NodeFacts::from(&StorageNode::new("n1", crate::StorageNodeSpec {})).ready);
}

#[test]
fn a_demand_takes_the_size_that_is_made() {
    let class = Class { fs_type: Some(FsType::Xfs), ..Class::default() };
    assert_eq!(demand("c", "1Mi", VolumeMode::Filesystem, &class).unwrap().bytes, 300 * MIB);
    assert_eq!(demand("c", "1500k", VolumeMode::Block, &class).unwrap().bytes, 2 * MIB);
    assert!(matches!(demand("c", "much", VolumeMode::Block, &class), Err(BadDemand::Quantity(_))));
}

/// One node's truth, told to a ledger late and in any order.
#[derive(Clone, Debug)]
enum Step {
    Create { mib: i64 },
    Made(prop::sample::Index),
    Freed(prop::sample::Index),
    Deleted(prop::sample::Index),
    NodeSpeaks,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1i64..20).prop_map(|mib| Step::Create { mib }),
        3 => any::<prop::sample::Index>().prop_map(Step::Made),
        2 => any::<prop::sample::Index>().prop_map(Step::Freed),
        2 => any::<prop::sample::Index>().prop_map(Step::Deleted),
        3 => Just(Step::NodeSpeaks),
    ]
}

proptest! {
    #[test]
    fn room_is_never_more_than_there_is_and_exact_when_all_is_told(steps in prop::collection::vec(any_step(), 1..80)) {
        const ALL: i64 = 100;
        let mut ledger = Ledger::default();
        // name → (MiB, on the node's own ledger)
        let mut living: BTreeMap<String, (i64, bool)> = BTreeMap::new();
        let mut freed: BTreeSet<String> = BTreeSet::new();
        let speak = |living: &BTreeMap<String, (i64, bool)>| {
            let held: Vec<(&str, i64)> = living.iter().filter(|(_, v)| v.1).map(|(n, v)| (n.as_str(), v.0)).collect();
            let names: Vec<&str> = held.iter().map(|(n, _)| *n).collect();
            NodeFacts::from(&node("n1", &[("a", ALL - held.iter().map(|(_, mib)| mib).sum::<i64>())], &names))
        };
        ledger.apply_node(speak(&living));
        for (count, step) in steps.into_iter().enumerate() {
            let pick = |index: &prop::sample::Index, on: bool| {
                let names: Vec<&String> = living.iter().filter(|(_, v)| v.1 == on).map(|(n, _)| n).collect();
                (!names.is_empty()).then(|| names[index.index(names.len())].clone())
            };
            match step {
                Step::Create { mib } => {
                    // Admission: only what the ledger has room for.
                    if i64::try_from(room(&ledger, "n1", "a")).unwrap() >= mib {
                        let name = format!("v{count}");
                        ledger.apply_volume(&volume(&name, "n1", "a", mib, None));
                        living.insert(name, (mib, false));
                    }
                }
                Step::Made(index) => if let Some(name) = pick(&index, false) {
                    let entry = living.get_mut(&name).unwrap();
                    entry.1 = true;
                    ledger.apply_volume(&volume(&name, "n1", "a", entry.0, Some(Phase::Ready)));
                },
                Step::Freed(index) => if let Some(name) = pick(&index, true) {
                    let (mib, _) = living.remove(&name).unwrap();
                    ledger.apply_volume(&volume(&name, "n1", "a", mib, Some(Phase::Freed)));
                    freed.insert(name);
                },
                Step::Deleted(index) => if !freed.is_empty() {
                    let name = freed.iter().nth(index.index(freed.len())).unwrap().clone();
                    freed.remove(&name);
                    ledger.remove_volume(&name);
                },
                Step::NodeSpeaks => { ledger.apply_node(speak(&living)); }
            }
            let truth = ALL - living.values().map(|(mib, _)| mib).sum::<i64>();
            prop_assert!(truth >= 0, "over-committed: {living:?}");
            prop_assert!(i64::try_from(room(&ledger, "n1", "a")).unwrap() <= truth);
        }
        ledger.apply_node(speak(&living));
        let truth = ALL - living.values().map(|(mib, _)| mib).sum::<i64>();
        prop_assert_eq!(i64::try_from(room(&ledger, "n1", "a")).unwrap(), truth);
    }
}
