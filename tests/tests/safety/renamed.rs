//! A Node is deleted and made again under its name: by the same machine, and by another one.

use anyhow::{Result, ensure};
use bedplate_api::StorageNode;
use bedplate_api::local_volume::Phase;
use bedplate_tests::cluster::wait::{SOON, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::tenants::{Tenant, local_is_back, offers_no_more_than};

const NODES: &str = "it deletes Nodes";

#[test]
fn the_same_machine_under_a_new_node_object_goes_on_with_all_its_volumes() {
    story("a_node_is_made_again", &Shape::nodes(2).embedded_only(NODES), same_machine);
}

async fn same_machine(site: &mut Site) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let node = tenant.volume.node.clone();
    let free = site.room_when(&node, "counts the tenant", |room| room.allocated >= 16 << 20).await?.free;
    let old = site.all::<Node>().get(&node).await?.uid();
    site.all::<Node>().delete(&node, &DeleteParams::default()).await?;
    tenant.writes(site).await?;
    // A kubelet registers when it starts.
    let client = site.client.clone();
    let machine = site.ground()?.node(&node)?;
    machine.kubelet.stop().await;
    machine.kubelet.start(&client, &node);
    let new = until_one::<Node, _>(site.all(), &node, "there again", SOON, |object| {
        object.filter(|object| object.uid() != old).and_then(ResourceExt::uid)
    })
    .await?;
    until_one::<StorageNode, _>(site.all(), &node, "of the new Node", SOON, |object| {
        (object?.status.as_ref()?.node_uid == new).then_some(())
    })
    .await?;
    site.ground()?.serves().await?;
    local_is_back(site, &tenant.volume).await?;
    tenant.lives(site).await?;
    offers_no_more_than(site, &node, free).await?;
    tenant.lives_on(site).await?;
    tenant.moves_out(site).await
}

#[test]
fn another_machine_under_an_old_name_never_makes_the_old_volumes_again() {
    story("another_machine_under_the_name", &Shape::nodes(1).embedded_only(NODES), other_machine);
}

async fn other_machine(site: &mut Site) -> Result<()> {
    let tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let node = tenant.volume.node.clone();
    let ledger = |object: &StorageNode| object.status.as_ref().map(|status| status.ledger_id.clone());
    let old = ledger(&site.all::<StorageNode>().get(&node).await?);
    let kubeconfig = site.ground()?.kubeconfig().to_owned();
    site.ground()?.power_off(&node).await?;
    site.all::<Node>().delete(&node, &DeleteParams::default()).await?;
    site.own::<Pod>().delete("tenant", &DeleteParams::default().grace_period(0)).await?;
    let disk = 192;
    site.ground()?.node(&node)?.replace_machine(&kubeconfig, disk)?;
    site.ground()?.move_pool(&node).await?;
    site.ground()?.power_on(&node).await?;
    until_one::<StorageNode, _>(site.all(), &node, "has another ledger and a pool", SOON, |object| {
        let object = object?;
        let room = object.status.as_ref()?.pools.iter().any(|pool| pool.largest_volume > 0);
        (room && ledger(object) != old).then_some(())
    })
    .await?;
    let lost = site.phase(&tenant.volume.local, Phase::Lost).await?;
    ensure!(lost.status.is_some_and(|status| status.message.contains("ledger")), "no word of the ledger");
    site.event("PersistentVolumeClaim", "tenant", bedplate_api::names::REASON_LOST).await?;
    // A pod that wants its volume does not get an empty one.
    let pod =
        bedplate_tests::cluster::objects::Work { name: "again", claims: vec![("tenant", 1)], ..Default::default() };
    site.pod(&pod).await?;
    site.event_says("Pod", "again", "FailedMount").await?;
    ensure!(site.said("again").await?.is_empty(), "{}", site.said("again").await?);
    // The machine serves everybody else.
    site.ground()?.serves().await?;
    Tenant::of(site, "other", 2, 16).await?.moves_out(site).await
}
