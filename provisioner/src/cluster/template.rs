//! The objects that the provisioner makes, from what was decided. Pure; names are deterministic, so that making one twice
//! is a conflict and not a second volume.

use std::collections::BTreeMap;

use bedplate_api::local_volume::{ClaimReference, FsType, LocalVolumeSpec, VolumeMode, WipeLevel};
use bedplate_api::placement::quantity_of;
use bedplate_api::storage_node::VolumeRecord;
use bedplate_api::{LocalVolume, StorageNode, names};
use bedplate_core::filesystem::FsType as CoreFs;
use bedplate_core::volume::Mode;
use bedplate_core::wipe::Level;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;

use crate::cluster::claim::Order;
use crate::cluster::objects::{Claim, Class, Mark};

/// The name of a claim's PersistentVolume.
#[must_use]
pub fn volume_name(claim_uid: &str) -> String {
    format!("pvc-{claim_uid}")
}

/// Where a volume is to lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spot {
    /// Node.
    pub node: String,
    /// Its ledger at the moment.
    pub ledger: String,
    /// Pool.
    pub pool: String,
    /// Disk, where the pool has more than one.
    pub disk: Option<String>,
}

/// An attempt at a claim.
#[must_use]
pub fn local(claim: &Claim, class: &Class, order: &Order, spot: &Spot, attempt: i64) -> LocalVolume {
    let (mode, fs_type) = match order.demand.mode {
        Mode::Filesystem(fs) => (VolumeMode::Filesystem, Some(filesystem(fs))),
        Mode::Block => (VolumeMode::Block, None),
    };
    let spec = LocalVolumeSpec {
        node_name: spot.node.clone(),
        ledger_id: spot.ledger.clone(),
        pool: spot.pool.clone(),
        disk: spot.disk.clone(),
        bytes: i64::try_from(order.demand.bytes).unwrap_or(i64::MAX),
        mode,
        fs_type,
        class_name: class.meta.name.clone(),
        parameters: class.parameters.clone(),
        demand: None,
        wipe: order.wipe.map(level),
        claim_uid: claim.meta.uid.clone(),
        claim: ClaimReference {
            namespace: claim.namespace.clone(),
            name: claim.meta.name.clone(),
            labels: claim.wish.as_ref().map(|wish| wish.labels.clone()).unwrap_or_default(),
        },
        attempt,
        release: None,
    };
    object(LocalVolume::name_for(&claim.meta.uid, attempt), spec, Mark::Unbound)
}

/// A LocalVolume that was lost to the API, from its node's record. Whether a PersistentVolume ever was is not known any
/// more, so it counts as one that had one.
#[must_use]
pub fn rebuilt(node: &str, ledger: &str, record: VolumeRecord) -> LocalVolume {
    let spec = LocalVolumeSpec {
        node_name: node.to_owned(),
        ledger_id: ledger.to_owned(),
        pool: record.pool,
        disk: None,
        bytes: record.bytes,
        mode: record.mode,
        fs_type: record.fs_type,
        class_name: record.class_name,
        parameters: record.parameters,
        demand: record.demand,
        wipe: record.wipe,
        claim_uid: record.claim_uid,
        claim: record.claim,
        attempt: record.attempt,
        release: None,
    };
    object(record.name, spec, Mark::Bound)
}

