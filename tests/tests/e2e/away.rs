//! A node that loses its power, and a disk that is pulled: what is owed is visible meanwhile, and paid on return before
//! any of that space is offered.

use anyhow::{Result, ensure};
use bedplate_api::local_volume::Phase;
use bedplate_api::{LocalVolume, StorageNode};
use bedplate_tests::cluster::objects::Work;
use bedplate_tests::cluster::wait::{SOON, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::DeleteParams;

#[test]
fn a_node_that_comes_back_pays_its_debt_before_it_offers_the_space() {
    let power = "a test cannot pull the plug of a real machine";
    story("node_lost_and_back", &Shape::nodes(2).embedded_only(power), node_lost);
}

async fn node_lost(site: &mut Site) -> Result<()> {
    site.claim("owed", 32).await?;
    site.claim("kept", 16).await?;
    site.pod(&Work { name: "tenant", claims: vec![("owed", 1), ("kept", 2)], ..Work::default() }).await?;
    let owed = site.settled("tenant", "owed", 1).await?;
    let kept = site.settled("tenant", "kept", 2).await?;
    let node = owed.node.clone();
    let before = site.room_when(&node, "both are counted", |room| room.allocated >= 48 << 20).await?;

    site.ground()?.power_off(&node).await?;
    site.own::<Pod>().delete("tenant", &DeleteParams::default().grace_period(0)).await?;
    site.own::<PersistentVolumeClaim>().delete("owed", &DeleteParams::default()).await?;
    // The cluster says that it is to go; nobody is there to do it, so nothing of it goes.
    until_one::<PersistentVolume, _>(site.all(), &owed.volume, "released", SOON, |volume| {
        (volume?.status.as_ref()?.phase.as_deref() == Some("Released")).then_some(())
    })
    .await?;
    until_one::<LocalVolume, _>(site.all(), &owed.local, "ordered to be wiped", SOON, |local| {
        local?.spec.release.as_ref().map(|_| ())
    })
    .await?;
    ensure!(
        site.all::<PersistentVolume>().get_opt(&owed.volume).await?.is_some(),
        "gone, with nobody there to wipe it"
    );
    site.disk_holds(&node, &[1, 2]).await?;

    // From its first word on the node must not offer what it owes.
    let watched = free_until_wiped(site, &node, before.free);
    site.ground()?.power_on(&node).await?;
    site.wiped(&owed).await?;
    watched.await??;
    site.disk_lacks(&node, &[1]).await?;
    site.disk_holds(&node, &[2]).await?;
    site.pod(&Work { name: "again", claims: vec![("kept", 2)], ..Work::default() }).await?;
    site.running("again").await?;
    site.found("again", 2).await?;
    ensure!(site.bound("kept").await? == kept);
    Ok(())
}

/// Watches what a node tells until more than `free` is free: by then a receipt must be in the cluster or in the node's log.
fn free_until_wiped(site: &mut Site, node: &str, free: i64) -> tokio::task::JoinHandle<Result<()>> {
    let (api, node) = (site.all::<StorageNode>(), node.to_owned());
    let log = site.ground().and_then(|ground| Ok(ground.node(&node)?.state()));
    tokio::spawn(async move {
        let log = log?.join(bedplate_provisioner::receipts::RECEIPTS);
        until_one(api, &node, "more is free", SOON, |object| {
            let pools = &object?.status.as_ref()?.pools;
            let more = pools.iter().any(|pool| pool.free > free);
            more.then(|| std::fs::metadata(&log).is_ok_and(|log| log.len() > 0))
        })
        .await
        .and_then(|proven| {
            ensure!(proven, "the space is offered and no receipt says that it is clean");
            Ok(())
        })
    })
}

#[test]
fn a_disk_that_is_pulled_owes_its_wipe_and_pays_when_it_is_back() {
    let pull = "a test cannot pull a disk of a real machine";
    story("a_disk_pulled_and_back", &Shape::nodes(1).embedded_only(pull), disk_pulled);
}

async fn disk_pulled(site: &mut Site) -> Result<()> {
    site.claim("owed", 32).await?;
    site.pod(&Work { name: "tenant", claims: vec![("owed", 1)], ..Work::default() }).await?;
    let owed = site.settled("tenant", "owed", 1).await?;
    let node = owed.node.clone();
    site.delete_pod("tenant").await?;
    {
        let ground = site.ground()?.node(&node)?;
        ground.agent.kill_nine()?;
        ground.disk.unmount()?;
        ground.agent.start().await?;
    }
    site.delete_claim("owed").await?;
    // An absent device is not an absent volume: it is owed, and said so.
    until_one::<LocalVolume, _>(site.all(), &owed.local, "owed, and why", SOON, |local| {
        let local = local?;
        let status = local.status.as_ref()?;
        let owed = status.phase == Some(Phase::Debt) || status.message.contains("absent");
        (owed && local.spec.release.is_some()).then_some(())
    })
    .await?;
    {
        let ground = site.ground()?.node(&node)?;
        ensure!(!ground.pool().exists(), "the pool's folder was made anew in the empty place");
        ground.agent.terminate().await?;
        ground.disk.mount()?;
    }
    site.disk_holds(&node, &[1]).await?;
    site.ground()?.node(&node)?.agent.start().await?;
    site.wiped(&owed).await?;
    site.disk_lacks(&node, &[1]).await
}
