//! The extender fed by an API server: watches, objects it has not seen, lists begun again, waking.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::sync::Arc;
use std::time::Duration;

use bedplate_api::storage_node::{PoolStatus, StorageNodeStatus};
use bedplate_api::{LocalVolume, StorageNode, StorageNodeSpec, crds, names};
use bedplate_extender::fetch::Fetcher;
use bedplate_extender::judge::Verb;
use bedplate_extender::{Index, Judge, Metrics, feed, wake};
use bedplate_sim::apiserver::{ApiServer, Interruption, Options};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;

struct Rig {
    server: ApiServer,
    client: Client,
    judge: Arc<Judge>,
    _watches: JoinSet<()>,
}

async fn create<K>(api: Api<K>, object: Value) -> K
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Two nodes with 10 GiB each and a class `fast`.
async fn rig() -> Rig {
    let server = ApiServer::start(Options::default()).unwrap();
    let client = server.client().unwrap();
    for definition in crds::all() {
        Api::all(client.clone()).create(&PostParams::default(), &definition).await.unwrap();
    }
    for name in ["n0", "n1"] {
        let nodes = Api::<StorageNode>::all(client.clone());
        nodes.create(&PostParams::default(), &StorageNode::new(name, StorageNodeSpec {})).await.unwrap();
        let pool = PoolStatus {
            name: "a".to_owned(),
            backend: "image".to_owned(),
            media: "ssd".to_owned(),
            capacity: 10 << 30,
            free: 10 << 30,
            largest_volume: 10 << 30,
            ..PoolStatus::default()
        };
        let status = StorageNodeStatus {
            ledger_id: "00000000-0000-4000-8000-000000000000".to_owned(),
            filesystems: vec![bedplate_api::local_volume::FsType::Ext4],
            pools: vec![pool],
            ..StorageNodeStatus::default()
        };
        let patch = Patch::Merge(json!({ "status": status }));
        nodes.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }
    create::<StorageClass>(
        Api::all(client.clone()),
        json!({ "metadata": { "name": "fast" }, "provisioner": names::DRIVER, "volumeBindingMode": "WaitForFirstConsumer",
            "parameters": { names::PARAMETER_MEDIA: "ssd" } }),
    )
    .await;
    let (index, metrics) = (Index::new(), Arc::new(Metrics::new().unwrap()));
    let judge =
        Arc::new(Judge { index: index.clone(), fetcher: Fetcher::new(Some(client.clone())), metrics: metrics.clone() });
    let mut watches = feed::begin(&client, &index);
    let waking = client.clone();
    let (waker, counted) = (index.clone(), metrics);
    watches.spawn(async move { wake::run(waking, "default", waker, counted).await });
    until("the index", async || index.synced()).await;
    Rig { server, client, judge, _watches: watches }
}

impl Rig {
    async fn claim(&self, name: &str, class: &str, gib: u64) -> PersistentVolumeClaim {
        let claim = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": { "storageClassName": class,
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": format!("{gib}Gi") } } } });
        create(Api::default_namespaced(self.client.clone()), claim).await
    }

    async fn pod(&self, name: &str, claim: &str) -> Pod {
        let pod = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": {
            "containers": [{ "name": "c", "image": "i" }],
            "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }] } });
        create(Api::default_namespaced(self.client.clone()), pod).await
    }

    async fn filter(&self, pod: &Pod) -> (Vec<String>, Value) {
        let body = json!({ "Pod": pod, "Nodes": null, "NodeNames": ["n0", "n1"] }).to_string();
        let answer = self.judge.answer(Verb::Filter, body.as_bytes(), Duration::from_millis(400)).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        (serde_json::from_value(answer["NodeNames"].clone()).unwrap(), answer["FailedAndUnresolvableNodes"].clone())
    }

