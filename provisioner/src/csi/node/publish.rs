//! NodePublishVolume and NodeUnpublishVolume: a staged volume appears at a target path, and disappears from there.

use super::listed;
use super::stage::{StageError, device_code, engine_code, in_service, mount_code, publications};
use crate::csi::controller::unmet;
use crate::csi::reply::status_about;
use crate::csi::request::{Access, BadField, Capability, CapabilityError, Sharing};
use crate::csi::{DeviceError, Driver, View, device};
use crate::engine::ServeError;
use crate::mount::{self, Device, MountError};
use bedplate_core::ids::VolumeId;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use tonic::{Code, Status};

/// Why a volume is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// An argument is missing or malformed.
    #[error(transparent)]
    Field(BadField),
    /// The capability is one that this volume, or no volume here, can have.
    #[error("field volume_capability: {0}; see ValidateVolumeCapabilities")]
    Exceeds(String),
    /// Staging is ours to be told of (specification: "Staging target path not set").
    #[error("field staging_target_path: is missing; call NodeStageVolume first and name its path")]
    NoStagingPath,
    /// It does not exist, or is not in service.
    #[error(transparent)]
    Volume(StageError),
    /// It is not staged there.
    #[error("is not staged at {}; call NodeStageVolume first", .0.display())]
    NotStaged(PathBuf),
    /// It is published elsewhere, and one of the two tolerates no other.
    #[error("is already published at {0}, and its access mode allows one publication; unpublish it there first")]
    Elsewhere(String),
    /// A device cannot be read-only for one and writable for another.
    #[error("is already published at {places} as a {} block device; unpublish it there first", if *.read_only { "read-only" } else { "writable" })]
    OtherBlockMode {
        /// Where.
        places: String,
        /// What it is now.
        read_only: bool,
    },
    /// It is published at this target, but otherwise.
    #[error("is already published there with another volume_capability; unpublish it first")]
    Otherwise,
    /// The device cannot be looked at.
    #[error(transparent)]
    Device(DeviceError),
    /// The engine said no.
    #[error(transparent)]
    Engine(ServeError),
    /// The mount failed.
    #[error(transparent)]
    Mount(MountError),
}

impl PublishError {
    pub fn from_capability(error: CapabilityError) -> Self {
        match error {
            CapabilityError::Malformed(field) => Self::Field(field),
            CapabilityError::Unsupported(field) => Self::Exceeds(field.why),
        }
    }

    /// The answer to the orchestrator.
    pub fn status(&self, id: &str) -> Status {
        let code = match self {
            Self::Field(_) => Code::InvalidArgument,
            Self::Volume(error) => return error.status(id),
            Self::Exceeds(_)
            | Self::NoStagingPath
            | Self::NotStaged(_)
            | Self::Elsewhere(_)
            | Self::OtherBlockMode { .. } => Code::FailedPrecondition,
            Self::Otherwise => Code::AlreadyExists,
            Self::Device(error) => device_code(error),
            Self::Engine(error) => engine_code(error),
            Self::Mount(error) => mount_code(error),
        };
        status_about(code, "volume", id, self)
    }
}

