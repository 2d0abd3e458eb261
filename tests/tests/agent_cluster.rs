//! The agent's Kubernetes side, by its own program: a volume's life in API objects, restarts, what is never made again,
//! DiskPools, labels, registration.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::path::{Path, PathBuf};
use std::time::Duration;

use bedplate_api::disk_pool::PoolState;
use bedplate_api::local_volume::{LocalVolumeSpec, Phase, ReleaseKind};
use bedplate_api::storage_node::StorageNodeStatus;
use bedplate_api::{DiskPool, LocalVolume, StorageNode, WipeReceipt};
use bedplate_csi::registration::registration_client::RegistrationClient;
use bedplate_csi::registration::{InfoRequest, RegistrationStatus};
use bedplate_csi::v1::identity_client::IdentityClient;
use bedplate_csi::v1::node_client::NodeClient;
use bedplate_csi::v1::{GetPluginCapabilitiesRequest, NodeGetInfoRequest};
use bedplate_sim::apiserver::{Fault, Interruption};
use bedplate_tests::agent::{Agent, refusal};
use bedplate_tests::cluster_node::{Cluster, Machine, eventually};
use bedplate_tests::loopfs::HostFs;
use bedplate_tests::orchestrator::Orchestrator;
use bedplate_tests::skip::need_root;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use tonic::transport::Channel;

const NODE: &str = "node-1";
const UID: &str = "0f3e1a2b-0000-4000-8000-000000000001";

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_by_api_objects_from_order_to_receipt() {
    if !need_root("a_volume_lives_by_api_objects_from_order_to_receipt") {
        return;
    }
    let cluster = Cluster::start().await.unwrap();
    let fs = HostFs::new("ext4", 320 << 20).unwrap();
    let pool = fs.pool("pool").unwrap();
    cluster.node(NODE, &[]).await.unwrap();
    cluster.pool("fast", &pool, |_| ()).await.unwrap();
    let machine = Machine::new(&cluster, NODE).unwrap();
    let _agent = machine.agent().unwrap();
    let before = cluster.storage_node(NODE, "a pool", |node| node.pools.len() == 1).await.unwrap();
    assert!(before.pools[0].free > 0 && before.volumes.is_empty(), "{before:?}");

    let made = cluster.volume(&before, NODE, UID, 64, |_| ()).await.unwrap();
    let name = made.metadata.name.unwrap();
    let ready = cluster.phase(&name, Phase::Ready).await.unwrap().status.unwrap();
    assert_eq!(ready.bytes, Some(64 << 20));
    let handle = ready.volume_handle.unwrap();
    let told = cluster.storage_node(NODE, "the volume", |node| node.volumes.len() == 1).await.unwrap();
    assert_eq!((told.volumes[0].volume_handle.as_str(), told.volumes[0].claim_uid.as_str()), (handle.as_str(), UID));
    assert!(told.pools[0].free <= before.pools[0].free - (64 << 20), "{:?}", told.pools);
    eventually("the pool's label on the Node", async || {
        let labels = cluster.api::<Node>().get(NODE).await?.metadata.labels.unwrap_or_default();
        Ok(if labels.contains_key("bedplate.dev/pool.fast") { Ok(()) } else { Err(format!("{labels:?}")) })
    })
    .await
    .unwrap();

    cluster.release(&name, UID, ReleaseKind::Reclaimed).await.unwrap();
    let freed = cluster.phase(&name, Phase::Freed).await.unwrap().status.unwrap();
    assert_eq!(freed.receipt, Some(1));
    let receipt = eventually("the receipt", async || {
        let found = cluster.api::<WipeReceipt>().list(&ListParams::default()).await?.items;
        Ok(found.first().cloned().ok_or_else(|| "none".to_owned()))
    })
    .await
    .unwrap();
    assert_eq!((receipt.spec.volume.as_str(), receipt.spec.claim_uid.as_str()), (handle.as_str(), UID));
    cluster.storage_node(NODE, "no volume", |node| node.volumes.is_empty()).await.unwrap();
}

