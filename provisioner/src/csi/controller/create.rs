//! CreateVolume. Same name and same wishes: the same volume. The codes are chosen for what an orchestrator does next:
//! it takes ABORTED for "may still be running, ask again" and all others for "there is no volume".

use crate::csi::reply::status_about;
use crate::csi::request::{self, BadField, CapabilityError};
use crate::csi::{Filesystems, topology};
use crate::engine::{self, CreateVolume, Engine, VolumeView};
use bedplate_core::class::{BadParameter, Class};
use bedplate_core::ids::NodeName;
use bedplate_core::names;
use bedplate_core::volume::Mode;
use bedplate_csi::v1::CreateVolumeRequest;
use std::collections::BTreeMap;
use tonic::{Code, Status};

/// Why there is no volume.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// An argument is missing, malformed or not supported.
    #[error(transparent)]
    Field(BadField),
    /// A parameter is.
    #[error("field parameters")]
    Parameter(#[source] BadParameter),
    /// This node cannot make or mount such a filesystem.
    #[error("field volume_capabilities: {0}")]
    NotOffered(String),
    /// It must be reachable from elsewhere.
    #[error("field accessibility_requirements: none of the requisite topologies is this node, {node}")]
    Elsewhere { node: NodeName },
    /// The engine said no.
    #[error(transparent)]
    Engine(engine::CreateError),
}

impl CreateError {
    /// The answer to the orchestrator.
    pub fn status(&self, name: &str) -> Status {
        use crate::engine::CreateError as E;
        let code = match self {
            Self::Field(_) | Self::Parameter(_) | Self::NotOffered(_) => Code::InvalidArgument,
            Self::Elsewhere { .. } => Code::ResourceExhausted,
            Self::Engine(error) => match error {
                E::Contradiction { .. } => Code::InvalidArgument,
                E::LimitTooSmall { .. } | E::TooLarge { .. } => Code::OutOfRange,
                E::Misfit { .. } => Code::ResourceExhausted,
                E::Taken { .. } | E::UsedUp { .. } => Code::AlreadyExists,
                E::Busy(_) | E::Crowded { .. } | E::BeingDeleted { .. } => Code::Aborted,
                // Nothing that anybody could use is left, now or after a restart.
                E::Host { .. } | E::HostAndCleanup { .. } => Code::Internal,
                // The record may have reached the disk: after a restart the volume may exist. Only a code that says
                // "perhaps" makes the orchestrator ask here again before it goes elsewhere.
                E::Commit { .. } => Code::Unavailable,
            },
        };
        status_about(code, "volume named", name, self)
    }
}

/// Reads and checks everything that needs no look at the node.
pub fn read(given: &CreateVolumeRequest, node: &NodeName) -> Result<CreateVolume, CreateError> {
    let name = request::name(&given.name).map_err(CreateError::Field)?;
    let capabilities = request::capabilities(&given.volume_capabilities)
        .map_err(CapabilityError::into_field)
        .map_err(CreateError::Field)?;
    if given.volume_content_source.is_some() {
        let why = "snapshots and clones are not supported; leave it out and copy the data";
        return Err(CreateError::Field(BadField { field: "volume_content_source", why: why.to_owned() }));
    }
    if let Some(key) = given.mutable_parameters.keys().min() {
        let why = format!("{key:?}: volumes cannot be modified; leave it out");
        return Err(CreateError::Field(BadField { field: "mutable_parameters", why }));
    }
    let parameters = request::map("parameters", &given.parameters).map_err(CreateError::Field)?;
    let parameters: BTreeMap<String, String> = parameters.clone().into_iter().collect();
    let (class, mode) = class(&parameters, &capabilities)?;
    for one in &capabilities {
        mount_options(one, mode).map_err(CreateError::Field)?;
    }
    let (required, limit) = request::bounds(given.capacity_range.as_ref()).map_err(CreateError::Field)?;
    if !topology::admits(given.accessibility_requirements.as_ref(), node).map_err(CreateError::Field)? {
        return Err(CreateError::Elsewhere { node: node.clone() });
    }
    Ok(CreateVolume { name: name.to_owned(), required, limit, mode, class, parameters, origin: None })
}

/// The class that parameters describe, for a volume with these capabilities.
pub fn class(
    parameters: &BTreeMap<String, String>,
    capabilities: &[request::Capability],
) -> Result<(Class, Mode), CreateError> {
    let named = Class::parse(&parameters_without_mkfs(parameters)).map_err(CreateError::Parameter)?;
    let mode = request::mode(capabilities, named.fs_type).map_err(CreateError::Field)?;
    // mkfs options are checked against the filesystem, which the capability may have named.
    let mut known = parameters.clone();
    match mode {
        Mode::Filesystem(fs_type) => {
            known.insert(names::PARAMETER_FSTYPE.to_owned(), fs_type.name().to_owned());
        }
        Mode::Block if parameters.contains_key(names::PARAMETER_MKFS_OPTIONS) => {
            return Err(CreateError::Parameter(BadParameter::Value {
                name: names::PARAMETER_MKFS_OPTIONS.to_owned(),
                value: parameters[names::PARAMETER_MKFS_OPTIONS].clone(),
                why: "a block volume is not formatted; leave it out".to_owned(),
            }));
        }
        Mode::Block => {}
    }
    let class = Class::parse(&known).map_err(CreateError::Parameter)?;
    Ok((class, mode))
}

fn parameters_without_mkfs(parameters: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut parameters = parameters.clone();
    parameters.remove(names::PARAMETER_MKFS_OPTIONS);
    parameters
}

/// Mount options are checked when the volume is made: a pod that waits for a mount is a poor place to learn of a typo.
fn mount_options(one: &request::Capability, mode: Mode) -> Result<(), BadField> {
    let (request::Access::Mount { flags, .. }, Mode::Filesystem(fs_type)) = (&one.access, mode) else {
        return Ok(());
    };
    crate::mount::Options::parse(fs_type, flags)
        .map(drop)
        .or_else(|error| request::bad("volume_capabilities", format!("mount_flags: {error}")))
}

/// Finds the volume of that name, or makes it.
pub fn run(engine: &Engine, filesystems: &Filesystems, wanted: &CreateVolume) -> Result<VolumeView, CreateError> {
    filesystems.offer(wanted.mode).map_err(CreateError::NotOffered)?;
    engine.create(wanted).map_err(CreateError::Engine)
}
