//! `kubectl delete` of what people should not delete: a LocalVolume, a StorageNode, a PV before its claim, the namespace.

use anyhow::{Result, ensure};
use bedplate_api::local_volume::Phase;
use bedplate_api::{LocalVolume, StorageNode};
use bedplate_tests::cluster::wait::{SOON, until_gone, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::tenants::{Tenant, local_is_back, offers_no_more_than};

#[test]
fn a_deleted_localvolume_keeps_serving_and_says_so() {
    story("a_localvolume_is_deleted", &Shape::nodes(2), async |site| localvolume(site, false).await);
}

#[test]
fn a_localvolume_torn_out_with_its_finalizer_is_rebuilt_from_the_nodes_record() {
    story("a_localvolume_is_torn_out", &Shape::nodes(2), async |site| localvolume(site, true).await);
}

async fn localvolume(site: &mut Site, strip: bool) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let (node, local) = (tenant.volume.node.clone(), tenant.volume.local.clone());
    let free = site.room_when(&node, "counts the tenant", |room| room.allocated >= 16 << 20).await?.free;
    let old = site.all::<LocalVolume>().get(&local).await?.uid();
    site.all::<LocalVolume>().delete(&local, &DeleteParams::default()).await?;
    site.event("LocalVolume", &local, bedplate_api::names::REASON_DELETED_WITHOUT_RELEASE).await?;
    tenant.lives(site).await?;
    if strip {
        site.strip::<LocalVolume>(site.all(), &local).await?;
        until_one::<LocalVolume, _>(site.all(), &local, "another object", SOON, |local| {
            local.filter(|local| local.uid() != old).map(|_| ())
        })
        .await?;
        local_is_back(site, &tenant.volume).await?;
    }
    offers_no_more_than(site, &node, free).await?;
    tenant.lives_on(site).await?;
    offers_no_more_than(site, &node, free).await?;
    tenant.moves_out(site).await
}

#[test]
fn a_deleted_storagenode_is_told_again_and_changes_nothing() {
    story("a_storagenode_is_deleted", &Shape::nodes(2), storagenode);
}

async fn storagenode(site: &mut Site) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let node = tenant.volume.node.clone();
    let free = site.room_when(&node, "counts the tenant", |room| room.allocated >= 16 << 20).await?.free;
    let old = site.all::<StorageNode>().get(&node).await?.uid();
    site.all::<StorageNode>().delete(&node, &DeleteParams::default()).await?;
    until_one::<StorageNode, _>(site.all(), &node, "told again", SOON, |object| {
        let object = object.filter(|object| object.uid() != old)?;
        object.status.as_ref().filter(|status| !status.volumes.is_empty()).map(|_| ())
    })
    .await?;
    offers_no_more_than(site, &node, free).await?;
    tenant.lives_on(site).await?;
    tenant.moves_out(site).await
}

#[test]
fn a_volume_deleted_before_its_claim_stays_until_it_is_wiped() {
    story("a_volume_deleted_before_its_claim", &Shape::nodes(2), volume_first);
}

async fn volume_first(site: &mut Site) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let (node, volume) = (tenant.volume.node.clone(), tenant.volume.clone());
    let free = site.room_when(&node, "counts the tenant", |room| room.allocated >= 16 << 20).await?.free;
    site.all::<PersistentVolume>().delete(&volume.volume, &DeleteParams::default()).await?;
    // Its pod runs, its claim is bound: it serves on, and nothing of it is given up.
    tenant.lives(site).await?;
    let local = site.all::<LocalVolume>().get(&volume.local).await?;
    ensure!(local.spec.release.is_none() && local.phase() == Some(Phase::Ready), "{local:?}");
    offers_no_more_than(site, &node, free).await?;
    // When the claim goes, the wipe comes before the PersistentVolume's end.
    tenant.moves_out(site).await
}

#[test]
fn a_deleted_namespace_takes_its_volumes_with_it_only_after_they_are_wiped() {
    story("the_namespace_is_deleted", &Shape::nodes(2).embedded_only("the namespace is the story's own"), namespace);
}

async fn namespace(site: &mut Site) -> Result<()> {
    let tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let node = tenant.volume.node.clone();
    // Somebody else's tenants are none of that namespace's business.
    let mut other = {
        let story = std::mem::replace(&mut site.namespace, "other".to_owned());
        site.make_namespace().await?;
        let other = Tenant::of(site, "other", 2, 16).await?;
        site.namespace = story;
        other
    };
    site.disk_holds(&node, &[1]).await?;
    site.all::<Namespace>().delete(&site.namespace, &DeleteParams::default()).await?;
    until_gone::<Namespace>(site.all(), &site.namespace).await?;
    let receipt = site.wiped(&tenant.volume).await?;
    ensure!(receipt.spec.claim.name == "tenant", "{receipt:?}");
    site.disk_lacks(&node, &[1]).await?;
    "other".clone_into(&mut site.namespace);
    other.lives_on(site).await?;
    other.moves_out(site).await
}
