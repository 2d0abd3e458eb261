use bedplate_api::placement::{NodeFacts, PoolFacts, VolumeFacts};
use bedplate_core::bytes::GIB;
use bedplate_core::media::Media;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1 as storage;
use serde_json::json;

use super::*;
use crate::holds::{Held, Seen, Survivors, Version};

fn node(name: &str) -> NodeFacts {
    let pool = PoolFacts {
        name: "a".into(),
        media: Media::Ssd,
        level: None,
        present: true,
        capacity: GIB,
        free: GIB,
        largest: GIB,
        filesystem: None,
    };
    NodeFacts { name: name.into(), ready: true, pools: vec![pool], ..NodeFacts::default() }
}

fn local(name: &str, claim: &str) -> VolumeFacts {
    VolumeFacts {
        name: name.into(),
        claim: claim.into(),
        node: "n0".into(),
        pool: "a".into(),
        bytes: 5,
        takes_room: true,
        serves: true,
    }
}

fn claim(selected: Option<&str>) -> Claim {
    Claim { uid: "c1".into(), selected: selected.map(Into::into), ..Claim::default() }
}

/// Three nodes, and a hold of pod p1 for claim c1 on all of them.
fn held() -> State {
    let mut state = State::default();
    for i in 0..3 {
        state.apply(Change::Node(Op::Applied(node(&format!("n{i}")))), 0);
    }
    let old = state.holds.lift("p1");
    let found = Survivors {
        claims: vec![Held { claim: "c1".into(), bytes: 5 }],
        nodes: vec![0, 1, 2],
        pools: vec![0; 3],
        scores: vec![1; 3],
    };
    state.holds.replace(&"p1".into(), old, found, Version::default(), 0);
    state
}

fn on(state: &State) -> Vec<u64> {
    (0..3).map(|slot| state.holds.on(slot).first().copied().unwrap_or(0)).collect()
}

#[test]
fn selected_node_pins_a_hold_and_a_local_volume_ends_it() {
    let mut state = held();
    state.apply(Change::Claim(Op::Applied(("d".into(), "c".into(), claim(Some("n0"))))), 1);
    assert_eq!(on(&state), [5, 0, 0]);
    state.apply(Change::Local(Op::Applied(local("pvc-c1-0", "c1"))), 2);
    assert_eq!(on(&state), [0, 0, 0]);
    assert_eq!(state.ledger.node("n0").unwrap().pools[0].room(), GIB - 5, "counted once, now by the ledger");
}

#[test]
fn a_pod_that_a_new_list_lacks_gives_its_hold_back() {
    let mut state = held();
    state.apply(Change::Pod(Op::Begin), 1);
    let late = state.holds.lift("p2");
    let found = Survivors {
        claims: vec![Held { claim: "c2".into(), bytes: 5 }],
        nodes: vec![1],
        pools: vec![0],
        scores: vec![1],
    };
    state.holds.replace(&"p2".into(), late, found, Version::default(), 1);
    state.apply(Change::Pod(Op::Listed(Seen { uid: "p9".into(), ..Seen::default() })), 2);
    state.apply(Change::Pod(Op::Complete), 3);
    assert_eq!(on(&state), [0, 5, 0], "p2 is younger than the list");
    state.apply(Change::Pod(Op::Deleted(Seen { uid: "p2".into(), ..Seen::default() })), 4);
    assert_eq!(on(&state), [0, 0, 0]);
}

#[test]
fn it_is_complete_when_every_kind_was_listed_once_and_a_new_list_drops_what_it_lacks() {
    let mut state = held();
    state.apply(Change::Local(Op::Applied(local("gone", "x"))), 0);
    state.apply(Change::Claim(Op::Applied(("d".into(), "gone".into(), claim(None)))), 0);
    state.apply(Change::Volume(Op::Applied(("gone".into(), Volume::Other))), 0);
    state.apply(Change::Class(Op::Applied(("gone".into(), StorageClass::Other))), 0);
    state.apply(Change::Pod(Op::Begin), 1);
    state.apply(Change::Pod(Op::Complete), 1);
    state.apply(Change::Claim(Op::Begin), 1);
    state.apply(Change::Claim(Op::Listed(("d".into(), "new".into(), claim(None)))), 1);
    state.apply(Change::Claim(Op::Complete), 1);
    state.apply(Change::Volume(Op::Begin), 1);
    state.apply(Change::Volume(Op::Complete), 1);
    state.apply(Change::Class(Op::Begin), 1);
    state.apply(Change::Class(Op::Complete), 1);
    state.apply(Change::Node(Op::Begin), 1);
    state.apply(Change::Node(Op::Listed(node("n0"))), 1);
    state.apply(Change::Node(Op::Complete), 1);
    assert!(!state.synced() && !state.room_known());
    state.apply(Change::Local(Op::Begin), 1);
    state.apply(Change::Local(Op::Complete), 1);
    assert!(state.synced() && state.room_known());
    assert!(state.objects.claim("d", "gone").is_none() && state.objects.claim("d", "new").is_some());
    assert!(state.objects.volumes.is_empty() && state.objects.classes.is_empty());
    assert_eq!(state.ledger.volumes(), 0);
    assert!(state.ledger.node("n0").is_some() && state.ledger.node("n1").is_none());
}

#[test]
fn objects_are_reduced_to_what_counts() {
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": { "name": "c", "namespace": "d", "uid": "u", "annotations": {
            "volume.kubernetes.io/storage-provisioner": "bedplate.dev",
            "volume.kubernetes.io/selected-node": "n1" } },
        "spec": { "storageClassName": "ssd", "accessModes": ["ReadWriteOnce"], "volumeMode": "Block",
            "resources": { "requests": { "storage": "5Gi" } } }
    }))
    .unwrap();
    let reduced = Claim::from(&claim);
    assert_eq!((&*reduced.uid, &*reduced.storage, reduced.block, &*reduced.class), ("u", "5Gi", true, "ssd"));
    assert!(reduced.ours && !reduced.refused && reduced.volume.is_none());
    assert_eq!(reduced.selected.as_deref(), Some("n1"));
    let mut shared = claim;
    shared.spec.as_mut().unwrap().access_modes = Some(vec!["ReadWriteMany".to_owned()]);
    assert!(Claim::from(&shared).refused);

    let volume = |driver: &str| -> PersistentVolume {
        serde_json::from_value(json!({ "spec": {
            "csi": { "driver": driver, "volumeHandle": "v" },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [ { "matchExpressions": [
                { "key": "topology.bedplate.dev/node", "operator": "In", "values": ["n1"] } ] } ] } }
        } }))
        .unwrap()
    };
    assert_eq!(Volume::from(&volume("bedplate.dev")), Volume::Ours("n1".into()));
    assert_eq!(Volume::from(&volume("other.csi")), Volume::Other);

    let class = |mode: &str, parameter: &str| -> storage::StorageClass {
        serde_json::from_value(json!({ "provisioner": "bedplate.dev", "volumeBindingMode": mode,
            "parameters": { parameter: "ssd" } }))
        .unwrap()
    };
    let good = class("WaitForFirstConsumer", "bedplate.dev/media");
    assert!(matches!(StorageClass::from(&good), StorageClass::Ours(_)));
    assert_eq!(StorageClass::from(&class("Immediate", "bedplate.dev/media")), StorageClass::Refused);
    assert_eq!(StorageClass::from(&class("WaitForFirstConsumer", "bedplate.dev/color")), StorageClass::Refused);
    let other = storage::StorageClass { provisioner: "other".into(), ..good };
    assert_eq!(StorageClass::from(&other), StorageClass::Other);
}
