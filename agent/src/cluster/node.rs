//! The Node object: its uid and labels are watched (metadata alone), and ours are kept on it.
//!
//! Labels are applied with an own field manager and the Node's uid, so that a Node that is gone is never made anew. A
//! Node that is missing, or comes back under another uid, changes nothing else on this machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bedplate_api::labels::{family, labels};
use bedplate_api::names::MANAGER_AGENT_LABELS;
use bedplate_core::chain::chain;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use serde_json::json;

use super::Context;
use super::board::NodeFacts;
use super::watch::{News, follow};

/// When labels that could not be written are tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Run for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let api: Api<Node> = Api::all(context.client.clone());
    let metadata: Api<PartialObjectMeta<Node>> = Api::all(context.client.clone());
    let mut objects = follow(metadata, format!("metadata.name={}", context.node));
    let mut told = context.board.told.subscribe();
    // What was last applied, and to which Node.
    let mut applied: Option<(String, BTreeMap<String, String>)> = None;
    let mut again = false;
    loop {
        tokio::select! {
            Some(news) = objects.next() => {
                let facts = |meta: kube::core::ObjectMeta| NodeFacts {
                    uid: meta.uid.unwrap_or_default(),
                    labels: meta.labels.unwrap_or_default(),
                };
                let now = match news {
                    News::Listed(objects) => objects.into_iter().next().map(|object| facts(object.metadata)),
                    News::Applied(object) => Some(facts(object.metadata)),
                    News::Deleted(_) => None,
                };
                context.board.node.send_if_modified(|last| {
                    let news = *last != now;
                    if news {
                        *last = now;
                    }
                    news
                });
                context.board.node_looked.send_replace(true);
            }
            _ = told.changed() => {}
            () = tokio::time::sleep(AGAIN), if again => {}
        }
        again = false;
        let (Some(node), Some(status)) = (context.board.node.borrow().clone(), told.borrow().clone()) else { continue };
        let wanted = labels(&node.labels, &status);
        let there: BTreeMap<String, String> =
            node.labels.iter().filter(|(key, _)| family(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let last = applied.as_ref().filter(|(uid, _)| *uid == node.uid).map(|(_, labels)| labels);
        // Labels of our family that another manager keeps cannot be taken away: tried once, not for ever.
        let missing = wanted.iter().any(|(key, value)| there.get(key) != Some(value));
        if there == wanted || (last == Some(&wanted) && !missing) {
            continue;
        }
        match apply(&api, &context, &node.uid, &wanted).await {
            Ok(()) => {
                context.metrics.wrote("Node");
                tracing::info!(labels = ?wanted, "node labels written");
                applied = Some((node.uid, wanted));
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "node labels could not be written");
                again = true;
            }
        }
    }
}

async fn apply(
    api: &Api<Node>,
    context: &Context,
    uid: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), kube::Error> {
    let name = context.node.as_str();
    let how = PatchParams::apply(MANAGER_AGENT_LABELS).force();
    let metadata = json!({ "name": name, "uid": uid, "labels": labels });
    let object = json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata });
    api.patch_metadata(name, &how, &Patch::Apply(&object)).await.map(|_| ())
}