/// A cluster with one machine, its agent, and a pool `fast` on a filesystem of its own.
struct Rig {
    cluster: Cluster,
    machine: Machine,
    agent: Option<Agent>,
    node: StorageNodeStatus,
    // Unmounted after the agent is gone.
    fs: HostFs,
}

impl Rig {
    async fn new() -> Self {
        let cluster = Cluster::start().await.unwrap();
        let fs = HostFs::new("ext4", 320 << 20).unwrap();
        let pool = fs.pool("pool").unwrap();
        cluster.node(NODE, &[]).await.unwrap();
        cluster.pool("fast", &pool, |_| ()).await.unwrap();
        let machine = Machine::new(&cluster, NODE).unwrap();
        let agent = Some(machine.agent().unwrap());
        let node = cluster.storage_node(NODE, "a pool", |node| node.pools.len() == 1).await.unwrap();
        Self { cluster, machine, agent, node, fs }
    }

    /// A volume in phase Ready: its object's name and its handle.
    async fn ready(&self, claim: &str, mib: i64) -> (String, String) {
        let made = self.cluster.volume(&self.node, NODE, claim, mib, |_| ()).await.unwrap();
        let name = made.metadata.name.unwrap();
        let status = self.cluster.phase(&name, Phase::Ready).await.unwrap().status.unwrap();
        (name, status.volume_handle.unwrap())
    }

    fn kubelet(&self) -> Orchestrator {
        Orchestrator::new(&self.machine.csi())
    }

