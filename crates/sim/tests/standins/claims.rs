//! Claims that wait for their pod: chosen, provisioned, bound, released; and what goes wrong on the way.

use crate::rig::{Cluster, NAMESPACE, SELECTED_NODE, condition, eventually, node_of, quick, until};
use bedplate_sim::scheduler::{BindWait, Options};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use std::time::{Duration, Instant};

fn phase(claim: Option<&PersistentVolumeClaim>) -> Option<String> {
    claim?.status.as_ref()?.phase.clone()
}

fn volume_phase(volume: Option<&PersistentVolume>) -> Option<String> {
    volume?.status.as_ref()?.phase.clone()
}

#[tokio::test]
async fn a_pod_with_a_claim_gets_its_node_and_its_volume_and_both_sides_are_bound() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick());
    cluster.nodes(&["n1"]).await;
    cluster.class("WaitForFirstConsumer", false).await;
    cluster.claim("c").await;
    cluster.pod("p", &["c"], json!({})).await;
    let nominated = |pod: Option<&Pod>| pod?.status.as_ref()?.nominated_node_name.clone();
    let pods = cluster.api::<Pod>();
    let waiting = until(&pods, "p", |pod| nominated(pod).is_some()).await.unwrap();
    assert_eq!(nominated(Some(&waiting)).as_deref(), Some("n1"), "written before it waits");
    assert!(node_of(Some(&waiting)).is_none(), "there is no volume yet");
    let cluster = cluster.with_provisioner(&[]);
    let pod = until(&pods, "p", |pod| node_of(pod).is_some()).await.unwrap();
    assert_eq!(node_of(Some(&pod)).as_deref(), Some("n1"));
    assert!(nominated(Some(&pod)).is_none(), "the binding clears it");
    let claims = cluster.api::<PersistentVolumeClaim>();
    let claim = until(&claims, "c", |claim| phase(claim).as_deref() == Some("Bound")).await.unwrap();
    let annotations = claim.annotations().clone();
    assert_eq!(annotations["pv.kubernetes.io/bind-completed"], "yes");
    assert_eq!(annotations["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(annotations["volume.beta.kubernetes.io/storage-provisioner"], "d");
    assert_eq!(claim.status.unwrap().capacity.unwrap()["storage"].0, "1Gi");
    let name = claim.spec.unwrap().volume_name.unwrap();
    let volume = cluster.volumes().get(&name).await.unwrap();
    assert_eq!(volume_phase(Some(&volume)).as_deref(), Some("Bound"));
    assert!(!volume.annotations().contains_key("pv.kubernetes.io/bound-by-controller"), "its claimRef was the maker's");
    eventually("a Scheduled event", async || !cluster.notes("p", "Scheduled").await.is_empty()).await;

    // A pod that names it keeps it; without one it goes, and its volume stays, released.
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    until(&claims, "c", |claim| claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some())).await;
    let node = pod.spec.unwrap().node_name;
    assert!(node.is_some() && claims.get_opt("c").await.unwrap().is_some());
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    cluster.api::<Pod>().delete("p", &now).await.unwrap();
    until(&claims, "c", |claim| claim.is_none()).await;
    until(&cluster.volumes(), &name, |volume| volume_phase(volume).as_deref() == Some("Released")).await;
    cluster.volumes().delete(&name, &DeleteParams::default()).await.unwrap();
    let left = until(&cluster.volumes(), &name, |volume| volume.is_some_and(|it| it.finalizers().len() == 1)).await;
    assert_eq!(left.unwrap().finalizers(), ["d/wipe"], "ours is the provisioner's to take off");
}

#[tokio::test]
async fn the_real_interval_of_a_second_passes_before_the_first_look_at_the_claims() {
    let options = Options { bind_wait: BindWait::Poll(Duration::from_secs(1)), ..quick() };
    let cluster = Cluster::bare().with_controllers().with_scheduler(options).with_provisioner(&[]);
    cluster.nodes(&["n1"]).await;
    cluster.class("WaitForFirstConsumer", false).await;
    cluster.claim("c").await;
    let start = Instant::now();
    cluster.pod("p", &["c"], json!({})).await;
    until(&cluster.api::<Pod>(), "p", |pod| node_of(pod).is_some()).await;
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_cleared_selected_node_fails_the_binding_and_another_node_is_tried() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick()).with_provisioner(&["n1"]);
    cluster.nodes(&["n1"]).await;
    cluster.class("WaitForFirstConsumer", false).await;
    cluster.claim("c").await;
    cluster.pod("p", &["c"], json!({})).await;
    let pods = cluster.api::<Pod>();
    let refused = |pod: Option<&Pod>| pod.and_then(condition).is_some_and(|(reason, _)| reason == "SchedulerError");
    let pod = until(&pods, "p", refused).await.unwrap();
    assert_eq!(
        condition(&pod).unwrap().1,
        "running PreBind plugin \"VolumeBinding\": binding volumes: provisioning failed for PVC \"c\""
    );
    cluster.nodes(&["n2"]).await;
    let cordon = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(cluster.client.clone());
    nodes.patch("n1", &PatchParams::default(), &cordon).await.unwrap();
    let pod = until(&pods, "p", |pod| node_of(pod).is_some()).await;
    assert_eq!(node_of(pod.as_ref()).as_deref(), Some("n2"));
}

