//! Programs that die: the agent under a running pod, the leading provisioner in the middle of a burst, the extender.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use bedplate_tests::cluster::objects::Work;
use bedplate_tests::cluster::wait::{LONG, until};
use bedplate_tests::cluster::{Shape, Site, story};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;
use kube::api::ListParams;

#[test]
fn a_pod_goes_on_writing_while_its_agent_dies_and_comes_back() {
    story("agent_restart_under_a_pod", &Shape::nodes(1), agent_restart);
}

async fn agent_restart(site: &mut Site) -> Result<()> {
    site.claim("data", 16).await?;
    site.pod(&Work { name: "writer", claims: vec![("data", 1)], busy: true, ..Work::default() }).await?;
    let volume = site.settled("writer", "data", 1).await?;
    let before = site.ticks("writer").await?;
    for _ in 0..3 {
        site.restart_agent(&volume.node).await?;
        site.running("writer").await?;
    }
    site.ticks_on("writer", before).await?;
    // The agent that came back knows what is staged: it can take it down, and put it up again.
    site.delete_pod("writer").await?;
    site.pod(&Work { name: "reader", claims: vec![("data", 1)], ..Work::default() }).await?;
    site.running("reader").await?;
    site.found("reader", 1).await?;
    site.delete_pod("reader").await?;
    site.delete_claim("data").await?;
    site.wiped(&volume).await?;
    site.disk_lacks(&volume.node, &[1]).await
}

#[test]
fn a_leader_that_dies_in_the_middle_of_a_burst_loses_nothing_and_makes_nothing_twice() {
    story("provisioner_fail_over", &Shape::nodes(2).disk(320).provisioners(2), fail_over);
}

async fn fail_over(site: &mut Site) -> Result<()> {
    const CLAIMS: u32 = 20;
    let names: Vec<String> = (0..CLAIMS).map(|number| format!("c{number}")).collect();
    {
        let site = &*site;
        let made = stream::iter(names.iter().zip(1u32..)).map(async |(name, mark)| {
            site.claim(name, 8).await?;
            site.pod(&Work { name, claims: vec![(name, mark)], ..Work::default() }).await
        });
        made.buffer_unordered(4).try_collect::<Vec<()>>().await?;
        // In the middle: some LocalVolumes are there, not all pods run.
        let some = "a few LocalVolumes";
        let api = site.all::<bedplate_api::LocalVolume>();
        until(api, kube::runtime::watcher::Config::default(), some, LONG, |there| (there.len() >= 3).then_some(()))
            .await?;
    }
    site.kill_leader().await?;
    let mut seen = BTreeSet::new();
    for (name, mark) in names.iter().zip(1u32..) {
        site.running_within(name, LONG).await?;
        let volume = site.settled(name, name, mark).await?;
        ensure!(seen.insert((volume.node.clone(), volume.handle.clone())), "{volume:?} is another claim's, too");
    }
    let locals = site.living().await?;
    ensure!(locals.len() == names.len(), "{} LocalVolumes for {CLAIMS} claims", locals.len());
    let volumes = site.all::<PersistentVolume>().list(&ListParams::default()).await?;
    let ours = volumes.iter().filter(|volume| {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        claim.is_some_and(|claim| claim.namespace.as_deref() == Some(&site.namespace))
    });
    ensure!(ours.count() == names.len(), "{:?}", volumes.iter().map(ResourceExt::name_any).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn pods_are_placed_without_the_extender_and_admission_still_judges() {
    story("extender_down", &Shape::nodes(2), extender_down);
}

async fn extender_down(site: &mut Site) -> Result<()> {
    site.extender(false).await?;
    site.claim("data", 16).await?;
    site.pod(&Work { name: "with-a-claim", claims: vec![("data", 1)], ..Work::default() }).await?;
    site.settled("with-a-claim", "data", 1).await?;
    // Two claims that fit one by one but not together: the scheduler cannot know, admission does.
    let node = site.nodes().pop().context("no node")?;
    let most = u64::try_from(site.room(&node).await?.largest_volume)? >> 20;
    let each = most * 2 / 3;
    site.claim("one", each).await?;
    site.claim("other", each).await?;
    let pod = Work { name: "too-much", claims: vec![("one", 2), ("other", 3)], node: Some(&node), ..Work::default() };
    site.pod(&pod).await?;
    site.event_says("PersistentVolumeClaim", "one", &node).await?;
    ensure!(
        site.living().await?.iter().all(|local| local.spec.claim.name == "data"),
        "made for a pod that does not fit"
    );
    site.extender(true).await?;
    site.claim("later", 16).await?;
    site.pod(&Work { name: "later", claims: vec![("later", 4)], ..Work::default() }).await?;
    site.settled("later", "later", 4).await?;
    Ok(())
}