fn object(name: String, spec: LocalVolumeSpec, mark: Mark) -> LocalVolume {
    let labels = BTreeMap::from([
        (names::LABEL_MANAGED_BY.to_owned(), names::MANAGER_PROVISIONER.to_owned()),
        (names::LABEL_NODE.to_owned(), spec.node_name.clone()),
    ]);
    let annotations = (mark != Mark::Unbound)
        .then(|| BTreeMap::from([(names::ANNOTATION_BOUND.to_owned(), mark.value().to_owned())]));
    LocalVolume {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels),
            annotations,
            finalizers: Some(vec![names::FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// What a PersistentVolume takes from the claim and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Access modes.
    pub modes: Vec<String>,
    /// Mount options.
    pub mount_options: Vec<String>,
    /// Reclaim policy.
    pub policy: String,
}

impl Terms {
    /// Of a claim. Where the class is gone nobody knows its policy, and what nobody knows is not wiped.
    #[must_use]
    pub fn of(claim: Option<&Claim>, class: Option<&Class>) -> Self {
        let modes = claim.and_then(|claim| claim.wish.as_ref()).map(|wish| wish.modes.clone()).unwrap_or_default();
        Self {
            modes: if modes.is_empty() { vec!["ReadWriteOnce".to_owned()] } else { modes },
            mount_options: class.map(|class| class.mount_options.clone()).unwrap_or_default(),
            policy: class.map_or_else(|| "Retain".to_owned(), |class| class.policy.clone()),
        }
    }

    /// Without a claim, and keeping the bytes whatever the class says.
    #[must_use]
    pub fn kept(class: Option<&Class>) -> Self {
        Self { policy: "Retain".to_owned(), ..Self::of(None, class) }
    }
}

/// The PersistentVolume of a LocalVolume that is Ready; `None` where its agent has not named it yet.
#[must_use]
pub fn volume(local: &LocalVolume, terms: &Terms) -> Option<PersistentVolume> {
    let status = local.status.as_ref()?;
    let handle = status.volume_handle.clone()?;
    let local_name = local.metadata.name.clone()?;
    let spec = &local.spec;
    let bytes = status.bytes.unwrap_or(spec.bytes);
    let only_there = NodeSelectorRequirement {
        key: names::TOPOLOGY_NODE.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![spec.node_name.clone()]),
    };
    let csi = CSIPersistentVolumeSource {
        driver: names::DRIVER.to_owned(),
        volume_handle: handle,
        fs_type: spec.fs_type.map(|fs| core_filesystem(fs).name().to_owned()),
        volume_attributes: Some(BTreeMap::from([(names::CONTEXT_LOCAL_VOLUME.to_owned(), local_name.clone())])),
        ..CSIPersistentVolumeSource::default()
    };
    Some(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name(&spec.claim_uid)),
            annotations: Some(BTreeMap::from([
                (names::ANNOTATION_PROVISIONED_BY.to_owned(), names::DRIVER.to_owned()),
                (names::ANNOTATION_LOCAL_VOLUME.to_owned(), local_name),
            ])),
            finalizers: Some(vec![names::FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(terms.modes.clone()),
            capacity: Some(BTreeMap::from([(
                "storage".to_owned(),
                Quantity(quantity_of(u64::try_from(bytes).unwrap_or_default())),
            )])),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                namespace: Some(spec.claim.namespace.clone()),
                name: Some(spec.claim.name.clone()),
                uid: Some(spec.claim_uid.clone()),
                ..ObjectReference::default()
            }),
            csi: Some(csi),
            mount_options: Some(terms.mount_options.clone()).filter(|options| !options.is_empty()),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector {
                    node_selector_terms: vec![NodeSelectorTerm {
                        match_expressions: Some(vec![only_there]),
                        match_fields: None,
                    }],
                }),
            }),
            persistent_volume_reclaim_policy: Some(terms.policy.clone()),
            storage_class_name: Some(spec.class_name.clone()),
            volume_mode: Some(
                match spec.mode {
                    VolumeMode::Filesystem => "Filesystem",
                    VolumeMode::Block => "Block",
                }
                .to_owned(),
            ),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// One node's capacity for one class. It belongs to the StorageNode `owner`, which takes it along.
#[must_use]
pub fn capacity(
    namespace: &str,
    (node, owner): (&str, &str),
    class: &str,
    bytes: u64,
    largest: u64,
) -> CSIStorageCapacity {
    let labels = [(names::LABEL_MANAGED_BY, names::MANAGER_PROVISIONER), (names::LABEL_NODE, node)];
    let topology = BTreeMap::from([(names::TOPOLOGY_NODE.to_owned(), node.to_owned())]);
    CSIStorageCapacity {
        metadata: ObjectMeta {
            name: Some(capacity_name(node, class)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            owner_references: Some(vec![OwnerReference {
                api_version: StorageNode::api_version(&()).into_owned(),
                kind: StorageNode::kind(&()).into_owned(),
                name: node.to_owned(),
                uid: owner.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        storage_class_name: class.to_owned(),
        node_topology: Some(LabelSelector { match_labels: Some(topology), match_expressions: None }),
        capacity: Some(Quantity(quantity_of(bytes))),
        maximum_volume_size: Some(Quantity(quantity_of(largest))),
    }
}

/// One name a node and class. Both may be 253 characters long and their pair must not be ambiguous, so it ends in a hash
/// (FNV-1a, 64 bit; the same in every version).
fn capacity_name(node: &str, class: &str) -> String {
    let bytes = node.bytes().chain([b'/']).chain(class.bytes());
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let readable: String = format!("{class}-{node}").chars().take(200).collect();
    format!("{}-{hash:016x}", readable.trim_end_matches(['-', '.']))
}

const fn filesystem(fs: CoreFs) -> FsType {
    match fs {
        CoreFs::Ext4 => FsType::Ext4,
        CoreFs::Xfs => FsType::Xfs,
        CoreFs::Btrfs => FsType::Btrfs,
        CoreFs::F2fs => FsType::F2fs,
    }
}

const fn core_filesystem(fs: FsType) -> CoreFs {
    match fs {
        FsType::Ext4 => CoreFs::Ext4,
        FsType::Xfs => CoreFs::Xfs,
        FsType::Btrfs => CoreFs::Btrfs,
        FsType::F2fs => CoreFs::F2fs,
    }
}

const fn level(level: Level) -> WipeLevel {
    match level {
        Level::Isolation => WipeLevel::Isolation,
        Level::Clear => WipeLevel::Clear,
        Level::CryptoErase => WipeLevel::CryptoErase,
    }
}
