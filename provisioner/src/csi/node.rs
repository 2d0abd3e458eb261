//! The Node service: reads the arguments, takes the locks, hands over to one module a call.

pub(super) mod memory;
mod publish;
mod stage;
mod stats;

use super::locks::{Guard, Key};
use super::reply::{blocking, status, status_about};
use super::request::{self, BadField, Capability, CapabilityError};
use super::{Driver, topology};
use bedplate_core::ids::VolumeId;
use bedplate_csi::v1::node_server::Node;
use bedplate_csi::v1::node_service_capability::rpc::Type;
use bedplate_csi::v1::node_service_capability::{self, Rpc};
use bedplate_csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse, VolumeCapability,
};
use std::path::{Path, PathBuf};
use tonic::{Code, Request, Response, Status};

/// What this service offers.
const CAPABILITIES: [Type; 4] =
    [Type::StageUnstageVolume, Type::GetVolumeStats, Type::VolumeCondition, Type::SingleNodeMultiWriter];

/// A volume and a path of it, from a request.
struct Spot {
    id: VolumeId,
    path: PathBuf,
}

impl Spot {
    fn read(volume_id: &str, field: &'static str, path: &str) -> Result<Self, BadField> {
        Ok(Self { id: request::volume_id(volume_id)?, path: request::path(field, path)? })
    }
}

impl Driver {
    /// Locks a volume and a path of it.
    fn hold(&self, spot: &Spot) -> Result<Guard, Status> {
        let keys = vec![Key::Volume(spot.id.to_string()), Key::Path(spot.path.display().to_string())];
        self.locks.take(keys).map_err(|error| status(Code::Aborted, &error))
    }
}

/// Reads the one capability of a node call. An impossible one exceeds what the volume can do: FAILED_PRECONDITION.
fn capability(given: Option<&VolumeCapability>) -> Result<Capability, CapabilityError> {
    const FIELD: &str = "volume_capability";
    let missing = || {
        let why = "is missing; say how the volume will be used".to_owned();
        CapabilityError::Malformed(BadField { field: FIELD, why })
    };
    request::capability(FIELD, given.ok_or_else(missing)?)
}

/// A refused argument of `volume_id`.
fn refused(volume_id: &str, error: &BadField) -> Status {
    status_about(Code::InvalidArgument, "volume", volume_id, error)
}

#[tonic::async_trait]
impl Node for Driver {
    #[tracing::instrument(skip_all, fields(rpc = "NodeStageVolume", volume = %request.get_ref().volume_id.escape_debug()))]
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let given = request.into_inner();
        let id = given.volume_id;
        let spot = Spot::read(&id, "staging_target_path", &given.staging_target_path).map_err(|e| refused(&id, &e))?;
        let wanted = capability(given.volume_capability.as_ref());
        let wanted = wanted.map_err(|error| stage::StageError::from_capability(error).status(&id))?;
        let held = self.hold(&spot)?;
        let driver = self.clone();
        blocking(held, move || {
            stage::stage(&driver, &spot.id, &spot.path, &wanted).map_err(|error| error.status(&id))?;
            Ok(Response::new(NodeStageVolumeResponse {}))
        })
        .await
    }

    #[tracing::instrument(skip_all, fields(rpc = "NodeUnstageVolume", volume = %request.get_ref().volume_id.escape_debug()))]
    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let given = request.into_inner();
        let id = given.volume_id;
        let spot = Spot::read(&id, "staging_target_path", &given.staging_target_path).map_err(|e| refused(&id, &e))?;
        let held = self.hold(&spot)?;
        let driver = self.clone();
        blocking(held, move || {
            stage::unstage(&driver, &spot.id, &spot.path).map_err(|error| error.status(&id))?;
            Ok(Response::new(NodeUnstageVolumeResponse {}))
        })
        .await
    }

    #[tracing::instrument(skip_all, fields(rpc = "NodePublishVolume", volume = %request.get_ref().volume_id.escape_debug()))]
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let given = request.into_inner();
        let id = given.volume_id;
        let spot = Spot::read(&id, "target_path", &given.target_path).map_err(|error| refused(&id, &error))?;
        let wanted = capability(given.volume_capability.as_ref());
        let wanted = wanted.map_err(|error| publish::PublishError::from_capability(error).status(&id))?;
        let staging = match given.staging_target_path.as_str() {
            "" => return Err(publish::PublishError::NoStagingPath.status(&id)),
            text => request::path("staging_target_path", text).map_err(|error| refused(&id, &error))?,
        };
        let held = self.hold(&spot)?;
        let driver = self.clone();
        blocking(held, move || {
            publish::publish(&driver, &spot.id, &staging, &spot.path, wanted, given.readonly)
                .map_err(|error| error.status(&id))?;
            Ok(Response::new(NodePublishVolumeResponse {}))
        })
        .await
    }

    #[tracing::instrument(skip_all, fields(rpc = "NodeUnpublishVolume", volume = %request.get_ref().volume_id.escape_debug()))]
    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let given = request.into_inner();
        let id = given.volume_id;
        let spot = Spot::read(&id, "target_path", &given.target_path).map_err(|error| refused(&id, &error))?;
        let held = self.hold(&spot)?;
        let driver = self.clone();
        blocking(held, move || {
            publish::unpublish(&driver, &spot.id, &spot.path).map_err(|error| error.status(&id))?;
            Ok(Response::new(NodeUnpublishVolumeResponse {}))
        })
        .await
    }

    #[tracing::instrument(skip_all, fields(rpc = "NodeGetVolumeStats", volume = %request.get_ref().volume_id.escape_debug()))]
    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let given = request.into_inner();
        let driver = self.clone();
        blocking((), move || {
            let answer = stats::run(&driver.engine, &given).map_err(|error| error.status(&given.volume_id))?;
            Ok(Response::new(answer))
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented("NodeExpandVolume is not offered: see NodeGetCapabilities"))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capabilities = CAPABILITIES
            .map(|one| NodeServiceCapability {
                r#type: Some(node_service_capability::Type::Rpc(Rpc { r#type: one.into() })),
            })
            .to_vec();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        let node = self.engine.node();
        Ok(Response::new(NodeGetInfoResponse {
            node_id: node.to_string(),
            max_volumes_per_node: 0,
            accessible_topology: Some(topology::of(node)),
        }))
    }
}

/// Places where a volume appears, as a list for people.
fn listed<'a>(places: impl IntoIterator<Item = &'a Path>) -> String {
    places.into_iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}
