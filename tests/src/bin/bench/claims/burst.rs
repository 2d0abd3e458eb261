//! A number of claims at once: made with their pods, told their node, seen bound by a watch, given up again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bedplate_api::LocalVolume;
use bedplate_api::names::ANNOTATION_SELECTED_NODE;
use bedplate_tests::cluster::objects::parse;
use bedplate_tests::cluster::wait::{Object, until};
use futures::future::try_join_all;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::ground::{CLASS, Ground, NODE, VOLUME_MIB};

/// How long one burst may take, and how long its wipes.
const PATIENCE: Duration = Duration::from_mins(5);
/// What makes a claim one of a burst.
const LABEL: &str = "burst";

/// What a burst took.
pub struct Times {
    /// Each claim's milliseconds, from its being told its node to bound.
    pub bound_ms: Vec<f64>,
    /// Seconds from the first being told to the last bound.
    pub all_s: f64,
}

/// Play one burst.
pub async fn play(ground: &Ground, burst: &str, count: usize) -> Result<Times> {
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(ground.client.clone());
    let pods: Api<Pod> = Api::default_namespaced(ground.client.clone());
    let names: Vec<String> = (0..count).map(|i| format!("{burst}-{i}")).collect();
    for name in &names {
        claims.create(&PostParams::default(), &claim(burst, name)).await.context("a claim cannot be made")?;
        pods.create(&PostParams::default(), &pod(name)).await.context("a pod cannot be made")?;
    }
    let mut watch = watcher(claims.clone(), Config::default().labels(&format!("{LABEL}={burst}"))).boxed();
    listed(&mut watch, count).await?;
    let seen = tokio::spawn(async move { tokio::time::timeout(PATIENCE, bound(watch, count)).await });
    let begun = Instant::now();
    let told = try_join_all(names.iter().map(|name| tell(&claims, name))).await?;
    let seen = seen.await?.map_err(|_| anyhow!("{count} claims are not bound within {} s", PATIENCE.as_secs()))??;
    let millis = |(name, told): (String, Instant)| {
        let bound = seen.get(&name).with_context(|| format!("claim {name} was not seen bound"))?;
        Ok(bound.duration_since(told).as_secs_f64() * 1e3)
    };
    let bound_ms = told.into_iter().map(millis).collect::<Result<_>>()?;
    let last = seen.values().max().context("no claim was bound")?;
    let there = Api::<PersistentVolume>::all(ground.client.clone()).list(&ListParams::default()).await?.items.len();
    ensure!(there == count, "{there} volumes for {count} claims");
    Ok(Times { bound_ms, all_s: last.duration_since(begun).as_secs_f64() })
}

/// Delete everything, and wait until all is wiped: the next burst finds the node idle.
pub async fn give_up(ground: &Ground, count: usize) -> Result<()> {
    let all = ListParams::default();
    Api::<Pod>::default_namespaced(ground.client.clone())
        .delete_collection(&DeleteParams::default().grace_period(0), &all)
        .await
        .context("the pods cannot be deleted")?;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(ground.client.clone());
    claims.delete_collection(&DeleteParams::default(), &all).await.context("the claims cannot be deleted")?;
    let what = format!("{count} claims gone, volumes wiped");
    gone(claims, &what).await?;
    gone(Api::<PersistentVolume>::all(ground.client.clone()), &what).await?;
    gone(Api::<LocalVolume>::all(ground.client.clone()), &what).await
}

async fn gone<K: Object>(api: Api<K>, what: &str) -> Result<()> {
    until(api, Config::default(), what, PATIENCE, |there| there.is_empty().then_some(())).await
}

/// What the scheduler does to a claim whose pod has found its node; when it was begun.
async fn tell(claims: &Api<PersistentVolumeClaim>, name: &str) -> Result<(String, Instant)> {
    let patch = Patch::Merge(json!({ "metadata": { "annotations": { ANNOTATION_SELECTED_NODE: NODE } } }));
    let begun = Instant::now();
    claims.patch(name, &PatchParams::default(), &patch).await.with_context(|| format!("claim {name}"))?;
    Ok((name.to_owned(), begun))
}

type Claims = Event<PersistentVolumeClaim>;

/// Wait until the watch stands, with all claims in it and none bound.
async fn listed(watch: &mut (impl Stream<Item = watcher::Result<Claims>> + Unpin), count: usize) -> Result<()> {
    let mut listed = 0;
    while let Some(event) = watch.try_next().await? {
        match event {
            Event::InitApply(claim) => {
                ensure!(!is_bound(&claim), "claim {} is bound before it has a node", claim.name_any());
                listed += 1;
            }
            Event::InitDone => {
                ensure!(listed == count, "the watch shows {listed} of {count} claims");
                return Ok(());
            }
            Event::Init | Event::Apply(_) | Event::Delete(_) => {}
        }
    }
    Err(anyhow!("the watch ended"))
}

/// When each claim was first seen bound.
async fn bound(
    mut watch: impl Stream<Item = watcher::Result<Claims>> + Unpin,
    count: usize,
) -> Result<HashMap<String, Instant>> {
    let mut seen = HashMap::new();
    while seen.len() < count {
        let event = watch.try_next().await?.context("the watch ended")?;
        if let Event::Apply(claim) | Event::InitApply(claim) = event
            && is_bound(&claim)
        {
            seen.entry(claim.name_any()).or_insert_with(Instant::now);
        }
    }
    Ok(seen)
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

fn claim(burst: &str, name: &str) -> PersistentVolumeClaim {
    parse(json!({
        "metadata": { "name": name, "labels": { LABEL: burst } },
        "spec": {
            "storageClassName": CLASS,
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": format!("{VOLUME_MIB}Mi") } },
        },
    }))
}

/// A pod that no scheduler of this cluster knows, so that the claim belongs to one, as claims do.
fn pod(claim: &str) -> Pod {
    parse(json!({
        "metadata": { "name": claim },
        "spec": {
            "containers": [{ "name": "work", "image": "none" }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }],
        },
    }))
}
