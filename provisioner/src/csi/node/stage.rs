//! NodeStageVolume and NodeUnstageVolume: attach and mount, unmount and detach. The engine records that a volume is
//! staged before anything is mounted, and that it is not only after nothing is: a crash between leaves it "in use".

use super::listed;
use crate::csi::controller::unmet;
use crate::csi::reply::status_about;
use crate::csi::request::{Access, BadField, Capability, CapabilityError};
use crate::csi::{DeviceError, Driver, Offer, Phase, View, device};
use crate::engine::{Engine, ServeError};
use crate::mount::{self, Device, MountError, Options};
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::Mode;
use std::path::{Path, PathBuf};
use tonic::{Code, Status};

/// Why a volume is not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// An argument is missing or malformed.
    #[error(transparent)]
    Field(BadField),
    /// The capability is one that this volume, or no volume here, can have.
    #[error("field volume_capability: {0}; see ValidateVolumeCapabilities")]
    Exceeds(String),
    /// The ledger does not know it, or it is gone.
    #[error("does not exist on this node")]
    Unknown,
    /// An API object names it, and the ledger does not know it or is done with it.
    #[error(
        "is lost: this node's ledger holds no such volume, and none is ever made in its place; restore the claim's data into a new one"
    )]
    Lost,
    /// It is not in service.
    #[error("is not in service: {0}")]
    NotReady(String),
    /// It is staged, but elsewhere.
    #[error("is already staged at {}; unstage it there first", .0.display())]
    Elsewhere(PathBuf),
    /// It is staged here, but otherwise.
    #[error("is already staged there with another volume_capability; unstage it first")]
    Otherwise,
    /// The engine said no.
    #[error(transparent)]
    Engine(ServeError),
    /// The mount failed.
    #[error(transparent)]
    Mount(MountError),
    /// The mount failed, and so did taking the rest back.
    #[error("{mount}; and it could not be detached afterwards")]
    Both {
        /// What failed first.
        mount: MountError,
        /// What failed then.
        source: ServeError,
    },
}

impl StageError {
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
            Self::Exceeds(_) | Self::Lost | Self::NotReady(_) | Self::Elsewhere(_) => Code::FailedPrecondition,
            Self::Unknown => Code::NotFound,
            Self::Otherwise => Code::AlreadyExists,
            Self::Engine(error) => engine_code(error),
            Self::Mount(error) | Self::Both { mount: error, .. } => mount_code(error),
        };
        status_about(code, "volume", id, self)
    }
}

/// What a refusal of the engine means for a node call.
pub fn engine_code(error: &ServeError) -> Code {
    match error {
        ServeError::Busy(_) => Code::Aborted,
        ServeError::Unknown { .. } => Code::NotFound,
        ServeError::NotReady { .. }
        | ServeError::PoolAbsent { .. }
        | ServeError::BackingChanged { .. }
        | ServeError::NotBlank { .. }
        | ServeError::NoLicence { .. }
        | ServeError::InUse { .. }
        | ServeError::StagedElsewhere { .. } => Code::FailedPrecondition,
        ServeError::Host { .. } | ServeError::Commit { .. } => Code::Internal,
    }
}

/// What it means for a node call that the device cannot be looked at.
pub fn device_code(error: &DeviceError) -> Code {
    match error {
        DeviceError::Engine(error) => engine_code(error),
        DeviceError::Mount(_) => Code::Internal,
    }
}

/// What a refused mount means for a node call.
pub fn mount_code(error: &MountError) -> Code {
    match error {
        MountError::WrongKind { .. } | MountError::NoFolder(_) | MountError::Symlink(_) => Code::InvalidArgument,
        MountError::NotEmpty(_) | MountError::Foreign { .. } | MountError::NotStaged(_) | MountError::Busy(_) => {
            Code::FailedPrecondition
        }
        MountError::OtherMode { .. } => Code::AlreadyExists,
        MountError::Io { .. } => Code::Internal,
    }
}

/// The volume, where it is in service.
pub fn in_service(engine: &Engine, id: &VolumeId) -> Result<View, StageError> {
    let view = View::find(engine, id).ok_or(StageError::Unknown)?;
    match &view.phase {
        Phase::Ready => Ok(view),
        Phase::Gone => Err(StageError::Unknown),
        Phase::Making => Err(StageError::NotReady("it is being made; wait for CreateVolume".to_owned())),
        Phase::Retained => Err(StageError::NotReady("it is retained; only a release is left for it".to_owned())),
        Phase::Wiping(how) => Err(StageError::NotReady(format!("it is released, {how}"))),
        Phase::Stuck(why) => Err(StageError::NotReady(format!("its wipe is stuck: {why}"))),
        Phase::Absent(why) => Err(StageError::NotReady(why.clone())),
    }
}

