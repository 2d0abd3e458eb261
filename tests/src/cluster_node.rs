//! A node of an embedded cluster: an API server with our kinds, a Node object, a kubelet's folders, and the agent's own
//! program on a filesystem of the test's own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bedplate_api::disk_pool::{Backend, DiskPoolSpec};
use bedplate_api::local_volume::{ClaimReference, FsType, LocalVolumeSpec, Phase, Release, ReleaseKind};
use bedplate_api::storage_node::StorageNodeStatus;
use bedplate_api::{DiskPool, LocalVolume, StorageNode};
use bedplate_sim::apiserver::{ApiServer, Options};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tempfile::TempDir;

use crate::agent::{Agent, Place};
use crate::loopfs::real_dir;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The cluster.
pub struct Cluster {
    /// The API server.
    pub server: ApiServer,
    /// A client of it.
    pub client: Client,
}

impl Cluster {
    /// With our kinds, and nothing in it.
    pub async fn start() -> Result<Self> {
        let server = ApiServer::start(Options::default())?;
        let client = server.client()?;
        let cluster = Self { server, client };
        cluster.install().await?;
        Ok(cluster)
    }

    /// Installs our kinds (again).
    pub async fn install(&self) -> Result<()> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for crd in bedplate_api::crds::all() {
            api.create(&PostParams::default(), &crd).await?;
        }
        Ok(())
    }

    /// Our kinds' API.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::ClusterResourceScope>,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }

    /// Makes a Node with labels, as its kubelet does.
    pub async fn node(&self, name: &str, labels: &[(&str, &str)]) -> Result<Node> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
        Ok(self.api().create(&PostParams::default(), &Node { metadata, ..Node::default() }).await?)
    }

    /// Makes a DiskPool of a folder, with no reserve.
    pub async fn pool(&self, name: &str, directory: &Path, change: impl FnOnce(&mut DiskPoolSpec)) -> Result<DiskPool> {
        let mut spec = DiskPoolSpec {
            backend: Backend::Image,
            directory: Some(directory.display().to_string()),
            reserve: Some("0".to_owned()),
            ..DiskPoolSpec::default()
        };
        change(&mut spec);
        Ok(self.api().create(&PostParams::default(), &DiskPool::new(name, spec)).await?)
    }

    /// Asks for a volume of `mib` MiB, as the provisioner does for the claim with this uid.
    pub async fn volume(
        &self,
        node: &StorageNodeStatus,
        on: &str,
        claim: &str,
        mib: i64,
        change: impl FnOnce(&mut LocalVolumeSpec),
    ) -> Result<LocalVolume> {
        let mut spec = LocalVolumeSpec {
            node_name: on.to_owned(),
            ledger_id: node.ledger_id.clone(),
            pool: "fast".to_owned(),
            bytes: mib << 20,
            fs_type: Some(FsType::Ext4),
            claim_uid: claim.to_owned(),
            claim: ClaimReference { namespace: "default".to_owned(), name: "data".to_owned(), ..Default::default() },
            ..LocalVolumeSpec::default()
        };
        change(&mut spec);
        let name = LocalVolume::name_for(claim, spec.attempt);
        Ok(self.api().create(&PostParams::default(), &LocalVolume::new(&name, spec)).await?)
    }

    /// Gives a volume up, as the provisioner does.
    pub async fn release(&self, name: &str, claim: &str, kind: ReleaseKind) -> Result<()> {
        let release = Release { claim_uid: claim.to_owned(), kind };
        let patch = Patch::Merge(json!({ "spec": { "release": release } }));
        self.api::<LocalVolume>().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until a volume is in a phase.
    pub async fn phase(&self, name: &str, phase: Phase) -> Result<LocalVolume> {
        let api: Api<LocalVolume> = self.api();
        eventually(&format!("LocalVolume {name} in phase {phase:?}"), async || {
            let object = api.get_opt(name).await?;
            let there = object.as_ref().and_then(LocalVolume::phase) == Some(phase);
            Ok(if there { Ok(object) } else { Err(format!("{:?}", object.map(|o| o.status))) })
        })
        .await?
        .context("it was there")
    }

    /// Waits until a StorageNode's status is as wanted.
    pub async fn storage_node(
        &self,
        name: &str,
        what: &str,
        is: impl Fn(&StorageNodeStatus) -> bool,
    ) -> Result<StorageNodeStatus> {
        let api: Api<StorageNode> = self.api();
        eventually(&format!("StorageNode {name} with {what}"), async || {
            let status = api.get_opt(name).await?.and_then(|object| object.status);
            Ok(match status {
                Some(status) if is(&status) => Ok(status),
                other => Err(format!("{other:?}")),
            })
        })
        .await
    }
}

/// Looks until it is so; what was seen last is told where it never was.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Result<T, String>>) -> Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(seen) if tokio::time::Instant::now() > deadline => anyhow::bail!("never saw {what}, but {seen}"),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// A machine of the cluster, on which an agent may run.
pub struct Machine {
    /// Name of its Node.
    pub name: String,
    /// The kubelet's root folder.
    pub kubelet: PathBuf,
    /// The agent's files.
    pub place: Place,
    kubeconfig: PathBuf,
    folder: TempDir,
}

impl Machine {
    /// One that a kubelet was set up on.
    pub fn new(cluster: &Cluster, name: &str) -> Result<Self> {
        let folder = real_dir()?;
        let kubelet = folder.path().join("kubelet");
        std::fs::create_dir_all(kubelet.join("plugins_registry"))?;
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, cluster.server.kubeconfig())?;
        let place = Place::new(folder.path(), &folder.path().join("state"));
        Ok(Self { name: name.to_owned(), kubelet, place, kubeconfig, folder })
    }

    /// A folder of this machine.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where CSI is served.
    pub fn csi(&self) -> PathBuf {
        self.kubelet.join("plugins/bedplate.dev/csi.sock")
    }

    /// Starts the agent.
    pub fn agent(&self) -> Result<Agent> {
        self.agent_with(&[])
    }

    /// Starts the agent with further arguments.
    pub fn agent_with(&self, more: &[&OsStr]) -> Result<Agent> {
        let admin = self.place.admin();
        let mut arguments: Vec<&OsStr> = vec![
            "--node-name".as_ref(),
            self.name.as_ref(),
            "--kubelet-root".as_ref(),
            self.kubelet.as_ref(),
            "--state-dir".as_ref(),
            self.place.state().as_ref(),
            "--admin-socket".as_ref(),
            admin.as_ref(),
            "--kubeconfig".as_ref(),
            self.kubeconfig.as_ref(),
            "--no-probe".as_ref(),
        ];
        arguments.extend(more);
        Agent::launch(&self.place, &arguments)
    }
}
