//! Drivers that register, and pods whose volumes come up, are written to by a real process, and go down again.

use crate::driver::Driver;
use crate::rig::{Cluster, NAMESPACE, eventually, quick, until};
use bedplate_csi::v1::volume_capability::AccessType;
use bedplate_sim::kubelet::{self, Options};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// A cluster with one node `n1` and a kubelet's folder.
async fn cluster() -> (Cluster, tempfile::TempDir, Options) {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick()).with_provisioner(&[]);
    cluster.class("WaitForFirstConsumer", false).await;
    let root = tempfile::Builder::new().prefix("k").tempdir().unwrap();
    let options = Options { look_every: Duration::from_millis(20), ..Options::new("n1", root.path()) };
    (cluster, root, options)
}

fn running(pod: Option<&Pod>) -> bool {
    let status = pod.and_then(|pod| pod.status.clone()).unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|it| it.type_ == "Ready" && it.status == "True");
    status.phase.as_deref() == Some("Running") && ready
}

/// A shell on claim `c`, mounted at `/data`.
fn shell(script: &str) -> Value {
    let mounts = json!([{ "name": "c", "mountPath": "/data" }]);
    let container =
        json!({ "name": "c", "image": "none", "command": ["/bin/sh", "-c", script], "volumeMounts": mounts });
    json!({ "spec": { "containers": [container], "terminationGracePeriodSeconds": 5 } })
}

fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn drivers(cluster: &Cluster) -> Vec<String> {
    let found = Api::<CSINode>::all(cluster.client.clone()).get_opt("n1").await.unwrap();
    found.map(|found| found.spec.drivers.into_iter().map(|driver| driver.name).collect()).unwrap_or_default()
}

async fn handle(cluster: &Cluster, claim: &str) -> String {
    let claims = cluster.api::<k8s_openapi::api::core::v1::PersistentVolumeClaim>();
    claims.get(claim).await.unwrap().uid().unwrap()
}