    async fn wakes(&self) -> Option<String> {
        let api = Api::<CSIStorageCapacity>::default_namespaced(self.client.clone());
        api.get_opt(names::WAKE_OBJECT).await.unwrap()?.annotations().get(names::ANNOTATION_WAKE).cloned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_made_a_moment_ago_is_found_and_a_class_in_name_only_is_not_ours() {
    let rig = rig().await;
    for i in 0..10 {
        let name = format!("c{i}");
        rig.claim(&name, "fast", 1).await;
        let pod = rig.pod(&format!("p{i}"), &name).await;
        assert_eq!(rig.filter(&pod).await.0, ["n0", "n1"], "{name}");
    }
    rig.claim("by-hand", "manual", 1).await;
    let pod = rig.pod("hand", "by-hand").await;
    assert_eq!(rig.filter(&pod).await.0, ["n0", "n1"]);
    let ghost = rig.pod("ghost", "never-made").await;
    assert_eq!(rig.filter(&ghost).await.1["n0"], "bedplate: a claim of the pod does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_volume_takes_the_place_of_a_hold_and_its_end_gives_room_back() {
    let rig = rig().await;
    let claim = rig.claim("c", "fast", 8).await;
    let pod = rig.pod("p", "c").await;
    assert_eq!(rig.filter(&pod).await.0, ["n0", "n1"]);
    let volume = json!({ "metadata": { "name": LocalVolume::name_for(&claim.uid().unwrap(), 0) }, "spec": {
        "nodeName": "n1", "ledgerID": "00000000-0000-4000-8000-000000000000", "pool": "a", "bytes": 8_i64 << 30,
        "mode": "Filesystem", "claimUID": claim.uid().unwrap(), "claim": { "namespace": "default", "name": "c" } } });
    let volume: LocalVolume = create(Api::all(rig.client.clone()), volume).await;
    until("the hold's end", async || rig.judge.index.lock().holds.is_empty()).await;
    assert_eq!(rig.filter(&pod).await.0, ["n1"], "its volume is there");
    rig.claim("d", "fast", 8).await;
    let other = rig.pod("q", "d").await;
    assert_eq!(rig.filter(&other).await.0, ["n0"]);
    let volumes = Api::<LocalVolume>::all(rig.client.clone());
    volumes.delete(&volume.name_any(), &DeleteParams::default()).await.unwrap();
    until("room on n1", async || rig.filter(&other).await.0.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_pods_are_woken_once_when_the_pod_in_their_way_is_gone() {
    let rig = rig().await;
    rig.claim("c", "fast", 8).await;
    rig.claim("d", "fast", 8).await;
    let (first, second) = (rig.pod("p", "c").await, rig.pod("q", "d").await);
    assert_eq!(rig.filter(&first).await.0, ["n0", "n1"]);
    let (names, failed) = rig.filter(&second).await;
    assert!(names.is_empty());
    assert_eq!(failed["n0"], "bedplate: no matching pool has room");
    assert_eq!(rig.wakes().await, None);
    let pods = Api::<Pod>::default_namespaced(rig.client.clone());
    pods.delete("p", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    until("the wake", async || rig.wakes().await.is_some()).await;
    assert_eq!(rig.filter(&second).await.0, ["n0", "n1"]);
    // Nobody was turned away since: the end of another hold wakes nobody.
    let before = rig.wakes().await;
    pods.delete("q", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    until("the hold's end", async || rig.judge.index.lock().holds.is_empty()).await;
    assert_eq!(rig.wakes().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_found_unschedulable_after_the_filter_gives_its_hold_back() {
    let rig = rig().await;
    rig.claim("c", "fast", 8).await;
    let pod = rig.pod("p", "c").await;
    rig.filter(&pod).await;
    assert_eq!(rig.judge.index.lock().holds.len(), 1);
    let condition = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/2 nodes are available", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let pods = Api::<Pod>::default_namespaced(rig.client.clone());
    let patch = Patch::Merge(json!({ "status": { "conditions": [condition] } }));
    pods.patch_status("p", &PatchParams::default(), &patch).await.unwrap();
    until("the hold's end", async || rig.judge.index.lock().holds.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_watches_were_down_is_known_after_them() {
    let rig = rig().await;
    rig.claim("c", "fast", 1).await;
    let pod = rig.pod("p", "c").await;
    assert_eq!(rig.filter(&pod).await.0.len(), 2);
    rig.server.interrupt_watches(Interruption::Close);
    Api::<StorageNode>::all(rig.client.clone()).delete("n0", &DeleteParams::default()).await.unwrap();
    rig.server.compact();
    rig.server.interrupt_watches(Interruption::Close);
    until("the end of n0", async || rig.filter(&pod).await.0 == ["n1"]).await;
    assert_eq!(rig.filter(&pod).await.1["n0"], "bedplate: no agent on the node");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_restored_from_a_backup_is_believed() {
    let rig = rig().await;
    rig.claim("c", "fast", 1).await;
    let pod = rig.pod("p", "c").await;
    let yesterday = rig.server.snapshot();
    Api::<StorageNode>::all(rig.client.clone()).delete("n0", &DeleteParams::default()).await.unwrap();
    until("the end of n0", async || rig.filter(&pod).await.0 == ["n1"]).await;
    // Its versions are lower now, and watches of later ones would hear nothing.
    rig.server.restore(yesterday);
    until("n0 again", async || rig.filter(&pod).await.0 == ["n0", "n1"]).await;
}
