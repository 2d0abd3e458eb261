//! The agent's Kubernetes side: a front for the engine like standalone CSI, made of loops that each own one kind of object.
//!
//! The engine knows nothing of Kubernetes and decides everything that touches bytes; these loops carry orders in and tell
//! what happened. Without an API server everything that is on the node goes on: mounts, stages, wipes.

mod board;
mod convert;
mod decide;
mod disks;
mod events;
mod figures;
mod measure;
mod node;
mod node_status;
mod pools;
mod publish;
mod receipts;
mod registration;
mod rival;
mod status;
#[cfg(test)]
mod testing;
mod volumes;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use bedplate_blockdev::Host;
use bedplate_core::ids::NodeName;
use bedplate_provisioner::config::PoolConfig;
use bedplate_provisioner::csi::Offer;
use bedplate_provisioner::engine::Engine;
use bedplate_provisioner::queue::WipeQueue;
use bedplate_provisioner::surroundings::Surroundings;
use kube::Client;

use crate::config::Config;
use crate::discover;
use crate::metrics::Metrics;
use crate::serving::{Open, ServingError};
use crate::standalone::tidy;
use board::Board;
use events::Events;

/// What an agent in a cluster is told beside its configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this machine's Node object.
    pub node: NodeName,
    /// The kubelet's root folder.
    pub kubelet_root: PathBuf,
    /// The CSI socket as the kubelet finds it.
    pub endpoint: PathBuf,
    /// Where disks are looked for.
    pub discover: discover::Settings,
    /// Seconds between two looks at all disks when nothing happens.
    pub rescan_seconds: u64,
    /// For how many days WipeReceipt objects are kept.
    pub receipt_days: u32,
    /// Whether disks are measured.
    pub probe: bool,
}

/// What every loop works with.
struct Context {
    client: Client,
    node: NodeName,
    settings: Settings,
    engine: Arc<Engine>,
    queue: Arc<WipeQueue>,
    metrics: Arc<Metrics>,
    events: Events,
    board: Board,
    /// Pools of the configuration file: never a DiskPool's to change.
    own_pools: Vec<PoolConfig>,
    state_dir: PathBuf,
}

/// Serve until `shutdown` resolves. `ready` is called once both sockets answer.
///
/// # Errors
/// See [`ServingError`].
pub async fn run(
    config: Config,
    settings: Settings,
    client: Client,
    host: Arc<dyn Host>,
    surroundings: Arc<dyn Surroundings>,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), ServingError> {
    let look = |pools: &mut Vec<PoolConfig>| pools.iter().for_each(tidy);
    let node = settings.node.clone();
    let open = Open::new(&config, &node, host, surroundings, Offer::NodeOnly, look).await?;
    let (events, telling) = Events::new(client.clone(), &node);
    let context = Arc::new(Context {
        client,
        node: node.clone(),
        settings,
        engine: open.engine.clone(),
        queue: open.queue.clone(),
        metrics: open.metrics.clone(),
        events,
        board: Board::default(),
        own_pools: config.engine(&node, crate::VERSION).pools,
        state_dir: config.state_dir.clone(),
    });
    // What volumes stand on is opened before anybody asks for them, with or without an API server.
    pools::reopen(&context).await;
    ready();
    let front = async move {
        let mut loops = tokio::task::JoinSet::new();
        loops.spawn(telling);
        loops.spawn(never(registration::run(context.clone())));
        loops.spawn(never(node::run(context.clone())));
        loops.spawn(never(disks::run(context.clone())));
        loops.spawn(never(pools::run(context.clone())));
        loops.spawn(never(volumes::run(context.clone())));
        loops.spawn(never(publish::run(context.clone())));
        loops.spawn(never(receipts::run(context.clone())));
        loops.spawn(never(measure::run(context)));
        while let Some(ended) = loops.join_next().await {
            tracing::error!(error = ?ended.err(), "a part of the agent's Kubernetes side ended; restart the agent");
        }
        std::future::pending().await
    };
    open.serve(shutdown, front).await
}

async fn never(part: impl Future<Output = std::convert::Infallible>) {
    match part.await {}
}
