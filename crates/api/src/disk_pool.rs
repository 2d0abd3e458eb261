//! What an operator wants: pools on these nodes, made of these disks or of this folder.
//!
//! Each agent reads every DiskPool, takes those whose selector matches its node and answers in `status.nodes`, in words
//! where it cannot be met. A change that would touch living volumes is refused there, never half-done.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wanted.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "bedplate.dev",
    version = "v1alpha1",
    kind = "DiskPool",
    plural = "diskpools",
    shortname = "dp",
    category = "bedplate",
    status = "DiskPoolStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Backend", type_ = "string", json_path = ".spec.backend"),
    printcolumn(name = "Directory", type_ = "string", json_path = ".spec.directory"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes[*].node"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = ("has(self.directory) != has(self.devices)", "set exactly one of spec.directory (backend image) and spec.devices (backends lvm and disk)"),
    validation = ("self.backend != 'image' || has(self.directory)", "backend image needs spec.directory: a folder on ext4, xfs or btrfs"),
    validation = ("self.backend == 'image' || has(self.devices)", "backends lvm and disk need spec.devices"),
    validation = ("has(self.directory) == has(oldSelf.directory)", "a pool cannot move: make another one")
)]
#[serde(rename_all = "camelCase")]
pub struct DiskPoolSpec {
    /// Which nodes; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// What volumes are made of. Immutable.
    #[x_kube(validation = ("self == oldSelf", "spec.backend is immutable: make another pool"))]
    #[serde(default)]
    pub backend: Backend,
    /// The folder of an `image` pool; must exist on the node. Immutable.
    #[x_kube(validation = ("self == oldSelf", "spec.directory is immutable: a pool cannot move; make another one"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[^\n]*$"))]
    pub directory: Option<String>,
    /// Which disks a `lvm` or `disk` pool may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceSelector>,
    /// What the disk beneath is made of, where the operator knows better than discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// The most it may hold, as a quantity such as `500Gi`; absent for as much as there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"))]
    pub capacity: Option<String>,
    /// What is left to the host, as a quantity; 10Gi where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"))]
    pub reserve: Option<String>,
    /// How volumes are wiped and how wipes are verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe: Option<PoolWipe>,
    /// Encryption of every volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

/// What volumes are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Fully allocated files on a host filesystem.
    #[default]
    Image,
    /// Logical volumes on spare disks.
    Lvm,
    /// Whole disks.
    Disk,
}

/// What a disk is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the media by their names")]
pub enum Media {
    Nvme,
    Ssd,
    Hdd,
}

/// Which disks. Every field that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSelector {
    /// Made of one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub media: Vec<Media>,
    /// Attached in one of these ways: `nvme`, `sata`, `sas`, `virtio`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32)))]
    pub transport: Vec<String>,
    /// At least this size, as a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub min_size: Option<String>,
    /// At most this size, as a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub max_size: Option<String>,
    /// Of a model that one of these globs matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 128)))]
    pub models: Vec<String>,
    /// With a `/dev/disk/by-id` name that one of these globs matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 256)))]
    pub by_id: Vec<String>,
}

/// How volumes of a pool are wiped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolWipe {
    /// How they are overwritten. `image` pools know direct writes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<WipeMethod>,
    /// How wipes are verified where the class does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
}

/// How a range is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WipeMethod {
    /// Zero pages written past every cache.
    DirectWrites,
    /// The kernel's `BLKZEROOUT`.
    ZeroOut,
}

/// How a wipe is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// In full up to a size, beyond it by sample.
    Auto,
    /// Every block read back.
    Full,
    /// A stratified sample read back.
    Sample,
}

/// Encryption of volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// None.
    None,
    /// One random key a volume, destroyed as its wipe.
    VolumeKey,
}

/// What the nodes answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskPoolStatus {
    /// One answer a node, each written by that node's agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node"]))]
    pub nodes: Vec<NodeAnswer>,
}

/// One node's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeAnswer {
    /// Which node.
    pub node: String,
    /// Whether the pool is there.
    pub state: PoolState,
    /// Why not, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The generation of the spec that this answers.
    #[serde(default)]
    pub observed_generation: i64,
}

/// Whether a pool is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolState {
    /// It serves.
    Ready,
    /// It was there and is not now: its folder or filesystem is missing. Nothing is made anew, nothing is forgotten.
    Absent,
    /// It cannot be met; see the message.
    Refused,
    /// The wish is gone or no longer matches, but volumes still live in it: they are served and wiped, none is made.
    Draining,
}

/// The labels of a node, as a selector sees them.
pub type Labels = BTreeMap<String, String>;

impl DiskPoolSpec {
    /// Whether this wish is for a node with these labels.
    ///
    /// # Errors
    /// The selector itself is wrong: the operator, as Kubernetes words it.
    pub fn selects(&self, labels: &Labels) -> Result<bool, BadSelector> {
        let Some(selector) = &self.node_selector else { return Ok(true) };
        let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
        let mut holds = equal;
        for expression in selector.match_expressions.iter().flatten() {
            let value = labels.get(&expression.key);
            let among = |value: &String| expression.values.iter().flatten().any(|wanted| wanted == value);
            holds &= match expression.operator.as_str() {
                "In" => value.is_some_and(among),
                "NotIn" => !value.is_some_and(among),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => return Err(BadSelector { operator: other.to_owned() }),
            };
        }
        Ok(holds)
    }
}

/// Why a node selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.nodeSelector: operator {operator:?} is unknown; use In, NotIn, Exists or DoesNotExist")]
pub struct BadSelector {
    /// What stands there.
    pub operator: String,
}
