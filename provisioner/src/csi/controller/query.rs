//! The calls that only look: ValidateVolumeCapabilities, GetCapacity, ControllerGetVolume.

use super::create::{self, CreateError};
use super::volume;
use crate::csi::reply::status;
use crate::csi::request::{self, Access, BadField, CapabilityError};
use crate::csi::{Driver, Phase, View, topology};
use crate::engine::Engine;
use bedplate_core::volume::{GRAIN, Mode};
use bedplate_csi::v1::controller_get_volume_response::VolumeStatus;
use bedplate_csi::v1::validate_volume_capabilities_response::Confirmed;
use bedplate_csi::v1::{
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, GetCapacityRequest, GetCapacityResponse,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
};
use std::collections::BTreeMap;
use tonic::{Code, Status};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error(transparent)]
    Field(BadField),
    #[error("field parameters")]
    Parameter(#[source] CreateError),
    #[error("volume {0:?} does not exist")]
    Unknown(String),
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        let code = match error {
            QueryError::Field(_) | QueryError::Parameter(_) => Code::InvalidArgument,
            QueryError::Unknown(_) => Code::NotFound,
        };
        status(code, &error)
    }
}

fn find(engine: &Engine, text: &str) -> Result<View, QueryError> {
    let id = request::volume_id(text).map_err(QueryError::Field)?;
    let found = View::find(engine, &id).filter(|view| view.phase != Phase::Gone);
    found.ok_or_else(|| QueryError::Unknown(text.to_owned()))
}

/// Whether a volume has all the capabilities asked for; if not, the message says why.
pub fn validate(
    engine: &Engine,
    given: ValidateVolumeCapabilitiesRequest,
) -> Result<ValidateVolumeCapabilitiesResponse, Status> {
    request::volume_id(&given.volume_id).map_err(QueryError::Field)?;
    // Malformed arguments come first, but a well-formed capability that is impossible is an answer, not an error.
    let wanted = match request::capabilities(&given.volume_capabilities) {
        Ok(wanted) => Ok(wanted),
        Err(CapabilityError::Malformed(field)) => return Err(QueryError::Field(field).into()),
        Err(CapabilityError::Unsupported(field)) => Err(field.to_string()),
    };
    let view = find(engine, &given.volume_id)?;
    let verdict = wanted.and_then(|wanted| {
        wanted.iter().try_for_each(|one| unmet(&view, one).map_or(Ok(()), Err))?;
        let foreign = given.parameters.iter().find(|(key, value)| view.parameters.get(*key) != Some(value));
        match (foreign, given.mutable_parameters.keys().min()) {
            (Some((key, _)), _) => Err(format!("parameter {key:?} is not what the volume was made with")),
            (_, Some(key)) => Err(format!("mutable parameter {key:?} is not supported")),
            (None, None) => Ok(()),
        }
    });
    Ok(match verdict {
        Ok(()) => ValidateVolumeCapabilitiesResponse {
            confirmed: Some(Confirmed {
                volume_context: given.volume_context,
                volume_capabilities: given.volume_capabilities,
                parameters: given.parameters,
                mutable_parameters: given.mutable_parameters,
            }),
            message: String::new(),
        },
        Err(message) => ValidateVolumeCapabilitiesResponse { confirmed: None, message },
    })
}

/// Why the volume cannot be used like that, if it cannot.
pub fn unmet(view: &View, wanted: &request::Capability) -> Option<String> {
    match (&wanted.access, view.mode) {
        (Access::Block, Mode::Block) => None,
        (Access::Block, Mode::Filesystem(has)) => Some(format!("the volume carries {has} and is not offered as block")),
        (Access::Mount { .. }, Mode::Block) => Some("the volume is offered as block and carries no filesystem".into()),
        (Access::Mount { fs_type: Some(wants), .. }, Mode::Filesystem(has)) if *wants != has => {
            Some(format!("the volume carries {has}, not {wants}"))
        }
        (Access::Mount { flags, .. }, Mode::Filesystem(has)) => {
            crate::mount::Options::parse(has, flags).err().map(|error| error.to_string())
        }
    }
}

/// Room for volumes of that kind on this node.
pub fn capacity(driver: &Driver, given: &GetCapacityRequest) -> Result<GetCapacityResponse, Status> {
    let parameters = request::map("parameters", &given.parameters).map_err(QueryError::Field)?;
    let parameters: BTreeMap<String, String> = parameters.clone().into_iter().collect();
    let none = || GetCapacityResponse { maximum_volume_size: Some(0), ..GetCapacityResponse::default() };
    let mut capabilities = Vec::new();
    for one in &given.volume_capabilities {
        match request::capability("volume_capabilities", one) {
            Ok(one) => capabilities.push(one),
            Err(CapabilityError::Malformed(field)) => return Err(QueryError::Field(field).into()),
            Err(CapabilityError::Unsupported(_)) => return Ok(none()),
        }
    }
    let (class, mode) = create::class(&parameters, &capabilities).map_err(QueryError::Parameter)?;
    if given.accessible_topology.as_ref().is_some_and(|wanted| !topology::matches(wanted, driver.engine.node())) {
        return Ok(none());
    }
    if driver.filesystems.offer(mode).is_err() {
        return Ok(none());
    }
    let (largest, total) = driver.engine.room(&class);
    let (largest, total, smallest) = (largest.get(), total.get(), smallest(mode));
    if largest < smallest {
        return Ok(none());
    }
    let clamp = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok(GetCapacityResponse {
        available_capacity: clamp(total),
        maximum_volume_size: Some(clamp(largest)),
        minimum_volume_size: Some(clamp(smallest)),
    })
}

/// One volume and how it is.
pub fn get(driver: &Driver, given: &ControllerGetVolumeRequest) -> Result<ControllerGetVolumeResponse, Status> {
    let view = find(&driver.engine, &given.volume_id)?;
    Ok(ControllerGetVolumeResponse {
        volume: Some(volume(&view, driver)),
        status: Some(VolumeStatus { published_node_ids: Vec::new(), volume_condition: Some(view.condition()) }),
    })
}

/// The smallest volume of that mode, in bytes.
fn smallest(mode: Mode) -> u64 {
    mode.smallest().next_multiple_of(GRAIN)
}
