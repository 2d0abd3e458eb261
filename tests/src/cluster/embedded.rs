//! The embedded ground: API server, controllers and scheduler in this process, Bedplate's programs as children.
//!
//! The scheduler is told of the extender what `deploy/scheduler/kubeadm.yaml` tells the real one, but for the address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bedplate_api::{DiskPool, StorageNode};
use bedplate_sim::apiserver::Snapshot;
use bedplate_sim::{ApiServer, Running, apiserver, controllers, scheduler};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use tempfile::TempDir;

use super::install::{self, NAMESPACE};
use super::node::Node;
use super::process::{Program, Readiness, free_address};
use super::wait::{SOON, until, until_gone, until_one};
use super::{Shape, objects};
use crate::engine::{loops_below, mounts_below};
use crate::loopfs::real_dir;
use crate::manifests;

/// Seconds after which a provisioner's lease is another's to take.
const LEASE_SECONDS: u64 = 3;

/// All of it.
pub struct Embedded {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The provisioners.
    pub provisioners: Vec<Program>,
    /// The extender.
    pub extender: Program,
    /// The API server.
    pub server: ApiServer,
    extender_at: SocketAddr,
    scheduler: Option<Running>,
    controllers: Option<Running>,
    client: Client,
    kubeconfig: PathBuf,
    folder: TempDir,
}

impl Embedded {
    /// Starts all of it, and waits until every node tells of a pool with room.
    pub async fn start(shape: &Shape) -> Result<Self> {
        let server = ApiServer::start(apiserver::Options::default())?;
        let client = server.client()?;
        install::everything(&client).await?;
        let folder = real_dir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig())?;
        let extender_at = free_address()?;
        let provisioners = (0..shape.provisioners).map(|index| provisioner(index, folder.path(), &kubeconfig));
        let names = (0..shape.nodes).map(|index| format!("node-{index}"));
        let nodes = names.map(|name| Node::new(&name, folder.path(), &kubeconfig, shape.disk));
        let mut ground = Self {
            nodes: nodes.collect::<Result<_>>()?,
            provisioners: provisioners.collect::<Result<_>>()?,
            extender: extender(folder.path(), &kubeconfig, extender_at)?,
            extender_at,
            server,
            scheduler: None,
            controllers: Some(controllers::start(&client, controllers::Options::default())),
            client,
            kubeconfig,
            folder,
        };
        if let Err(error) = ground.run().await {
            ground.last_words();
            return Err(error);
        }
        Ok(ground)
    }

    async fn run(&mut self) -> Result<()> {
        self.extender.launch()?;
        for provisioner in &mut self.provisioners {
            provisioner.launch()?;
        }
        self.put_pools().await?;
        for node in &mut self.nodes {
            node.kubelet.start(&self.client, &node.name);
            node.agent.launch()?;
        }
        self.extender.ready().await?;
        self.start_scheduler()?;
        for provisioner in &mut self.provisioners {
            provisioner.ready().await?;
        }
        for node in &mut self.nodes {
            node.agent.ready().await?;
        }
        self.serves().await
    }

    /// Asks for each node's pool.
    pub async fn put_pools(&self) -> Result<()> {
        let pools: Api<DiskPool> = Api::all(self.client.clone());
        for node in &self.nodes {
            let pool = objects::disk_pool(&node.name, &node.name, &node.pool().display().to_string());
            pools.create(&PostParams::default(), &pool).await.with_context(|| format!("DiskPool {}", node.name))?;
        }
        Ok(())
    }

    /// Asks for a node's pool where its disk is now: a pool cannot move, so it is another wish.
    pub async fn move_pool(&mut self, name: &str) -> Result<()> {
        let pools: Api<DiskPool> = Api::all(self.client.clone());
        pools.delete(name, &DeleteParams::default()).await?;
        until_gone(pools.clone(), name).await?;
        let node = self.node(name)?;
        let pool = objects::disk_pool(&node.name, &node.name, &node.pool().display().to_string());
        pools.create(&PostParams::default(), &pool).await?;
        Ok(())
    }

    /// Starts the scheduler.
    pub fn start_scheduler(&mut self) -> Result<()> {
        let extender = extender_config(self.extender_at)?;
        let options = scheduler::Options {
            extenders: vec![extender],
            percentage_of_nodes_to_score: Some(100),
            // Stories wait for what they mean to, not for a poll of once a second.
            bind_wait: scheduler::BindWait::Watch,
            ..scheduler::Options::default()
        };
        self.scheduler = Some(scheduler::start(&self.client, options)?);
        Ok(())
    }

    /// Waits until every node's agent tells of its pool, and the kubelet knows the driver.
    pub async fn serves(&self) -> Result<()> {
        let api: Api<StorageNode> = Api::all(self.client.clone());
        let names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        until(api, Config::default(), "a pool with room on every node", SOON, |there| {
            let room = |name: &String| {
                let status = there.get(name)?.status.as_ref()?;
                status.pools.iter().any(|pool| pool.absent.is_none() && pool.largest_volume > 0).then_some(())
            };
            names.iter().all(|name| room(name).is_some()).then_some(())
        })
        .await?;
        for node in &self.nodes {
            let api: Api<k8s_openapi::api::storage::v1::CSINode> = Api::all(self.client.clone());
            until_one(api, &node.name, "has the driver", SOON, |csi| {
                csi?.spec.drivers.iter().any(|driver| driver.name == bedplate_api::names::DRIVER).then_some(())
            })
            .await?;
        }
        Ok(())
    }

    /// The node of that name.
    pub fn node(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    /// A file of this name in one of the volumes of the pod with this uid.
    pub fn file_of(&self, uid: &str, file: &str) -> Option<PathBuf> {
        self.nodes.iter().find_map(|node| node.kubelet.file_of(uid, file))
    }

    /// The kubeconfig that names the server.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A node loses its power: agent, kubelet, pods, mounts and devices are gone, its disk stays. The Node object does, too.
    pub async fn power_off(&mut self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        node.agent.kill_nine()?;
        node.kubelet.power_off().await;
        node.let_go()
    }

    /// It comes back.
    pub async fn power_on(&mut self, name: &str) -> Result<()> {
        let client = self.client.clone();
        let node = self.node(name)?;
        node.kubelet.start(&client, &node.name);
        node.agent.start().await
    }

    /// Restores the API server from a backup, and then, as Kubernetes' own instructions for that ask, restarts everybody who
    /// may still wait for a revision that has not come yet: scheduler, controllers, kubelets, our programs. Pods run on.
    pub async fn restore(&mut self, backup: Snapshot) -> Result<()> {
        self.server.restore(backup);
        self.scheduler.take();
        self.controllers = Some(controllers::start(&self.client, controllers::Options::default()));
        self.start_scheduler()?;
        for node in &mut self.nodes {
            node.kubelet.stop().await;
            node.kubelet.start(&self.client, &node.name);
            node.agent.kill_nine()?;
            node.agent.launch()?;
        }
        for program in self.provisioners.iter_mut().chain([&mut self.extender]) {
            program.kill_nine()?;
            program.start().await?;
        }
        for node in &mut self.nodes {
            node.agent.ready().await?;
        }
        Ok(())
    }

    /// Which provisioner leads.
    pub async fn leader(&self) -> Result<usize> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let titles: Vec<String> = self.provisioners.iter().map(|program| program.title().to_owned()).collect();
        until_one(leases, bedplate_api::names::LEASE, "held by a provisioner of ours", SOON, |lease| {
            let holder = lease?.spec.as_ref()?.holder_identity.clone()?;
            // A process adds something of its own behind its name.
            titles.iter().position(|title| holder == *title || holder.starts_with(&format!("{title}_")))
        })
        .await
    }

    /// Shows what all programs said last.
    pub fn last_words(&self) {
        let programs = self.nodes.iter().map(|node| &node.agent).chain(&self.provisioners).chain([&self.extender]);
        for program in programs {
            println!("===== {} =====\n{}", program.title(), program.last_words());
        }
    }

    /// Copies all logs to where `BEDPLATE_KEEP_LOGS` says, for whoever wants to read all of it.
    fn keep_logs(&self) {
        let Some(keep) = std::env::var_os("BEDPLATE_KEEP_LOGS") else { return };
        let to = Path::new(&keep).join(self.folder.path().file_name().unwrap_or_default());
        let _ = std::fs::create_dir_all(&to);
        for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
            }
        }
        println!("all logs are in {}", to.display());
    }

    /// Ends all of it. What is left mounted or attached then is an error.
    pub async fn close(mut self) -> Result<()> {
        self.keep_logs();
        self.scheduler.take();
        self.controllers.take();
        for node in &mut self.nodes {
            node.agent.kill_nine()?;
            node.kubelet.power_off().await;
            node.let_go()?;
        }
        let roots: Vec<PathBuf> = self.nodes.iter().flat_map(|node| [node.root(), node.pool()]).collect();
        drop(self.nodes);
        for root in roots {
            let (mounts, loops) = (mounts_below(&root), loops_below(&root));
            anyhow::ensure!(mounts.is_empty() && loops.is_empty(), "left behind: {mounts:?} {loops:?}");
        }
        Ok(())
    }
}

