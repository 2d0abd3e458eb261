//! A cluster for the provisioner's tests: the embedded API server, provisioners, and the parts of others played by small
//! tasks ([`agent`](super::agent), [`binder`](super::binder)).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use bedplate_api::{LocalVolume, StorageNode, names};
use bedplate_provisioner::cluster::config::{Config, LeaseTimes, Patience};
use bedplate_provisioner::cluster::run::run;
use bedplate_sim::ApiServer;
use bedplate_sim::apiserver::Options;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::{CSINode, CSIStorageCapacity, StorageClass};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const SYSTEM: &str = "bedplate-system";

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub server: ApiServer,
    pub client: Client,
}

/// A provisioner that runs until it is stopped.
pub struct Provisioner {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Provisioner {
    /// Stop it in due form.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap();
    }

    /// End it as kill -9 does.
    pub fn kill(self) {
        self.task.abort();
    }
}

impl Drop for Provisioner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn config(identity: &str) -> Config {
    let second = Duration::from_secs(1);
    Config {
        lease: LeaseTimes { duration: second, deadline: second * 2 / 3, retry: second / 10 },
        patience: Patience {
            sibling: second * 3,
            agent: second,
            node: second / 2,
            answer: second,
            record: second / 2,
            rewound: Duration::from_millis(500),
            capacity: second / 20,
        },
        ..Config::new(SYSTEM.to_owned(), identity.to_owned())
    }
}

impl World {
    pub async fn new() -> Self {
        if let Ok(filter) = std::env::var("BEDPLATE_LOG") {
            drop(tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init());
        }
        let server = ApiServer::start(Options::default()).unwrap();
        let client = server.client().unwrap();
        let world = Self { server, client };
        world.make_crds().await;
        let system: Namespace = object(json!({"metadata": {"name": SYSTEM}}));
        Api::all(world.client.clone()).create(&PostParams::default(), &system).await.unwrap();
        world.class("ssd", &[]).await;
        world
    }

    pub async fn make_crds(&self) {
        let crds = Api::all(self.client.clone());
        for crd in bedplate_api::crds::all() {
            crds.create(&PostParams::default(), &crd).await.unwrap();
        }
        until("the CRDs are served", || async {
            let locals: Api<LocalVolume> = self.all();
            let storages: Api<StorageNode> = self.all();
            locals.list(&ListParams::default()).await.is_ok() && storages.list(&ListParams::default()).await.is_ok()
        })
        .await;
    }

    pub fn provisioner(&self) -> Provisioner {
        self.provisioner_with(config("p"))
    }