    fn staging(&self) -> PathBuf {
        let path = self.machine.folder().join("staging");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    async fn versions(&self) -> Vec<Option<String>> {
        let mut versions = vec![
            self.cluster.api::<StorageNode>().get(NODE).await.unwrap().metadata.resource_version,
            self.cluster.api::<Node>().get(NODE).await.unwrap().metadata.resource_version,
        ];
        let volumes = self.cluster.api::<LocalVolume>().list(&ListParams::default()).await.unwrap().items;
        versions.extend(volumes.into_iter().map(|volume| volume.metadata.resource_version));
        let pools = self.cluster.api::<DiskPool>().list(&ListParams::default()).await.unwrap().items;
        versions.extend(pools.into_iter().map(|pool| pool.metadata.resource_version));
        versions
    }
}

/// Lets time pass in which nothing is to happen: there is no condition to wait for.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_nothing_changed_nothing_is_written_not_even_after_a_kill_or_a_relist() {
    if !need_root("when_nothing_changed_nothing_is_written_not_even_after_a_kill_or_a_relist") {
        return;
    }
    let mut rig = Rig::new().await;
    rig.ready(UID, 32).await;
    rig.cluster.storage_node(NODE, "the volume", |node| node.volumes.len() == 1).await.unwrap();
    quiet().await;
    let (before, revision) = (rig.versions().await, rig.cluster.server.revision());
    rig.agent.take().unwrap().kill_nine().unwrap();
    rig.agent = Some(rig.machine.agent().unwrap());
    quiet().await;
    rig.cluster.server.compact();
    rig.cluster.server.interrupt_watches(Interruption::Expire);
    quiet().await;
    assert_eq!(rig.versions().await, before);
    assert_eq!(rig.cluster.server.revision(), revision, "somebody wrote something");
    // And it still hears.
    rig.ready("0f3e1a2b-0000-4000-8000-000000000002", 32).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_restored_from_yesterday_makes_a_wiped_volume_lost_and_never_new() {
    if !need_root("an_api_server_restored_from_yesterday_makes_a_wiped_volume_lost_and_never_new") {
        return;
    }
    let rig = Rig::new().await;
    let (name, handle) = rig.ready(UID, 32).await;
    rig.cluster.storage_node(NODE, "the volume", |node| node.volumes.len() == 1).await.unwrap();
    let yesterday = rig.cluster.server.snapshot();
    rig.cluster.release(&name, UID, ReleaseKind::Reclaimed).await.unwrap();
    rig.cluster.phase(&name, Phase::Freed).await.unwrap();
    rig.cluster.server.restore(yesterday);
    let lost = rig.cluster.phase(&name, Phase::Lost).await.unwrap().status.unwrap();
    assert!(lost.message.contains("backup"), "{lost:?}");
    rig.cluster.storage_node(NODE, "no volume", |node| node.volumes.is_empty()).await.unwrap();
    let refused = rig.kubelet().stage(&handle, &rig.staging()).await.unwrap_err();
    let status = refused.downcast::<tonic::Status>().unwrap();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("is lost"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_ledger_or_a_lost_one_made_is_never_made_again() {
    if !need_root("what_another_ledger_or_a_lost_one_made_is_never_made_again") {
        return;
    }
    let rig = Rig::new().await;
    let other = "11111111-2222-4333-8444-555555555555";
    let made = rig.cluster.volume(&rig.node, NODE, UID, 32, |spec| spec.ledger_id = other.to_owned()).await.unwrap();
    let lost = rig.cluster.phase(&made.metadata.name.unwrap(), Phase::Lost).await.unwrap();
    assert!(lost.status.unwrap().message.contains(other));
    // One that says it was Ready here, and of which the ledger has never heard.
    let (name, _) = rig.ready("0f3e1a2b-0000-4000-8000-000000000002", 32).await;
    let mut object = rig.cluster.api::<LocalVolume>().get(&name).await.unwrap();
    let copy = LocalVolume::name_for(&object.spec.claim_uid, 7);
    let status = object.status.take();
    let mut stranger =
        LocalVolume::new(&copy, LocalVolumeSpec { node_name: "node-9".to_owned(), ..object.spec.clone() });
    stranger.spec.attempt = 7;
    let api = rig.cluster.api::<LocalVolume>();
    api.create(&PostParams::default(), &stranger).await.unwrap();
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status(&copy, &PatchParams::default(), &patch).await.unwrap();
    let patch = Patch::Merge(json!({ "spec": { "nodeName": NODE } }));
    // Nobody can move a volume to another node but by such a trick; the agent does not fall for it either.
    if api.patch(&copy, &PatchParams::default(), &patch).await.is_ok() {
        rig.cluster.phase(&copy, Phase::Lost).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(rig.fs.path().join("pool")).unwrap().filter(is_image).count(), 1);
}

fn is_image(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with(".img"))
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_all_our_kinds_under_a_running_volume_costs_not_a_byte() {
    if !need_root("deleting_all_our_kinds_under_a_running_volume_costs_not_a_byte") {
        return;
    }
    let rig = Rig::new().await;
    let (name, handle) = rig.ready(UID, 32).await;
    let (staging, kubelet) = (rig.staging(), rig.kubelet());
    kubelet.stage(&handle, &staging).await.unwrap();
    std::fs::write(staging.join("data"), "precious").unwrap();
    let kept = rig.cluster.api::<LocalVolume>().get(&name).await.unwrap();
    let kinds = rig.cluster.api::<CustomResourceDefinition>();
    for crd in bedplate_api::crds::all() {
        kinds.delete(&crd.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
    }
    eventually("no kind of ours", async || {
        let left = kinds.list(&ListParams::default()).await?.items.len();
        Ok(if left == 0 { Ok(()) } else { Err(format!("{left} left")) })
    })
    .await
    .unwrap();
    quiet().await;
    assert_eq!(std::fs::read_to_string(staging.join("data")).unwrap(), "precious");
    kubelet.unstage(&handle, &staging).await.unwrap();
    kubelet.stage(&handle, &staging).await.unwrap();
    assert_eq!(std::fs::read_to_string(staging.join("data")).unwrap(), "precious");

    // The kinds come back: the node tells what it has, and a rebuilt object is told of the same volume.
    rig.cluster.install().await.unwrap();
    rig.cluster.pool("fast", &rig.fs.path().join("pool"), |_| ()).await.unwrap();
    let told = rig.cluster.storage_node(NODE, "the volume", |node| node.volumes.len() == 1).await.unwrap();
    assert_eq!((told.volumes[0].name.as_str(), told.ledger_id.as_str()), (name.as_str(), rig.node.ledger_id.as_str()));
    let rebuilt = LocalVolume::new(&name, kept.spec);
    rig.cluster.api::<LocalVolume>().create(&PostParams::default(), &rebuilt).await.unwrap();
    let again = rig.cluster.phase(&name, Phase::Ready).await.unwrap().status.unwrap();
    assert_eq!(again.volume_handle.as_deref(), Some(handle.as_str()));
    kubelet.unstage(&handle, &staging).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_volume_deleted_without_a_release_keeps_serving_and_says_so() {
    if !need_root("a_local_volume_deleted_without_a_release_keeps_serving_and_says_so") {
        return;
    }
    let rig = Rig::new().await;
    let (name, handle) = rig.ready(UID, 32).await;
    rig.cluster.api::<LocalVolume>().delete(&name, &DeleteParams::default()).await.unwrap();
    eventually("the event", async || {
        let events = Api::<Event>::all(rig.cluster.client.clone()).list(&ListParams::default()).await?.items;
        let reasons: Vec<String> = events.into_iter().filter_map(|event| event.reason).collect();
        Ok(if reasons.iter().any(|r| r == "VanishedWithoutRelease") { Ok(()) } else { Err(format!("{reasons:?}")) })
    })
    .await
    .unwrap();
    let staging = rig.staging();
    rig.kubelet().stage(&handle, &staging).await.unwrap();
    rig.kubelet().unstage(&handle, &staging).await.unwrap();
    let told = rig.cluster.storage_node(NODE, "the volume", |node| node.volumes.len() == 1).await.unwrap();
    assert_eq!(told.volumes[0].phase, Phase::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_waits_for_the_tenant_and_never_bound_is_not_believed_of_a_used_volume() {
    if !need_root("a_release_waits_for_the_tenant_and_never_bound_is_not_believed_of_a_used_volume") {
        return;
    }
    let rig = Rig::new().await;
    let (name, handle) = rig.ready(UID, 32).await;
    let staging = rig.staging();
    rig.kubelet().stage(&handle, &staging).await.unwrap();
    rig.cluster.release(&name, UID, ReleaseKind::Reclaimed).await.unwrap();
    eventually("who holds it", async || {
        let status = rig.cluster.api::<LocalVolume>().get(&name).await?.status.unwrap_or_default();
        let said = status.phase == Some(Phase::Ready) && status.message.contains("in use");
        Ok(if said { Ok(()) } else { Err(format!("{status:?}")) })
    })
    .await
    .unwrap();
    rig.kubelet().unstage(&handle, &staging).await.unwrap();
    rig.cluster.phase(&name, Phase::Freed).await.unwrap();

    let (used, handle) = rig.ready("0f3e1a2b-0000-4000-8000-000000000002", 32).await;
    rig.kubelet().stage(&handle, &staging).await.unwrap();
    rig.kubelet().unstage(&handle, &staging).await.unwrap();
    let claim = "0f3e1a2b-0000-4000-8000-000000000002";
    rig.cluster.release(&used, claim, ReleaseKind::NeverBound).await.unwrap();
    eventually("a refusal in words", async || {
        let status = rig.cluster.api::<LocalVolume>().get(&used).await?.status.unwrap_or_default();
        let said = status.phase == Some(Phase::Ready) && status.message.contains("never-bound");
        Ok(if said { Ok(()) } else { Err(format!("{status:?}")) })
    })
    .await
    .unwrap();
    let (unused, _) = rig.ready("0f3e1a2b-0000-4000-8000-000000000003", 32).await;
    rig.cluster.release(&unused, "0f3e1a2b-0000-4000-8000-000000000003", ReleaseKind::NeverBound).await.unwrap();
    rig.cluster.phase(&unused, Phase::Freed).await.unwrap();
    let (kept, _) = rig.ready("0f3e1a2b-0000-4000-8000-000000000004", 32).await;
    rig.cluster.release(&kept, "0f3e1a2b-0000-4000-8000-000000000004", ReleaseKind::Retained).await.unwrap();
    rig.cluster.phase(&kept, Phase::Retained).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_does_not_fit_is_refused_in_words_and_leaves_nothing() {
    if !need_root("a_volume_that_does_not_fit_is_refused_in_words_and_leaves_nothing") {
        return;
    }
    let rig = Rig::new().await;
    let huge = rig.cluster.volume(&rig.node, NODE, UID, 1 << 20, |_| ()).await.unwrap();
    let refused = rig.cluster.phase(&huge.metadata.name.unwrap(), Phase::Refused).await.unwrap().status.unwrap();
    assert!(refused.message.contains("free of the") && refused.volume_handle.is_none(), "{refused:?}");
    let claim = "0f3e1a2b-0000-4000-8000-000000000002";
    let nowhere = rig.cluster.volume(&rig.node, NODE, claim, 1, |spec| spec.pool = "gone".to_owned()).await.unwrap();
    rig.cluster.phase(&nowhere.metadata.name.unwrap(), Phase::Refused).await.unwrap();
    assert_eq!(std::fs::read_dir(rig.fs.path().join("pool")).unwrap().filter(is_image).count(), 0);
}

/// This node's answer to a DiskPool, once it has the wanted state.
async fn answer(cluster: &Cluster, pool: &str, state: PoolState) -> String {
    eventually(&format!("DiskPool {pool} {state:?}"), async || {
        let status = cluster.api::<DiskPool>().get(pool).await?.status.unwrap_or_default();
        let found = status.nodes.iter().find(|answer| answer.node == NODE && answer.state == state);
        Ok(found.map(|answer| answer.message.clone()).ok_or_else(|| format!("{status:?}")))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_pool_that_cannot_be_met_is_answered_in_words_and_others_are_not_touched() {
    if !need_root("a_disk_pool_that_cannot_be_met_is_answered_in_words_and_others_are_not_touched") {
        return;
    }
    let rig = Rig::new().await;
    let cluster = &rig.cluster;
    answer(cluster, "fast", PoolState::Ready).await;
    let missing = rig.fs.path().join("missing");
    cluster.pool("missing", &missing, |_| ()).await.unwrap();
    cluster.pool("nested", &rig.fs.path().join("pool/inner"), |_| ()).await.unwrap();
    cluster.pool("memory", Path::new("/dev/shm"), |_| ()).await.unwrap();
    cluster.pool("system", Path::new("/usr"), |_| ()).await.unwrap();
    cluster
        .pool("elsewhere", Path::new("/srv/elsewhere"), |spec| {
            let match_labels = Some([("disk".to_owned(), "fast".to_owned())].into());
            spec.node_selector = Some(LabelSelector { match_labels, match_expressions: None });
        })
        .await
        .unwrap();
    assert!(answer(cluster, "missing", PoolState::Refused).await.contains("missing"));
    assert!(answer(cluster, "nested", PoolState::Refused).await.contains("lie in one another"));
    let memory = answer(cluster, "memory", PoolState::Refused).await;
    assert!(memory.contains("tmpfs") || memory.contains("overlay"), "{memory}");
    assert!(answer(cluster, "system", PoolState::Refused).await.contains("spec.reserve"));
    let untouched = cluster.api::<DiskPool>().get("elsewhere").await.unwrap().status;
    assert!(untouched.is_none_or(|status| status.nodes.is_empty()), "it is for other nodes");
    assert!(!Path::new("/usr/.bedplate-pool").exists() && !Path::new("/dev/shm/.bedplate-pool").exists());
    // The folder comes: the pool is there without a restart.
    std::fs::create_dir(&missing).unwrap();
    let patch = Patch::Merge(json!({ "spec": { "capacity": "100Mi" } }));
    cluster.api::<DiskPool>().patch("missing", &PatchParams::default(), &patch).await.unwrap();
    answer(cluster, "missing", PoolState::Ready).await;
    let capped =
        |node: &StorageNodeStatus| node.pools.iter().any(|pool| pool.name == "missing" && pool.capacity == 100 << 20);
    cluster.storage_node(NODE, "a second pool of its capacity", capped).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_disk_pool_is_gone_drains_serves_and_is_let_go_of_when_empty() {
    if !need_root("a_pool_whose_disk_pool_is_gone_drains_serves_and_is_let_go_of_when_empty") {
        return;
    }
    let mut rig = Rig::new().await;
    let (name, handle) = rig.ready(UID, 32).await;
    rig.cluster.api::<DiskPool>().delete("fast", &DeleteParams::default()).await.unwrap();
    rig.cluster.storage_node(NODE, "no room", |node| node.pools.iter().all(|pool| pool.free == 0)).await.unwrap();
    // Also after a restart without any DiskPool.
    rig.agent.take().unwrap().kill_nine().unwrap();
    rig.agent = Some(rig.machine.agent().unwrap());
    let staging = rig.staging();
    rig.kubelet().stage(&handle, &staging).await.unwrap();
    rig.kubelet().unstage(&handle, &staging).await.unwrap();
    let claim = "0f3e1a2b-0000-4000-8000-000000000002";
    let late = rig.cluster.volume(&rig.node, NODE, claim, 8, |_| ()).await.unwrap();
    let refused = rig.cluster.phase(&late.metadata.name.unwrap(), Phase::Refused).await.unwrap().status.unwrap();
    assert!(refused.message.contains("draining"), "{refused:?}");
    rig.cluster.release(&name, UID, ReleaseKind::Reclaimed).await.unwrap();
    rig.cluster.phase(&name, Phase::Freed).await.unwrap();
    rig.cluster.storage_node(NODE, "no pool", |node| node.pools.is_empty()).await.unwrap();
    // The wish comes back, and with it the same pool.
    rig.cluster.pool("fast", &rig.fs.path().join("pool"), |_| ()).await.unwrap();
    answer(&rig.cluster, "fast", PoolState::Ready).await;
    rig.ready("0f3e1a2b-0000-4000-8000-000000000003", 32).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_under_another_uid_is_labelled_again_and_nothing_else_happens() {
    if !need_root("a_node_that_comes_back_under_another_uid_is_labelled_again_and_nothing_else_happens") {
        return;
    }
    let rig = Rig::new().await;
    let (name, _) = rig.ready(UID, 32).await;
    let labelled = async || {
        eventually("our labels", async || {
            let labels = rig.cluster.api::<Node>().get(NODE).await?.metadata.labels.unwrap_or_default();
            Ok(if labels.contains_key("bedplate.dev/pool.fast") { Ok(()) } else { Err(format!("{labels:?}")) })
        })
        .await
        .unwrap();
    };
    labelled().await;
    rig.cluster.api::<Node>().delete(NODE, &DeleteParams::default()).await.unwrap();
    quiet().await;
    assert!(rig.cluster.api::<Node>().get_opt(NODE).await.unwrap().is_none(), "the agent made a Node");
    let volume = rig.cluster.api::<LocalVolume>().get(&name).await.unwrap();
    assert_eq!(volume.phase(), Some(Phase::Ready));
    let again = rig.cluster.node(NODE, &[("role", "storage")]).await.unwrap();
    labelled().await;
    let uid = again.metadata.uid.unwrap();
    let told = rig.cluster.storage_node(NODE, "the new uid", |node| node.node_uid == uid).await.unwrap();
    assert_eq!((told.ledger_id, told.volumes.len()), (rig.node.ledger_id.clone(), 1));
    let labels = rig.cluster.api::<Node>().get(NODE).await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels.get("role").map(String::as_str), Some("storage"), "others' labels stay");
}

/// What the kubelet sees of a plugin's registration socket.
async fn registration(machine: &Machine) -> RegistrationClient<Channel> {
    let socket = machine.kubelet.join("plugins_registry/bedplate.dev-reg.sock");
    eventually("the registration socket", async || {
        Ok(bedplate_csi::client::connect(&socket).await.map(RegistrationClient::new).map_err(|e| e.to_string()))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_finds_the_plugin_again_after_its_folders_are_set_up_anew() {
    if !need_root("the_kubelet_finds_the_plugin_again_after_its_folders_are_set_up_anew") {
        return;
    }
    let rig = Rig::new().await;
    let mut kubelet = registration(&rig.machine).await;
    let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "bedplate.dev"));
    assert_eq!(
        (info.endpoint, info.supported_versions),
        (rig.machine.csi().display().to_string(), vec!["1.0.0".to_owned()])
    );
    let registered = |status: &'static str| {
        move |node: &StorageNodeStatus| {
            node.conditions.iter().any(|c| c.type_ == "KubeletRegistered" && c.status == status)
        }
    };
    let answer = |plugin_registered, error: &str| RegistrationStatus { plugin_registered, error: error.to_owned() };
    kubelet.notify_registration_status(answer(true, "")).await.unwrap();
    rig.cluster.storage_node(NODE, "a registered driver", registered("True")).await.unwrap();
    kubelet.notify_registration_status(answer(false, "version is not higher")).await.unwrap();
    let told = rig.cluster.storage_node(NODE, "a refused driver", registered("False")).await.unwrap();
    assert!(told.conditions.iter().any(|c| c.message.contains("version is not higher")), "{told:?}");

    std::fs::remove_dir_all(&rig.machine.kubelet).unwrap();
    std::fs::create_dir_all(rig.machine.kubelet.join("plugins_registry")).unwrap();
    let mut kubelet = registration(&rig.machine).await;
    kubelet.get_info(InfoRequest {}).await.unwrap();
    kubelet.notify_registration_status(answer(true, "")).await.unwrap();
    rig.cluster.storage_node(NODE, "a registered driver", registered("True")).await.unwrap();
    // The driver's own socket is there again, too; it answers without the API server, and offers no Controller.
    let Rig { cluster, machine, .. } = &rig;
    eventually("the CSI socket", async || Ok(if machine.csi().exists() { Ok(()) } else { Err("none".to_owned()) }))
        .await
        .unwrap();
    cluster.server.inject(usize::MAX, Fault::Refuse(503), |_, _| true);
    let channel = bedplate_csi::client::connect(&machine.csi()).await.unwrap();
    let info = NodeClient::new(channel.clone()).node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.accessible_topology.unwrap().segments["topology.bedplate.dev/node"], NODE);
    let offered = IdentityClient::new(channel).get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await.unwrap();
    let offered = format!("{:?}", offered.into_inner().capabilities);
    assert!(!offered.contains("r#type: 1"), "{offered}");
}

#[test]
fn a_node_name_that_no_topology_value_can_hold_is_refused_at_the_start() {
    let name = "n".repeat(64);
    let (status, said) = refusal(&["--node-name", &name, "--kubeconfig", "/nonexistent"]).unwrap();
    assert!(!status.success() && said.contains("node name") && said.contains("63"), "{said}");
    let (status, said) = refusal(&["--kubeconfig", "/nonexistent"]).unwrap();
    assert!(!status.success() && said.contains("--node-name"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_without_an_api_server_serves_what_its_ledger_has() {
    if !need_root("an_agent_that_starts_without_an_api_server_serves_what_its_ledger_has") {
        return;
    }
    let mut rig = Rig::new().await;
    let (name, handle) = rig.ready(UID, 32).await;
    rig.agent.take().unwrap().kill_nine().unwrap();
    rig.cluster.server.inject(usize::MAX, Fault::Refuse(503), |_, _| true);
    rig.agent = Some(rig.machine.agent().unwrap());
    let staging = rig.staging();
    rig.kubelet().stage(&handle, &staging).await.unwrap();
    std::fs::write(staging.join("data"), "precious").unwrap();
    rig.kubelet().unstage(&handle, &staging).await.unwrap();
    rig.cluster.server.clear_faults();
    rig.cluster.release(&name, UID, ReleaseKind::Reclaimed).await.unwrap();
    rig.cluster.phase(&name, Phase::Freed).await.unwrap();
    assert_eq!(rig.fs.count(b"precious").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_on_one_host_keep_to_their_own_node() {
    if !need_root("two_agents_on_one_host_keep_to_their_own_node") {
        return;
    }
    let rig = Rig::new().await;
    let other = HostFs::new("xfs", 400 << 20).unwrap();
    let directory = other.pool("pool").unwrap();
    rig.cluster.node("node-2", &[("disk", "second")]).await.unwrap();
    let select = |value: &str| {
        let match_labels = Some([("disk".to_owned(), value.to_owned())].into());
        Some(LabelSelector { match_labels, match_expressions: None })
    };
    rig.cluster.pool("second", &directory, |spec| spec.node_selector = select("second")).await.unwrap();
    let machine = Machine::new(&rig.cluster, "node-2").unwrap();
    let _agent = machine.agent().unwrap();
    let has = |name: &'static str| move |node: &StorageNodeStatus| node.pools.iter().any(|pool| pool.name == name);
    let second = rig.cluster.storage_node("node-2", "its pool", has("second")).await.unwrap();
    assert_ne!(second.ledger_id, rig.node.ledger_id);
    // The first pool is for all nodes; its directory is held by the first agent, and the second says so.
    eventually("the second node's answer", async || {
        let nodes = rig.cluster.api::<DiskPool>().get("fast").await?.status.unwrap_or_default().nodes;
        let answer = nodes.iter().find(|answer| answer.node == "node-2" && answer.state == PoolState::Refused);
        let held = answer.is_some_and(|answer| answer.message.contains("holds it"));
        let first = nodes.iter().any(|answer| answer.node == NODE && answer.state == PoolState::Ready);
        Ok(if held && first { Ok(()) } else { Err(format!("{nodes:?}")) })
    })
    .await
    .unwrap();
    rig.ready(UID, 32).await;
    let claim = "0f3e1a2b-0000-4000-8000-000000000002";
    let pool = |spec: &mut LocalVolumeSpec| spec.pool = "second".to_owned();
    let made = rig.cluster.volume(&second, "node-2", claim, 32, pool).await.unwrap();
    rig.cluster.phase(&made.metadata.name.unwrap(), Phase::Ready).await.unwrap();
    let told = rig.cluster.storage_node("node-2", "its volume", |node| !node.volumes.is_empty()).await.unwrap();
    assert_eq!(told.volumes.len(), 1);
    rig.cluster.storage_node(NODE, "its volume", |node| node.volumes.len() == 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_under_one_node_name_say_so_and_fall_silent_while_volumes_serve() {
    if !need_root("two_agents_under_one_node_name_say_so_and_fall_silent_while_volumes_serve") {
        return;
    }
    let rig = Rig::new().await;
    let (_, handle) = rig.ready(UID, 32).await;
    // Another state folder, and so another ledger, under the same name.
    let machine = Machine::new(&rig.cluster, NODE).unwrap();
    let _rival = machine.agent().unwrap();
    eventually("the event", async || {
        let events = Api::<Event>::all(rig.cluster.client.clone()).list(&ListParams::default()).await?.items;
        let found = events.iter().find(|event| event.reason.as_deref() == Some("RivalAgent"));
        Ok(found.and_then(|event| event.note.clone()).ok_or_else(|| format!("{} events", events.len())))
    })
    .await
    .unwrap();
    // Whatever the other one says of it, its own agent serves it.
    let staging = rig.staging();
    rig.kubelet().stage(&handle, &staging).await.unwrap();
    rig.kubelet().unstage(&handle, &staging).await.unwrap();
    // One of them spoke last; from then on nobody writes.
    eventually("silence", async || {
        let before = rig.cluster.server.revision();
        quiet().await;
        let after = rig.cluster.server.revision();
        Ok(if before == after { Ok(()) } else { Err(format!("{} writes", after - before)) })
    })
    .await
    .unwrap();
}
