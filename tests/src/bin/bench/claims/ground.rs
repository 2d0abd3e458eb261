//! One node with a real agent, a real provisioner, and what stands in for the rest of Kubernetes; no scheduler, no extender.

use anyhow::{Context, Result, ensure};
use bedplate_api::{DiskPool, StorageNode};
use bedplate_sim::{ApiServer, Running, apiserver, controllers};
use bedplate_tests::cluster::install::{self, NAMESPACE};
use bedplate_tests::cluster::process::{Program, Readiness, free_address};
use bedplate_tests::cluster::wait::{SOON, until_one};
use bedplate_tests::cluster::{Node, objects};
use bedplate_tests::loopfs::real_dir;
use kube::api::PostParams;
use kube::{Api, Client};
use tempfile::TempDir;

/// The node's name.
pub const NODE: &str = "bench-node";
/// The class of all claims, one of `deploy/`.
pub const CLASS: &str = "ssd";
/// Small, so that what is measured is not the disk; a hundred of them are wiped in each round.
pub const VOLUME_MIB: u64 = 16;
/// The node's disk: twice what the largest crowd asks for.
const DISK_MIB: u64 = 4096;

/// All of it. Taken down in this order: who writes, then the node, then the server.
pub struct Ground {
    /// A client of the API server.
    pub client: Client,
    controllers: Option<Running>,
    provisioner: Program,
    node: Node,
    _server: ApiServer,
    _folder: TempDir,
}

impl Ground {
    /// Starts all of it, and waits until the node tells of a pool with room.
    pub async fn make() -> Result<Self> {
        let server = ApiServer::start(apiserver::Options::default()).context("the embedded API server")?;
        let client = server.client()?;
        install::everything(&client).await?;
        let folder = real_dir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig())?;
        let address = free_address()?;
        let arguments = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--listen={address}"),
            format!("--lease-namespace={NAMESPACE}"),
        ];
        let readiness = Readiness::Port(address, "/readyz");
        let provisioner = Program::new("provisioner", "bedplate-provisioner", folder.path(), arguments, readiness)?;
        let mut ground = Self {
            controllers: Some(controllers::start(&client, controllers::Options::default())),
            provisioner,
            node: Node::new(NODE, folder.path(), &kubeconfig, DISK_MIB)?,
            client,
            _server: server,
            _folder: folder,
        };
        if let Err(error) = ground.run().await {
            ground.last_words();
            return Err(error);
        }
        Ok(ground)
    }

    async fn run(&mut self) -> Result<()> {
        let pool = objects::disk_pool(NODE, NODE, &self.node.pool().display().to_string());
        Api::<DiskPool>::all(self.client.clone()).create(&PostParams::default(), &pool).await?;
        self.node.kubelet.start(&self.client, NODE);
        self.node.agent.launch()?;
        self.provisioner.start().await?;
        self.node.agent.ready().await?;
        let nodes: Api<StorageNode> = Api::all(self.client.clone());
        until_one(nodes, NODE, "tells of a pool with room", SOON, |node| {
            let pools = &node?.status.as_ref()?.pools;
            pools.iter().any(|pool| pool.absent.is_none() && pool.largest_volume > 0).then_some(())
        })
        .await
    }

    /// Resident memory of the provisioner and of the agent, in MiB.
    pub fn resident_mib(&self) -> Result<(f64, f64)> {
        Ok((resident_mib(&self.provisioner)?, resident_mib(&self.node.agent)?))
    }

    /// Shows what both programs said last.
    pub fn last_words(&self) {
        for program in [&self.provisioner, &self.node.agent] {
            println!("===== {} =====\n{}", program.title(), program.last_words());
        }
    }

    /// Ends all of it in due form.
    pub async fn close(&mut self) -> Result<()> {
        self.controllers.take();
        self.provisioner.terminate().await?;
        self.node.agent.terminate().await?;
        self.node.kubelet.stop().await;
        self.node.let_go()
    }
}

fn resident_mib(program: &Program) -> Result<f64> {
    let pid = program.pid().with_context(|| format!("{} does not run", program.title()))?;
    let pages = procfs::process::Process::new(i32::try_from(pid)?)?.statm()?.resident;
    ensure!(pages > 0, "{} has ended", program.title());
    Ok((pages * procfs::page_size()) as f64 / f64::from(1 << 20))
}