/// Makes the volume ready for publication.
pub fn stage(driver: &Driver, id: &VolumeId, staging: &Path, wanted: &Capability) -> Result<(), StageError> {
    let engine = driver.engine.as_ref();
    let view = in_service(engine, id).map_err(|error| match (error, driver.offer) {
        (StageError::Unknown, Offer::NodeOnly) => StageError::Lost,
        (error, _) => error,
    })?;
    match &view.staged {
        Some(at) if at != staging => return Err(StageError::Elsewhere(at.clone())),
        Some(_) if unmet(&view, wanted).is_some() => return Err(StageError::Otherwise),
        Some(_) if driver.memory.staged(id).is_some_and(|before| !same_access(&before, &wanted.access)) => {
            return Err(StageError::Otherwise);
        }
        Some(_) | None => {}
    }
    if let Some(why) = unmet(&view, wanted) {
        return Err(StageError::Exceeds(why));
    }
    let fresh = view.staged.is_none();
    let device = engine.stage(id, &staging.display().to_string()).map_err(StageError::Engine)?;
    let mounted = Device::at(&device.path).and_then(|device| match (view.mode, &wanted.access) {
        (Mode::Filesystem(fs_type), Access::Mount { flags, .. }) => {
            // Checked by `unmet`; an error here would be the same one.
            let options = Options::parse(fs_type, flags).unwrap_or_default();
            mount::stage(&device, fs_type, staging, &options)
        }
        (Mode::Filesystem(_) | Mode::Block, _) => Ok(()),
    });
    match mounted {
        Ok(()) => {
            driver.memory.keep_staged(id, &wanted.access);
            Ok(())
        }
        // What this very call attached is taken back; what was there before stays.
        Err(mount) if fresh => match engine.unstage(id) {
            Ok(()) => Err(StageError::Mount(mount)),
            Err(source) => Err(StageError::Both { mount, source }),
        },
        Err(mount) => Err(StageError::Mount(mount)),
    }
}

/// Whether two stagings are the same: how the volume is seen, and with which options. An unnamed filesystem is the one
/// that the volume has.
fn same_access(a: &Access, b: &Access) -> bool {
    match (a, b) {
        (Access::Block, Access::Block) => true,
        (Access::Mount { flags: a, .. }, Access::Mount { flags: b, .. }) => {
            let sorted = |flags: &[String]| {
                let mut flags = flags.to_vec();
                flags.sort_unstable();
                flags
            };
            sorted(a) == sorted(b)
        }
        (Access::Block, Access::Mount { .. }) | (Access::Mount { .. }, Access::Block) => false,
    }
}

/// Why a volume is still staged.
#[derive(Debug, thiserror::Error)]
pub enum UnstageError {
    /// It is published.
    #[error("is still published at {0}; unpublish it first")]
    Published(String),
    /// The device cannot be looked at.
    #[error(transparent)]
    Device(DeviceError),
    /// The engine said no.
    #[error(transparent)]
    Engine(ServeError),
    /// The unmount failed.
    #[error(transparent)]
    Mount(MountError),
}

impl UnstageError {
    /// The answer to the orchestrator.
    pub fn status(&self, id: &str) -> Status {
        let code = match self {
            Self::Published(_) => Code::FailedPrecondition,
            Self::Device(error) => device_code(error),
            Self::Engine(error) => engine_code(error),
            Self::Mount(error) => mount_code(error),
        };
        status_about(code, "volume", id, self)
    }
}

/// Undoes [`stage`]. A volume that nobody knows, or that is not staged there, is nothing to undo.
pub fn unstage(driver: &Driver, id: &VolumeId, staging: &Path) -> Result<(), UnstageError> {
    let engine = driver.engine.as_ref();
    let Some(view) = View::find(engine, id) else { return Ok(()) };
    if view.staged.as_deref() != Some(staging) {
        return Ok(());
    }
    if let Some(device) = device(engine, id).map_err(UnstageError::Device)? {
        let places = publications(driver, &device, staging).map_err(UnstageError::Mount)?;
        if !places.is_empty() {
            return Err(UnstageError::Published(listed(places.iter().map(PathBuf::as_path))));
        }
        mount::unmount(Some(&device), staging).map_err(UnstageError::Mount)?;
        // The kernel keeps the flag with the device's number, which somebody else may get.
        if device.is_read_only().map_err(UnstageError::Mount)? {
            engine.set_read_only(id, false).map_err(UnstageError::Engine)?;
        }
    }
    engine.unstage(id).map_err(UnstageError::Engine)?;
    driver.memory.drop_volume(id);
    Ok(())
}

/// Where the volume appears beside its staging path and our scratch folder.
pub fn publications(driver: &Driver, device: &Device, staging: &Path) -> Result<Vec<PathBuf>, MountError> {
    let own = [mount::canonical(staging)?, mount::canonical(&driver.scratch)?];
    let mut places: Vec<PathBuf> = mount::appearances(device)?.into_iter().map(|found| found.point).collect();
    places.retain(|place| !own.contains(place));
    Ok(places)
}
