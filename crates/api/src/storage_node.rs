//! A node's storage as its agent sees it: disks with verdicts and figures, pools with room, and the record of its volumes.
//!
//! Written by the agent alone, by server-side apply, only when something changed. Pools and volumes in one status are of
//! one moment of the ledger: `free` already counts every volume in `volumes`, and no other.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::local_volume::{ClaimReference, FsType, Phase, ResolvedDemand, VolumeMode, WipeLevel};

/// Nothing is asked of a StorageNode: it only tells.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "bedplate.dev",
    version = "v1alpha1",
    kind = "StorageNode",
    plural = "storagenodes",
    shortname = "sn",
    category = "bedplate",
    status = "StorageNodeStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentVersion"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Pools", type_ = "string", json_path = ".status.pools[*].name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct StorageNodeSpec {}

/// What the agent tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageNodeStatus {
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent_version: String,
    /// Id of the node's ledger: new disks or a lost ledger make a new one.
    #[serde(rename = "ledgerID", default, skip_serializing_if = "String::is_empty")]
    pub ledger_id: String,
    /// Uid of the Node object at the time, so that a re-created node of the same name is noticed.
    #[serde(rename = "nodeUID", default, skip_serializing_if = "String::is_empty")]
    pub node_uid: String,
    /// Filesystems this node can make and mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub filesystems: Vec<FsType>,
    /// Every whole disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub disks: Vec<DiskStatus>,
    /// Every pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pools: Vec<PoolStatus>,
    /// Every volume that the ledger still holds: what a deleted LocalVolume is rebuilt from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<VolumeRecord>,
    /// `Ready`, and what keeps it from being.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskStatus {
    /// Kernel name at the moment; not an identity.
    pub name: String,
    /// Stable id, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `strong` or `weak`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World-wide name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// How it is attached.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// Size in bytes.
    #[serde(default)]
    pub bytes: i64,
    /// Logical sector in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_sector: Option<i64>,
    /// Physical sector in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_sector: Option<i64>,
    /// What the kernel's flag says; no proof (it is wrong on virtio, RAID, EBS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
    /// What it is made of: `nvme`, `ssd`, `hdd` or `unknown`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media: String,
    /// What that rests on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_source: String,
    /// How sure it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_confidence: String,
    /// Filesystem or other signature on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// Where it or a part of it is mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// `ours`, `free`, `foreign`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// `ok`, or what it reported.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub health: String,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
}

/// What was measured of a disk or pool, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Random 4 KiB reads a second, the best depth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_iops: Option<i64>,
    /// Median of one such read at a time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_p50_us: Option<i64>,
    /// Its 99th percentile, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_p99_us: Option<i64>,
    /// Random writes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_iops: Option<i64>,
    /// Median of fdatasync behind one small append at a time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fsync_p50_us: Option<i64>,
    /// Its 99th percentile, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fsync_p99_us: Option<i64>,
    /// Sequential writes, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes_per_second: Option<i64>,
    /// Block size in bytes, depth and engine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// How far they can be trusted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub confidence: String,
    /// When it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// A pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// `image`, `lvm` or `disk`.
    pub backend: String,
    /// What the disk beneath is made of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media: String,
    /// The stable id of that disk, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// UUID of the filesystem beneath: pools on one filesystem draw on the same room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
    /// The best level its wipes can state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<WipeLevel>,
    /// Why it is not there, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// Bytes it can hold in all.
    #[serde(default)]
    pub capacity: i64,
    /// Bytes in service.
    #[serde(default)]
    pub allocated: i64,
    /// Bytes of released volumes that are not yet proven clean.
    #[serde(default)]
    pub quarantined: i64,
    /// Bytes withheld for other reasons: retained, forgotten, stuck, or found and unknown.
    #[serde(default)]
    pub dirty: i64,
    /// Bytes a new volume may take.
    #[serde(default)]
    pub free: i64,
    /// The largest single volume that fits, in bytes.
    #[serde(default)]
    pub largest_volume: i64,
    /// What was measured in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// Operations a second that are not yet promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops_left: Option<i64>,
}

/// A volume as the ledger has it: enough to rebuild its LocalVolume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecord {
    /// Name of its LocalVolume.
    pub name: String,
    /// Its id on the node.
    pub volume_handle: String,
    /// Its pool.
    pub pool: String,
    /// Its size in bytes.
    pub bytes: i64,
    /// How it is offered.
    #[serde(default)]
    pub mode: VolumeMode,
    /// Its filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<FsType>,
    /// Name of its class.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class_name: String,
    /// Parameters of its class at admission.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// What was promised to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<ResolvedDemand>,
    /// The level its wipe must reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe: Option<WipeLevel>,
    /// Uid of its claim.
    #[serde(rename = "claimUID")]
    pub claim_uid: String,
    /// Its claim.
    pub claim: ClaimReference,
    /// Which try at the claim it is.
    #[serde(default)]
    pub attempt: i64,
    /// Where it is in its life.
    pub phase: Phase,
}
