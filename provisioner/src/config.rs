//! What the engine is told at start.

use std::path::PathBuf;

use bedplate_core::bytes::{Bytes, GIB};
use bedplate_core::class::MediaDemand;
use bedplate_core::ids::{NodeName, PoolName};
use bedplate_core::wipe::{Geometry, VerifyDemand, ZeroMethod};

/// The engine's settings.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// This node.
    pub node: NodeName,
    /// Where ledger and receipts lie; must exist.
    pub state_dir: PathBuf,
    /// The pools.
    pub pools: Vec<PoolConfig>,
    /// Grain of wipes.
    pub geometry: Geometry,
    /// What receipts name as the agent's version.
    pub agent_version: String,
}

/// One `image` pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Its name.
    pub name: PoolName,
    /// Where its files lie; must exist, on ext4, xfs or btrfs.
    pub directory: PathBuf,
    /// The most it may hold; `None` for as much as the filesystem gives.
    pub capacity: Option<Bytes>,
    /// What is left to the host, whatever is asked.
    pub reserve: Bytes,
    /// How volumes are wiped.
    pub method: ZeroMethod,
    /// How wipes are verified where the class does not say.
    pub verify: VerifyDemand,
    /// Up to this size `auto` verifies in full.
    pub full_verify_up_to: Bytes,
    /// The medium beneath, where the operator or a measurement says; classes that ask for one need it.
    pub media: Option<MediaDemand>,
    /// Operations a second that may be promised in all, where they were measured on the idle disk.
    pub iops: Option<u64>,
    /// No new volumes: those that live here are served, and wiped when they are released.
    pub draining: bool,
}

impl PoolConfig {
    /// A pool with the default rules: 10 GiB left to the host, direct writes, full verification up to 1 TiB.
    #[must_use]
    pub fn new(name: PoolName, directory: PathBuf) -> Self {
        Self {
            name,
            directory,
            capacity: None,
            reserve: Bytes(10 * GIB),
            method: ZeroMethod::DirectWrites,
            verify: VerifyDemand::Auto,
            full_verify_up_to: Bytes(1024 * GIB),
            media: None,
            iops: None,
            draining: false,
        }
    }
}
