//! Who works in the demo's cluster: Bedplate's own programs beside this one, and stand-ins for what Kubernetes brings.
//!
//! The programs are those that are shipped, started as on a host: one agent a node, the provisioner, the extender.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use bedplate_api::storage_node::PoolStatus;
use bedplate_api::{StorageNode, names};
use bedplate_core::bytes::Bytes;
use bedplate_sim::{Running, controllers, kubelet, scheduler};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::cluster::{Cluster, SYSTEM};
use super::interrupt::Interrupt;
use super::manifests;
use super::nodes::{Node, Sizes};
use super::programs::{Program, Programs};
use super::story::{Story, millis};
use super::workshop::Workshop;
use crate::client::Agent;
use crate::volumes::columns;

/// How long agents may take to tell of their pools.
const PATIENCE: Duration = Duration::from_mins(1);

/// Everybody at work. The stand-ins end when it is dropped; the programs are the workshop's to end.
pub struct Staff {
    standins: Vec<Running>,
    /// What the agents tell of their disks and pools, before any volume; in the order of the nodes.
    pub storage: Vec<StorageNode>,
}

impl Staff {
    /// Start everybody and wait until every pool is offered.
    pub async fn hire(
        story: &mut Story,
        cluster: &Cluster,
        programs: &Programs,
        workshop: &mut Workshop,
        nodes: &[Node],
        sizes: Sizes,
    ) -> anyhow::Result<Self> {
        story.step("A cluster: API server, scheduler, kubelets in this process; Bedplate's own programs beside it");
        cluster.install().await?;
        let extender = free_port()?;
        let standins = standins(cluster, nodes, extender)?;
        start(story, cluster, programs, workshop, nodes, extender).await?;
        for node in nodes {
            cluster.create(&Api::all(cluster.client.clone()), &manifests::pool(node, sizes.pool)?).await?;
        }
        let mut storage = Vec::new();
        for node in nodes {
            let what = format!("{} offers its pool {}", node.name, node.pool);
            match cluster.until(&what, PATIENCE, async || offered(cluster, node).await).await {
                Ok(found) => storage.push(found),
                Err(error) => return Err(error.context(answer(cluster, node).await)),
            }
        }
        cluster
            .until("the provisioner publishes every node's room", PATIENCE, async || published(cluster).await)
            .await?;
        story.table(&table(nodes, &storage));
        for node in nodes.iter().take(1).chain(nodes.last()) {
            story.say(&format!("Labels on Node {}: {}", node.name, labels(cluster, node).await?));
        }
        Ok(Self { standins, storage })
    }

    /// End the stand-ins.
    pub async fn dismiss(self) {
        for standin in self.standins {
            standin.stop().await;
        }
    }
}

/// What Kubernetes itself brings, as ordinary clients.
fn standins(cluster: &Cluster, nodes: &[Node], extender: SocketAddr) -> anyhow::Result<Vec<Running>> {
    let client = &cluster.client;
    let extender = scheduler::ExtenderConfig { url_prefix: format!("http://{extender}"), ..Default::default() };
    let scheduler = scheduler::Options { extenders: vec![extender], ..Default::default() };
    let mut all =
        vec![controllers::start(client, controllers::Options::default()), scheduler::start(client, scheduler)?];
    for node in nodes {
        std::fs::create_dir_all(node.kubelet().join("plugins_registry"))?;
        all.push(kubelet::start(client, kubelet::Options::new(&node.name, node.kubelet())));
    }
    Ok(all)
}

/// Whether the scheduler can know of three nodes with room on flash and one with room on a disk that turns.
async fn published(cluster: &Cluster) -> anyhow::Result<Option<()>> {
    let capacities: Api<CSIStorageCapacity> = Api::namespaced(cluster.client.clone(), SYSTEM);
    let all = capacities.list(&ListParams::default()).await?.items;
    let room = |capacity: &CSIStorageCapacity| {
        capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref()).is_some_and(|size| size.0 != "0")
    };
    let count = |class: &str| all.iter().filter(|c| c.storage_class_name == class && room(c)).count();
    Ok((count("ssd") >= 3 && count("hdd") >= 1).then_some(()))
}

