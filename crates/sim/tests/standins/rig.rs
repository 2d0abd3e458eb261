//! A cluster for one test: server, scheduler, controllers, a provisioner of a few lines, and ways to wait.

use bedplate_sim::apiserver::{self, ApiServer};
use bedplate_sim::{Running, controllers, scheduler};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::Duration;

pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub const NAMESPACE: &str = "default";

/// Of any condition in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Cluster {
    pub client: Client,
    _server: ApiServer,
    running: Vec<Running>,
}

impl Cluster {
    /// A server alone.
    pub fn bare() -> Self {
        let server = ApiServer::start(apiserver::Options::default()).unwrap();
        Self { client: server.client().unwrap(), _server: server, running: Vec::new() }
    }

    pub fn with_controllers(mut self) -> Self {
        let options = controllers::Options { orphans_after: Duration::from_millis(100), ..Default::default() };
        self.running.push(controllers::start(&self.client, options));
        self
    }

    pub fn with_scheduler(mut self, options: scheduler::Options) -> Self {
        self.running.push(scheduler::start(&self.client, options).unwrap());
        self
    }

    /// Answers claims of provisioner `d`: makes a volume on the selected node, or takes the node away where it is told.
    pub fn with_provisioner(mut self, refused: &'static [&'static str]) -> Self {
        let mut tasks = Running::default();
        tasks.spawn(provision(self.client.clone(), refused));
        self.running.push(tasks);
        self
    }

    pub async fn nodes(&self, names: &[&str]) {
        for name in names {
            let labels = json!({ "kubernetes.io/hostname": name, "t": name });
            self.create::<Node>(json!({ "metadata": { "name": name, "labels": labels } })).await;
        }
    }

    /// Class `fast` of driver `d`.
    pub async fn class(&self, mode: &str, storage_capacity: bool) {
        let spec = json!({ "storageCapacity": storage_capacity, "attachRequired": false });
        self.create::<CSIDriver>(json!({ "metadata": { "name": "d" }, "spec": spec })).await;
        let class = json!({ "metadata": { "name": "fast" }, "provisioner": "d", "volumeBindingMode": mode });
        self.create::<StorageClass>(class).await;
    }

    pub async fn capacity(&self, node: &str, size: &str) {
        let capacity = json!({
            "metadata": { "name": format!("capacity-{node}") },
            "storageClassName": "fast",
            "nodeTopology": { "matchLabels": { "t": node } },
            "maximumVolumeSize": size,
            "capacity": size,
        });
        self.create_in::<CSIStorageCapacity>(capacity).await;
    }

    pub async fn claim(&self, name: &str) {
        let claim = json!({ "metadata": { "name": name }, "spec": claim_spec() });
        self.create_in::<PersistentVolumeClaim>(claim).await;
    }

    /// A pod with these claims, and more.
    pub async fn pod(&self, name: &str, claims: &[&str], more: Value) -> Pod {
        let volume = |claim: &&str| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } });
        let mut pod = json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": { "containers": [{ "name": "c", "image": "none" }], "volumes": claims.iter().map(volume).collect::<Vec<_>>() },
        });
        json_patch::merge(&mut pod, &more);
        self.create_in(pod).await
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Serialize,
    {
        let object = serde_json::from_value(object).unwrap();
        Api::all(self.client.clone()).create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn create_in<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Serialize,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    /// The notes of this pod's events of one reason.
    pub async fn notes(&self, pod: &str, reason: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let about = |event: &Event| event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(pod);
        let of = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason) && about(event));
        of.filter_map(|event| event.note).collect()
    }
}

pub fn claim_spec() -> Value {
    json!({
        "storageClassName": "fast",
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": "1Gi" } },
    })
}

/// Waits until an object, or its absence, satisfies; returns it.
pub async fn until<K>(api: &Api<K>, name: &str, wanted: impl Fn(Option<&K>) -> bool) -> Option<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut last = None;
    let looking = async {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let events = watcher(api.clone(), config).default_backoff();
        futures::pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => last = Some(object),
                Ok(watcher::Event::Init | watcher::Event::Delete(_)) => last = None,
                Ok(watcher::Event::InitDone) => {}
                Err(_) => continue,
            }
            if wanted(last.as_ref()) {
                // A list in progress may not have shown it yet: ask.
                if last.is_some() || api.get_opt(name).await.unwrap().is_none() {
                    return;
                }
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, looking).await.is_ok();
    assert!(in_time, "{name} never became as wanted; last seen: {last:#?}");
    last
}

/// Waits for a condition that is not one object's.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn node_of(pod: Option<&Pod>) -> Option<String> {
    pod?.spec.as_ref()?.node_name.clone()
}

pub fn condition(pod: &Pod) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    Some((found.reason.clone()?, found.message.clone()?))
}

/// Fast enough for tests, otherwise the real behaviour.
pub fn quick() -> scheduler::Options {
    let patience = scheduler::Patience {
        initial_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(200),
        asleep_at_most: Duration::from_mins(5),
    };
    scheduler::Options { bind_wait: scheduler::BindWait::Watch, patience, ..Default::default() }
}

async fn provision(client: Client, refused: &'static [&'static str]) {
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let changes = watcher(claims, watcher::Config::default()).default_backoff().applied_objects();
    futures::pin_mut!(changes);
    while let Some(change) = changes.next().await {
        let Ok(claim) = change else { continue };
        let spec = claim.spec.clone().unwrap_or_default();
        let ours = claim.annotations().get(PROVISIONER).is_some_and(|name| name == "d");
        let node = claim.annotations().get(SELECTED_NODE).cloned();
        let (Some(node), true, None) = (node, ours, spec.volume_name) else { continue };
        if refused.contains(&node.as_str()) {
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &claim.namespace().unwrap());
            let patch = json!({ "metadata": { "annotations": { SELECTED_NODE: null } } });
            api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.ok();
            continue;
        }
        let term = json!([{ "matchExpressions": [{ "key": "t", "operator": "In", "values": [node] }] }]);
        let volume = json!({
            "metadata": { "name": format!("pvc-{}", claim.uid().unwrap()), "finalizers": ["d/wipe"] },
            "spec": {
                "capacity": { "storage": "1Gi" },
                "accessModes": spec.access_modes,
                "storageClassName": "fast",
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": claim.namespace(), "name": claim.name_any(), "uid": claim.uid(),
                },
                "csi": { "driver": "d", "volumeHandle": claim.uid() },
                "nodeAffinity": { "required": { "nodeSelectorTerms": term } },
            },
        });
        let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &volume).await.ok();
    }
}
