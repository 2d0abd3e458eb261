//! What stands around claims and volumes: classes, pods, nodes, their storage, capacities.

use std::collections::BTreeMap;

use bedplate_api::local_volume::Phase;
use bedplate_api::placement::{NodeFacts, bytes_of};
use bedplate_api::{StorageNode, names};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::{CSINode, CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Kept, Meta, path};

/// A StorageClass of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// Which.
    pub meta: Meta,
    /// Whether its provisioner is ours.
    pub ours: bool,
    /// Its parameters.
    pub parameters: BTreeMap<String, String>,
    /// Whether it waits for the first consumer.
    pub waits: bool,
    /// `Delete` or `Retain`.
    pub policy: String,
    /// For PersistentVolumes.
    pub mount_options: Vec<String>,
}

impl From<StorageClass> for Class {
    fn from(class: StorageClass) -> Self {
        Self {
            meta: Meta::of(&class.metadata),
            ours: class.provisioner == names::DRIVER,
            parameters: class.parameters.unwrap_or_default(),
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            policy: class.reclaim_policy.unwrap_or_else(|| "Delete".to_owned()),
            mount_options: class.mount_options.unwrap_or_default(),
        }
    }
}

/// A pod that names claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSeen {
    /// Which.
    pub meta: Meta,
    /// Where.
    pub namespace: String,
    /// Names of its claims, those of its ephemeral volumes included; empty when it has ended.
    pub claims: Vec<String>,
}

impl Kept for PodSeen {
    fn key(&self) -> String {
        path(&self.namespace, &self.meta.name)
    }
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl From<Pod> for PodSeen {
    fn from(pod: Pod) -> Self {
        let meta = Meta::of(&pod.metadata);
        let phase = pod.status.and_then(|status| status.phase);
        let ended = matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
        let volumes = pod.spec.and_then(|spec| spec.volumes).unwrap_or_default();
        let claims = volumes
            .into_iter()
            .filter(|_| !ended)
            .filter_map(|volume| match (volume.persistent_volume_claim, volume.ephemeral) {
                (Some(source), _) => Some(source.claim_name),
                (None, Some(_)) => Some(format!("{}-{}", meta.name, volume.name)),
                (None, None) => None,
            })
            .collect();
        Self { namespace: pod.metadata.namespace.unwrap_or_default(), claims, meta }
    }
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Which.
    pub meta: Meta,
}

impl From<Node> for NodeSeen {
    fn from(node: Node) -> Self {
        Self { meta: Meta::of(&node.metadata) }
    }
}

/// What a node's kubelet has registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsiSeen {
    /// Which.
    pub meta: Meta,
    /// Whether our driver is among them.
    pub registered: bool,
}

impl From<CSINode> for CsiSeen {
    fn from(node: CSINode) -> Self {
        Self {
            meta: Meta::of(&node.metadata),
            registered: node.spec.drivers.iter().any(|driver| driver.name == names::DRIVER),
        }
    }
}

/// A node's storage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Storage {
    /// Which.
    pub meta: Meta,
    /// Its ledger.
    pub ledger: String,
    /// Its volumes.
    pub records: Vec<Record>,
    /// What placement counts; the view hands it on to its ledger and keeps nothing of it here.
    pub facts: Option<Box<NodeFacts>>,
}

/// One volume on a node's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Name of its LocalVolume.
    pub name: String,
    /// Uid of its claim.
    pub claim_uid: String,
    /// Which try it was.
    pub attempt: i64,
    /// Where it is in its life.
    pub phase: Phase,
}

impl From<StorageNode> for Storage {
    fn from(node: StorageNode) -> Self {
        let meta = Meta::of(&node.metadata);
        let facts = Some(Box::new(NodeFacts::from(&node)));
        let status = node.status.unwrap_or_default();
        Self {
            meta,
            facts,
            ledger: status.ledger_id,
            records: status
                .volumes
                .into_iter()
                .map(|volume| Record {
                    name: volume.name,
                    claim_uid: volume.claim_uid,
                    attempt: volume.attempt,
                    phase: volume.phase,
                })
                .collect(),
        }
    }
}

/// One of our own CSIStorageCapacities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Which.
    pub meta: Meta,
    /// Whose node.
    pub node: String,
    /// Which class.
    pub class: String,
    /// Bytes in all.
    pub bytes: Option<u64>,
    /// Bytes of the largest single volume.
    pub largest: Option<u64>,
}

impl From<CSIStorageCapacity> for Capacity {
    fn from(capacity: CSIStorageCapacity) -> Self {
        let bytes = |quantity: Option<Quantity>| quantity.and_then(|quantity| bytes_of(&quantity.0).ok());
        let node = capacity
            .node_topology
            .and_then(|selector| selector.match_labels)
            .and_then(|mut labels| labels.remove(names::TOPOLOGY_NODE))
            .unwrap_or_default();
        Self {
            meta: Meta::of(&capacity.metadata),
            node,
            class: capacity.storage_class_name,
            bytes: bytes(capacity.capacity),
            largest: bytes(capacity.maximum_volume_size),
        }
    }
}
