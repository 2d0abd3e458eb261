//! Pods that do not fit: elsewhere if there is an elsewhere, else Pending with a reason that a person can act on.

use anyhow::{Result, ensure};
use bedplate_api::names;
use bedplate_tests::cluster::objects::{Claim, Work, parse};
use bedplate_tests::cluster::wait::{LONG, SOON, until, until_one};
use bedplate_tests::cluster::{Shape, Site, story};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config;
use serde_json::json;

#[test]
fn a_claim_that_fits_nowhere_stays_pending_and_says_why() {
    story("a_claim_that_fits_nowhere", &Shape::nodes(2), nowhere);
}

async fn nowhere(site: &mut Site) -> Result<()> {
    site.claim("huge", 8 << 20).await?;
    site.pod(&Work { name: "whale", claims: vec![("huge", 1)], ..Work::default() }).await?;
    let why = unschedulable(site, "whale").await?;
    ensure!(why.contains("nodes are available"), "{why}");
    ensure!(site.locals().await?.is_empty(), "a volume was made for a pod that fits nowhere");
    // What does fit is not kept waiting by it.
    site.claim("small", 16).await?;
    site.pod(&Work { name: "minnow", claims: vec![("small", 2)], ..Work::default() }).await?;
    site.settled("minnow", "small", 2).await?;
    Ok(())
}

#[test]
fn a_claim_that_is_refused_says_so_where_its_pod_is_sent_nowhere() {
    story("a_refused_claim_says_so", &Shape::nodes(1), refused);
}

/// The extender turns its pod away, so no node is ever chosen, and the control plane never asks for a volume.
async fn refused(site: &mut Site) -> Result<()> {
    let mut claim = Claim { name: "shared", class: &site.class, mib: 16 }.object();
    if let Some(spec) = &mut claim.spec {
        spec.access_modes = Some(vec!["ReadWriteMany".to_owned()]);
    }
    site.own::<PersistentVolumeClaim>().create(&PostParams::default(), &claim).await?;
    site.pod(&Work { name: "shared", claims: vec![("shared", 1)], ..Work::default() }).await?;
    let why = unschedulable(site, "shared").await?;
    ensure!(why.contains("refused"), "{why}");
    let said = about(site, "shared").await?;
    ensure!(said.iter().any(|said| said.contains("ReadWriteMany") && said.contains("use ReadWriteOnce")), "{said:?}");
    ensure!(site.locals().await?.is_empty(), "a volume was made for a claim that was refused");
    Ok(())
}

/// Waits until the scheduler says that a pod has no place; what it says.
async fn unschedulable(site: &Site, pod: &str) -> Result<String> {
    until_one::<Pod, _>(site.own(), pod, "told that it has no place", SOON, |pod| {
        let conditions = pod?.status.as_ref()?.conditions.as_ref()?;
        let told = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        (told.reason.as_deref() == Some("Unschedulable")).then(|| told.message.clone().unwrap_or_default())
    })
    .await
}

#[test]
fn a_claim_that_was_sent_to_a_full_node_is_sent_back_and_placed_elsewhere() {
    story("a_misfit_is_placed_elsewhere", &Shape::nodes(2).apart(), sent_back);
}

/// A scheduler that knows no better (an extender that is away, a capacity of a moment ago) sends a claim where it does not
/// fit: here a person plays it, and writes the annotation by hand.
async fn sent_back(site: &mut Site) -> Result<()> {
    let nodes = site.nodes();
    let room = site.room(&nodes[0]).await?;
    let most = u64::try_from(room.largest_volume)? >> 20;
    site.claim("first", most - 8).await?;
    site.pod(&Work { name: "first", claims: vec![("first", 1)], node: Some(&nodes[0]), ..Work::default() }).await?;
    site.settled("first", "first", 1).await?;

    let uid = site.claim("second", 64).await?;
    by_hand(site, "second", &nodes[0]).await?;
    let claims = site.own::<PersistentVolumeClaim>();
    until_one(claims.clone(), "second", "selected-node is taken back", SOON, |claim| {
        (!claim?.annotations().contains_key(names::ANNOTATION_SELECTED_NODE)).then_some(())
    })
    .await?;
    let said = about(site, "second").await?;
    ensure!(said.iter().any(|said| said.contains(&nodes[0])), "no Event says why: {said:?}");
    ensure!(site.living().await?.iter().all(|local| local.spec.claim_uid != uid));

    // The real scheduler takes over: there is room on the other node.
    site.delete_pod("by-hand").await?;
    site.pod(&Work { name: "second", claims: vec![("second", 2)], ..Work::default() }).await?;
    let second = site.settled("second", "second", 2).await?;
    ensure!(second.node == nodes[1], "{second:?}");
    Ok(())
}

