//! All CRDs are deleted under running volumes, as an uninstall does, and made again.

use anyhow::{Result, ensure};
use bedplate_tests::cluster::install;
use bedplate_tests::cluster::wait::{SOON, until};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};

use crate::tenants::{Tenant, local_is_back};

const EVERYBODY: &str = "CRDs are everybody's, not only this story's";

#[test]
fn deleting_all_crds_under_running_volumes_loses_no_byte_and_offers_none() {
    story("all_crds_are_deleted", &Shape::nodes(2).embedded_only(EVERYBODY), deleted);
}

async fn deleted(site: &mut Site) -> Result<()> {
    let mut tenant = Tenant::of(site, "tenant", 1, 16).await?;
    let node = tenant.volume.node.clone();
    let before = site.room_when(&node, "counts the tenant", |room| room.allocated >= 16 << 20).await?;
    let crds: Api<CustomResourceDefinition> = site.all();
    let mut ours: Vec<String> = crds.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    ours.retain(|name| name.ends_with(bedplate_api::names::GROUP));
    ensure!(ours.len() == bedplate_api::crds::all().len(), "{ours:?}");
    for name in &ours {
        crds.delete(name, &DeleteParams::default()).await?;
    }
    // The volume's finalizer holds the deletion of its CRD up; meanwhile everything goes on.
    tenant.writes(site).await?;
    // Somebody cannot wait, and tears everything out.
    strip_until_gone(site, &crds).await?;
    tenant.writes(site).await?;
    // An agent that starts into a cluster without CRDs must not conclude anything from that.
    let agent = site.ground()?.node(&node)?;
    agent.agent.kill_nine()?;
    agent.agent.launch()?;
    tenant.writes(site).await?;
    site.disk_holds(&node, &[1]).await?;

    install::crds(&site.client).await?;
    site.ground()?.put_pools().await?;
    site.ground()?.serves().await?;
    // The node tells what it has, and the volume's object comes back from that.
    local_is_back(site, &tenant.volume).await?;
    tenant.lives(site).await?;
    let after = site.room_when(&node, "counts the tenant", |room| room.allocated >= 16 << 20).await?;
    ensure!(after.free <= before.free, "{before:?} {after:?}");
    tenant.lives_on(site).await?;
    tenant.moves_out(site).await?;
    // And the cluster serves as before.
    Tenant::of(site, "successor", 2, 16).await?.moves_out(site).await
}

async fn strip_until_gone(site: &Site, crds: &Api<CustomResourceDefinition>) -> Result<()> {
    let gone = until(crds.clone(), Config::default(), "our CRDs are gone", SOON, |there| {
        let ours = there.values().any(|crd| crd.spec.group == bedplate_api::names::GROUP);
        (!ours).then_some(())
    });
    let stripping = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            tick.tick().await;
            if let Ok(locals) = site.locals().await {
                for local in locals {
                    let _ = site.strip::<bedplate_api::LocalVolume>(site.all(), &local.name_any()).await;
                }
            }
        }
    };
    tokio::select! {
        gone = gone => gone,
        () = stripping => Ok(()),
    }
}
