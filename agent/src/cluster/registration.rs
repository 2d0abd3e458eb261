//! Registration with the kubelet, in this process: a socket in its registry folder, and what it answered.
//!
//! A kubelet finds plugins by sockets in `<kubelet>/plugins_registry`, asks each for its name and endpoint, and says
//! whether it took it. The socket is made again when it or the folder is gone: a kubelet that was set up anew, another
//! kubelet root mounted over the first. The folder itself is the kubelet's to make.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedplate_api::StorageNode;
use bedplate_api::names::{DRIVER, PLUGIN_VERSION, REGISTRATION_SOCKET};
use bedplate_core::chain::chain;
use bedplate_csi::registration::registration_server::{Registration, RegistrationServer};
use bedplate_csi::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use bedplate_csi::server::{bind, serve};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::Context;
use super::events::Notice;
use crate::serving::{LOOK, until_gone};

/// Run for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let folder = context.settings.kubelet_root.join("plugins_registry");
    let socket = folder.join(REGISTRATION_SOCKET);
    let mut said = String::new();
    loop {
        let trouble = if folder.is_dir() {
            match bind(&socket) {
                Ok(bound) => {
                    said.clear();
                    tracing::info!(socket = %socket.display(), endpoint = %context.settings.endpoint.display(), "waiting for the kubelet");
                    context.metrics.registered(false);
                    context.board.registered.send_replace(None);
                    let routes = Routes::new(RegistrationServer::new(Plugin { context: context.clone() }));
                    let gone = until_gone(&socket);
                    match serve(bound, routes, gone, LOOK).await {
                        Ok(()) => "the registration socket is gone, it is made again".to_owned(),
                        Err(error) => chain(&error),
                    }
                }
                Err(error) => chain(&error),
            }
        } else {
            format!("{} is not there: no kubelet has this root; set --kubelet-root", folder.display())
        };
        if trouble != said {
            tracing::warn!(trouble, "not registered with the kubelet");
            said = trouble;
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Plugin {
    context: Arc<Context>,
}

impl Plugin {
    fn about(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(StorageNode::api_version(&()).into_owned()),
            kind: Some(StorageNode::kind(&()).into_owned()),
            name: Some(self.context.node.to_string()),
            ..ObjectReference::default()
        }
    }
}

#[tonic::async_trait]
impl Registration for Plugin {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(info(&self.context.settings.endpoint)))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        let answer = if plugin_registered {
            tracing::info!("registered with the kubelet");
            Ok(())
        } else {
            tracing::error!(error, "the kubelet refuses this driver; pods of this node cannot use its volumes");
            let note = format!("the kubelet of node {} refuses the driver: {error}", self.context.node);
            self.context.events.tell(Notice::warning(self.about(), "RegistrationRefused", note));
            Err(error)
        };
        self.context.metrics.registered(answer.is_ok());
        self.context.board.registered.send_replace(Some(answer));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

fn info(endpoint: &Path) -> PluginInfo {
    PluginInfo {
        r#type: "CSIPlugin".to_owned(),
        name: DRIVER.to_owned(),
        endpoint: PathBuf::from(endpoint).display().to_string(),
        supported_versions: vec![PLUGIN_VERSION.to_owned()],
    }
}