/// Pods' folders that are left.
fn pods(root: &Path) -> usize {
    std::fs::read_dir(root.join("pods")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_volume_is_staged_and_published_for_a_real_process_and_taken_down_in_reverse() {
    let (cluster, root, options) = cluster().await;
    let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
    let runtime = options.runtime.clone();
    let _kubelet = kubelet::start(&cluster.client, options);
    cluster.claim("c").await;
    let pod = cluster.pod("p", &["c"], shell("echo written | tee /data/marker; exec sleep 1000")).await;
    let pods_api = cluster.api::<Pod>();
    until(&pods_api, "p", running).await;
    let (uid, id) = (pod.uid().unwrap(), handle(&cluster, "c").await);
    let pid = runtime.pid(&uid).unwrap();
    let marker = root.path().join("store").join(&id).join("marker");
    eventually("the marker", async || std::fs::read_to_string(&marker).is_ok_and(|text| text == "written\n")).await;
    assert_eq!(driver.calls(), [format!("stage {id}"), format!("publish {id}")]);
    {
        let heard = driver.heard.lock().unwrap();
        let (stage, publish) = (&heard.stages[0], &heard.publishes[0]);
        let volume = format!("pvc-{id}");
        let target = root.path().join(format!("pods/{uid}/volumes/kubernetes.io~csi/{volume}/mount"));
        assert_eq!(publish.target_path, target.display().to_string());
        assert_eq!(publish.staging_target_path, stage.staging_target_path);
        assert!(stage.staging_target_path.ends_with("/globalmount"), "{}", stage.staging_target_path);
        assert!(publish.volume_context.is_empty(), "podInfoOnMount is off");
        let capability = publish.volume_capability.clone().unwrap();
        assert!(matches!(capability.access_type, Some(AccessType::Mount(_))));
        assert_eq!(capability.access_mode.unwrap().mode, 1, "no SINGLE_NODE_MULTI_WRITER, so SINGLE_NODE_WRITER");
    }
    assert!(is_alive(pid));
    assert_eq!(kubelet::log(root.path(), NAMESPACE, "p").unwrap(), "written\n");
    pods_api.delete("p", &DeleteParams::default()).await.unwrap();
    until(&pods_api, "p", |pod| pod.is_none()).await;
    assert!(!is_alive(pid));
    assert_eq!(driver.calls()[2..], [format!("unpublish {id}"), format!("unstage {id}")]);
    assert_eq!(pods(root.path()), 0);
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "written\n");
}

#[tokio::test]
async fn a_kubelet_that_starts_again_finds_what_runs_and_what_has_to_go() {
    let (cluster, root, options) = cluster().await;
    let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
    let first = kubelet::start(&cluster.client, options.clone());
    for name in ["stays", "goes"] {
        cluster.claim(name).await;
        cluster.pod(name, &[name], json!({})).await;
    }
    let pods_api = cluster.api::<Pod>();
    let mut pids = Vec::new();
    for name in ["stays", "goes"] {
        let pod = until(&pods_api, name, running).await.unwrap();
        pids.push(options.runtime.pid(&pod.uid().unwrap()).unwrap());
    }
    first.stop().await;
    assert!(pids.iter().all(|pid| is_alive(*pid)), "containers outlive their kubelet");
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods_api.delete("goes", &now).await.unwrap();
    let (stays, goes) = (handle(&cluster, "stays").await, handle(&cluster, "goes").await);
    let _second = kubelet::start(&cluster.client, options);
    let done =
        |calls: &[String], what: &str, id: &str| calls.iter().filter(|call| **call == format!("{what} {id}")).count();
    eventually("what was deleted meanwhile is taken down", async || done(&driver.calls(), "unstage", &goes) == 1).await;
    eventually("what runs is published again", async || done(&driver.calls(), "publish", &stays) == 2).await;
    eventually("one folder left", async || pods(root.path()) == 1).await;
    assert_eq!((is_alive(pids[0]), is_alive(pids[1])), (true, false));
    assert_eq!(done(&driver.calls(), "unpublish", &stays), 0);
}

#[tokio::test]
async fn two_pods_share_a_volume_and_it_is_unstaged_after_the_second() {
    let (cluster, root, options) = cluster().await;
    let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
    let _kubelet = kubelet::start(&cluster.client, options);
    cluster.claim("c").await;
    let pods_api = cluster.api::<Pod>();
    for name in ["a", "b"] {
        cluster.pod(name, &["c"], json!({})).await;
        until(&pods_api, name, running).await;
    }
    let id = handle(&cluster, "c").await;
    let seen = |what: &str| driver.calls().iter().filter(|call| **call == format!("{what} {id}")).count();
    for (name, unstaged) in [("a", 0), ("b", 1)] {
        pods_api.delete(name, &DeleteParams::default()).await.unwrap();
        until(&pods_api, name, |pod| pod.is_none()).await;
        assert_eq!(seen("unstage"), unstaged, "after {name}");
    }
    assert_eq!(seen("unpublish"), 2);
}

#[tokio::test]
async fn a_program_that_ends_makes_the_pod_succeeded_or_failed_and_its_volumes_go_down() {
    let (cluster, root, options) = cluster().await;
    let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
    let _kubelet = kubelet::start(&cluster.client, options);
    for (name, script, phase) in
        [("good", "echo hello > $BEDPLATE_MOUNT_C/f", "Succeeded"), ("bad", "exit 3", "Failed")]
    {
        let claim = format!("c-{name}");
        cluster.claim(&claim).await;
        let mut pod = shell(script);
        pod["spec"]["restartPolicy"] = json!("Never");
        pod["spec"]["volumes"] = json!([{ "name": "c", "persistentVolumeClaim": { "claimName": claim } }]);
        cluster.pod(name, &[], pod).await;
        let pods_api = cluster.api::<Pod>();
        let ended = |pod: Option<&Pod>| pod.and_then(|pod| pod.status.clone()?.phase).as_deref() == Some(phase);
        let pod = until(&pods_api, name, ended).await.unwrap();
        let state = pod.status.unwrap().container_statuses.unwrap()[0].state.clone().unwrap();
        assert_eq!(state.terminated.unwrap().exit_code, if name == "good" { 0 } else { 3 });
        let id = handle(&cluster, &claim).await;
        eventually("unstaged", async || driver.calls().contains(&format!("unstage {id}"))).await;
        assert!(pods_api.get(name).await.is_ok(), "the pod stays until somebody deletes it");
    }
}

#[tokio::test]
async fn a_volume_that_cannot_be_staged_keeps_the_pod_waiting_and_says_why() {
    let (cluster, root, options) = cluster().await;
    let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
    let _kubelet = kubelet::start(&cluster.client, options);
    cluster.claim("c").await;
    let id = handle(&cluster, "c").await;
    driver.broken.lock().unwrap().push(id.clone());
    cluster.pod("p", &["c"], json!({})).await;
    let text =
        "MountVolume.SetUp failed for volume \"c\" : rpc error: code = FailedPrecondition desc = this volume is lost";
    eventually("the event", async || cluster.notes("p", "FailedMount").await.iter().any(|note| note == text)).await;
    driver.broken.lock().unwrap().clear();
    until(&cluster.api::<Pod>(), "p", running).await;
}

#[tokio::test]
async fn a_raw_block_volume_is_published_as_a_device_of_the_pod() {
    let (cluster, root, options) = cluster().await;
    let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
    let _kubelet = kubelet::start(&cluster.client, options);
    eventually("registered", async || driver.registered() == Some(Ok(()))).await;
    let volume = json!({
        "metadata": { "name": "raw" },
        "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "volumeMode": "Block", "csi": { "driver": "d", "volumeHandle": "raw" },
            "claimRef": { "namespace": NAMESPACE, "name": "c" },
        },
    });
    cluster.create::<k8s_openapi::api::core::v1::PersistentVolume>(volume).await;
    let mut claim = json!({ "metadata": { "name": "c" }, "spec": crate::rig::claim_spec() });
    claim["spec"]["volumeMode"] = json!("Block");
    cluster.create_in::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(claim).await;
    let pod = cluster.pod("p", &["c"], json!({})).await.uid().unwrap();
    until(&cluster.api::<Pod>(), "p", running).await;
    let devices = root.path().join("plugins/kubernetes.io/csi/volumeDevices");
    {
        let heard = driver.heard.lock().unwrap();
        assert_eq!(heard.stages[0].staging_target_path, devices.join("staging/raw").display().to_string());
        assert_eq!(heard.publishes[0].target_path, devices.join("publish/raw").join(&pod).display().to_string());
        let capability = heard.publishes[0].volume_capability.clone().unwrap();
        assert!(matches!(capability.access_type, Some(AccessType::Block(_))));
    }
    let link = root.path().join("pods").join(&pod).join("volumeDevices/kubernetes.io~csi/raw");
    assert_eq!(std::fs::read_link(link).unwrap(), devices.join("publish/raw").join(&pod));
    cluster.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    until(&cluster.api::<Pod>(), "p", |pod| pod.is_none()).await;
    assert_eq!((pods(root.path()), driver.calls().last().unwrap().as_str()), (0, "unstage raw"));
}

