//! What an orchestrator asks of an agent over CSI, one connection a call: agents come and go under it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bedplate_csi::v1::controller_client::ControllerClient;
use bedplate_csi::v1::node_client::NodeClient;
use bedplate_csi::v1::volume_capability::access_mode::Mode;
use bedplate_csi::v1::{
    CreateVolumeRequest, DeleteVolumeRequest, NodeStageVolumeRequest, NodeUnstageVolumeRequest, Volume,
};
use tonic::Request;
use tonic::transport::Channel;

use crate::csi;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// One orchestrator.
#[derive(Clone, Debug)]
pub struct Orchestrator {
    socket: PathBuf,
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}

impl Orchestrator {
    /// For the agent that serves `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    async fn channel(&self) -> Result<Channel> {
        Ok(bedplate_csi::client::connect(&self.socket).await?)
    }

    /// CreateVolume of `mib` MiB of ext4; the volume's id.
    pub async fn create(&self, name: &str, mib: i64) -> Result<String> {
        Ok(self.create_volume(csi::create(name, mib)).await?.volume_id)
    }

    /// CreateVolume as the request says. A refusal is the error's [`tonic::Status`].
    pub async fn create_volume(&self, request: CreateVolumeRequest) -> Result<Volume> {
        let mut client = ControllerClient::new(self.channel().await?);
        let answer = client.create_volume(timed(request)).await?.into_inner();
        answer.volume.context("no volume in the answer")
    }

    /// NodeStageVolume.
    pub async fn stage(&self, id: &str, target: &Path) -> Result<()> {
        let request = NodeStageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: target.display().to_string(),
            volume_capability: Some(csi::mount(Mode::SingleNodeWriter, "", &[])),
            ..NodeStageVolumeRequest::default()
        };
        NodeClient::new(self.channel().await?).node_stage_volume(timed(request)).await?;
        Ok(())
    }

    /// NodeUnstageVolume.
    pub async fn unstage(&self, id: &str, target: &Path) -> Result<()> {
        let staging_target_path = target.display().to_string();
        let request = NodeUnstageVolumeRequest { volume_id: id.to_owned(), staging_target_path };
        NodeClient::new(self.channel().await?).node_unstage_volume(timed(request)).await?;
        Ok(())
    }

    /// DeleteVolume.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.delete_within(id, CALL).await
    }

    /// DeleteVolume by a caller who waits that long.
    pub async fn delete_within(&self, id: &str, patience: Duration) -> Result<()> {
        let mut request = timed(DeleteVolumeRequest { volume_id: id.to_owned(), ..DeleteVolumeRequest::default() });
        request.set_timeout(patience);
        ControllerClient::new(self.channel().await?).delete_volume(request).await?;
        Ok(())
    }
}
