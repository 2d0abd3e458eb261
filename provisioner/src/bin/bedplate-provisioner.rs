//! `bedplate-provisioner`: flags, logging, signals; everything else is in the library's cluster half.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use bedplate_provisioner::cluster::config::{Config, LeaseTimes};
use bedplate_provisioner::cluster::run::run;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Hardware-aware local storage: claims, admission, capacity and release, for a whole cluster.
#[derive(Debug, Parser)]
#[command(name = "bedplate-provisioner", version, about)]
struct Args {
    /// How to reach the API server; absent for the pod's own account or the user's default.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Where the Lease and the CSIStorageCapacities live.
    #[arg(long, env = "BEDPLATE_NAMESPACE", default_value = "bedplate-system")]
    lease_namespace: String,
    /// Who this one is in the Lease and in Events: its pod's name.
    #[arg(long, env = "BEDPLATE_IDENTITY")]
    identity: Option<String>,
    /// Seconds that others wait after the last sign of life before they take over.
    #[arg(long, env = "BEDPLATE_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=300))]
    lease_seconds: u64,
    /// Health and metrics.
    #[arg(long, env = "BEDPLATE_LISTEN", default_value = "0.0.0.0:9818")]
    listen: SocketAddr,
    /// What to log: error, warn, info, debug, or a filter such as `bedplate_provisioner=debug,info`.
    #[arg(long, env = "BEDPLATE_LOG", default_value = "info")]
    log: String,
    /// Log as JSON lines.
    #[arg(long, env = "BEDPLATE_LOG_JSON")]
    log_json: bool,
}

fn main() -> ExitCode {
    match start(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedplate-provisioner: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> anyhow::Result<()> {
    let Args { kubeconfig, lease_namespace, identity, lease_seconds, listen, log, log_json } = args;
    bedplate_blockdev::memory::keep_small();
    bedplate_edge::logging::begin(&log, log_json)?;
    if lease_namespace.is_empty() {
        bail!("--lease-namespace is empty; name the namespace that this runs in");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
        let stop = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let client = bedplate_edge::client::connect(kubeconfig.as_deref()).await?;
        let lease = times(lease_seconds);
        let identity = identity.unwrap_or_else(|| format!("bedplate-provisioner-{}", std::process::id()));
        let config = Config { listen: Some(listen), lease, ..Config::new(lease_namespace, identity) };
        tracing::info!(version = env!("CARGO_PKG_VERSION"), %listen, "started");
        run(client, config, stop).await?;
        Ok(())
    })
}

/// A leader stops writing at two thirds of the time after which others take over.
const fn times(seconds: u64) -> LeaseTimes {
    let duration = Duration::from_secs(seconds);
    LeaseTimes {
        duration,
        deadline: Duration::from_millis(seconds * 1000 * 2 / 3),
        retry: Duration::from_millis(seconds * 1000 * 2 / 15),
    }
}
