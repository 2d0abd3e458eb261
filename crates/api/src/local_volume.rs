//! A volume of one node: asked for by the provisioner, made and wiped by the agent.
//!
//! The spec is the provisioner's alone and, but for `release`, fixed for life; the status is the agent's alone. The node's
//! own ledger decides what is true: this object only carries orders down and tells people what happened.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked of a node.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "bedplate.dev",
    version = "v1alpha1",
    kind = "LocalVolume",
    plural = "localvolumes",
    shortname = "lv",
    category = "bedplate",
    status = "LocalVolumeStatus",
    selectable = ".spec.nodeName",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Bytes", type_ = "integer", json_path = ".spec.bytes"),
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = ("has(self.release) || !has(oldSelf.release)", "spec.release is a decision that stands: it cannot be taken back"),
    validation = ("has(self.wipe) == has(oldSelf.wipe) && has(self.fsType) == has(oldSelf.fsType) && has(self.demand) == has(oldSelf.demand) && has(self.disk) == has(oldSelf.disk) && has(self.parameters) == has(oldSelf.parameters)", "what a volume is cannot be changed after it is asked for: delete the claim and make a new one"),
    validation = ("!has(self.release) || self.release.claimUID == self.claimUID", "spec.release.claimUID must equal spec.claimUID: only the volume's own claim may give it up")
)]
#[serde(rename_all = "camelCase")]
pub struct LocalVolumeSpec {
    /// The node whose agent makes it. Immutable.
    #[x_kube(validation = ("self == oldSelf", "spec.nodeName is immutable: a volume's bytes cannot move"))]
    #[schemars(length(min = 1, max = 63))]
    pub node_name: String,
    /// The ledger of that node, as its StorageNode told at admission: another one means other disks. Immutable.
    #[serde(rename = "ledgerID")]
    #[x_kube(validation = ("self == oldSelf", "spec.ledgerID is immutable"))]
    #[schemars(length(min = 36, max = 36))]
    pub ledger_id: String,
    /// The pool. Immutable.
    #[x_kube(validation = ("self == oldSelf", "spec.pool is immutable"))]
    #[schemars(length(min = 1, max = 63))]
    pub pool: String,
    /// The disk beneath, by its stable id, where the pool has more than one. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self == oldSelf", "spec.disk is immutable"))]
    #[schemars(length(max = 253))]
    pub disk: Option<String>,
    /// Size in bytes. Immutable until volumes can grow.
    #[x_kube(validation = ("self == oldSelf", "spec.bytes is immutable"))]
    #[schemars(range(min = 1))]
    pub bytes: i64,
    /// How it is offered. Immutable.
    #[x_kube(validation = ("self == oldSelf", "spec.mode is immutable"))]
    pub mode: VolumeMode,
    /// Its filesystem; absent for `Block`. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self == oldSelf", "spec.fsType is immutable"))]
    pub fs_type: Option<FsType>,
    /// Name of the StorageClass, for people. Immutable.
    #[serde(default)]
    #[x_kube(validation = ("self == oldSelf", "spec.className is immutable"))]
    #[schemars(length(max = 253))]
    pub class_name: String,
    /// The class's parameters as they were at admission: later edits of the class do not change a volume. Immutable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = ("self == oldSelf", "spec.parameters is immutable"))]
    #[schemars(extend("maxProperties" = 32), schema_with = "parameters_schema")]
    pub parameters: BTreeMap<String, String>,
    /// What of the disk's speed was promised. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self == oldSelf", "spec.demand is immutable"))]
    pub demand: Option<ResolvedDemand>,
    /// The level its wipe must reach. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self == oldSelf", "spec.wipe is immutable"))]
    pub wipe: Option<WipeLevel>,
    /// Uid of the claim it is for: a release must name the same. Immutable.
    #[serde(rename = "claimUID")]
    #[x_kube(validation = ("self == oldSelf", "spec.claimUID is immutable"))]
    #[schemars(length(min = 1, max = 63))]
    pub claim_uid: String,
    /// The claim, for receipts and people. Immutable.
    #[x_kube(validation = ("self == oldSelf", "spec.claim is immutable"))]
    pub claim: ClaimReference,
    /// Which try at this claim it is, from 0: the last part of the object's name. Immutable.
    #[serde(default)]
    #[x_kube(validation = ("self == oldSelf", "spec.attempt is immutable"))]
    #[schemars(range(min = 0))]
    pub attempt: i64,
    /// The recorded authority to wipe. Nothing else is (G8). Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self == oldSelf", "spec.release is a decision that stands: it cannot be changed"))]
    pub release: Option<Release>,
}

