//! A StorageNode and a LocalVolume, reduced to what placement counts.

use std::collections::HashSet;
use std::sync::Arc;

use bedplate_core::filesystem::FsType as CoreFs;
use bedplate_core::media::Media;
use bedplate_core::placement::Filesystems;
use bedplate_core::volume::GRAIN;
use bedplate_core::wipe::Level;

use crate::local_volume::{FsType, LocalVolume, Phase, WipeLevel};
use crate::storage_node::{PoolStatus, StorageNode};

/// What a StorageNode says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node.
    pub name: Arc<str>,
    /// Its ledger's id.
    pub ledger_id: Arc<str>,
    /// Whether its agent can make volumes: its `Ready` condition where it has one, else that it ever spoke.
    pub ready: bool,
    /// What it can make and mount.
    pub filesystems: Filesystems,
    /// Its pools.
    pub pools: Vec<PoolFacts>,
    /// Names of the LocalVolumes that the pools' free bytes already count.
    pub counted: HashSet<Box<str>>,
}

/// What it says of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFacts {
    /// Its name.
    pub name: Arc<str>,
    /// What its disk is made of.
    pub media: Media,
    /// The best level its wipes can state.
    pub level: Option<Level>,
    /// Whether it is there.
    pub present: bool,
    /// Bytes it can hold in all.
    pub capacity: u64,
    /// Bytes a new volume may take.
    pub free: u64,
    /// The largest single volume, in bytes.
    pub largest: u64,
    /// The filesystem beneath, where pools may share one.
    pub filesystem: Option<Box<str>>,
}

/// What a LocalVolume says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Uid of its claim.
    pub claim: Arc<str>,
    /// Its node.
    pub node: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// Bytes it takes.
    pub bytes: u64,
    /// Whether it may take room that its node does not count yet: false once it is over, or lost.
    pub takes_room: bool,
    /// Whether its claim is to live in it: not over, not lost, not given up.
    pub serves: bool,
}

/// What an agent tells never is negative; a liar's number counts as none.
fn bytes(told: i64) -> u64 {
    u64::try_from(told).unwrap_or(0)
}

const fn level(level: WipeLevel) -> Level {
    match level {
        WipeLevel::Isolation => Level::Isolation,
        WipeLevel::Clear => Level::Clear,
        WipeLevel::CryptoErase => Level::CryptoErase,
    }
}

const fn filesystem(fs: FsType) -> CoreFs {
    match fs {
        FsType::Ext4 => CoreFs::Ext4,
        FsType::Xfs => CoreFs::Xfs,
        FsType::Btrfs => CoreFs::Btrfs,
        FsType::F2fs => CoreFs::F2fs,
    }
}

impl From<&PoolStatus> for PoolFacts {
    fn from(pool: &PoolStatus) -> Self {
        Self {
            name: pool.name.as_str().into(),
            media: pool.media.parse().unwrap_or_default(),
            level: pool.level.map(level),
            present: pool.absent.is_none(),
            capacity: bytes(pool.capacity),
            free: bytes(pool.free),
            largest: bytes(pool.largest_volume),
            filesystem: pool.filesystem.as_deref().map(Into::into),
        }
    }
}

impl From<&StorageNode> for NodeFacts {
    fn from(node: &StorageNode) -> Self {
        let name = node.metadata.name.as_deref().unwrap_or_default().into();
        let Some(status) = &node.status else { return Self { name, ..Self::default() } };
        let condition = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        Self {
            name,
            ledger_id: status.ledger_id.as_str().into(),
            ready: condition.map_or(!status.ledger_id.is_empty(), |condition| condition.status == "True"),
            filesystems: status.filesystems.iter().copied().map(filesystem).collect(),
            pools: status.pools.iter().map(PoolFacts::from).collect(),
            counted: status.volumes.iter().map(|volume| volume.name.as_str().into()).collect(),
        }
    }
}

impl From<&LocalVolume> for VolumeFacts {
    fn from(volume: &LocalVolume) -> Self {
        let (spec, phase) = (&volume.spec, volume.phase());
        let real = volume.status.as_ref().and_then(|status| status.bytes).map_or(0, bytes);
        let over = phase.is_some_and(Phase::is_over);
        // A lost volume was never made by this ledger and never will be; where it was, the node counts it.
        let lost = phase == Some(Phase::Lost);
        Self {
            name: volume.metadata.name.as_deref().unwrap_or_default().into(),
            claim: spec.claim_uid.as_str().into(),
            node: spec.node_name.as_str().into(),
            pool: spec.pool.as_str().into(),
            bytes: bytes(spec.bytes).checked_next_multiple_of(GRAIN).unwrap_or(u64::MAX).max(real),
            takes_room: !over && !lost,
            serves: !over && !lost && spec.release.is_none(),
        }
    }
}
