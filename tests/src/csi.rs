//! CSI over a real socket, in this process: an engine on any host, its wipe queue, and clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedplate_blockdev::Host;
use bedplate_core::bytes::Bytes;
use bedplate_core::class::MediaDemand;
use bedplate_core::wipe::Geometry;
use bedplate_csi::server::{ServeError, bind, serve};
use bedplate_csi::v1::controller_client::ControllerClient;
use bedplate_csi::v1::identity_client::IdentityClient;
use bedplate_csi::v1::node_client::NodeClient;
use bedplate_csi::v1::volume_capability::access_mode::Mode;
use bedplate_csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use bedplate_csi::v1::{CapacityRange, CreateVolumeRequest, VolumeCapability};
use bedplate_provisioner::config::{EngineConfig, PoolConfig};
use bedplate_provisioner::csi::{Offer, routes};
use bedplate_provisioner::engine::Engine;
use bedplate_provisioner::queue::{Throttle, WipeQueue};
use bedplate_provisioner::surroundings::RealSurroundings;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// One binary megabyte, in bytes, as CSI counts.
pub const MIB: i64 = 1 << 20;

/// An engine that is served; stopped when dropped.
pub struct Served {
    /// The engine behind it.
    pub engine: Arc<Engine>,
    serving: Option<JoinHandle<Result<(), ServeError>>>,
    /// The socket.
    pub socket: PathBuf,
    channel: Channel,
    stop: Arc<Notify>,
    queue: Option<WipeQueue>,
    _dir: TempDir,
}

/// What an engine is told in these suites: one SSD pool without a host reserve.
pub fn settings(state_dir: &Path, pool: &Path) -> anyhow::Result<EngineConfig> {
    let mut pool = PoolConfig::new("local".parse()?, pool.to_owned());
    pool.reserve = Bytes(0);
    pool.media = Some(MediaDemand::Ssd);
    Ok(EngineConfig {
        node: "node-1".parse()?,
        state_dir: state_dir.to_owned(),
        pools: vec![pool],
        geometry: Geometry::default(),
        agent_version: "test".to_owned(),
    })
}

impl Served {
    /// Opens an engine on `host` and serves it. `wiping`: whether its wipe queue runs.
    ///
    /// # Errors
    /// Anything that goes wrong on the way.
    pub async fn start(host: Arc<dyn Host>, config: EngineConfig, wiping: bool) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let engine = Arc::new(Engine::open(host, Arc::new(RealSurroundings::new()?), config)?);
        let throttle: Throttle = Arc::new(|_| ());
        let queue = if wiping { Some(WipeQueue::start(&engine, &throttle)?) } else { None };
        let socket = dir.path().join("csi.sock");
        let bound = bind(&socket)?;
        let services = routes(engine.clone(), dir.path().join("scratch"), Offer::Everything)?;
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let drain = Duration::from_secs(20);
        let serving = tokio::spawn(async move { serve(bound, services, stopped.notified(), drain).await });
        let channel = bedplate_csi::client::connect(&socket).await?;
        Ok(Self { engine, serving: Some(serving), socket, channel, stop, queue, _dir: dir })
    }

    /// A client of the Identity service.
    pub fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    /// A client of the Controller service.
    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    /// A client of the Node service.
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// Ends the server and the engine, and returns when both have let go of their state and pools.
    pub async fn stop(mut self) {
        self.stop.notify_one();
        if let Some(serving) = self.serving.take() {
            // Calls are at an end afterwards, and with them every other handle on the engine.
            let _ = serving.await;
        }
    }

    /// Starts the wipe queue, where it does not run yet.
    ///
    /// # Errors
    /// No threads.
    pub fn start_wiping(&mut self) -> anyhow::Result<()> {
        if self.queue.is_none() {
            let throttle: Throttle = Arc::new(|_| ());
            self.queue = Some(WipeQueue::start(&self.engine, &throttle)?);
        }
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.notify_one();
    }
}

/// A mount capability; an empty `fs_type` is the default.
pub fn mount(mode: Mode, fs_type: &str, flags: &[&str]) -> VolumeCapability {
    let mount = MountVolume {
        fs_type: fs_type.to_owned(),
        mount_flags: flags.iter().map(ToString::to_string).collect(),
        ..MountVolume::default()
    };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

/// A block capability.
pub fn block(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(AccessType::Block(BlockVolume {})),
    }
}

/// A request for `mib` MiB of ext4.
pub fn create(name: &str, mib: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange { required_bytes: mib * MIB, limit_bytes: 0 }),
        volume_capabilities: vec![mount(Mode::SingleNodeWriter, "", &[])],
        ..CreateVolumeRequest::default()
    }
}