#[tokio::test]
async fn pod_information_goes_along_only_where_the_driver_asks_for_it() {
    let (cluster, root, options) = cluster().await;
    let patch = kube::api::Patch::Merge(json!({ "spec": { "podInfoOnMount": true } }));
    let api = Api::<k8s_openapi::api::storage::v1::CSIDriver>::all(cluster.client.clone());
    api.patch("d", &kube::api::PatchParams::default(), &patch).await.unwrap();
    let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
    let _kubelet = kubelet::start(&cluster.client, options);
    cluster.claim("c").await;
    let pod = cluster.pod("p", &["c"], json!({})).await;
    until(&cluster.api::<Pod>(), "p", running).await;
    let heard = driver.heard.lock().unwrap();
    let context = &heard.publishes[0].volume_context;
    assert_eq!(context["csi.storage.k8s.io/pod.name"], "p");
    assert_eq!(context["csi.storage.k8s.io/pod.uid"], pod.uid().unwrap());
    assert!(heard.stages[0].volume_context.is_empty());
}

#[tokio::test]
async fn a_driver_is_listed_with_its_topology_dropped_with_its_socket_and_taken_back() {
    let (cluster, root, options) = cluster().await;
    let _kubelet = kubelet::start(&cluster.client, options);
    for _ in 0..2 {
        let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
        eventually("registered", async || driver.registered() == Some(Ok(()))).await;
        let listed = Api::<CSINode>::all(cluster.client.clone()).get("n1").await.unwrap();
        let entry = &listed.spec.drivers[0];
        assert_eq!((entry.node_id.as_str(), entry.topology_keys.clone()), ("id-n1", Some(vec!["t".to_owned()])));
        assert_eq!(listed.owner_references()[0].kind, "Node");
        let node = Api::<Node>::all(cluster.client.clone()).get("n1").await.unwrap();
        assert_eq!((&*node.labels()["t"], &*node.labels()["kubernetes.io/hostname"]), ("n1", "n1"));
        assert_eq!(node.annotations()["csi.volume.kubernetes.io/nodeid"], "{\"d\":\"id-n1\"}");
        driver.stop().await;
        eventually("dropped", async || drivers(&cluster).await.is_empty()).await;
    }
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(cluster.client.clone(), "kube-node-lease");
    let renewed = leases.get("n1").await.unwrap().spec.unwrap().renew_time;
    assert!(renewed.is_some(), "the node's heartbeat");
}

