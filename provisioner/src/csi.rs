//! The CSI services: Identity, Controller and Node over one volume engine.
//!
//! Three layers. `request` and `topology` read arguments and are pure; `controller::*` and `node::*` do one call each, in
//! a blocking thread, under a lock on what they touch; the `tonic` traits at the edge only bring the two together. Every
//! error is mapped to a gRPC code in one exhaustive `match` per call, beside the call.
//! Never does: remember what the ledger or the mount table knows, or touch a device.

mod controller;
mod deadline;
mod filesystems;
mod identity;
mod locks;
mod node;
mod reply;
mod request;
mod topology;
mod view;

use filesystems::Filesystems;
use view::{Phase, View};

use crate::engine::{Engine, ServeError};
use crate::mount::{Device, MountError, clear_scratch};
use bedplate_core::filesystem::FsType;
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::Mode;
use bedplate_csi::v1::controller_server::ControllerServer;
use bedplate_csi::v1::identity_server::IdentityServer;
use bedplate_csi::v1::node_server::NodeServer;
use locks::Locks;
use node::memory::Memory;
use std::path::PathBuf;
use std::sync::Arc;
use tonic::service::Routes;

/// To whom the services are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// To any orchestrator: Identity, Controller and Node.
    Everything,
    /// To a kubelet alone, volumes being asked for by API objects: Identity and Node.
    NodeOnly,
}

/// Everything the services share.
#[derive(Clone)]
struct Driver {
    offer: Offer,
    engine: Arc<Engine>,
    filesystems: Arc<Filesystems>,
    locks: Locks,
    memory: Arc<Memory>,
    scratch: Arc<PathBuf>,
}

/// The services of one node, ready to be served on a socket. `scratch` is an own empty folder, private to this process:
/// read-only publications pass through a mount there.
///
/// # Errors
/// The scratch folder cannot be made, or what a crash left mounted there cannot be taken away.
pub fn routes(engine: Arc<Engine>, scratch: PathBuf, offer: Offer) -> Result<Routes, MountError> {
    std::fs::create_dir_all(&scratch).map_err(|source| MountError::Io {
        doing: "make the scratch folder",
        path: scratch.clone(),
        source,
    })?;
    clear_scratch(&scratch)?;
    let driver = Driver {
        offer,
        engine,
        filesystems: Arc::new(Filesystems::default()),
        locks: Locks::default(),
        memory: Arc::new(Memory::default()),
        scratch: Arc::new(scratch),
    };
    let routes = Routes::new(IdentityServer::new(driver.clone())).add_service(NodeServer::new(driver.clone()));
    Ok(match offer {
        Offer::Everything => routes.add_service(ControllerServer::new(driver)),
        Offer::NodeOnly => routes,
    })
}

/// Filesystems that this node can make and mount now.
pub fn filesystems() -> Vec<FsType> {
    let node = Filesystems::default();
    FsType::ALL.into_iter().filter(|fs| node.offer(Mode::Filesystem(*fs)).is_ok()).collect()
}

/// Why a volume's device is not known.
#[derive(Debug, thiserror::Error)]
enum DeviceError {
    /// The engine said no.
    #[error(transparent)]
    Engine(ServeError),
    /// The node cannot be looked at.
    #[error(transparent)]
    Mount(MountError),
}

/// The device that serves a volume now, if one does.
fn device(engine: &Engine, id: &VolumeId) -> Result<Option<Device>, DeviceError> {
    let path = match engine.device(id) {
        Ok(path) => path,
        // The pool is gone but a mount may still be there, and a pod that waits for its end. The backing file's name
        // holds 128 bits drawn for this volume: a loop device on such a file is this volume's.
        Err(ServeError::PoolAbsent { .. }) => {
            let file = engine.state(id).map(|volume| volume.spec().file.clone());
            file.and_then(|file| Device::backed_by(&file)).map(|device| device.path)
        }
        Err(error) => return Err(DeviceError::Engine(error)),
    };
    path.map(|path| Device::at(&path).map_err(DeviceError::Mount)).transpose()
}
