//! What every agent does, with Kubernetes or without: engine, wipe queue, CSI and admin sockets, until it is told to end.
//!
//! [`Open`] is a node half that is opened and not served yet, so that a front can look at it first; [`Open::serve`] runs
//! it together with the front's own work.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedplate_blockdev::Host;
use bedplate_core::ids::NodeName;
use bedplate_provisioner::csi::Offer;
use bedplate_provisioner::engine::{Engine, OpenError};
use bedplate_provisioner::queue::WipeQueue;
use bedplate_provisioner::surroundings::Surroundings;

use crate::admin::{self, Admin, AdminError};
use crate::config::Config;
use crate::discover::Roots;
use crate::metrics::Metrics;
use crate::throttle;

/// How long calls may run on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(20);

/// How often a socket's place is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum ServingError {
    #[error("state directory {path} cannot be made")]
    StateDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("volumes cannot be served")]
    Engine(#[source] OpenError),
    #[error("the engine's start was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
    #[error("the wipe queue cannot start")]
    Queue(#[source] std::io::Error),
    #[error("metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
    #[error("what the last run left mounted cannot be taken away")]
    Mounts(#[source] bedplate_provisioner::mount::MountError),
    #[error("CSI cannot be served")]
    Bind(#[source] bedplate_csi::server::BindError),
    #[error("CSI cannot be served")]
    Csi(#[source] bedplate_csi::server::ServeError),
    #[error("the ledger could not be written ({0}); nothing is lost: mend the state directory's disk and start again")]
    LedgerClosed(String),
    #[error("the admin socket cannot be served")]
    Admin(#[source] AdminError),
}

/// The node half, open and not served yet.
pub struct Open {
    /// The volumes.
    pub engine: Arc<Engine>,
    /// Their wipes.
    pub queue: Arc<WipeQueue>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    csi: bedplate_csi::server::Bound,
    admin: bedplate_csi::server::Bound,
    routes: tonic::service::Routes,
}

impl Open {
    /// Bind the sockets, open the engine, start the wipe queue. `look` is called with the engine's settings before it
    /// opens, on a thread that may block.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub async fn new(
        config: &Config,
        node: &NodeName,
        host: Arc<dyn Host>,
        surroundings: Arc<dyn Surroundings>,
        offer: Offer,
        look: impl FnOnce(&mut Vec<bedplate_provisioner::config::PoolConfig>) + Send + 'static,
    ) -> Result<Self, ServingError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.state_dir)
            .map_err(|source| ServingError::StateDir { path: config.state_dir.clone(), source })?;
        // The sockets first: a second agent is told so before it waits for anything else.
        let csi = bedplate_csi::server::bind(&config.csi_socket).map_err(ServingError::Bind)?;
        let admin = admin::bind(&config.admin_socket).map_err(ServingError::Admin)?;
        let mut settings = config.engine(node, crate::VERSION);
        let engine = tokio::task::spawn_blocking(move || {
            look(&mut settings.pools);
            Engine::open(host, surroundings, settings)
        })
        .await
        .map_err(ServingError::Interrupted)?
        .map_err(ServingError::Engine)?;
        let engine = Arc::new(engine);
        let pause = throttle::by_neighbours(&Roots::default(), config.wipe.pause_above_io_pressure_percent);
        let queue = Arc::new(WipeQueue::start(&engine, &pause).map_err(ServingError::Queue)?);
        let metrics = Arc::new(Metrics::new().map_err(ServingError::Metrics)?);
        let scratch = config.state_dir.join("scratch");
        let routes = bedplate_provisioner::csi::routes(engine.clone(), scratch, offer).map_err(ServingError::Mounts)?;
        Ok(Self { engine, queue, metrics, csi, admin, routes })
    }

    /// Serve until `shutdown` resolves or serving fails; `front` runs meanwhile and ends with it.
    ///
    /// # Errors
    /// See [`ServingError`].
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        front: impl Future<Output = std::convert::Infallible>,
    ) -> Result<(), ServingError> {
        let Self { engine, queue, metrics, csi, admin, routes } = self;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let until_stopped = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
            // An error means the sender is gone: the end as well.
            let _ = stopped.wait_for(|end| *end).await;
        };
        let serve_csi = serve_csi(csi, routes, until_stopped(stopped.clone()));
        let serve_admin = admin::serve(admin, Admin { engine: engine.clone(), metrics }, until_stopped(stopped));
        let serving = async {
            tokio::try_join!(serve_csi, async { serve_admin.await.map_err(ServingError::Admin) },).map(|_| ())
        };
        let ended = {
            tokio::pin!(serving, shutdown, front);
            tokio::select! {
                ended = &mut serving => ended,
                never = &mut front => match never {},
                why = closed(&engine) => {
                    let _ = stop.send(true);
                    let _ = serving.await;
                    Err(ServingError::LedgerClosed(why))
                }
                () = &mut shutdown => {
                    tracing::info!("ending");
                    // Nobody listens any more only if serving has ended already.
                    let _ = stop.send(true);
                    serving.await
                }
            }
        };
        // Stops wipes at their next piece; they go on from their checkpoints at the next start.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(queue)).await {
            tracing::error!(error = %error, "the wipe queue did not end well");
        }
        ended
    }
}

/// Serve CSI until `stop` resolves. A socket that somebody takes away (a kubelet's folder that is set up anew) is made
/// again: whoever has it open is served to the end of its calls.
async fn serve_csi(
    bound: bedplate_csi::server::Bound,
    routes: tonic::service::Routes,
    stop: impl Future<Output = ()>,
) -> Result<(), ServingError> {
    let path = bound.path().to_owned();
    let mut next = Some(bound);
    tokio::pin!(stop);
    loop {
        let bound = match next.take() {
            Some(bound) => bound,
            None => bedplate_csi::server::bind(&path).map_err(ServingError::Bind)?,
        };
        let mut stopped = false;
        let end = async {
            tokio::select! {
                () = &mut stop => stopped = true,
                () = until_gone(&path) => tracing::warn!(socket = %path.display(), "the CSI socket is gone, it is made again"),
            }
        };
        bedplate_csi::server::serve(bound, routes.clone(), end, DRAIN).await.map_err(ServingError::Csi)?;
        if stopped {
            return Ok(());
        }
    }
}

/// Resolves when what is at `socket` is not what is there now.
pub(crate) async fn until_gone(socket: &Path) {
    let now = || std::fs::symlink_metadata(socket).ok().map(|found| (found.dev(), found.ino()));
    let ours = now();
    loop {
        tokio::time::sleep(LOOK).await;
        if now() != ours {
            return;
        }
    }
}

/// Resolves when the ledger has closed itself: then only a restart, which reads it again, can go on.
async fn closed(engine: &Engine) -> String {
    let mut look = tokio::time::interval(Duration::from_millis(500));
    loop {
        look.tick().await;
        if let Some(why) = engine.failure() {
            return why;
        }
    }
}