#[tokio::test]
async fn a_second_driver_of_the_name_needs_a_higher_version() {
    let (cluster, root, options) = cluster().await;
    let _kubelet = kubelet::start(&cluster.client, options);
    let first = Driver::start(root.path(), "first.sock", "1.0.0", "n1");
    eventually("registered", async || first.registered() == Some(Ok(()))).await;
    let same = Driver::start(root.path(), "same.sock", "1.0.0", "n1");
    eventually("refused", async || same.registered().is_some()).await;
    assert!(same.registered().unwrap().unwrap_err().contains("already registered with a higher supported version"));
    let higher = Driver::start(root.path(), "higher.sock", "1.1.0", "n1");
    eventually("taken", async || higher.registered() == Some(Ok(()))).await;
    first.stop().await;
    cluster.claim("c").await;
    cluster.pod("p", &["c"], json!({})).await;
    until(&cluster.api::<Pod>(), "p", running).await;
    assert_eq!(higher.calls().len(), 2, "the higher one serves, also after the first one's socket went");
    assert_eq!(drivers(&cluster).await, ["d"]);
}

#[tokio::test]
async fn a_changed_topology_value_is_refused() {
    let (cluster, root, options) = cluster().await;
    let _kubelet = kubelet::start(&cluster.client, options);
    let driver = Driver::start(root.path(), "d.sock", "1.0.0", "n1");
    eventually("registered", async || driver.registered() == Some(Ok(()))).await;
    driver.stop().await;
    eventually("dropped", async || drivers(&cluster).await.is_empty()).await;
    let moved = Driver::start(root.path(), "d.sock", "1.0.0", "elsewhere");
    eventually("refused", async || moved.registered().is_some()).await;
    let error = moved.registered().unwrap().unwrap_err();
    assert!(error.contains("detected topology value collision"), "{error}");
    assert!(drivers(&cluster).await.is_empty());
}
