//! The life of a claim, and of a pod with two.

use anyhow::{Result, ensure};
use bedplate_api::local_volume::Phase;
use bedplate_api::names;
use bedplate_tests::cluster::objects::Work;
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;

#[test]
fn a_claim_is_made_bound_used_deleted_and_wiped_with_a_receipt_in_its_name() {
    story("a_claim_lives", &Shape::nodes(2), a_life);
}

async fn a_life(site: &mut Site) -> Result<()> {
    let uid = site.claim("data", 16).await?;
    site.pod(&Work { name: "member", claims: vec![("data", 1)], ..Work::default() }).await?;
    let volume = site.settled("member", "data", 1).await?;
    ensure!(volume.claim_uid == uid && volume.volume == format!("pvc-{uid}"), "{volume:?}");
    site.phase(&volume.local, Phase::Ready).await?;
    let object = site.all::<PersistentVolume>().get(&volume.volume).await?;
    ensure!(object.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER), "{:?}", object.metadata);

    // Another pod on the same claim finds what the first one wrote.
    site.delete_pod("member").await?;
    site.pod(&Work { name: "successor", claims: vec![("data", 1)], ..Work::default() }).await?;
    let node = site.running("successor").await?;
    ensure!(node == volume.node, "the volume is on {}, the pod on {node}", volume.node);
    site.found("successor", 1).await?;

    // The same search that must find nothing at the end finds all of it now.
    site.disk_holds(&node, &[1]).await?;
    let before = site.room(&node).await?;
    site.delete_pod("successor").await?;
    site.delete_claim("data").await?;
    let receipt = site.wiped(&volume).await?;
    ensure!(receipt.spec.claim.name == "data" && receipt.spec.bytes >= 16 << 20, "{receipt:?}");
    ensure!(receipt.spec.claim.labels.get("story").is_some_and(|label| label == "data"), "{receipt:?}");
    ensure!(receipt.spec.verification.kind == "full" && receipt.spec.verification.bytes >= 16 << 20, "{receipt:?}");
    site.disk_lacks(&node, &[1]).await?;
    site.room_when(&node, "the room is back", |room| room.free >= before.free + (16 << 20)).await?;
    Ok(())
}

#[test]
fn a_pod_with_two_claims_gets_both_on_one_node_and_each_is_wiped_on_its_own() {
    story("two_claims_a_pod", &Shape::nodes(2), two_claims);
}

async fn two_claims(site: &mut Site) -> Result<()> {
    site.claim("log", 16).await?;
    site.claim("state", 24).await?;
    site.pod(&Work { name: "member", claims: vec![("log", 1), ("state", 2)], ..Work::default() }).await?;
    let log = site.settled("member", "log", 1).await?;
    let state = site.settled("member", "state", 2).await?;
    ensure!(log.node == state.node && log.local != state.local, "{log:?} {state:?}");
    site.disk_holds(&log.node, &[1, 2]).await?;
    site.delete_pod("member").await?;
    site.delete_claim("log").await?;
    site.wiped(&log).await?;
    site.disk_lacks(&log.node, &[1]).await?;
    // The other one is untouched, and still serves.
    site.disk_holds(&log.node, &[2]).await?;
    site.phase(&state.local, Phase::Ready).await?;
    site.pod(&Work { name: "again", claims: vec![("state", 2)], ..Work::default() }).await?;
    site.running("again").await?;
    site.found("again", 2).await?;
    site.delete_pod("again").await?;
    site.delete_claim("state").await?;
    site.wiped(&state).await?;
    site.disk_lacks(&log.node, &[2]).await
}
