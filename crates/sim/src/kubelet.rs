//! Stands in for one node's kubelet, as far as volumes see it: registers CSI drivers through the plugin registry, stages
//! and publishes the volumes of the pods on its node, runs each pod's first container as a process of this machine, and
//! takes everything down again.
//!
//! Owns: what lies below its root folder. Never formats or mounts by itself; only drivers do. A kubelet that is started
//! again on the same root finds what its predecessor left. Left out: other containers, probes, images, secrets, fsGroup.

mod paths;
mod plugins;
mod pods;
mod runtime;
mod volumes;

use crate::mirror::{Changes, Running};
use crate::notes::Notes;
use crate::objects::Labels;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use parking_lot::Mutex;
use plugins::Drivers;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use runtime::Runtime;

/// Between two renewals of the node's Lease.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How a kubelet is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its node; made if there is none.
    pub node: String,
    /// Its folder; the real one is `/var/lib/kubelet`.
    pub root: PathBuf,
    /// On the node it makes, beside the usual ones.
    pub labels: Labels,
    /// Runs this node's containers and outlives its kubelets, as containerd does.
    pub runtime: Arc<Runtime>,
    /// How often it looks at the plugin registry, at exited containers, and again at what failed.
    pub look_every: Duration,
}

impl Options {
    /// With a runtime of its own and ten looks a second.
    pub fn new(node: &str, root: impl Into<PathBuf>) -> Self {
        let runtime = Arc::new(Runtime::default());
        let (node, root) = (node.to_owned(), root.into());
        Self { node, root, labels: Labels::new(), runtime, look_every: Duration::from_millis(100) }
    }
}

/// What its tasks share.
struct Kubelet {
    options: Options,
    client: Client,
    drivers: Drivers,
    notes: Notes,
    /// Volumes that this process has published, by pod uid; after a restart all are published again.
    published: Mutex<HashSet<String>>,
    /// One volume is staged or unstaged by one task at a time.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Starts a kubelet; it goes on until the handle is dropped or stopped, which leaves mounts as they are, and containers
/// too while somebody else holds its runtime.
pub fn start(client: &Client, options: Options) -> Running {
    let mut running = Running::default();
    let (changes, changed) = Changes::new();
    let config = Config::default().fields(&format!("spec.nodeName={}", options.node));
    let bump = changes.clone();
    let pods = running.mirror::<Pod>(Api::all(client.clone()), config, (), move |_| bump.bump());
    let kubelet = Arc::new(Kubelet {
        client: client.clone(),
        drivers: Drivers::default(),
        notes: Notes::new(client, "kubelet"),
        published: Mutex::default(),
        locks: Mutex::default(),
        options,
    });
    for folder in ["plugins", "plugins_registry", "pods"] {
        if let Err(error) = std::fs::create_dir_all(kubelet.options.root.join(folder)) {
            tracing::warn!(error = %error, folder, "kubelet folder not made");
        }
    }
    let registry = Arc::clone(&kubelet);
    running.spawn(async move {
        while let Err(error) = register_node(&registry.client, &registry.options).await {
            tracing::debug!(error = %error, "node not registered");
            tokio::time::sleep(registry.options.look_every).await;
        }
        tokio::join!(registry.watch_registry(), registry.heartbeat());
    });
    running.spawn(kubelet.run(pods, changed, changes));
    running
}

impl Kubelet {
    /// Renews the node's Lease for ever: on a real cluster a node whose kubelet does not is soon called lost.
    async fn heartbeat(&self) {
        let (api, name) = (Api::<Lease>::namespaced(self.client.clone(), "kube-node-lease"), &self.options.node);
        let params = PatchParams::apply("kubelet").force();
        loop {
            let renewed = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
                "spec": { "holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed },
            });
            if let Err(error) = api.patch(name, &params, &Patch::Apply(lease)).await {
                tracing::debug!(error = %error, "node lease not renewed");
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    }
}

/// Makes the Node, or says of the one that exists that it is ready. Done at start. After somebody deleted the Node, this
/// brings it back, but its drivers' labels only come back when the kubelet is started again, as the real one's.
///
/// # Errors
/// What the API server answered.
pub async fn register_node(client: &Client, options: &Options) -> Result<(), kube::Error> {
    let (api, name) = (Api::<Node>::all(client.clone()), &options.node);
    let usual = [("kubernetes.io/hostname", name.as_str()), ("kubernetes.io/os", "linux")];
    let mut labels: Labels = usual.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    labels.extend(options.labels.clone());
    let node = json!({ "metadata": { "name": name, "labels": labels } });
    let node = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => drop(made?),
    }
    let now = jiff::Timestamp::now();
    let ready = json!([{ "type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now }]);
    let patch = Patch::Merge(json!({ "status": { "conditions": ready } }));
    api.patch_status(name, &PatchParams::default(), &patch).await.map(|_| ())
}

/// What the containers of pods of this name have written so far, successors after their predecessors.
///
/// # Errors
/// A log that is there cannot be read.
pub fn log(root: &Path, namespace: &str, pod: &str) -> io::Result<String> {
    let prefix = format!("{namespace}_{pod}_");
    let entries = std::fs::read_dir(root.join("logs")).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mut logs: Vec<_> =
        named.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    logs.sort();
    logs.into_iter().map(|(_, path)| Ok(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())).collect()
}
