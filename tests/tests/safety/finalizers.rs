//! Finalizers removed by hand. That cannot be prevented; the ledger withholds all the same.

use anyhow::{Result, ensure};
use bedplate_api::LocalVolume;
use bedplate_api::local_volume::Phase;
use bedplate_tests::cluster::wait::{SOON, until_gone, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::DeleteParams;

use crate::tenants::{Tenant, offers_no_more_than};

#[test]
fn a_volume_whose_objects_are_torn_out_under_its_pod_keeps_its_bytes() {
    story("objects_torn_out_under_a_pod", &Shape::nodes(2).embedded_only(LEFT), torn_out);
}

const LEFT: &str = "it leaves a volume behind that only a person may give up";

async fn torn_out(site: &mut Site) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let volume = tenant.volume.clone();
    let free = site.room_when(&volume.node, "counts the tenant", |room| room.allocated >= 16 << 20).await?.free;
    let volumes = site.all::<PersistentVolume>();
    volumes.delete(&volume.volume, &DeleteParams::default()).await?;
    site.all::<LocalVolume>().delete(&volume.local, &DeleteParams::default()).await?;
    site.strip::<PersistentVolume>(volumes.clone(), &volume.volume).await?;
    site.strip::<LocalVolume>(site.all(), &volume.local).await?;
    until_gone(volumes, &volume.volume).await?;
    tenant.lives(site).await?;
    offers_no_more_than(site, &volume.node, free).await?;

    // The pod goes and the claim goes: there is no PersistentVolume that could say that it was released.
    site.delete_pod("tenant").await?;
    site.own::<PersistentVolumeClaim>().delete("tenant", &DeleteParams::default()).await?;
    site.strip::<PersistentVolumeClaim>(site.own(), "tenant").await?;
    until_gone::<PersistentVolumeClaim>(site.own(), "tenant").await?;
    // Somebody else's life shows that the provisioner and the agent have had their time.
    Tenant::on(site, "other", 2, 16, Some(&volume.node)).await?.moves_out(site).await?;
    site.recorded(&volume, Phase::Ready).await?;
    tenant.bytes_stay(site, free).await
}

#[test]
fn a_released_volume_whose_objects_are_torn_out_is_not_offered_before_it_is_wiped() {
    story("objects_torn_out_after_release", &Shape::nodes(1).embedded_only(LEFT), torn_out_released);
}

async fn torn_out_released(site: &mut Site) -> Result<()> {
    let tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let volume = tenant.volume.clone();
    let free = site.room_when(&volume.node, "counts the tenant", |room| room.allocated >= 16 << 20).await?.free;
    site.delete_pod("tenant").await?;
    // Nobody is there to hear of the release.
    site.ground()?.node(&volume.node)?.agent.kill_nine()?;
    site.own::<PersistentVolumeClaim>().delete("tenant", &DeleteParams::default()).await?;
    until_one::<LocalVolume, _>(site.all(), &volume.local, "released", SOON, |local| {
        local?.spec.release.as_ref().map(|_| ())
    })
    .await?;
    site.all::<PersistentVolume>().delete(&volume.volume, &DeleteParams::default()).await?;
    site.all::<LocalVolume>().delete(&volume.local, &DeleteParams::default()).await?;
    site.strip::<PersistentVolume>(site.all(), &volume.volume).await?;
    site.strip::<LocalVolume>(site.all(), &volume.local).await?;
    until_gone::<PersistentVolume>(site.all(), &volume.volume).await?;
    until_gone::<LocalVolume>(site.all(), &volume.local).await?;
    site.ground()?.node(&volume.node)?.agent.start().await?;
    // No recorded release reached the ledger, so nothing is wiped; and what is not wiped is not offered.
    site.recorded(&volume, Phase::Ready).await?;
    tenant.bytes_stay(site, free).await?;
    Tenant::of(site, "other", 2, 16).await?.moves_out(site).await?;
    tenant.bytes_stay(site, free).await
}

#[test]
fn a_wipe_under_way_ends_with_its_receipt_though_its_objects_are_torn_out() {
    story("objects_torn_out_under_a_wipe", &Shape::nodes(1).disk(256), torn_out_wiping);
}

async fn torn_out_wiping(site: &mut Site) -> Result<()> {
    let tenant = Tenant::of(site, "tenant", 1, 96).await?;
    let volume = tenant.volume.clone();
    site.disk_holds(&volume.node, &[1]).await?;
    let free = site.room_when(&volume.node, "counts the tenant", |room| room.allocated >= 96 << 20).await?.free;
    site.delete_pod("tenant").await?;
    site.own::<PersistentVolumeClaim>().delete("tenant", &DeleteParams::default()).await?;
    until_one::<LocalVolume, _>(site.all(), &volume.local, "on its way", SOON, |local| {
        local.is_none_or(|local| local.phase().is_some_and(|phase| phase > Phase::Lost)).then_some(())
    })
    .await?;
    for _ in 0..2 {
        let gone = DeleteParams::default();
        let _ = site.all::<PersistentVolume>().delete(&volume.volume, &gone).await;
        let _ = site.all::<LocalVolume>().delete(&volume.local, &gone).await;
        site.strip::<PersistentVolume>(site.all(), &volume.volume).await?;
        site.strip::<LocalVolume>(site.all(), &volume.local).await?;
    }
    let room = site.room_when(&volume.node, "the room is back", |room| room.free >= free + (96 << 20)).await?;
    ensure!(site.receipts_in_log(&volume)? == usize::from(site.is_embedded()), "offered without a receipt: {room:?}");
    site.disk_lacks(&volume.node, &[1]).await
}

#[test]
fn a_receipt_lets_a_volume_go_whose_record_was_torn_out_under_the_wipe() {
    story("record_torn_out_under_a_wipe", &Shape::nodes(1).disk(256), record_torn_out);
}

async fn record_torn_out(site: &mut Site) -> Result<()> {
    let tenant = Tenant::of(site, "tenant", 1, 96).await?;
    let volume = tenant.volume.clone();
    site.delete_pod("tenant").await?;
    site.own::<PersistentVolumeClaim>().delete("tenant", &DeleteParams::default()).await?;
    until_one::<LocalVolume, _>(site.all(), &volume.local, "on its way", SOON, |local| {
        local.is_none_or(|local| local.phase().is_some_and(|phase| phase > Phase::Lost)).then_some(())
    })
    .await?;
    // The PersistentVolume stays: it waits for a record that will not come again.
    let _ = site.all::<LocalVolume>().delete(&volume.local, &DeleteParams::default()).await;
    site.strip::<LocalVolume>(site.all(), &volume.local).await?;
    until_gone::<PersistentVolume>(site.all(), &volume.volume).await?;
    ensure!(site.receipts(&volume.claim_uid).await? == 1, "let go without one receipt");
    site.disk_lacks(&volume.node, &[1]).await
}
