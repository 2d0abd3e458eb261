//! The API server is restored to yesterday: objects of today are gone, objects of yesterday are back. The ledgers are not.

use anyhow::{Result, ensure};
use bedplate_api::LocalVolume;
use bedplate_api::local_volume::Phase;
use bedplate_tests::cluster::wait::{SOON, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::Pod;

use crate::tenants::{Tenant, offers_no_more_than};

const BACKUP: &str = "it restores the whole API server from a backup";

#[test]
fn a_volume_made_after_the_backup_keeps_its_bytes_and_its_space() {
    story("made_after_the_backup", &Shape::nodes(1).embedded_only(BACKUP), made_after);
}

async fn made_after(site: &mut Site) -> Result<()> {
    let mut old = Tenant::of(site, "old", 1, 16).await?;
    let yesterday = site.ground()?.server.snapshot();
    let new = Tenant::of(site, "new", 2, 16).await?;
    let node = new.volume.node.clone();
    let free = site.room_when(&node, "counts both", |room| room.allocated >= 32 << 20).await?.free;
    site.ground()?.restore(yesterday).await?;
    // Whose objects were in the backup goes on; whose were not has lost its pod and its claim, and no byte.
    old.lives_on(site).await?;
    site.recorded(&new.volume, Phase::Ready).await?;
    new.bytes_stay(site, free).await?;
    // Everybody has had time to think about it: another life goes by.
    Tenant::of(site, "later", 3, 16).await?.moves_out(site).await?;
    new.bytes_stay(site, free).await?;
    until_one::<LocalVolume, _>(site.all(), &new.volume.local, "told by its node, rebuilt, kept", SOON, |local| {
        let local = local?;
        (local.spec.release.is_none() && local.phase() == Some(Phase::Ready)).then_some(())
    })
    .await?;
    old.moves_out(site).await
}

#[test]
fn a_volume_wiped_after_the_backup_is_lost_and_never_made_again() {
    story("wiped_after_the_backup", &Shape::nodes(1).embedded_only(BACKUP), wiped_after);
}

async fn wiped_after(site: &mut Site) -> Result<()> {
    let gone = Tenant::of(site, "gone", 1, 16).await?;
    let (volume, node) = (gone.volume.clone(), gone.volume.node.clone());
    let yesterday = site.ground()?.server.snapshot();
    gone.moves_out(site).await?;
    // The space is another's by now.
    let heir = Tenant::of(site, "heir", 2, 16).await?;
    let free = site.room_when(&node, "counts the heir", |room| room.allocated >= 16 << 20).await?.free;
    site.ground()?.restore(yesterday).await?;
    let lost = site.phase(&volume.local, Phase::Lost).await?;
    let why = lost.status.map(|status| status.message).unwrap_or_default();
    ensure!(!why.is_empty(), "lost without a word");
    site.event("PersistentVolumeClaim", "gone", bedplate_api::names::REASON_LOST).await?;
    // The pod of yesterday is there again and is told that it cannot have its volume.
    site.event_says("Pod", "gone", "FailedMount").await?;
    let pod = site.own::<Pod>().get("gone").await?;
    site.disk_lacks(&node, &[1]).await?;
    let said = site.said("gone").await?;
    ensure!(
        said.lines().filter(|line| line.starts_with("wrote")).count() == 1,
        "it was made again for {pod:?}: {said}"
    );
    // The heir has lost its objects to the backup, and no byte to anybody.
    site.recorded(&heir.volume, Phase::Ready).await?;
    heir.bytes_stay(site, free).await?;
    offers_no_more_than(site, &node, free).await
}

#[test]
fn a_volume_released_but_not_wiped_at_the_time_of_the_backup_is_wiped_once() {
    story("released_around_the_backup", &Shape::nodes(1).embedded_only(BACKUP), released_around);
}

async fn released_around(site: &mut Site) -> Result<()> {
    let tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let (volume, node) = (tenant.volume.clone(), tenant.volume.node.clone());
    site.disk_holds(&node, &[1]).await?;
    site.delete_pod("tenant").await?;
    site.ground()?.node(&node)?.agent.kill_nine()?;
    site.own::<k8s_openapi::api::core::v1::PersistentVolumeClaim>()
        .delete("tenant", &kube::api::DeleteParams::default())
        .await?;
    until_one::<LocalVolume, _>(site.all(), &volume.local, "released", SOON, |local| {
        local?.spec.release.as_ref().map(|_| ())
    })
    .await?;
    let yesterday = site.ground()?.server.snapshot();
    site.ground()?.node(&node)?.agent.start().await?;
    site.wiped(&volume).await?;
    site.disk_lacks(&node, &[1]).await?;
    // The release of yesterday comes again: it was carried out, and that is all there is to say about it.
    site.ground()?.restore(yesterday).await?;
    site.wiped(&volume).await?;
    ensure!(site.receipts_in_log(&volume)? == 1, "wiped twice");
    Tenant::of(site, "other", 2, 16).await?.moves_out(site).await
}
