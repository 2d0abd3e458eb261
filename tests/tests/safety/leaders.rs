//! Two provisioners believe that they lead.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use bedplate_tests::cluster::objects::Work;
use bedplate_tests::cluster::wait::{SOON, until, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher::Config;

use crate::tenants::Tenant;

const FREEZE: &str = "it stops a process in its tracks";

#[test]
fn a_leader_that_wakes_up_in_anothers_reign_writes_nothing() {
    story("two_leaders", &Shape::nodes(2).disk(256).provisioners(2).embedded_only(FREEZE), two_leaders);
}

async fn two_leaders(site: &mut Site) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let goes = Tenant::of(site, "goes", 2, 16).await?;
    site.delete_pod("goes").await?;
    let count = 12;
    for number in 0..count {
        let name = format!("c{number}");
        site.claim(&name, 8).await?;
        site.pod(&Work { name: &name, claims: vec![(&name, 10 + number)], ..Work::default() }).await?;
    }
    let locals = site.all::<bedplate_api::LocalVolume>();
    until(locals, Config::default(), "the burst has begun", SOON, |there| (there.len() > 3).then_some(())).await?;
    let old = site.ground()?.leader().await?;
    site.ground()?.provisioners[old].freeze(true)?;
    // What it will miss: this claim is gone, and its volume with it.
    site.delete_claim("goes").await?;
    let title = site.ground()?.provisioners[old].title().to_owned();
    let leases: Api<Lease> = Api::namespaced(site.client.clone(), bedplate_tests::cluster::install::NAMESPACE);
    until_one(leases.clone(), bedplate_api::names::LEASE, "somebody else leads", SOON, |lease| {
        let holder = lease?.spec.as_ref()?.holder_identity.clone()?;
        (!holder.starts_with(&title)).then_some(())
    })
    .await?;
    let transitions = |lease: Lease| lease.spec.and_then(|spec| spec.lease_transitions);
    let before = transitions(leases.get(bedplate_api::names::LEASE).await?);
    site.ground()?.provisioners[old].freeze(false)?;

    let mut handles = BTreeSet::new();
    for number in 0..count {
        let name = format!("c{number}");
        let volume = site.settled(&name, &name, 10 + number).await?;
        ensure!(handles.insert((volume.node.clone(), volume.handle.clone())), "twice: {volume:?}");
    }
    site.wiped(&goes.volume).await?;
    let volumes = site.all::<PersistentVolume>().list(&ListParams::default()).await?;
    ensure!(volumes.items.len() == count as usize + 1, "{} PersistentVolumes", volumes.items.len());
    let living = site.living().await?;
    ensure!(living.len() == count as usize + 1, "{living:?}");
    let after = transitions(leases.get(bedplate_api::names::LEASE).await?);
    ensure!(after == before, "the old leader took the Lease back: {before:?} {after:?}");
    tenant.lives_on(site).await.context("the tenant who had nothing to do with it")
}
