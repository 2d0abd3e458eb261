//! The provisioner is away for an hour of events, and history is forgotten meanwhile.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use bedplate_sim::apiserver::Interruption;
use bedplate_tests::cluster::objects::Work;
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::tenants::Tenant;

const HOUR: &str = "it makes an API server forget its history";

#[test]
fn a_provisioner_that_missed_an_hour_of_events_loses_nothing_and_makes_nothing_twice() {
    story("an_hour_of_events_missed", &Shape::nodes(2).embedded_only(HOUR), async |site| missed(site, false).await);
}

#[test]
fn a_provisioner_that_slept_through_an_hour_of_events_loses_nothing_and_makes_nothing_twice() {
    story("an_hour_of_events_slept", &Shape::nodes(2).embedded_only(HOUR), async |site| missed(site, true).await);
}

async fn missed(site: &mut Site, asleep: bool) -> Result<()> {
    let mut stays = Tenant::of(site, "stays", 1, 16).await?;
    let goes = Tenant::of(site, "goes", 2, 16).await?;
    let free = site.room_when(&goes.volume.node, "counts it", |room| room.allocated >= 16 << 20).await?.free;
    away(site, asleep, true).await?;

    site.delete_pod("goes").await?;
    site.delete_claim("goes").await?;
    // Many come, and half of them are gone before anybody could look.
    for number in 0..16 {
        let (claim, pod) = (format!("c{number}"), format!("p{number}"));
        site.claim(&claim, 8).await?;
        site.pod(&Work { name: &pod, claims: vec![(&claim, 10 + number)], ..Work::default() }).await?;
    }
    for number in (0..16).step_by(2) {
        site.own::<Pod>().delete(&format!("p{number}"), &DeleteParams::default().grace_period(0)).await?;
        site.own::<PersistentVolumeClaim>().delete(&format!("c{number}"), &DeleteParams::default()).await?;
    }
    // One comes back under the same name, as another claim.
    site.delete_pod_and_claim("p1", "c1").await?;
    let uid = site.claim("c1", 8).await?;
    site.pod(&Work { name: "p1", claims: vec![("c1", 11)], ..Work::default() }).await?;
    for number in 0..300 {
        let noise: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": format!("noise-{number}") } }))?;
        site.own::<ConfigMap>().create(&PostParams::default(), &noise).await?;
    }
    stays.lives(site).await?;
    goes.bytes_stay(site, free).await?;
    let server = &site.ground()?.server;
    server.compact();
    server.interrupt_watches(Interruption::Expire);

    away(site, asleep, false).await?;
    site.wiped(&goes.volume).await?;
    site.disk_lacks(&goes.volume.node, &[2]).await?;
    let mut handles = BTreeSet::new();
    for number in (1..16).step_by(2) {
        let volume = site.settled(&format!("p{number}"), &format!("c{number}"), 10 + number).await?;
        ensure!(number != 1 || volume.claim_uid == uid, "bound to the claim that was gone: {volume:?}");
        ensure!(handles.insert((volume.node.clone(), volume.handle.clone())), "twice: {volume:?}");
    }
    // What was ordered for a claim that was gone by then is given up again.
    site.living_are(8 + 1).await?;
    stays.lives_on(site).await?;
    stays.moves_out(site).await
}

async fn away(site: &mut Site, asleep: bool, away: bool) -> Result<()> {
    if !asleep {
        return site.provisioners(!away).await;
    }
    for provisioner in &site.ground()?.provisioners {
        provisioner.freeze(away)?;
    }
    Ok(())
}
