//! The Controller service: reads the arguments, takes the locks, hands over to one module a call.

mod create;
mod delete;
mod list;
mod query;

pub(super) use query::unmet;

use super::deadline::patience;
use super::locks::Key;
use super::reply::{blocking, status};
use super::{Driver, View, topology};
use crate::engine::Engine;
use bedplate_core::ids::VolumeId;
use bedplate_csi::v1::controller_server::Controller;
use bedplate_csi::v1::controller_service_capability::rpc::Type;
use bedplate_csi::v1::controller_service_capability::{self, Rpc};
use bedplate_csi::v1::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerGetCapabilitiesRequest,
    ControllerGetCapabilitiesResponse, ControllerGetVolumeRequest, ControllerGetVolumeResponse,
    ControllerModifyVolumeRequest, ControllerModifyVolumeResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerServiceCapability, ControllerUnpublishVolumeRequest,
    ControllerUnpublishVolumeResponse, CreateSnapshotRequest, CreateSnapshotResponse, CreateVolumeRequest,
    CreateVolumeResponse, DeleteSnapshotRequest, DeleteSnapshotResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    GetCapacityRequest, GetCapacityResponse, GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse, Volume,
};
use delete::DeleteError;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Code, Request, Response, Status};

/// What this service offers.
const CAPABILITIES: [Type; 6] = [
    Type::CreateDeleteVolume,
    Type::ListVolumes,
    Type::GetCapacity,
    Type::GetVolume,
    Type::VolumeCondition,
    Type::SingleNodeMultiWriter,
];

/// A volume as the orchestrator sees it.
fn volume(view: &View, driver: &Driver) -> Volume {
    Volume {
        capacity_bytes: i64::try_from(view.bytes).unwrap_or(i64::MAX),
        volume_id: view.id.to_string(),
        accessible_topology: vec![topology::of(driver.engine.node())],
        ..Volume::default()
    }
}

/// Not offered, and says so.
fn unimplemented(rpc: &str) -> Status {
    Status::unimplemented(format!("{rpc} is not offered: see ControllerGetCapabilities"))
}

#[tonic::async_trait]
impl Controller for Driver {
    #[tracing::instrument(skip_all, fields(rpc = "CreateVolume", name = %request.get_ref().name.escape_debug()))]
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let name = request.get_ref().name.clone();
        let wanted = create::read(&request.into_inner(), self.engine.node()).map_err(|error| error.status(&name))?;
        let held = self.locks.take(vec![Key::Name(name.clone())]).map_err(|error| status(Code::Aborted, &error))?;
        let driver = self.clone();
        blocking(held, move || {
            let made =
                create::run(&driver.engine, &driver.filesystems, &wanted).map_err(|error| error.status(&name))?;
            let volume = Volume {
                capacity_bytes: i64::try_from(made.bytes).unwrap_or(i64::MAX),
                volume_id: made.id.to_string(),
                accessible_topology: vec![topology::of(driver.engine.node())],
                ..Volume::default()
            };
            Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
        })
        .await
    }

    #[tracing::instrument(skip_all, fields(rpc = "DeleteVolume", volume = %request.get_ref().volume_id.escape_debug()))]
    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let until = Instant::now() + patience(request.metadata());
        let text = request.into_inner().volume_id;
        let id = delete::read(&text).map_err(|error| error.status(&text))?;
        let held = self.locks.take(vec![Key::Volume(text.clone())]).map_err(|error| status(Code::Aborted, &error))?;
        let (held, engine) = (Arc::new(held), self.engine.clone());
        let step = |act: fn(&Engine, &VolumeId) -> Result<(), DeleteError>| {
            let (engine, id, text) = (engine.clone(), id.clone(), text.clone());
            blocking(held.clone(), move || act(&engine, &id).map_err(|error| error.status(&text)))
        };
        step(delete::release).await?;
        delete::wait(&engine, &id, until).await;
        step(delete::answer).await?;
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    #[tracing::instrument(skip_all, fields(rpc = "ValidateVolumeCapabilities"))]
    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let driver = self.clone();
        blocking((), move || query::validate(&driver.engine, request.into_inner()).map(Response::new)).await
    }

    #[tracing::instrument(skip_all, fields(rpc = "ListVolumes"))]
    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let driver = self.clone();
        blocking((), move || list::run(&driver, &request.into_inner()).map(Response::new)).await
    }

    #[tracing::instrument(skip_all, fields(rpc = "GetCapacity"))]
    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let driver = self.clone();
        blocking((), move || query::capacity(&driver, &request.into_inner()).map(Response::new)).await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capabilities = CAPABILITIES
            .map(|one| ControllerServiceCapability {
                r#type: Some(controller_service_capability::Type::Rpc(Rpc { r#type: one.into() })),
            })
            .to_vec();
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities }))
    }

    #[tracing::instrument(skip_all, fields(rpc = "ControllerGetVolume"))]
    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let driver = self.clone();
        blocking((), move || query::get(&driver, &request.into_inner()).map(Response::new)).await
    }

    async fn controller_publish_volume(
        &self,
        _: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        Err(unimplemented("ControllerPublishVolume"))
    }

    async fn controller_unpublish_volume(
        &self,
        _: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        Err(unimplemented("ControllerUnpublishVolume"))
    }

    async fn create_snapshot(
        &self,
        _: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        Err(unimplemented("CreateSnapshot"))
    }

    async fn delete_snapshot(
        &self,
        _: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        Err(unimplemented("DeleteSnapshot"))
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        Err(unimplemented("ListSnapshots"))
    }

    async fn get_snapshot(&self, _: Request<GetSnapshotRequest>) -> Result<Response<GetSnapshotResponse>, Status> {
        Err(unimplemented("GetSnapshot"))
    }

    async fn controller_expand_volume(
        &self,
        _: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        Err(unimplemented("ControllerExpandVolume"))
    }

    async fn controller_modify_volume(
        &self,
        _: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        Err(unimplemented("ControllerModifyVolume"))
    }
}
