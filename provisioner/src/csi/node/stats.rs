//! NodeGetVolumeStats: how full a volume is, and how it is, as seen through one of its mounts.

use crate::csi::reply::status_about;
use crate::csi::request::{self, BadField};
use crate::csi::{DeviceError, Phase, View, device};
use crate::engine::Engine;
use crate::mount::{self, MountError};
use bedplate_core::volume::Mode;
use bedplate_csi::v1::volume_usage::Unit;
use bedplate_csi::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeUsage};
use nix::sys::statvfs::statvfs;
use std::path::Path;
use tonic::{Code, Status};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// An argument is missing or malformed.
    #[error(transparent)]
    Field(BadField),
    /// The ledger does not know it, or it is gone.
    #[error("does not exist on this node")]
    Unknown,
    /// It does not appear at that path.
    #[error("field volume_path: the volume is not at {0:?}; use the path it was staged or published at")]
    NotThere(String),
    /// Looking at the device failed.
    #[error(transparent)]
    Device(DeviceError),
    /// Looking at the mount failed.
    #[error(transparent)]
    Mount(MountError),
}

impl StatsError {
    /// The answer to the orchestrator.
    pub fn status(&self, id: &str) -> Status {
        let code = match self {
            Self::Field(_) => Code::InvalidArgument,
            Self::Unknown | Self::NotThere(_) => Code::NotFound,
            Self::Mount(_) | Self::Device(_) => Code::Internal,
        };
        status_about(code, "volume", id, self)
    }
}

/// The figures.
pub fn run(engine: &Engine, given: &NodeGetVolumeStatsRequest) -> Result<NodeGetVolumeStatsResponse, StatsError> {
    let id = request::volume_id(&given.volume_id).map_err(StatsError::Field)?;
    if given.volume_path.is_empty() {
        let why = "is missing; use the path the volume was staged or published at".to_owned();
        return Err(StatsError::Field(BadField { field: "volume_path", why }));
    }
    let view = View::find(engine, &id).filter(|view| view.phase != Phase::Gone).ok_or(StatsError::Unknown)?;
    let not_there = || StatsError::NotThere(given.volume_path.clone());
    // A volume is never at a relative path, nor at one with detours: the specification's NOT_FOUND, not a bad argument.
    let path = request::path("volume_path", &given.volume_path).map_err(|_| not_there())?;
    let device = device(engine, &id).map_err(StatsError::Device)?.ok_or_else(not_there)?;
    let staged = view.staged.as_deref() == Some(path.as_path());
    let there = mount::look(&device, &path).map_err(StatsError::Mount)? == Some(true);
    let usage = match view.mode {
        Mode::Block if there || staged => {
            vec![VolumeUsage { total: clamp(view.bytes), unit: Unit::Bytes.into(), ..VolumeUsage::default() }]
        }
        Mode::Filesystem(_) if there => figures(&path)?,
        Mode::Block | Mode::Filesystem(_) => return Err(not_there()),
    };
    Ok(NodeGetVolumeStatsResponse { usage, volume_condition: Some(view.condition()) })
}

fn figures(path: &Path) -> Result<Vec<VolumeUsage>, StatsError> {
    let found = statvfs(path).map_err(|errno| {
        StatsError::Mount(MountError::Io { doing: "read the figures of", path: path.to_owned(), source: errno.into() })
    })?;
    let unit = found.fragment_size();
    let bytes = |blocks: u64| clamp(blocks.saturating_mul(unit));
    Ok(vec![
        VolumeUsage {
            available: bytes(found.blocks_available()),
            total: bytes(found.blocks()),
            used: bytes(found.blocks().saturating_sub(found.blocks_free())),
            unit: Unit::Bytes.into(),
        },
        VolumeUsage {
            available: clamp(found.files_available()),
            total: clamp(found.files()),
            used: clamp(found.files().saturating_sub(found.files_free())),
            unit: Unit::Inodes.into(),
        },
    ])
}

fn clamp(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}
