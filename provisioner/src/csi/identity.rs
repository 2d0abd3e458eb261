//! The Identity service: constant answers, with no disk and no lock behind them.

use super::{Driver, Offer};
use bedplate_core::names::DRIVER;
use bedplate_csi::v1::identity_server::Identity;
use bedplate_csi::v1::plugin_capability::service::Type;
use bedplate_csi::v1::plugin_capability::{self, Service};
use bedplate_csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use std::collections::HashMap;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: HashMap::new(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let offered: &[Type] = match self.offer {
            Offer::Everything => &[Type::ControllerService, Type::VolumeAccessibilityConstraints],
            Offer::NodeOnly => &[Type::VolumeAccessibilityConstraints],
        };
        let capabilities = offered
            .iter()
            .map(|one| PluginCapability {
                r#type: Some(plugin_capability::Type::Service(Service { r#type: (*one).into() })),
            })
            .collect();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    /// The socket appears only once the engine is open, so whoever can ask gets a yes.
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}
