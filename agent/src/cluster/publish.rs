//! The StorageNode: written when something changed, a burst of changes at once, and never otherwise.
//!
//! What is written is compared with what is there, so that a restart, a relist or a rescan that finds nothing new writes
//! nothing; what somebody deleted or changed is written again.

use std::sync::Arc;
use std::time::Duration;

use bedplate_api::names::{LABEL_MANAGED_BY, MANAGER_AGENT};
use bedplate_api::{StorageNode, StorageNodeStatus};
use bedplate_core::chain::chain;
use bedplate_provisioner::engine::Portrait;
use bedplate_provisioner::store::CommitError;
use futures::StreamExt;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::events::Notice;
use super::node_status::{Parts, status, steady};
use super::rival::{Rivals, SILENCE};
use super::status::settled;
use super::watch::{News, follow};
use super::{Context, disks};
use crate::standalone::beneath;

/// Changes within this time are told together.
const BURST: Duration = Duration::from_millis(100);
/// When a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Run for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let api: Api<StorageNode> = Api::all(context.client.clone());
    let mut objects = follow(api.clone(), format!("metadata.name={}", context.node));
    let board = &context.board;
    let mut changes = context.engine.changes();
    let (mut seen, mut known, mut pools) =
        (board.disks.subscribe(), board.pools_known.subscribe(), board.pools_changed.subscribe());
    let (mut node, mut registered, mut figures) =
        (board.node.subscribe(), board.registered.subscribe(), board.figures.subscribe());
    // What is there, once the API server has said so.
    let mut there: Option<Option<StorageNode>> = None;
    let mut written: Option<StorageNodeStatus> = None;
    let mut due: Option<Instant> = Some(Instant::now());
    let mut rivals = Rivals::new(context.engine.portrait().ledger.to_string());
    loop {
        let at = due.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
        tokio::select! {
            Some(news) = objects.next() => {
                there = Some(match news {
                    News::Listed(objects) => objects.into_iter().next(),
                    News::Applied(object) => Some(object),
                    News::Deleted(_) => None,
                });
                // Somebody else's change, or none: both mean that what was written is not known to be there.
                let now = there.as_ref().and_then(|there| there.as_ref()?.status.as_ref());
                if now != written.as_ref() {
                    written = None;
                }
                if let Some(object) = there.as_ref().and_then(Option::as_ref)
                    && let Some(status) = &object.status
                    && rivals.heard(&status.ledger_id, Instant::now())
                {
                    rival(&context, object, &status.ledger_id);
                    board.silent_until.send_replace(rivals.silent_until(Instant::now()));
                }
            }
            _ = changes.changed() => {}
            _ = seen.changed() => {}
            _ = known.changed() => {}
            _ = pools.changed() => {}
            _ = node.changed() => {}
            _ = registered.changed() => {}
            _ = figures.changed() => {}
            () = tokio::time::sleep_until(at), if due.is_some() => {
                due = rivals.silent_until(Instant::now());
                if due.is_some() {
                    continue;
                }
                let Some(there_now) = &there else { continue };
                let told = there_now.as_ref().and_then(|object| object.status.as_ref());
                let Some(new) = compose(&context, told.or(written.as_ref())).await else { continue };
                context.board.told.send_if_modified(|last| {
                    let news = last.as_deref() != Some(&new);
                    if news {
                        *last = Some(Arc::new(new.clone()));
                    }
                    news
                });
                if told == Some(&new) || written.as_ref() == Some(&new) {
                    continue;
                }
                match write(&api, &context, there_now.is_none(), &new).await {
                    Ok(object) => {
                        context.metrics.wrote("StorageNode");
                        there = Some(Some(object));
                        written = Some(new);
                    }
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "the StorageNode could not be written");
                        due = Some(Instant::now() + AGAIN);
                    }
                }
                continue;
            }
        }
        due.get_or_insert_with(|| Instant::now() + BURST);
    }
}

/// Tell people that two agents speak under one name.
fn rival(context: &Context, object: &StorageNode, other: &str) {
    let own = context.engine.portrait().ledger;
    let message = format!(
        "another agent, of ledger {other}, writes under the node name {}, which this agent of ledger {own} serves: it is \
         silent for {} s, mounted volumes keep serving. Give one of the two another --node-name, or stop it",
        context.node,
        SILENCE.as_secs()
    );
    tracing::error!(other, %own, "two agents under one node name, this one is silent for a while");
    context.events.tell(Notice::warning(object.object_ref(&()), "RivalAgent", message));
}

/// What is to be told now; `None` before enough is known, or when it is not durable.
async fn compose(context: &Arc<Context>, told: Option<&StorageNodeStatus>) -> Option<StorageNodeStatus> {
    if !*context.board.pools_known.borrow() {
        return None;
    }
    let seen = context.board.disks.borrow().clone()?;
    let engine = context.engine.clone();
    let looked = tokio::task::spawn_blocking(move || -> Result<(Portrait, Vec<_>), CommitError> {
        let portrait = engine.portrait();
        engine.durable()?;
        Ok((portrait, bedplate_provisioner::csi::filesystems()))
    });
    // Where it is not durable the agent is about to end: nothing is told.
    let Ok(Ok((portrait, filesystems))) = looked.await else { return None };
    let directories: Vec<_> = portrait.pools.iter().map(|pool| pool.directory.clone().into()).collect();
    let figures = context.board.figures.borrow().clone();
    let mut disks = disks::told(&seen.disks, &directories, &context.settings.kubelet_root);
    for disk in &mut disks {
        disk.figures = figures.of_disk(disk);
        disk.health = figures.health_of(disk);
    }
    let id = |directory: &str| beneath(&seen.disks, directory.as_ref())?.identity.id.as_ref().map(ToString::to_string);
    let parts = Parts {
        portrait: &portrait,
        disks,
        beneath: portrait.pools.iter().filter_map(|p| Some((p.name.to_string(), id(&p.directory)?))).collect(),
        figures: figures.pools(),
        filesystems,
        node_uid: context.board.node.borrow().as_ref().map(|node| node.uid.clone()),
        registered: context.board.registered.borrow().clone(),
    };
    let mut new = steady(status(parts), told);
    let before = told.map(|told| told.conditions.clone()).unwrap_or_default();
    new.conditions = settled(new.conditions, &before, jiff::Timestamp::now());
    Some(new)
}

async fn write(
    api: &Api<StorageNode>,
    context: &Context,
    missing: bool,
    status: &StorageNodeStatus,
) -> Result<StorageNode, kube::Error> {
    let how = PatchParams::apply(MANAGER_AGENT).force();
    let (kind, version) = (StorageNode::kind(&()), StorageNode::api_version(&()));
    let name = context.node.as_str();
    if missing {
        let labels = json!({ LABEL_MANAGED_BY: MANAGER_AGENT });
        let metadata = json!({ "name": name, "labels": labels });
        let object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": {} });
        api.patch(name, &how, &Patch::Apply(&object)).await?;
    }
    let object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "status": status });
    api.patch_status(name, &how, &Patch::Apply(&object)).await
}
