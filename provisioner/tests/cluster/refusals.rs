//! What is not supported is refused in words that name the field and the way out; what is not ours is left alone.

use bedplate_api::names;
use serde_json::{Value, json};

use super::agent::Agent;
use super::binder::Binder;
use super::world::{World, merge, selected, stays, until};

async fn refused(class: &[(&str, &str)], more: Value, holds: &[&str]) {
    let world = World::new().await;
    let (_agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    world.class("odd", class).await;
    let _provisioner = world.provisioner();
    let mut claim = json!({"metadata": {"annotations": selected("n1")}});
    merge(&mut claim, more);
    world.claim_with("data", "odd", "10Mi", claim).await;
    world.told("data", holds).await;
    world.settle("n1").await;
    assert_eq!(world.locals().await.len(), 1, "only the claim that came after it has a volume");
    assert_eq!(world.selected_node("data").await.as_deref(), Some("n1"), "no other node would help");
    let said = world.events("PersistentVolumeClaim", "data").await.len();
    stays("it is said once", || async { world.events("PersistentVolumeClaim", "data").await.len() == said }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_parameter_is_refused_by_its_name() {
    refused(&[("bedplate.dev/medai", "ssd")], json!({}), &["BadParameter", "odd", "bedplate.dev/medai", "unknown"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_is_not_supported_yet_is_refused_by_its_name() {
    refused(
        &[(names::PARAMETER_PROFILE, "raft-small")],
        json!({}),
        &["BadParameter", "bedplate.dev/profile", "not supported yet"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contradictory_parameters_are_refused() {
    let class = [(names::PARAMETER_FSTYPE, "xfs"), (names::PARAMETER_MKFS_OPTIONS, "-T news")];
    refused(&class, json!({}), &["BadParameter", "bedplate.dev/mkfs-options"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_for_mkfs_on_a_block_claim_are_refused() {
    let class = [(names::PARAMETER_MKFS_OPTIONS, "-T news")];
    refused(&class, json!({"spec": {"volumeMode": "Block"}}), &["BadParameter", "volumeMode Block"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_write_many_is_refused() {
    let more = json!({"spec": {"accessModes": ["ReadWriteMany"]}});
    refused(&[], more, &["UnsupportedAccessMode", "spec.accessModes", "ReadWriteMany", "use ReadWriteOnce"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_is_refused() {
    let more = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
    refused(&[], more, &["UnsupportedSelector", "spec.selector"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_attributes_class_is_refused() {
    let more = json!({"spec": {"volumeAttributesClassName": "gold"}});
    refused(&[], more, &["UnsupportedVolumeAttributesClass", "gold"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_as_source_is_refused() {
    let source = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "monday"});
    refused(&[], json!({"spec": {"dataSource": source}}), &["UnsupportedDataSource", "monday"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_as_source_is_refused() {
    let source = json!({"kind": "PersistentVolumeClaim", "name": "original"});
    refused(&[], json!({"spec": {"dataSource": source}}), &["UnsupportedDataSource", "original"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn immediate_binding_is_refused_though_no_node_is_selected() {
    let world = World::new().await;
    world.class_with("now", &[], json!({"volumeBindingMode": "Immediate"})).await;
    let _provisioner = world.provisioner();
    let annotations = json!({names::ANNOTATION_PROVISIONER: names::DRIVER});
    world.claim_with("data", "now", "10Mi", json!({"metadata": {"annotations": annotations}})).await;
    world.told("data", &["ImmediateBinding", "now", "WaitForFirstConsumer"]).await;
    assert!(world.locals().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_does_not_exist_is_named() {
    let world = World::new().await;
    let _agent = Agent::start(&world, "n1", 1024).await;
    let _provisioner = world.provisioner();
    world.claim("data", "gone", "10Mi", "n1").await;
    world.told("data", &["StorageClassNotFound", "gone"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_of_a_refused_claim_waits_and_says_for_whom() {
    let world = World::new().await;
    let _agent = Agent::start(&world, "n1", 1024).await;
    world.class("odd", &[("bedplate.dev/medai", "ssd")]).await;
    world.pod("db", &["data", "log"]).await;
    let _provisioner = world.provisioner();
    world.claim("data", "ssd", "10Mi", "n1").await;
    world.claim("log", "odd", "10Mi", "n1").await;
    world.told("data", &["WaitsForOtherClaim", "log", "bedplate.dev/medai"]).await;
    assert!(world.locals().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn others_claims_populated_claims_and_prebound_claims_are_left_alone() {
    let world = World::new().await;
    let (_agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    world.class_with("other", &[], json!({"provisioner": "other.example"})).await;
    let _provisioner = world.provisioner();
    let source = json!({"apiGroup": "populators.example", "kind": "Import", "name": "x"});
    let ours = json!({"annotations": selected("n1")});
    let populated = json!({"metadata": ours, "spec": {"dataSourceRef": source}});
    world.claim_with("populated", "ssd", "10Mi", populated).await;
    world.claim_with("prebound", "ssd", "10Mi", json!({"metadata": ours, "spec": {"volumeName": "mine"}})).await;
    let foreign = json!({names::ANNOTATION_PROVISIONER: "other.example", names::ANNOTATION_SELECTED_NODE: "n1"});
    world.claim_with("foreign", "other", "10Mi", json!({"metadata": {"annotations": foreign}})).await;
    let unnamed = json!({names::ANNOTATION_SELECTED_NODE: "n1"});
    world.claim_with("unnamed", "ssd", "10Mi", json!({"metadata": {"annotations": unnamed}})).await;
    let unplaced = json!({names::ANNOTATION_PROVISIONER: names::DRIVER});
    world.claim_with("unplaced", "ssd", "10Mi", json!({"metadata": {"annotations": unplaced}})).await;
    world.settle("n1").await;
    stays("nothing is made or said", || async {
        let mut said = 0;
        for name in ["populated", "prebound", "foreign", "unnamed", "unplaced"] {
            said += world.events("PersistentVolumeClaim", name).await.len();
        }
        said == 0 && world.locals().await.len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_write_once_pod_and_block_are_served() {
    let world = World::new().await;
    let (_agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    let more = json!({
        "metadata": {"annotations": selected("n1")},
        "spec": {"accessModes": ["ReadWriteOncePod"], "volumeMode": "Block"},
    });
    let claim = world.claim_with("data", "ssd", "10Mi", more).await;
    world.until_bound("data").await;
    let spec = world.volume_of(&claim).await.unwrap().spec.unwrap();
    assert_eq!(spec.access_modes.unwrap(), ["ReadWriteOncePod"]);
    assert_eq!(spec.volume_mode.as_deref(), Some("Block"));
    assert_eq!(spec.csi.unwrap().fs_type, None);
    until("its order says so too", || async { world.locals().await[0].spec.fs_type.is_none() }).await;
}