fn parameters_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 1024 }
    })
}

/// How a volume is offered, in Kubernetes' words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VolumeMode {
    /// With a filesystem on it.
    #[default]
    Filesystem,
    /// As a raw block device.
    Block,
}

/// A filesystem Bedplate makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the filesystems by their names")]
pub enum FsType {
    Ext4,
    Xfs,
    Btrfs,
    F2fs,
}

/// How thoroughly a volume's bytes must be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WipeLevel {
    /// Later volumes cannot read them; the medium may still hold them.
    Isolation,
    /// Every block of the range overwritten.
    Clear,
    /// The volume's own key destroyed.
    CryptoErase,
}

/// What of a disk's speed is promised to a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedDemand {
    /// Operations a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub iops: Option<i64>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub bytes_per_second: Option<i64>,
    /// Hash of the policy that resolved it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub policy_hash: String,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimReference {
    /// Its namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its labels, for receipts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,
}

fn labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "string", "maxLength": 63 }
    })
}

/// The authority to wipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Uid of the claim that gives it up.
    #[serde(rename = "claimUID")]
    #[schemars(length(min = 1, max = 63))]
    pub claim_uid: String,
    /// Why.
    pub kind: ReleaseKind,
}

/// Why a volume is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseKind {
    /// Its claim is gone and the reclaim policy is Delete.
    Reclaimed,
    /// No PersistentVolume ever existed for it.
    NeverBound,
    /// Its PersistentVolume was deleted under policy Retain: nothing is wiped, the space stays withheld.
    Retained,
}

/// What the agent says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalVolumeStatus {
    /// Where it is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One sentence about it: who holds it, why it is stuck or lost, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Its id on the node and in CSI calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
    /// Bytes it really has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Device or backing file on the node, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How far its wipe is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe: Option<WipeProgress>,
    /// The receipt of its wipe, as `number` in the node's chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<i64>,
    /// Conditions, for `kubectl wait`: `Ready`, `Wiped`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where a volume is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// The agent has it in its ledger and makes it.
    Reserved,
    /// It can be staged.
    Ready,
    /// The agent refuses to make it: it does not fit here (any more). Nothing was made.
    Refused,
    /// The ledger knows nothing of it, or another ledger made it: never made again, never staged.
    Lost,
    /// Its release is on record; it waits until nobody uses it.
    Released,
    /// Nobody uses it and nobody will.
    Quarantined,
    /// It is being overwritten.
    Wiping,
    /// It is being read back.
    Verifying,
    /// Overwritten and read back; its space is being given back.
    Verified,
    /// Gone, with a receipt.
    Freed,
    /// It never held a byte of anybody's and is gone.
    Discarded,
    /// Kept with its bytes under policy Retain; its space stays withheld until a person releases it.
    Retained,
    /// A person has to decide; see `message`.
    Stuck,
    /// Its disk is not here: the wipe is owed.
    Debt,
    /// A person gave its space up as never to be used again.
    Forgotten,
}

impl Phase {
    /// Whether nothing of it is left on the node: the object may go.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Freed | Self::Discarded | Self::Refused)
    }
}

/// How far a wipe is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WipeProgress {
    /// `canaries`, `wiping` or `verifying`.
    pub stage: String,
    /// Bytes done of this stage, in steps coarse enough not to burden the API server.
    pub done: i64,
    /// Bytes of this stage.
    pub total: i64,
}

impl LocalVolume {
    /// The name of an attempt at a claim.
    #[must_use]
    pub fn name_for(claim_uid: &str, attempt: i64) -> String {
        format!("pvc-{claim_uid}-{attempt}")
    }

    /// Its phase, if the agent ever gave it one.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.status.as_ref().and_then(|status| status.phase)
    }
}
