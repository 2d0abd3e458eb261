//! DiskPools that contradict each other, the machine, or what lives in them.

use anyhow::{Result, ensure};
use bedplate_api::DiskPool;
use bedplate_api::disk_pool::{NodeAnswer, PoolState};
use bedplate_tests::cluster::objects::{self, Work, parse};
use bedplate_tests::cluster::wait::{SOON, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::tenants::Tenant;

const POOLS: &str = "it makes DiskPools";

#[test]
fn diskpools_that_overlap_or_want_the_system_disk_are_refused_in_words() {
    story("contradictory_diskpools", &Shape::nodes(1).embedded_only(POOLS), contradictory);
}

async fn contradictory(site: &mut Site) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let node = tenant.volume.node.clone();
    let machine = site.ground()?.node(&node)?;
    let (taken, disk) = (machine.pool(), machine.disk.path().to_owned());
    std::fs::create_dir(taken.join("below"))?;
    let pools = site.all::<DiskPool>();
    for (name, directory) in [("same", taken.clone()), ("below", taken.join("below")), ("above", disk)] {
        let pool = objects::disk_pool(name, &node, &directory.display().to_string());
        pools.create(&PostParams::default(), &pool).await?;
        let answer = answered(site, name, &node, |answer| answer.state == PoolState::Refused).await?;
        ensure!(answer.message.contains(&node), "it does not name the pool in its way: {answer:?}");
    }
    let everything: DiskPool = parse(json!({
        "apiVersion": "bedplate.dev/v1alpha1", "kind": "DiskPool", "metadata": { "name": "greedy" },
        "spec": { "backend": "disk", "devices": { "minSize": "1Mi" } },
    }));
    pools.create(&PostParams::default(), &everything).await?;
    let answer = answered(site, "greedy", &node, |answer| answer.state == PoolState::Refused).await?;
    ensure!(!answer.message.is_empty(), "{answer:?}");
    // The one that was there first is as it was.
    answered(site, &node, &node, |answer| answer.state == PoolState::Ready).await?;
    tenant.lives_on(site).await?;
    tenant.moves_out(site).await
}

#[test]
fn a_diskpool_taken_away_under_live_volumes_drains_and_serves() {
    story("a_diskpool_is_taken_away", &Shape::nodes(2).embedded_only(POOLS), taken_away);
}

async fn taken_away(site: &mut Site) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let goes = Tenant::on(site, "goes", 2, 16, Some(&tenant.volume.node)).await?;
    let node = tenant.volume.node.clone();
    let pools = site.all::<DiskPool>();
    // First it is meant for other nodes, then it is gone altogether.
    let elsewhere = json!({ "spec": { "nodeSelector": { "matchLabels": { "kubernetes.io/hostname": "elsewhere" } } } });
    pools.patch(&node, &PatchParams::default(), &Patch::Merge(&elsewhere)).await?;
    answered(site, &node, &node, |answer| answer.state == PoolState::Draining).await?;
    tenant.lives(site).await?;
    pools.delete(&node, &DeleteParams::default()).await?;
    site.room_when(&node, "offers nothing", |room| room.largest_volume == 0).await?;
    tenant.lives_on(site).await?;
    // What is given up there is still wiped, and none of it is offered.
    goes.moves_out(site).await?;
    site.room_when(&node, "offers nothing", |room| room.largest_volume == 0).await?;
    // A new claim goes elsewhere.
    site.claim("new", 16).await?;
    site.pod(&Work { name: "new", claims: vec![("new", 3)], ..Work::default() }).await?;
    let new = site.settled("new", "new", 3).await?;
    ensure!(new.node != node, "{new:?} was made in a pool that drains");
    // It is wanted again.
    let directory = site.ground()?.node(&node)?.pool().display().to_string();
    pools.create(&PostParams::default(), &objects::disk_pool(&node, &node, &directory)).await?;
    site.room_when(&node, "offers again", |room| room.largest_volume > 0).await?;
    tenant.lives_on(site).await?;
    tenant.moves_out(site).await
}

async fn answered(site: &Site, pool: &str, node: &str, wanted: impl Fn(&NodeAnswer) -> bool) -> Result<NodeAnswer> {
    until_one::<DiskPool, _>(site.all(), pool, "answered as wanted", SOON, |pool| {
        let answers = &pool?.status.as_ref()?.nodes;
        answers.iter().find(|answer| answer.node == node && wanted(answer)).cloned()
    })
    .await
}
