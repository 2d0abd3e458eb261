//! `bedplate-agent`: flags, logging, signals; everything else is in the library.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use bedplate_agent::config::{Config, Mode};
use bedplate_agent::surroundings::NodeSurroundings;
use bedplate_agent::{cluster, discover, standalone};
use bedplate_api::names::PLUGIN_FOLDER;
use bedplate_blockdev::linux::{LinuxHost, Roots};
use bedplate_core::ids::NodeName;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Where a configuration is looked for that nobody names.
const CONFIG: &str = "/etc/bedplate/agent.toml";

/// Hardware-aware local storage: the node agent.
#[derive(Debug, Parser)]
#[command(version, about)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Args {
    /// Serve CSI on a socket, with no Kubernetes at all.
    #[arg(long, env = "BEDPLATE_STANDALONE")]
    standalone: bool,
    /// Configuration file (TOML) [default: /etc/bedplate/agent.toml; in a cluster it need not be there].
    #[arg(long, env = "BEDPLATE_CONFIG")]
    config: Option<PathBuf>,
    /// Name of this machine's Node object, at most 63 characters.
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// The kubelet's root folder, at the same path as the kubelet sees it.
    #[arg(long, env = "BEDPLATE_KUBELET_ROOT", default_value = "/var/lib/kubelet")]
    kubelet_root: PathBuf,
    /// Where ledger and receipts lie [default: as the configuration says, else /var/lib/bedplate].
    #[arg(long, env = "BEDPLATE_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Where CSI is served [default: as the configuration says; in a cluster <kubelet-root>/plugins/bedplate.dev/csi.sock].
    #[arg(long, env = "BEDPLATE_CSI_SOCKET")]
    csi_socket: Option<PathBuf>,
    /// The CSI socket as the kubelet finds it, where that is another path.
    #[arg(long, env = "BEDPLATE_CSI_HOST_PATH")]
    csi_host_path: Option<PathBuf>,
    /// Where the command line and metrics scrapers ask [default: as the configuration says, else /run/bedplate/admin.sock].
    #[arg(long, env = "BEDPLATE_ADMIN_SOCKET")]
    admin_socket: Option<PathBuf>,
    /// How to reach the API server [default: as a pod does].
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// The host's sysfs.
    #[arg(long, default_value = "/sys")]
    sys_root: PathBuf,
    /// The host's procfs.
    #[arg(long, default_value = "/proc")]
    proc_root: PathBuf,
    /// The host's device nodes.
    #[arg(long, default_value = "/dev")]
    dev_root: PathBuf,
    /// udev's database; need not exist.
    #[arg(long, default_value = "/run/udev")]
    udev_root: PathBuf,
    /// Measure no disk, whatever the configuration says.
    #[arg(long, env = "BEDPLATE_NO_PROBE")]
    no_probe: bool,
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

/// Everything decided before anything is opened.
struct Plan {
    config: Config,
    node: NodeName,
    roots: discover::Roots,
    kubelet_root: PathBuf,
    endpoint: PathBuf,
}

fn run(args: Args) -> anyhow::Result<()> {
    bedplate_blockdev::memory::keep_small();
    bedplate_edge::logging::begin(&args.log, args.log_json)?;
    let plan = plan(&args)?;
    if args.check {
        let file = args.config.as_deref().unwrap_or(Path::new(CONFIG)).display();
        println!("{file} is good: node {}, {} pool(s)", plan.node, plan.config.pools.len());
        return Ok(());
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
    runtime.block_on(serve(args, plan))
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let mode = if args.standalone { Mode::Standalone } else { Mode::Cluster };
    let mut config = match (&args.config, mode) {
        (None, Mode::Cluster) if !Path::new(CONFIG).exists() => Config::without_file(),
        (path, mode) => Config::load(path.as_deref().unwrap_or(Path::new(CONFIG)), mode)?,
    };
    let given = args.node_name.as_deref().map(str::parse::<NodeName>).transpose().context("--node-name")?;
    let node = match (given, config.node.clone()) {
        (Some(given), Some(written)) if given != written && mode == Mode::Cluster => {
            bail!("--node-name is {given}, the configuration says node = {written}: leave one of the two out")
        }
        (given, written) if mode == Mode::Cluster => given.or(written),
        (_, written) => written,
    };
    let node = node.with_context(|| {
        let file = args.config.as_deref().unwrap_or(Path::new(CONFIG)).display();
        format!("configuration {file}: field `node` is not set, and neither is --node-name (NODE_NAME): set one to the name of its Node object")
    })?;
    let unset = Config::without_file();
    if mode == Mode::Cluster && config.csi_socket == unset.csi_socket {
        config.csi_socket = args.kubelet_root.join("plugins").join(PLUGIN_FOLDER).join("csi.sock");
    }
    config.state_dir = args.state_dir.clone().unwrap_or(config.state_dir);
    config.csi_socket = args.csi_socket.clone().unwrap_or(config.csi_socket);
    config.admin_socket = args.admin_socket.clone().unwrap_or(config.admin_socket);
    config.check(mode).map_err(|(field, why)| anyhow::anyhow!("field `{field}`: {why}"))?;
    if !args.kubelet_root.is_absolute() {
        bail!("--kubelet-root {} is not absolute; write the whole path", args.kubelet_root.display());
    }
    Ok(Plan {
        endpoint: args.csi_host_path.clone().unwrap_or_else(|| config.csi_socket.clone()),
        config,
        node,
        roots: discover::Roots {
            sys: args.sys_root.clone(),
            proc: args.proc_root.clone(),
            dev: args.dev_root.clone(),
            run_udev: args.udev_root.clone(),
        },
        kubelet_root: args.kubelet_root.clone(),
    })
}

async fn serve(args: Args, plan: Plan) -> anyhow::Result<()> {
    let Plan { config, node, roots, kubelet_root, endpoint } = plan;
    let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let host = Roots { sys: roots.sys.clone(), dev: roots.dev.clone(), proc: roots.proc.clone() };
    let host = Arc::new(LinuxHost::new(host));
    let discover = discover::Settings { roots, ..discover::Settings::default() };
    let surroundings = Arc::new(NodeSurroundings::new(discover.clone()).context("the boot id cannot be read")?);
    let socket = config.csi_socket.display().to_string();
    let ready = || tracing::info!(socket, version = bedplate_agent::VERSION, "ready");
    if args.standalone {
        standalone::run(config, node, host, surroundings, shutdown, ready).await?;
        return Ok(());
    }
    let settings = cluster::Settings {
        node,
        kubelet_root,
        endpoint,
        discover,
        rescan_seconds: config.cluster.rescan_seconds,
        receipt_days: config.cluster.receipt_days,
        probe: config.probe.enabled && !args.no_probe,
    };
    let client = bedplate_edge::client::connect(args.kubeconfig.as_deref())
        .await
        .context("no way to an API server (to go without Kubernetes, start with --standalone)")?;
    Box::pin(cluster::run(config, settings, client, host, surroundings, shutdown, ready)).await?;
    Ok(())
}