/// Sends a claim to a node as a scheduler does. Somebody must need it, or there is no pod to admit; nothing schedules this one.
async fn by_hand(site: &Site, claim: &str, node: &str) -> Result<()> {
    let mut pod = Work { name: "by-hand", claims: vec![(claim, 2)], ..Work::default() }.object(&site.oracle, "none");
    if let Some(spec) = &mut pod.spec {
        spec.scheduler_name = Some("nobody".to_owned());
    }
    site.own::<Pod>().create(&PostParams::default(), &pod).await?;
    let select = json!({ "metadata": { "annotations": { names::ANNOTATION_SELECTED_NODE: node } } });
    let claims = site.own::<PersistentVolumeClaim>();
    claims.patch(claim, &PatchParams::default(), &Patch::Merge(&select)).await?;
    Ok(())
}

#[test]
#[ignore = "long: an agent that does not answer is waited for, half a minute"]
fn a_claim_whose_agent_is_away_waits_says_so_and_is_made_when_it_is_back() {
    story("a_silent_agent", &Shape::nodes(2).embedded_only("it keeps an agent down"), silent_agent);
}

async fn silent_agent(site: &mut Site) -> Result<()> {
    let node = site.nodes()[0].clone();
    site.ground()?.node(&node)?.agent.kill_nine()?;
    // Its StorageNode stands there as it was: stale, and nobody behind it. What was ordered from it may be made at any
    // moment, so nobody else is asked; but people are told.
    site.claim("data", 16).await?;
    site.pod(&Work { name: "data", claims: vec![("data", 1)], node: Some(&node), ..Work::default() }).await?;
    let said = about(site, "data").await?;
    ensure!(said.iter().any(|said| said.contains(&node)), "{said:?}");
    site.ground()?.node(&node)?.agent.start().await?;
    let data = site.settled("data", "data", 1).await?;
    ensure!(data.node == node && site.living().await?.len() == 1, "{data:?}");
    Ok(())
}

/// What Events say of a claim.
async fn about(site: &Site, claim: &str) -> Result<Vec<String>> {
    let what = format!("an Event about claim {claim}");
    until::<Event, _>(site.own(), Config::default(), &what, LONG, |there| {
        let ours = there.values().filter(|event| {
            let warns = event.type_.as_deref() == Some("Warning");
            warns
                && event.involved_object.name.as_deref() == Some(claim)
                && event.involved_object.kind.as_deref() == Some("PersistentVolumeClaim")
        });
        let said: Vec<String> = ours.filter_map(|event| event.message.clone()).collect();
        (!said.is_empty()).then_some(said)
    })
    .await
}

#[test]
fn a_pod_that_found_no_room_is_placed_as_soon_as_there_is_some() {
    story("room_wakes_a_pod", &Shape::nodes(1), woken);
}

async fn woken(site: &mut Site) -> Result<()> {
    let node = site.nodes()[0].clone();
    let most = u64::try_from(site.room(&node).await?.largest_volume)? >> 20;
    site.claim("first", most - 8).await?;
    site.pod(&Work { name: "first", claims: vec![("first", 1)], node: Some(&node), ..Work::default() }).await?;
    let first = site.settled("first", "first", 1).await?;
    site.claim("second", 64).await?;
    site.pod(&Work { name: "second", claims: vec![("second", 2)], node: Some(&node), ..Work::default() }).await?;
    unschedulable(site, "second").await?;
    site.delete_pod("first").await?;
    site.delete_claim("first").await?;
    site.wiped(&first).await?;
    site.settled("second", "second", 2).await?;
    Ok(())
}

#[test]
fn a_class_with_a_parameter_that_nobody_knows_is_refused_by_name() {
    story("an_unknown_parameter", &Shape::nodes(1), unknown_parameter);
}

async fn unknown_parameter(site: &mut Site) -> Result<()> {
    let class: StorageClass = parse(json!({
        "metadata": { "name": format!("odd-{}", site.namespace) },
        "provisioner": names::DRIVER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": { "bedplate.dev/medium": "ssd" },
    }));
    let name = class.name_any();
    site.all::<StorageClass>().create(&PostParams::default(), &class).await?;
    let told = async {
        site.claim_of("odd", 16, &name).await?;
        site.pod(&Work { name: "odd", claims: vec![("odd", 1)], ..Work::default() }).await?;
        site.event_says("PersistentVolumeClaim", "odd", "bedplate.dev/medium").await
    };
    let told = told.await;
    site.all::<StorageClass>().delete(&name, &kube::api::DeleteParams::default()).await?;
    told?;
    ensure!(site.locals().await?.is_empty());
    Ok(())
}
