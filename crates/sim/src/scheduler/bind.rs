//! Binds a pod to the node that a cycle chose, beside the next cycles: writes selected-node on its claims, waits until
//! they are bound, then posts the Binding (kube-scheduler's `bindingCycle`).
//!
//! A claim whose selected-node is taken away fails the binding: the pod goes back to the queue.

use super::volumes::reachable;
use super::{BindWait, News, Scheduler, World, space};
use bedplate_api::names::ANNOTATION_SELECTED_NODE;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch::Receiver;

/// A pod, the node chosen for it, and its claims that have no volume yet.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub pod: Arc<Pod>,
    pub node: String,
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
}

impl Scheduler {
    /// The work of one binding; it ends with news for the loop.
    pub(super) fn bind(&self, binding: Binding) -> impl Future<Output = ()> + Send + 'static {
        let (client, world, news) = (self.client.clone(), Arc::clone(&self.world), self.news.clone());
        let (options, changed) = (self.options.clone(), self.changed.clone());
        async move {
            let work = async {
                if !binding.claims.is_empty() {
                    if options.nominate {
                        nominate(&client, &binding).await;
                    }
                    let volumes = async {
                        select(&client, &binding).await?;
                        let waiting = wait(&world, &binding, options.bind_wait, changed);
                        let ended = tokio::time::timeout(options.bind_timeout, waiting).await;
                        ended.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
                    };
                    let text = |error| format!("running PreBind plugin \"VolumeBinding\": binding volumes: {error}");
                    volumes.await.map_err(text)?;
                }
                post(&client, &binding).await
            };
            let result = work.await;
            news.send(News::Bound(Box::new(binding), result)).ok();
        }
    }
}

async fn nominate(client: &Client, binding: &Binding) {
    let api: Api<Pod> = Api::namespaced(client.clone(), &space(&binding.pod));
    let patch = Patch::Merge(json!({ "status": { "nominatedNodeName": binding.node } }));
    if let Err(error) = api.patch_status(&binding.pod.name_any(), &PatchParams::default(), &patch).await {
        tracing::debug!(error = %error, "nominated node not written");
    }
}

/// Writes the node on every claim, each as it was when it was judged.
async fn select(client: &Client, binding: &Binding) -> Result<(), String> {
    for claim in &binding.claims {
        if claim.annotations().get(ANNOTATION_SELECTED_NODE) == Some(&binding.node) {
            continue;
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &space(&binding.pod));
        let metadata = json!({
            "resourceVersion": claim.resource_version(),
            "annotations": { ANNOTATION_SELECTED_NODE: binding.node },
        });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let written = api.patch(&claim.name_any(), &PatchParams::default(), &patch).await;
        written.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn wait(world: &World, binding: &Binding, how: BindWait, mut changed: Receiver<u64>) -> Result<(), String> {
    loop {
        match how {
            BindWait::Poll(interval) => tokio::time::sleep(interval).await,
            BindWait::Watch => changed.changed().await.map_err(|error| error.to_string())?,
        }
        if bound(world, binding)? {
            return Ok(());
        }
    }
}

/// Whether every claim is bound; an error where it never will be.
fn bound(world: &World, binding: &Binding) -> Result<bool, String> {
    let (pod, node) = (&binding.pod, &binding.node);
    let here = world.pods.get(&ObjectRef::from_obj(pod.as_ref()));
    if here.is_none_or(|here| here.uid() != pod.uid()) {
        return Err(format!("pod does not exist any more: pod {:?} not found", pod.name_any()));
    }
    let Some(labels) = world.nodes.get(&ObjectRef::new(node)) else {
        return Err(format!("failed to get node {node:?}: node {node:?} not found"));
    };
    let mut all = true;
    for claim in &binding.claims {
        let name = claim.name_any();
        let Some(latest) = world.claims.get(&ObjectRef::from_obj(claim.as_ref())) else {
            return Err(format!("failed to get pvc: persistentvolumeclaim {name:?} not found"));
        };
        if older(&latest, claim) {
            all = false; // our own write has not come back yet
            continue;
        }
        match latest.annotations().get(ANNOTATION_SELECTED_NODE) {
            None => return Err(format!("provisioning failed for PVC {name:?}")),
            Some(selected) if selected != node => {
                return Err(format!("selectedNode annotation value {selected:?} not set to scheduled node {node:?}"));
            }
            Some(_) => {}
        }
        let volume = latest.spec.as_ref().and_then(|spec| spec.volume_name.as_ref());
        let completed = latest.annotations().contains_key(super::ANNOTATION_BIND_COMPLETED);
        let Some(volume) = volume.filter(|_| completed) else {
            all = false;
            continue;
        };
        match world.volumes.get(&ObjectRef::new(volume)) {
            None => all = false,
            Some(volume) if !reachable(&volume, node, labels.labels()) => {
                return Err(format!("pv {:?} node affinity doesn't match node {node:?}", volume.name_any()));
            }
            Some(_) => {}
        }
    }
    Ok(all)
}

/// Still the state that was judged, before our annotation.
fn older(latest: &PersistentVolumeClaim, judged: &PersistentVolumeClaim) -> bool {
    latest.resource_version() == judged.resource_version()
        && !latest.annotations().contains_key(ANNOTATION_SELECTED_NODE)
}

async fn post(client: &Client, binding: &Binding) -> Result<(), String> {
    let (name, node) = (binding.pod.name_any(), &binding.node);
    let api: Api<Pod> = Api::namespaced(client.clone(), &space(&binding.pod));
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": name, "namespace": space(&binding.pod), "uid": binding.pod.uid() },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let posted = api.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &body).await;
    posted.map(|_| ()).map_err(|error| format!("binding rejected: {error}"))
}
