//! Objects and views for the unit tests of decisions: everything named, nothing fetched.

use std::time::{Duration, Instant};

use bedplate_api::StorageNode;
use bedplate_api::local_volume::{ClaimReference, FsType, Phase};
use bedplate_api::storage_node::{PoolStatus, StorageNodeStatus};
use serde_json::{Value, json};

use crate::cluster::config::Patience;
use crate::cluster::objects::{
    Claim, Class, CsiSeen, Local, Meta, NodeSeen, PodSeen, Policy, Storage, Volume, VolumePhase,
};
use crate::cluster::view::{Change, Op, View};

pub fn patience() -> Patience {
    Patience::default()
}

/// Long after anything that was ever waited for.
pub fn later(now: Instant) -> Instant {
    now + Duration::from_hours(1)
}

pub fn meta(name: &str) -> Meta {
    Meta { name: name.to_owned(), uid: format!("uid-of-{name}"), version: "1".to_owned() }
}

/// A claim of ours for 10 MiB of class `ssd` that wants `n1`; its uid is its name.
pub fn claim(name: &str, more: Value) -> Claim {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", "annotations": {
            "volume.kubernetes.io/storage-provisioner": "bedplate.dev", "volume.kubernetes.io/selected-node": "n1",
        }},
        "spec": {"storageClassName": "ssd", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Mi"}}},
    });
    merge(&mut object, more);
    serde_json::from_value::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(object).unwrap().into()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub fn class(name: &str, parameters: &[(&str, &str)]) -> Class {
    Class {
        meta: meta(name),
        ours: true,
        waits: true,
        policy: "Delete".to_owned(),
        parameters: parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        mount_options: Vec::new(),
    }
}

/// An attempt at a claim on `n1`, in that phase.
pub fn local(claim: &str, attempt: i64, phase: Option<Phase>) -> Local {
    Local {
        meta: meta(&format!("pvc-{claim}-{attempt}")),
        node: "n1".to_owned(),
        ledger: "l1".to_owned(),
        pool: "fast".to_owned(),
        bytes: 10 << 20,
        claim_uid: claim.to_owned(),
        claim: ClaimReference { namespace: "ns".to_owned(), name: claim.to_owned(), ..ClaimReference::default() },
        attempt,
        phase,
        class_name: "ssd".to_owned(),
        handle: phase.map(|_| format!("handle-{claim}-{attempt}")),
        held: true,
        ..Local::default()
    }
}

/// The PersistentVolume of a claim's attempt.
pub fn volume(claim: &str, attempt: i64, phase: VolumePhase) -> Volume {
    Volume {
        meta: meta(&format!("pvc-{claim}")),
        ours: true,
        claim: Some(("ns".to_owned(), claim.to_owned(), claim.to_owned())),
        policy: Policy::Delete,
        phase,
        deleting: false,
        held: true,
        handle: format!("handle-{claim}-{attempt}"),
        local: format!("pvc-{claim}-{attempt}"),
        node: Some("n1".to_owned()),
    }
}

pub fn pod(name: &str, claims: &[&str]) -> PodSeen {
    let claims = claims.iter().map(|claim| (*claim).to_owned()).collect();
    PodSeen { meta: meta(name), namespace: "ns".to_owned(), claims }
}

/// `n1`'s storage: one pool with that much room.
pub fn storage(mib: i64) -> Storage {
    let mut node = StorageNode::new("n1", bedplate_api::StorageNodeSpec {});
    node.metadata.uid = Some("uid-of-n1".to_owned());
    node.status = Some(StorageNodeStatus {
        ledger_id: "l1".to_owned(),
        filesystems: vec![FsType::Ext4],
        pools: vec![PoolStatus {
            name: "fast".to_owned(),
            media: "nvme".to_owned(),
            capacity: mib << 20,
            free: mib << 20,
            largest_volume: mib << 20,
            ..PoolStatus::default()
        }],
        ..StorageNodeStatus::default()
    });
    node.into()
}

/// A view that has listed everything: class `ssd`, node `n1` with its kubelet, and 100 MiB there.
pub fn view(now: Instant) -> View {
    let mut view = View::default();
    let csi = CsiSeen { meta: meta("n1"), registered: true };
    for change in [
        Change::Class(Op::Applied(class("ssd", &[]))),
        Change::Node(Op::Applied(NodeSeen { meta: meta("n1") })),
        Change::Csi(Op::Applied(csi)),
        Change::Storage(Op::Applied(storage(100))),
    ] {
        view.apply(change, now);
    }
    view.looked("ns", now + Duration::from_secs(1));
    view
}

pub fn add_claim(view: &mut View, claim: Claim, now: Instant) {
    view.apply(Change::Claim(Op::Applied(claim)), now);
}
pub fn add_local(view: &mut View, local: Local, now: Instant) {
    view.apply(Change::Local(Op::Applied(local)), now);
}
pub fn add_volume(view: &mut View, volume: Volume, now: Instant) {
    view.apply(Change::Volume(Op::Applied(volume)), now);
}
pub fn add_pod(view: &mut View, pod: PodSeen, now: Instant) {
    view.apply(Change::Pod(Op::Applied(pod)), now);
}
