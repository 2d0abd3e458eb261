//! Plays orchestrator: makes, mounts, unmounts and deletes volumes through CSI calls on the agent's socket, as Kubernetes
//! would, and takes the time of each.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bedplate_core::names;
use bedplate_csi::v1::controller_client::ControllerClient;
use bedplate_csi::v1::identity_client::IdentityClient;
use bedplate_csi::v1::node_client::NodeClient;
use bedplate_csi::v1::volume_capability::access_mode::Mode;
use bedplate_csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use bedplate_csi::v1::{
    CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, GetPluginInfoRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::interrupt::Interrupt;

/// How long a call may take.
const CALL: Duration = Duration::from_mins(1);
/// How long one DeleteVolume waits before it is repeated.
const DELETE_CALL: Duration = Duration::from_secs(15);
/// How long a deletion may take in all.
const DELETE: Duration = Duration::from_mins(4);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Want {
    /// The claim's namespace.
    pub namespace: &'static str,
    /// The claim's name.
    pub claim: &'static str,
    /// The claim's uid.
    pub uid: String,
    /// The filesystem in it.
    pub fs_type: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Want {
    fn capability(&self) -> VolumeCapability {
        let mount = MountVolume { fs_type: self.fs_type.to_owned(), ..MountVolume::default() };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            access_type: Some(AccessType::Mount(mount)),
        }
    }

    /// Demands a wipe that overwrites everything and reads everything back: an agent that cannot promise that refuses.
    fn parameters(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            (names::PARAMETER_WIPE, "clear".to_owned()),
            (names::PARAMETER_VERIFY, "full".to_owned()),
            (names::METADATA_CLAIM_NAMESPACE, self.namespace.to_owned()),
            (names::METADATA_CLAIM_NAME, self.claim.to_owned()),
            (names::METADATA_CLAIM_UID, self.uid.clone()),
        ])
    }
}

/// A client of the agent's CSI services.
#[derive(Clone)]
pub struct Orchestrator {
    channel: Channel,
    interrupt: Interrupt,
}

impl Orchestrator {
    /// Connect to the agent's socket.
    pub async fn connect(socket: &Path, interrupt: Interrupt) -> anyhow::Result<Self> {
        let channel = interrupt.unless(bedplate_csi::client::connect(socket)).await??;
        Ok(Self { channel, interrupt })
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    async fn call<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> anyhow::Result<(T, Duration)> {
        let begun = Instant::now();
        match self.interrupt.unless(call).await? {
            Ok(answer) => Ok((answer.into_inner(), begun.elapsed())),
            Err(status) => bail!("{name}: {:?}: {}", status.code(), status.message()),
        }
    }

    /// The driver's name and version.
    pub async fn driver(&self) -> anyhow::Result<(String, String)> {
        let mut identity = IdentityClient::new(self.channel.clone());
        let (info, _) =
            self.call("GetPluginInfo", identity.get_plugin_info(timed(GetPluginInfoRequest {}, CALL))).await?;
        Ok((info.name, info.vendor_version))
    }

    /// CreateVolume: the volume's id.
    pub async fn create(&self, want: &Want) -> anyhow::Result<(String, Duration)> {
        let bytes = i64::try_from(want.bytes).context("the size is too large for a CSI call")?;
        let request = CreateVolumeRequest {
            name: format!("pvc-{}", want.uid),
            capacity_range: Some(CapacityRange { required_bytes: bytes, limit_bytes: bytes }),
            volume_capabilities: vec![want.capability()],
            parameters: want.parameters().into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            ..CreateVolumeRequest::default()
        };
        let (made, took) = self.call("CreateVolume", self.controller().create_volume(timed(request, CALL))).await?;
        Ok((made.volume.context("CreateVolume answered without a volume")?.volume_id, took))
    }

    /// NodeStageVolume.
    pub async fn stage(&self, id: &str, want: &Want, staging: &str) -> anyhow::Result<Duration> {
        let request = NodeStageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: staging.to_owned(),
            volume_capability: Some(want.capability()),
            ..NodeStageVolumeRequest::default()
        };
        Ok(self.call("NodeStageVolume", self.node().node_stage_volume(timed(request, CALL))).await?.1)
    }

    /// NodePublishVolume.
    pub async fn publish(&self, id: &str, want: &Want, staging: &str, target: &str) -> anyhow::Result<Duration> {
        let request = NodePublishVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: staging.to_owned(),
            target_path: target.to_owned(),
            volume_capability: Some(want.capability()),
            ..NodePublishVolumeRequest::default()
        };
        Ok(self.call("NodePublishVolume", self.node().node_publish_volume(timed(request, CALL))).await?.1)
    }

    /// NodeUnpublishVolume.
    pub async fn unpublish(&self, id: &str, target: &str) -> anyhow::Result<Duration> {
        let request = NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path: target.to_owned() };
        Ok(self.call("NodeUnpublishVolume", self.node().node_unpublish_volume(timed(request, CALL))).await?.1)
    }

    /// NodeUnstageVolume.
    pub async fn unstage(&self, id: &str, staging: &str) -> anyhow::Result<Duration> {
        let request = NodeUnstageVolumeRequest { volume_id: id.to_owned(), staging_target_path: staging.to_owned() };
        Ok(self.call("NodeUnstageVolume", self.node().node_unstage_volume(timed(request, CALL))).await?.1)
    }

    /// DeleteVolume, repeated while the answer is "not yet": OK means that the wipe was verified.
    pub async fn delete(&self, id: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        loop {
            let request = timed(DeleteVolumeRequest { volume_id: id.to_owned(), ..Default::default() }, DELETE_CALL);
            match self.interrupt.unless(self.controller().delete_volume(request)).await? {
                Ok(_) => return Ok(begun.elapsed()),
                Err(status) => match status.code() {
                    Code::Aborted | Code::DeadlineExceeded | Code::Cancelled if begun.elapsed() < DELETE => {}
                    code => bail!("DeleteVolume of {id}: {code:?}: {}", status.message()),
                },
            }
        }
    }
}

fn timed<T>(message: T, time: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}
