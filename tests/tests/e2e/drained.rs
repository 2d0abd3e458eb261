//! A node is drained: pods go, volumes stay, and the pods come back to them.

use anyhow::{Result, ensure};
use bedplate_api::local_volume::Phase;
use bedplate_tests::cluster::wait::{SOON, until, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher::Config;

#[test]
fn a_drained_nodes_volumes_wait_for_their_pods() {
    story("a_node_is_drained", &Shape::nodes(2), drained);
}

async fn drained(site: &mut Site) -> Result<()> {
    site.stateful_set("raft", 2, 16, 7).await?;
    let mut volumes = Vec::new();
    for ordinal in 0..2 {
        volumes.push(site.settled(&format!("raft-{ordinal}"), &format!("v0-raft-{ordinal}"), 7).await?);
    }
    let node = volumes[0].node.clone();
    let gone = site.drain(&node).await?;
    ensure!(!gone.is_empty() && gone.iter().all(|name| name.starts_with("raft-")), "{gone:?}");
    for name in &gone {
        // Its volume is here and nowhere else: it waits, and its volume with it.
        until_one::<Pod, _>(site.own(), name, "waits for its node", SOON, |pod| {
            let pod = pod?;
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let unplaced = conditions.iter().any(|c| c.type_ == "PodScheduled" && c.status == "False");
            (unplaced && pod.metadata.deletion_timestamp.is_none()).then_some(())
        })
        .await?;
    }
    for volume in &volumes {
        site.phase(&volume.local, Phase::Ready).await?;
    }
    site.disk_holds(&node, &[7]).await?;
    site.cordon(&node, false).await?;
    until::<Pod, _>(site.own(), Config::default().labels("story=raft"), "all run again", SOON, |there| {
        let runs = |pod: &&Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        let back = there.values().filter(runs).filter(|pod| pod.metadata.deletion_timestamp.is_none());
        (back.count() == 2).then_some(())
    })
    .await?;
    for name in &gone {
        site.found(name, 7).await?;
        let pod = site.own::<Pod>().get(name).await?;
        ensure!(
            pod.spec.and_then(|spec| spec.node_name).is_some_and(|on| on == node),
            "{name} is not where its volume is"
        );
    }
    // The set goes, its claims stay, as Kubernetes promises; what is left is the namespace's end.
    ensure!(
        site.locals().await?.iter().all(|local| local.spec.release.is_none()),
        "{:?}",
        site.locals().await?.iter().map(ResourceExt::name_any)
    );
    Ok(())
}
