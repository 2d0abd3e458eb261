//! An engine on the scripted machine: for what no real machine shows on demand.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use bedplate_blockdev::Host;
use bedplate_blockdev::fake::{Config, FakeHost};
use bedplate_core::bytes::{Bytes, MIB};
use bedplate_core::ids::VolumeId;
use bedplate_core::wipe::Geometry;
use bedplate_provisioner::config::{EngineConfig, PoolConfig};
use bedplate_provisioner::engine::{Engine, OpenError};

use crate::engine::{POOL, open_on};

/// Where the pool is.
pub const DIRECTORY: &str = "/pool";
/// Where ledger and receipts are.
pub const STATE: &str = "/state";

/// A machine with a medium of 12 MiB.
pub fn machine() -> FakeHost {
    FakeHost::new(Config { blocks: 3072, ..Config::default() })
}

/// What engines on it are told.
pub fn settings() -> Result<EngineConfig> {
    let mut pool = PoolConfig::new(POOL.parse()?, DIRECTORY.into());
    pool.reserve = Bytes(0);
    Ok(EngineConfig {
        node: "node-1".parse()?,
        state_dir: STATE.into(),
        pools: vec![pool],
        geometry: Geometry { chunk: MIB / 4, ..Geometry::default() },
        agent_version: "test".to_owned(),
    })
}

/// Opens an engine on the machine itself.
///
/// # Errors
/// What the engine says.
pub fn open(host: &FakeHost) -> Result<Arc<Engine>, OpenError> {
    open_through(Arc::new(host.clone()))
}

/// Opens an engine on whatever stands before the machine.
///
/// # Errors
/// What the engine says.
pub fn open_through(host: Arc<dyn Host>) -> Result<Arc<Engine>, OpenError> {
    match settings() {
        Ok(settings) => open_on(host, &settings, "boot"),
        // Its names are constants that are names.
        Err(error) => unreachable!("{error}"),
    }
}

/// One tenancy: staged at `/mnt`, `text` written at `offset` and made durable, unstaged.
pub fn tenancy(host: &FakeHost, engine: &Engine, id: &VolumeId, offset: u64, text: &[u8]) -> Result<()> {
    let device = engine.stage(id, "/mnt")?;
    host.tenant_write(device.number, offset, text)?;
    host.tenant_flush(device.number)?;
    Ok(engine.unstage(id)?)
}

/// Names of the backing files in the pool.
pub fn files(host: &FakeHost) -> Vec<String> {
    host.names(Path::new(DIRECTORY))
        .into_iter()
        .filter(|n| Path::new(n).extension().is_some_and(|e| e == "img"))
        .collect()
}
