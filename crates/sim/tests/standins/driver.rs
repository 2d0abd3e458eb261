//! A CSI driver of a few lines: "mounts" by symbolic links, and writes down every call.

use bedplate_csi::registration::registration_server::{Registration, RegistrationServer};
use bedplate_csi::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use bedplate_csi::server::{bind, serve};
use bedplate_csi::v1::node_server::{Node, NodeServer};
use bedplate_csi::v1::node_service_capability::rpc::Type as RpcType;
use bedplate_csi::v1::node_service_capability::{Rpc, Type};
use bedplate_csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse,
    NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest,
    NodeUnstageVolumeResponse, Topology,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// What a driver was told.
#[derive(Default)]
pub struct Heard {
    /// `stage <handle>` and so on.
    pub calls: Vec<String>,
    pub stages: Vec<NodeStageVolumeRequest>,
    pub publishes: Vec<NodePublishVolumeRequest>,
    pub registrations: Vec<RegistrationStatus>,
}

#[derive(Clone)]
struct Fake {
    heard: Arc<Mutex<Heard>>,
    info: PluginInfo,
    /// Its value of topology `t`.
    zone: String,
    /// Handles that it refuses to stage.
    broken: Arc<Mutex<Vec<String>>>,
    /// Where the volumes' contents are.
    store: PathBuf,
}

/// A served driver named `d`; its registration socket goes when it is stopped.
pub struct Driver {
    pub heard: Arc<Mutex<Heard>>,
    pub broken: Arc<Mutex<Vec<String>>>,
    stop: Arc<Notify>,
    serving: tokio::task::JoinHandle<()>,
}

impl Driver {
    /// Serves below a kubelet's root, through a registration socket of this name.
    pub fn start(root: &Path, socket: &str, version: &str, zone: &str) -> Self {
        let endpoint = root.join("plugins").join(socket);
        let registry = root.join("plugins_registry").join(socket);
        let info = PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: "d".to_owned(),
            endpoint: endpoint.display().to_string(),
            supported_versions: vec![version.to_owned()],
        };
        let (heard, broken) = (Arc::<Mutex<Heard>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let fake = Fake {
            heard: heard.clone(),
            broken: broken.clone(),
            info,
            zone: zone.to_owned(),
            store: root.join("store"),
        };
        for folder in [endpoint.parent(), registry.parent()].into_iter().flatten() {
            std::fs::create_dir_all(folder).unwrap();
        }
        let (node, registration) = (bind(&endpoint).unwrap(), bind(&registry).unwrap());
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            let ended = || stopped.notified();
            let node = serve(node, Routes::new(NodeServer::new(fake.clone())), ended(), Duration::ZERO);
            let registration = serve(registration, Routes::new(RegistrationServer::new(fake)), ended(), Duration::ZERO);
            let (node, registration) = tokio::join!(node, registration);
            node.and(registration).unwrap();
        });
        Self { heard, broken, stop, serving }
    }

    pub fn calls(&self) -> Vec<String> {
        self.heard.lock().unwrap().calls.clone()
    }

    /// The last answer to its registration: taken or why not.
    pub fn registered(&self) -> Option<Result<(), String>> {
        let heard = self.heard.lock().unwrap();
        heard.registrations.last().map(|it| if it.plugin_registered { Ok(()) } else { Err(it.error.clone()) })
    }

    pub async fn stop(self) {
        self.stop.notify_waiters();
        self.serving.await.unwrap();
    }
}

impl Fake {
    fn call(&self, what: &str, handle: &str) {
        self.heard.lock().unwrap().calls.push(format!("{what} {handle}"));
    }
}

#[tonic::async_trait]
impl Registration for Fake {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        self.heard.lock().unwrap().registrations.push(request.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl Node for Fake {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call("stage", &request.volume_id);
        if self.broken.lock().unwrap().contains(&request.volume_id) {
            return Err(Status::failed_precondition("this volume is lost"));
        }
        assert!(Path::new(&request.staging_target_path).is_dir(), "the kubelet makes it");
        self.heard.lock().unwrap().stages.push(request);
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        self.call("unstage", &request.into_inner().volume_id);
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call("publish", &request.volume_id);
        let (content, target) = (self.store.join(&request.volume_id), Path::new(&request.target_path));
        std::fs::create_dir_all(&content)?;
        if target.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(content, target)?;
        }
        self.heard.lock().unwrap().publishes.push(request);
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        self.call("unpublish", &request.volume_id);
        std::fs::remove_file(&request.target_path).ok();
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let stages = Rpc { r#type: RpcType::StageUnstageVolume as i32 };
        let capabilities = vec![NodeServiceCapability { r#type: Some(Type::Rpc(stages)) }];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Result<Response<NodeGetInfoResponse>, Status> {
        let segments = HashMap::from([("t".to_owned(), self.zone.clone())]);
        Ok(Response::new(NodeGetInfoResponse {
            node_id: format!("id-{}", self.zone),
            accessible_topology: Some(Topology { segments }),
            max_volumes_per_node: 0,
        }))
    }
}