#[tokio::test]
async fn no_published_capacity_keeps_the_pod_pending_with_the_real_words_until_some_appears() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick()).with_provisioner(&[]);
    cluster.nodes(&["n1", "n2"]).await;
    cluster.class("WaitForFirstConsumer", true).await;
    cluster.claim("c").await;
    cluster.pod("p", &["c"], json!({})).await;
    let text = "0/2 nodes are available: 2 node(s) did not have enough free storage. no new claims to deallocate, \
                preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    let pods = cluster.api::<Pod>();
    let wanted = ("Unschedulable".to_owned(), text.to_owned());
    until(&pods, "p", |pod| pod.and_then(condition).as_ref() == Some(&wanted)).await;
    eventually("its event", async || cluster.notes("p", "FailedScheduling").await.contains(&text.to_owned())).await;
    let claim = cluster.api::<PersistentVolumeClaim>().get("c").await.unwrap();
    assert!(!claim.annotations().contains_key(SELECTED_NODE));
    cluster.capacity("n2", "1Gi").await;
    let pod = until(&pods, "p", |pod| node_of(pod).is_some()).await;
    assert_eq!(node_of(pod.as_ref()).as_deref(), Some("n2"));
}

#[tokio::test]
async fn an_immediate_class_names_its_provisioner_at_once_and_the_pod_waits_for_the_volume() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick());
    cluster.nodes(&["n1"]).await;
    cluster.class("Immediate", false).await;
    cluster.claim("c").await;
    cluster.pod("p", &["c"], json!({})).await;
    let waits = |pod: Option<&Pod>| pod.and_then(condition).is_some_and(|(_, text)| text.contains("unbound immediate"));
    until(&cluster.api::<Pod>(), "p", waits).await;
    let named = |claim: Option<&PersistentVolumeClaim>| {
        claim.is_some_and(|claim| claim.annotations().contains_key(crate::rig::PROVISIONER))
    };
    until(&cluster.api::<PersistentVolumeClaim>(), "c", named).await;
    let volume = json!({
        "metadata": { "name": "by-hand" },
        "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "csi": { "driver": "d", "volumeHandle": "h" }, "claimRef": { "namespace": NAMESPACE, "name": "c" },
        },
    });
    cluster.create::<PersistentVolume>(volume).await;
    until(&cluster.api::<Pod>(), "p", |pod| node_of(pod).is_some()).await;
    let volume = cluster.volumes().get("by-hand").await.unwrap();
    let claim = cluster.api::<PersistentVolumeClaim>().get("c").await.unwrap();
    assert_eq!(volume.spec.unwrap().claim_ref.unwrap().uid, claim.uid(), "the reference now means this very claim");
}

#[tokio::test]
async fn a_claim_whose_volume_vanished_is_lost() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick()).with_provisioner(&[]);
    cluster.nodes(&["n1"]).await;
    cluster.class("WaitForFirstConsumer", false).await;
    cluster.claim("c").await;
    cluster.pod("p", &["c"], json!({})).await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    let claim = until(&claims, "c", |claim| phase(claim).as_deref() == Some("Bound")).await.unwrap();
    let name = claim.spec.unwrap().volume_name.unwrap();
    let strip = Patch::Merge(json!({ "metadata": { "finalizers": [] } }));
    cluster.volumes().delete(&name, &DeleteParams::default()).await.unwrap();
    cluster.volumes().patch(&name, &PatchParams::default(), &strip).await.unwrap();
    until(&claims, "c", |claim| phase(claim).as_deref() == Some("Lost")).await;
}

#[tokio::test]
async fn fifty_claims_are_bound_without_one_pod_placed_twice() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick()).with_provisioner(&[]);
    cluster.nodes(&["n1", "n2", "n3"]).await;
    cluster.class("WaitForFirstConsumer", false).await;
    let names: Vec<String> = (0..50).map(|number| format!("x{number}")).collect();
    for name in &names {
        cluster.claim(name).await;
        cluster.pod(name, &[name], json!({})).await;
    }
    let (pods, claims) = (cluster.api::<Pod>(), cluster.api::<PersistentVolumeClaim>());
    let placed =
        async || pods.list(&ListParams::default()).await.unwrap().iter().all(|pod| node_of(Some(pod)).is_some());
    eventually("all have their nodes", placed).await;
    for name in &names {
        let pod = pods.get(name).await.unwrap();
        let claim = claims.get(name).await.unwrap();
        assert_eq!(phase(Some(&claim)).as_deref(), Some("Bound"));
        assert_eq!(claim.annotations().get(SELECTED_NODE), node_of(Some(&pod)).as_ref());
        let notes = cluster.notes(name, "FailedScheduling").await;
        assert!(
            notes.iter().all(|note| note.contains("not found")),
            "only a claim not seen yet is a reason: {notes:?}"
        );
    }
}