/// Makes the staged volume appear at `target`.
pub fn publish(
    driver: &Driver,
    id: &VolumeId,
    staging: &Path,
    target: &Path,
    wanted: Capability,
    readonly: bool,
) -> Result<(), PublishError> {
    let engine = driver.engine.as_ref();
    let view = in_service(engine, id).map_err(PublishError::Volume)?;
    let not_staged = || PublishError::NotStaged(staging.to_owned());
    if view.staged.as_deref() != Some(staging) {
        return Err(not_staged());
    }
    let device = device(engine, id).map_err(PublishError::Device)?.ok_or_else(not_staged)?;
    let here = mount::look(&device, target).map_err(PublishError::Mount)? == Some(true);
    if here && contradicts(driver, &view, target, &wanted) {
        return Err(PublishError::Otherwise);
    }
    if let Some(why) = unmet(&view, &wanted) {
        return Err(PublishError::Exceeds(why));
    }
    let resolved = mount::canonical(target).map_err(PublishError::Mount)?;
    let mut others = publications(driver, &device, staging).map_err(PublishError::Mount)?;
    others.retain(|place| *place != resolved);
    if !others.is_empty() && (wanted.sharing != Sharing::Many || driver.memory.is_exclusive(id, &others)) {
        return Err(PublishError::Elsewhere(listed(others.iter().map(PathBuf::as_path))));
    }
    let readonly = readonly || wanted.sharing == Sharing::OneReader;
    match wanted.access {
        Access::Mount { .. } => {
            let _alone = driver.memory.scratch.lock().unwrap_or_else(PoisonError::into_inner);
            mount::publish_directory(&device, staging, target, readonly, &driver.scratch)
                .map_err(PublishError::Mount)?;
        }
        Access::Block => publish_block(driver, id, &device, target, readonly, here, &others)?,
    }
    driver.memory.keep_published(id, &resolved, wanted);
    Ok(())
}

/// Binds the device node, its read-only setting made to fit first: a writer never sees a device that he must not write.
fn publish_block(
    driver: &Driver,
    id: &VolumeId,
    device: &Device,
    target: &Path,
    readonly: bool,
    here: bool,
    others: &[PathBuf],
) -> Result<(), PublishError> {
    let read_only = device.is_read_only().map_err(PublishError::Mount)?;
    if read_only != readonly {
        if here {
            return Err(PublishError::Mount(MountError::OtherMode { path: target.to_owned(), read_only }));
        }
        if !others.is_empty() {
            let places = listed(others.iter().map(PathBuf::as_path));
            return Err(PublishError::OtherBlockMode { places, read_only });
        }
        driver.engine.set_read_only(id, readonly).map_err(PublishError::Engine)?;
    }
    mount::publish_node(device, target).map_err(PublishError::Mount)
}

/// Whether a remembered publication at `target` was asked for otherwise.
fn contradicts(driver: &Driver, view: &View, target: &Path, wanted: &Capability) -> bool {
    let known = mount::canonical(target).ok().and_then(|target| driver.memory.published(&view.id, &target));
    known.is_some_and(|known| known != *wanted) || unmet(view, wanted).is_some()
}

/// Why a volume is still published.
#[derive(Debug, thiserror::Error)]
pub enum UnpublishError {
    /// The ledger does not know it, and something is mounted there that only it could explain.
    #[error("does not exist on this node, and something is mounted at the target path")]
    Unknown(#[source] MountError),
    /// The device cannot be looked at.
    #[error(transparent)]
    Device(DeviceError),
    /// The unmount failed.
    #[error(transparent)]
    Mount(MountError),
}

impl UnpublishError {
    /// The answer to the orchestrator.
    pub fn status(&self, id: &str) -> Status {
        let code = match self {
            Self::Unknown(_) => Code::NotFound,
            Self::Device(error) => device_code(error),
            Self::Mount(error) => mount_code(error),
        };
        status_about(code, "volume", id, self)
    }
}

/// Undoes [`publish`], and removes the target. A volume that nobody knows has nothing published, unless something is
/// mounted there.
pub fn unpublish(driver: &Driver, id: &VolumeId, target: &Path) -> Result<(), UnpublishError> {
    let engine = driver.engine.as_ref();
    if View::find(engine, id).is_none() {
        // Not ours to remove: neither a directory, nor a mount.
        return mount::unmount(None, target).map_err(UnpublishError::Unknown);
    }
    let device = device(engine, id).map_err(UnpublishError::Device)?;
    mount::unpublish(device.as_ref(), target).map_err(UnpublishError::Mount)?;
    if let Ok(resolved) = mount::canonical(target) {
        driver.memory.drop_published(id, &resolved);
    }
    Ok(())
}