    pub fn provisioner_with(&self, config: Config) -> Provisioner {
        let client = self.server.client().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move { run(client, config, async { drop(stopped.await) }).await.unwrap() });
        Provisioner { stop: Some(stop), task }
    }

    pub fn all<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::ClusterResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    pub fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn class(&self, name: &str, parameters: &[(&str, &str)]) {
        self.class_with(name, parameters, json!({})).await;
    }

    pub async fn class_with(&self, name: &str, parameters: &[(&str, &str)], more: Value) {
        let parameters: BTreeMap<&str, &str> = parameters.iter().copied().collect();
        let mut class = json!({
            "metadata": {"name": name}, "provisioner": names::DRIVER, "parameters": parameters,
            "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Delete",
        });
        merge(&mut class, more);
        self.all().create(&PostParams::default(), &object::<StorageClass>(class)).await.unwrap();
    }

    /// A Node whose kubelet knows the driver.
    pub async fn node(&self, name: &str) {
        let node: Node = object(json!({"metadata": {"name": name}}));
        self.all().create(&PostParams::default(), &node).await.unwrap();
        let csi: CSINode = object(json!({"metadata": {"name": name}, "spec": {"drivers": [
            {"name": names::DRIVER, "nodeID": name, "topologyKeys": [names::TOPOLOGY_NODE]}
        ]}}));
        self.all().create(&PostParams::default(), &csi).await.unwrap();
    }

    /// A claim as the control plane leaves it when the scheduler has chosen a node.
    pub async fn claim(&self, name: &str, class: &str, size: &str, node: &str) -> PersistentVolumeClaim {
        self.claim_with(name, class, size, json!({"metadata": {"annotations": selected(node)}})).await
    }

    pub async fn claim_with(&self, name: &str, class: &str, size: &str, more: Value) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                "resources": {"requests": {"storage": size}},
            },
        });
        merge(&mut claim, more);
        self.claims().create(&PostParams::default(), &object(claim)).await.unwrap()
    }

    /// What the scheduler does.
    pub async fn select(&self, claim: &str, node: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": selected(node)}}));
        self.claims().patch(claim, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn pod(&self, name: &str, claims: &[&str]) {
        let volumes: Vec<Value> =
            claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
        let pod: Pod = object(json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i"}], "volumes": volumes},
        }));
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }

    pub async fn get_claim(&self, name: &str) -> Option<PersistentVolumeClaim> {
        self.claims().get_opt(name).await.unwrap()
    }

    pub async fn selected_node(&self, claim: &str) -> Option<String> {
        self.get_claim(claim).await?.annotations().get(names::ANNOTATION_SELECTED_NODE).cloned()
    }

    pub async fn is_bound(&self, claim: &str) -> bool {
        let claim = self.get_claim(claim).await;
        claim.and_then(|claim| claim.status).and_then(|status| status.phase).as_deref() == Some("Bound")
    }

    pub async fn volume_of(&self, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
        self.all().get_opt(&format!("pvc-{}", claim.uid().unwrap())).await.unwrap()
    }

    pub async fn volumes(&self) -> Vec<PersistentVolume> {
        self.all().list(&ListParams::default()).await.unwrap().items
    }

    pub async fn locals(&self) -> Vec<LocalVolume> {
        self.all().list(&ListParams::default()).await.unwrap().items
    }

    pub async fn capacities(&self) -> Vec<CSIStorageCapacity> {
        let api: Api<CSIStorageCapacity> = Api::namespaced(self.client.clone(), SYSTEM);
        api.list(&ListParams::default()).await.unwrap().items
    }

    pub async fn delete_claim(&self, name: &str) {
        self.claims().delete(name, &DeleteParams::default()).await.unwrap();
        // No pod uses it: what the protection controller does.
        if self.get_claim(name).await.is_some() {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            self.claims().patch(name, &PatchParams::default(), &patch).await.unwrap();
        }
    }

    /// Events about an object, as "Reason: note".
    pub async fn events(&self, kind: &str, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::all(self.client.clone());
        let list = events.list(&ListParams::default()).await.unwrap();
        let about = |event: &Event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            regarding.kind.as_deref() == Some(kind) && regarding.name.as_deref() == Some(name)
        };
        let text = |event: &Event| {
            format!("{}: {}", event.reason.clone().unwrap_or_default(), event.note.clone().unwrap_or_default())
        };
        list.items.iter().filter(|event| about(event)).map(text).collect()
    }

    /// Wait for an Event about a claim whose text holds all of these.
    pub async fn told(&self, claim: &str, holds: &[&str]) {
        until(&format!("claim {claim} is told {holds:?}"), || async {
            let events = self.events("PersistentVolumeClaim", claim).await;
            events.iter().any(|text| holds.iter().all(|part| text.contains(part)))
        })
        .await;
    }

    pub async fn until_bound(&self, claim: &str) {
        until(&format!("claim {claim} is bound"), || self.is_bound(claim)).await;
    }

    pub async fn until_sent_back(&self, claim: &str) {
        until(&format!("claim {claim} is sent back"), || async { self.selected_node(claim).await.is_none() }).await;
    }

    /// Wait until the provisioner has had every chance to act: a claim made now is bound.
    pub async fn settle(&self, node: &str) {
        let name = format!("settle-{}", self.server.revision());
        self.claim(&name, "ssd", "1Mi", node).await;
        self.until_bound(&name).await;
    }
}

pub fn selected(node: &str) -> Value {
    json!({ names::ANNOTATION_PROVISIONER: names::DRIVER, names::ANNOTATION_SELECTED_NODE: node })
}

pub fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Wait for a condition, in small steps.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let begun = std::time::Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// That something stays so, for a good while longer than the provisioner needs to act.
pub async fn stays<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(1200) {
        assert!(condition().await, "not any more: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn patch_status<K>(api: &Api<K>, name: &str, status: impl Serialize)
where
    K: Clone + DeserializeOwned + Debug,
{
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}