/// Start Bedplate's programs and wait until each says that it serves.
async fn start(
    story: &Story,
    cluster: &Cluster,
    programs: &Programs,
    workshop: &mut Workshop,
    nodes: &[Node],
    extender: SocketAddr,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let run = workshop.path().to_owned();
    let mut serving = Vec::new();
    let shared = [("provisioner", free_port()?), ("extender", extender)];
    for (name, listen) in shared {
        let arguments = ["--kubeconfig".to_owned(), kubeconfig.clone(), "--listen".to_owned(), listen.to_string()];
        let binary = programs.path(&format!("bedplate-{name}"));
        let title = format!("the {name}");
        serving.push((Program::start(&binary, &title, &run, &arguments)?, Answers::Http(listen)));
    }
    for (node, number) in nodes.iter().zip(1..) {
        let folder = run.join(format!("node-{number}"));
        let file = folder.join("agent.toml");
        std::fs::write(&file, config(node)?)?;
        let arguments =
            ["--kubeconfig", &kubeconfig, "--node-name", &node.name, "--no-probe", "--config"].map(Path::new);
        let root = ["--kubelet-root".as_ref(), node.kubelet().as_path()].map(Path::to_owned);
        let arguments = [arguments.map(Path::to_owned).as_slice(), &[file], &root].concat();
        let title = format!("the agent of {}", node.name);
        let agent = Program::start(&programs.path("bedplate-agent"), &title, &folder, &arguments)?;
        serving.push((agent, Answers::Socket(node.agent())));
    }
    let mut told = Vec::new();
    for (program, answers) in serving {
        // The workshop ends it, whatever happens.
        workshop.programs.push(program);
        let Some(program) = workshop.programs.last_mut() else { continue };
        program.ready(&cluster.interrupt, async || answers.ask(&cluster.interrupt).await).await?;
        told.push(format!("{} {}", program.title(), program.pid()));
    }
    story.say(&format!("API server at {}. Processes: {}.", cluster.url(), told.join(", ")));
    story.say(&format!("All of them serve after {}.", millis(begun.elapsed())));
    Ok(())
}

/// How a program says that it serves.
enum Answers {
    /// Over HTTP.
    Http(SocketAddr),
    /// On an agent's admin socket.
    Socket(Agent),
}

impl Answers {
    async fn ask(&self, interrupt: &Interrupt) -> anyhow::Result<()> {
        match self {
            Self::Socket(agent) => interrupt.unless(agent.ready()).await?,
            Self::Http(address) => interrupt.unless(ready(*address)).await?,
        }
    }
}

async fn ready(address: SocketAddr) -> anyhow::Result<()> {
    let client = kube::Client::try_from(kube::Config::new(format!("http://{address}").parse()?))?;
    let request = hyper::Request::get("/readyz").body(Vec::new())?;
    client.request_text(request).await?;
    Ok(())
}

/// A loopback port that is free at this moment.
fn free_port() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no loopback port")?;
    Ok(listener.local_addr()?)
}

/// An agent's configuration file.
fn config(node: &Node) -> anyhow::Result<String> {
    let text = |name: &str| {
        let path = node.folder.join(name);
        path.to_str().map(str::to_owned).with_context(|| format!("{} is not Unicode", path.display()))
    };
    let mut wipe = toml::Table::new();
    // A demonstration does not give way to its neighbours; an agent in service does.
    wipe.insert("pause_above_io_pressure_percent".into(), 100.into());
    let mut file = toml::Table::new();
    file.insert("state_dir".into(), text("state")?.into());
    file.insert("admin_socket".into(), text("admin.sock")?.into());
    file.insert("wipe".into(), wipe.into());
    Ok(toml::to_string(&file)?)
}

/// What a node tells, once its pool is among it.
async fn offered(cluster: &Cluster, node: &Node) -> anyhow::Result<Option<StorageNode>> {
    let found = cluster.storage_nodes().await?.into_iter().find(|found| found.name_any() == node.name);
    let serves = |found: &StorageNode| pool_of(found, node).is_some_and(|pool| pool.absent.is_none() && pool.free > 0);
    Ok(found.filter(serves))
}

/// What the agent says on its Node, for selectors.
async fn labels(cluster: &Cluster, node: &Node) -> anyhow::Result<String> {
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client.clone());
    let found = nodes.get(&node.name).await?;
    let own = found.labels().iter().filter(|(key, _)| key.starts_with(names::LABEL_PREFIX));
    Ok(own.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "))
}

fn pool_of<'a>(storage: &'a StorageNode, node: &Node) -> Option<&'a PoolStatus> {
    storage.status.as_ref()?.pools.iter().find(|pool| pool.name == node.pool)
}

/// What a node's agent answered to its DiskPool, for when it is not offered.
async fn answer(cluster: &Cluster, node: &Node) -> String {
    let pools: Api<bedplate_api::DiskPool> = Api::all(cluster.client.clone());
    let status = pools.get(&node.pool).await.ok().and_then(|pool| pool.status).unwrap_or_default();
    match status.nodes.iter().find(|answer| answer.node == node.name) {
        Some(answer) => format!("its agent answers: {:?} {}", answer.state, answer.message),
        None => "its agent does not answer".to_owned(),
    }
}

fn table(nodes: &[Node], storage: &[StorageNode]) -> String {
    let mut table = columns(&["NODE", "POOL", "MEDIA", "BY", "LIES ON", "ROOM", "WIPES TO"]);
    for (node, storage) in nodes.iter().zip(storage) {
        let Some(pool) = pool_of(storage, node) else { continue };
        table.add_row([
            node.name.clone(),
            pool.name.clone(),
            pool.media.clone(),
            node.word.clone(),
            format!("{} on {}", node.ground.fs_type, node.ground.source),
            Bytes(u64::try_from(pool.free).unwrap_or(0)).to_string(),
            pool.level.map_or_else(|| "no level".to_owned(), |level| format!("{level:?}").to_lowercase()),
        ]);
    }
    table.to_string()
}
