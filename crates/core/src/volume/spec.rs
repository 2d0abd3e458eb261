//! What a volume is: fixed when it is reserved, and never changed after.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::extent::PhysicalMap;
use crate::filesystem::FsType;
use crate::ids::{PoolName, VolumeId};
use crate::wipe::{Level, VerifyDemand};

/// How a volume is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "fsType")]
pub enum Mode {
    /// With a filesystem on it.
    Filesystem(FsType),
    /// As a raw block device.
    Block,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filesystem(fs) => fs.fmt(f),
            Self::Block => f.write_str("block"),
        }
    }
}

/// Who asked, as far as the orchestrator said; for receipts and people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Namespace of the claim.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the claim.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Uid of the claim.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Labels of the claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What an orchestrator with objects of its own asked for besides, so that those objects can be rebuilt from the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Name of the class, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub class_name: String,
    /// Which try at the claim it is, from 0.
    #[serde(default)]
    pub attempt: u32,
    /// What of the disk's speed was promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<Promise>,
}

/// What of a disk's speed was promised to a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promise {
    /// Operations a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Hash of the policy that resolved it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy_hash: String,
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// Its id, never used again.
    pub id: VolumeId,
    /// The name it was asked for under; unique among living volumes.
    pub name: String,
    /// Where it lies.
    pub pool: PoolName,
    /// Its size in bytes.
    pub bytes: u64,
    /// How it is offered.
    pub mode: Mode,
    /// Name of its backing file in the pool: holds 128 random bits drawn for this volume, so a file of that name is ours.
    pub file: String,
    /// The level its class demands; a wipe that earns less leaves it Stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<Level>,
    /// How its wipe is to be verified.
    pub verify: VerifyDemand,
    /// Extra `mkfs` arguments, checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mkfs_options: Vec<String>,
    /// Who asked.
    #[serde(default)]
    pub claim: Claim,
    /// The class parameters as given, for comparing repeated requests and for receipts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// When it was asked for.
    pub created: Timestamp,
    /// What its orchestrator's object said besides. Ledgers of before this field have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What makes a backing file *that* file, across reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since the epoch, as the filesystem recorded it.
    pub born: i64,
}

/// The space a volume got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backing {
    /// Which file.
    pub identity: FileIdentity,
    /// Where its bytes lay when it was made.
    pub map: PhysicalMap,
}

/// Why a volume may be wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseKind {
    /// Its owner deleted it.
    Deleted,
    /// Its claim was reclaimed.
    Reclaimed,
    /// It never had an owner.
    NeverBound,
    /// A person said so.
    ByHand,
}

/// The recorded authority to wipe: nothing else is (G8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Why.
    pub kind: ReleaseKind,
    /// On whose word: "CSI DeleteVolume", a user name.
    pub by: String,
    /// When.
    pub at: Timestamp,
}
