//! `bedplate-agent`: flags, logging, signals; everything else is in the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use bedplate_agent::config::Config;
use bedplate_agent::standalone;
use bedplate_agent::surroundings::NodeSurroundings;
use bedplate_blockdev::linux::{LinuxHost, Roots};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Hardware-aware local storage: the node agent.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Serve CSI on a socket, with no Kubernetes at all.
    #[arg(long, env = "BEDPLATE_STANDALONE")]
    standalone: bool,
    /// Configuration file (TOML).
    #[arg(long, env = "BEDPLATE_CONFIG", default_value = "/etc/bedplate/agent.toml")]
    config: PathBuf,
    /// Read and check the configuration, say so, and end.
    #[arg(long)]
    check: bool,
    /// What to log: error, warn, info, debug, or a filter such as `bedplate_provisioner=debug,info`.
    #[arg(long, env = "BEDPLATE_LOG", default_value = "info")]
    log: String,
    /// Log as JSON lines.
    #[arg(long, env = "BEDPLATE_LOG_JSON")]
    log_json: bool,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedplate-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let Args { standalone, config: path, check, log, log_json } = args;
    bedplate_blockdev::memory::keep_small();
    logging(&log, log_json)?;
    let config = Config::load(&path)?;
    if check {
        println!("{} is good: node {}, {} pool(s)", path.display(), config.node, config.pools.len());
        return Ok(());
    }
    if !standalone {
        bail!("this version serves CSI without Kubernetes only; start it with --standalone");
    }
    if !nix::unistd::Uid::effective().is_root() {
        bail!(
            "volumes need root (loop devices, mounts, looking at other processes' use); run as root, or use \
             `bedplate disks` to look at the disks this user may see"
        );
    }
    // Two runtime threads: the work is in the kernel and in blocking threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_stack_size(512 << 10)
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
        let shutdown = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let roots = Roots::default();
        let surroundings = Arc::new(
            NodeSurroundings::new(bedplate_agent::discover::Settings::default())
                .context("the boot id cannot be read")?,
        );
        let socket = config.csi_socket.display().to_string();
        let ready = || tracing::info!(socket, version = bedplate_agent::VERSION, "ready");
        standalone::run(config, Arc::new(LinuxHost::new(roots)), surroundings, shutdown, ready).await?;
        Ok(())
    })
}

fn logging(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("--log {filter:?} is no filter; use info, debug or crate=level"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
    Ok(())
}
