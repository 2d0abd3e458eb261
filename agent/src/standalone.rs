//! The agent without Kubernetes: pools, wipe queue, CSI and admin sockets, until it is told to end.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bedplate_blockdev::Host;
use bedplate_blockdev::scratch::remove_stale_scratch;
use bedplate_core::class::MediaDemand;
use bedplate_core::disk::DeviceNumber;
use bedplate_core::media::Media;
use bedplate_provisioner::config::PoolConfig;
use bedplate_provisioner::engine::{Engine, OpenError};
use bedplate_provisioner::queue::WipeQueue;
use bedplate_provisioner::store::chain;
use bedplate_provisioner::surroundings::Surroundings;

use crate::admin::{self, Admin, AdminError};
use crate::config::Config;
use crate::discover::{Opened, Settings, discover};
use crate::metrics::Metrics;
use crate::surroundings::carries;
use crate::throttle;

/// How long calls may run on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(20);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum StandaloneError {
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

/// Serve until `shutdown` resolves. `ready` is called once both sockets answer.
///
/// # Errors
/// See [`StandaloneError`].
pub async fn run(
    config: Config,
    host: Arc<dyn Host>,
    surroundings: Arc<dyn Surroundings>,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), StandaloneError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state_dir)
        .map_err(|source| StandaloneError::StateDir { path: config.state_dir.clone(), source })?;
    // The sockets first: a second agent is told so before it waits for anything else.
    let csi = bedplate_csi::server::bind(&config.csi_socket).map_err(StandaloneError::Bind)?;
    let admin_socket = admin::bind(&config.admin_socket).map_err(StandaloneError::Admin)?;
    let mut settings = config.engine(crate::VERSION);
    let engine = tokio::task::spawn_blocking(move || {
        look_at_pools(&mut settings.pools);
        Engine::open(host, surroundings, settings)
    })
    .await
    .map_err(StandaloneError::Interrupted)?
    .map_err(StandaloneError::Engine)?;
    let engine = Arc::new(engine);
    let pause = throttle::by_pressure(PathBuf::from("/proc"), config.wipe.pause_above_io_pressure_percent);
    let queue = WipeQueue::start(&engine, &pause).map_err(StandaloneError::Queue)?;
    let metrics = Arc::new(Metrics::new().map_err(StandaloneError::Metrics)?);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let until_stopped = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        // An error means the sender is gone: the end as well.
        let _ = stopped.wait_for(|end| *end).await;
    };
    let scratch = config.state_dir.join("scratch");
    let routes = bedplate_provisioner::csi::routes(engine.clone(), scratch).map_err(StandaloneError::Mounts)?;
    let serve_csi = bedplate_csi::server::serve(csi, routes, until_stopped(stopped.clone()), DRAIN);
    let serve_admin = admin::serve(admin_socket, Admin { engine: engine.clone(), metrics }, until_stopped(stopped));
    ready();
    let serving = async {
        tokio::try_join!(async { serve_csi.await.map_err(StandaloneError::Csi) }, async {
            serve_admin.await.map_err(StandaloneError::Admin)
        },)
        .map(|_| ())
    };
    tokio::pin!(serving, shutdown);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        why = closed(&engine) => {
            let _ = stop.send(true);
            let _ = serving.await;
            Err(StandaloneError::LedgerClosed(why))
        }
        () = &mut shutdown => {
            tracing::info!("ending");
            // Nobody listens any more only if serving has ended already.
            let _ = stop.send(true);
            serving.await
        }
    };
    // Stops wipes at their next piece; they go on from their checkpoints at the next start.
    if let Err(error) = tokio::task::spawn_blocking(move || drop(queue)).await {
        tracing::error!(error = %error, "the wipe queue did not end well");
    }
    ended
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

/// Before the pools are opened: remove what a killed probe left in them, and find out their medium where the operator
/// does not say. Neither is needed to serve, so neither failure ends the start.
fn look_at_pools(pools: &mut [PoolConfig]) {
    for pool in pools.iter() {
        match remove_stale_scratch(&pool.directory) {
            Ok(stale) if stale.removed.is_empty() => {}
            Ok(stale) => {
                tracing::info!(pool = %pool.name, removed = ?stale.removed, "removed what a killed probe left");
            }
            Err(error) => tracing::debug!(pool = %pool.name, error = %chain(&error), "no look for left-over probes"),
        }
    }
    if pools.iter().all(|pool| pool.media.is_some()) {
        return;
    }
    let report = match discover(&Settings::default(), &Opened) {
        Ok(report) => report,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "media of pools are unknown, classes that ask for one do not fit");
            return;
        }
    };
    for pool in pools.iter_mut().filter(|pool| pool.media.is_none()) {
        let Ok(stat) = nix::sys::stat::stat(&pool.directory) else { continue };
        let (major, minor) = (nix::sys::stat::major(stat.st_dev), nix::sys::stat::minor(stat.st_dev));
        let (Ok(major), Ok(minor)) = (u32::try_from(major), u32::try_from(minor)) else { continue };
        let disk = report.disks.iter().find(|disk| carries(disk, DeviceNumber { major, minor }));
        pool.media = disk.and_then(|disk| match disk.classification.media {
            Media::Nvme => Some(MediaDemand::Nvme),
            Media::Ssd => Some(MediaDemand::Ssd),
            Media::Hdd => Some(MediaDemand::Hdd),
            Media::Unknown => None,
        });
        let medium = pool.media.map_or("unknown", MediaDemand::name);
        tracing::info!(pool = %pool.name, medium, "medium of the pool's disk, by discovery");
    }
}