fn provisioner(index: usize, folder: &Path, kubeconfig: &Path) -> Result<Program> {
    let (title, address) = (format!("provisioner-{index}"), free_address()?);
    let arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--listen={address}"),
        format!("--identity={title}"),
        format!("--lease-namespace={NAMESPACE}"),
        format!("--lease-seconds={LEASE_SECONDS}"),
    ];
    Program::new(&title, "bedplate-provisioner", folder, arguments, Readiness::Port(address, "/readyz"))
}

fn extender(folder: &Path, kubeconfig: &Path, address: SocketAddr) -> Result<Program> {
    let arguments = vec![format!("--kubeconfig={}", kubeconfig.display()), format!("--listen={address}")];
    Program::new("extender", "bedplate-extender", folder, arguments, Readiness::Port(address, "/readyz"))
}

/// The extender as `deploy/scheduler/kubeadm.yaml` configures it, at this address.
fn extender_config(address: SocketAddr) -> Result<scheduler::ExtenderConfig> {
    let documents = manifests::read(Path::new("scheduler/kubeadm.yaml"))?;
    let said = &documents.first().context("no configuration")?.value["extenders"][0];
    let word = |name: &str| said[name].as_str().map(str::to_owned).with_context(|| format!("extenders[0].{name}"));
    let flag = |name: &str| said[name].as_bool().with_context(|| format!("extenders[0].{name}"));
    let timeout = word("httpTimeout")?;
    let timeout =
        timeout.strip_suffix("ms").and_then(|number| number.parse().ok()).context("extenders[0].httpTimeout")?;
    Ok(scheduler::ExtenderConfig {
        url_prefix: format!("http://{address}"),
        filter_verb: word("filterVerb")?,
        prioritize_verb: word("prioritizeVerb")?,
        weight: said["weight"].as_i64().context("extenders[0].weight")?,
        ignorable: flag("ignorable")?,
        http_timeout: Duration::from_millis(timeout),
        node_cache_capable: flag("nodeCacheCapable")?,
        ..scheduler::ExtenderConfig::default()
    })
}
