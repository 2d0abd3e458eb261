//! Ten and a hundred claims at once.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use bedplate_api::WipeReceipt;
use bedplate_tests::cluster::objects::Work;
use bedplate_tests::cluster::sight::Bound;
use bedplate_tests::cluster::wait::{LONG, until};
use bedplate_tests::cluster::{Shape, Site, story};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher::Config;

#[test]
fn ten_claims_at_once_are_bound_used_and_wiped() {
    story("ten_claims_at_once", &Shape::nodes(2).disk(256), async |site| crowd(site, 10, 16).await);
}

#[test]
fn a_hundred_claims_at_once_are_bound_used_and_wiped() {
    story("a_hundred_claims_at_once", &Shape::nodes(4).disk(320).provisioners(2), async |site| {
        crowd(site, 100, 8).await
    });
}

async fn crowd(site: &mut Site, count: u32, mib: u64) -> Result<()> {
    let names: Vec<String> = (0..count).map(|number| format!("c{number}")).collect();
    let site = &*site;
    let made = stream::iter(names.iter().zip(1u32..)).map(async |(name, mark)| {
        let uid = site.claim(name, mib).await?;
        site.pod(&Work { name, claims: vec![(name, mark)], ..Work::default() }).await?;
        anyhow::Ok((name.clone(), uid))
    });
    let uids: BTreeMap<String, String> = made.buffer_unordered(8).try_collect().await?;
    until::<Pod, _>(site.own(), Config::default(), "all pods running", LONG, |there| {
        let runs = |pod: &&Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        (there.values().filter(runs).count() == names.len()).then_some(())
    })
    .await?;
    let claims = site.own::<PersistentVolumeClaim>().list(&ListParams::default()).await?;
    let behind = stream::iter(claims.iter()).map(|claim| site.behind(claim));
    let volumes: Vec<Bound> = behind.buffer_unordered(8).try_collect().await?;
    // Nothing lost, nothing twice: one volume a claim, one claim a volume.
    ensure!(volumes.iter().map(|volume| &volume.claim_uid).collect::<BTreeSet<_>>() == uids.values().collect());
    let handles: BTreeSet<_> = volumes.iter().map(|volume| (&volume.node, &volume.handle)).collect();
    ensure!(handles.len() == names.len() && site.living().await?.len() == names.len(), "{volumes:?}");
    for (name, mark) in names.iter().zip(1u32..) {
        site.wrote(name, mark).await?;
    }
    // Over-commit would show here: no pool promises more than it has.
    let nodes: BTreeSet<&String> = volumes.iter().map(|volume| &volume.node).collect();
    let marks = |node: &str| -> Vec<u32> {
        let here: BTreeSet<_> =
            volumes.iter().filter(|volume| volume.node == node).map(|v| v.claim_uid.clone()).collect();
        names.iter().zip(1u32..).filter(|(name, _)| here.contains(&uids[*name])).map(|(_, mark)| mark).collect()
    };
    for node in &nodes {
        let room = site.room(node).await?;
        ensure!(room.allocated + room.quarantined + room.dirty + room.free <= room.capacity, "{node}: {room:?}");
        site.disk_holds(node, &marks(node)).await?;
    }
    let now = DeleteParams::default().grace_period(0);
    site.own::<Pod>().delete_collection(&now, &ListParams::default()).await?;
    site.own::<PersistentVolumeClaim>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    let wanted: BTreeSet<&String> = uids.values().collect();
    let what = "a receipt for each claim";
    until::<WipeReceipt, _>(site.all(), Config::default(), what, LONG, |there| {
        let told: BTreeSet<&String> = there.values().map(|receipt| &receipt.spec.claim_uid).collect();
        wanted.is_subset(&told).then_some(())
    })
    .await?;
    for volume in &volumes {
        site.wiped(volume).await?;
        ensure!(site.receipts(&volume.claim_uid).await? == 1, "not one receipt for {volume:?}");
    }
    for node in &nodes {
        site.disk_lacks(node, &marks(node)).await?;
    }
    Ok(())
}
