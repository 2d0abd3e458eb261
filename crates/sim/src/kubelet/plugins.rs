//! The plugin registry: sockets below `plugins_registry` are asked who they are; a driver that is taken gets its entry in
//! CSINode, its topology on the Node, and is told so. A socket that goes, or is another one, takes its driver along.
//!
//! Refused, in the driver's hearing: another driver of the same name unless its version is higher; a topology value other
//! than the one the node has.

use super::Kubelet;
use bedplate_csi::registration::registration_client::RegistrationClient;
use bedplate_csi::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use bedplate_csi::v1::NodeGetInfoRequest;
use bedplate_csi::v1::node_client::NodeClient;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A refused plugin is asked again after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";

/// A registered driver.
#[derive(Debug, Clone)]
pub(super) struct Driver {
    pub endpoint: PathBuf,
    version: Vec<u64>,
    /// Where it registered.
    socket: PathBuf,
}

/// Registered drivers by name.
pub(super) type Drivers = Mutex<HashMap<String, Driver>>;

/// What tells one socket from its successor under the same name.
type Inode = (u64, i64, i64);

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Kubelet {
    /// Looks at the registry for ever.
    pub(super) async fn watch_registry(&self) {
        // What was tried, and when a refused one is to be tried again.
        let mut known = HashMap::<PathBuf, (Inode, Option<Instant>)>::new();
        loop {
            let found = sockets(&self.options.root.join("plugins_registry"));
            let other = |path: &PathBuf, (inode, _): &(Inode, _)| found.get(path) != Some(inode);
            for path in known.extract_if(|path, it| other(path, it)).map(|(path, _)| path).collect::<Vec<_>>() {
                self.deregister(&path).await;
            }
            for (path, inode) in found {
                if known.get(&path).is_none_or(|(_, retry)| retry.is_some_and(|at| at <= Instant::now())) {
                    let registered = self.register(&path).await;
                    if let Err(error) = &registered {
                        tracing::debug!(path = %path.display(), error, "plugin not registered");
                    }
                    known.insert(path, (inode, registered.is_err().then(|| Instant::now() + RETRY_AFTER)));
                }
            }
            tokio::time::sleep(self.options.look_every).await;
        }
    }

    async fn register(&self, socket: &Path) -> Result<(), Failure> {
        let channel = bedplate_csi::client::connect(socket).await?;
        let mut registration = RegistrationClient::new(channel);
        let info = registration.get_info(InfoRequest {}).await?.into_inner();
        let result = self.admit(socket, &info).await;
        let error = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let status = RegistrationStatus { plugin_registered: result.is_ok(), error };
        registration.notify_registration_status(status).await?;
        result
    }

    async fn admit(&self, socket: &Path, info: &PluginInfo) -> Result<(), Failure> {
        let PluginInfo { r#type: kind, name, endpoint, supported_versions } = info;
        if kind != "CSIPlugin" {
            return Err(format!("no handler registered for plugin type: {kind} at socket {}", socket.display()).into());
        }
        let version = supported_versions.iter().filter_map(|text| version(text)).max();
        let version = version.ok_or_else(|| format!("none of the versions {supported_versions:?} is supported"))?;
        let endpoint = if endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(endpoint) };
        if let Some(existing) = self.drivers.lock().get(name)
            && existing.version >= version
        {
            return Err(format!(
                "validation failed for CSI Driver {name} at endpoint {}: a driver with the same name is already \
                 registered with a higher supported version: {:?}",
                endpoint.display(),
                existing.version
            )
            .into());
        }
        let channel = bedplate_csi::client::connect(&endpoint).await?;
        let node = NodeClient::new(channel).node_get_info(NodeGetInfoRequest {}).await?.into_inner();
        let segments = node.accessible_topology.map(|topology| topology.segments).unwrap_or_default();
        self.label_node(name, &node.node_id, &segments).await?;
        let allocatable = (node.max_volumes_per_node > 0).then(|| json!({ "count": node.max_volumes_per_node }));
        let mut keys: Vec<&String> = segments.keys().collect();
        keys.sort();
        let entry = json!({ "name": name, "nodeID": node.node_id, "topologyKeys": keys, "allocatable": allocatable });
        self.list_driver(name, Some(entry)).await?;
        self.drivers.lock().insert(name.clone(), Driver { endpoint, version, socket: socket.to_owned() });
        Ok(())
    }

    async fn deregister(&self, socket: &Path) {
        let mut gone = Vec::new();
        self.drivers.lock().retain(|name, driver| {
            let stays = driver.socket != socket;
            if !stays {
                gone.push(name.clone());
            }
            stays
        });
        for name in gone {
            if let Err(error) = self.list_driver(&name, None).await {
                tracing::debug!(driver = name, error, "driver's entry not removed");
            }
        }
    }

    async fn label_node(&self, driver: &str, id: &str, segments: &HashMap<String, String>) -> Result<(), Failure> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node = api.get(&self.options.node).await?;
        for (key, value) in segments {
            let existing = node.labels().get(key);
            if let Some(existing) = existing.filter(|existing| *existing != value) {
                return Err(format!(
                    "detected topology value collision: driver reported {key:?}:{value:?} but existing label is \
                     {key:?}:{existing:?}"
                )
                .into());
            }
        }
        let ids = node.annotations().get(NODE_IDS).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let mut ids = ids.unwrap_or_else(|| json!({}));
        ids[driver] = json!(id);
        let metadata = json!({ "labels": segments, "annotations": { NODE_IDS: ids.to_string() } });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        api.patch(&self.options.node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Writes a driver's entry in CSINode, or takes it away.
    async fn list_driver(&self, name: &str, entry: Option<Value>) -> Result<(), Failure> {
        let (api, node) = (Api::<CSINode>::all(self.client.clone()), &self.options.node);
        let current = api.get_opt(node).await?;
        let listed = current.as_ref().map(|current| current.spec.drivers.clone()).unwrap_or_default();
        let others = listed.iter().filter(|driver| driver.name != name).map(|driver| json!(driver));
        let drivers: Vec<Value> = others.chain(entry).collect();
        let spec = json!({ "drivers": drivers });
        let owner = Api::<Node>::all(self.client.clone()).get_opt(node).await?;
        let owners: Vec<_> = owner.iter().filter_map(|owner| owner.owner_ref(&())).collect();
        let version = current.as_ref().and_then(ResourceExt::resource_version);
        let metadata = json!({ "name": node, "ownerReferences": owners, "resourceVersion": version });
        let object = json!({ "metadata": metadata, "spec": spec });
        if current.is_some() {
            api.patch(node, &PatchParams::default(), &Patch::Merge(object)).await?;
        } else {
            api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        }
        Ok(())
    }
}

fn sockets(folder: &Path) -> HashMap<PathBuf, Inode> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let visible = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let sockets = visible.filter_map(|entry| {
        let found = entry.metadata().ok().filter(|found| found.file_type().is_socket())?;
        Some((entry.path(), (found.ino(), found.mtime(), found.mtime_nsec())))
    });
    sockets.collect()
}

/// `1.0.0` as numbers; only versions 0 and 1 of the interface are spoken.
fn version(text: &str) -> Option<Vec<u64>> {
    let numbers: Vec<u64> =
        text.trim_start_matches('v').split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    (numbers.first().copied()? <= 1).then_some(numbers)
}
