//! What the control plane's PersistentVolume controller does with volumes that name their claim: binds them, and releases
//! them when the claim is gone.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinHandle;

use super::world::World;

pub struct Binder(JoinHandle<()>);

impl Drop for Binder {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Binder {
    pub fn start(world: &World) -> Self {
        let client = world.server.client().unwrap();
        Self(tokio::spawn(serve(client)))
    }
}

async fn serve(client: Client) {
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    let mut made = std::pin::pin!(watcher(volumes.clone(), watcher::Config::default()));
    let mut gone = std::pin::pin!(watcher(claims, watcher::Config::default()));
    let mut rounds = tokio::time::interval(Duration::from_millis(300));
    loop {
        tokio::select! {
            event = made.next() => match event {
                Some(Ok(Event::Apply(volume) | Event::InitApply(volume))) => look(&client, &volumes, volume).await,
                Some(Ok(_)) => {}
                // The rounds find what is missed.
                Some(Err(_)) | None => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            event = gone.next() => match event {
                Some(Ok(Event::Delete(claim))) => {
                    let name = format!("pvc-{}", claim.uid().unwrap_or_default());
                    if let Ok(Some(volume)) = volumes.get_opt(&name).await {
                        look(&client, &volumes, volume).await;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = rounds.tick() => {
                let list = volumes.list(&kube::api::ListParams::default()).await;
                for volume in list.map(|list| list.items).unwrap_or_default() {
                    look(&client, &volumes, volume).await;
                }
            }
        }
    }
}

async fn look(client: &Client, volumes: &Api<PersistentVolume>, volume: PersistentVolume) {
    let phase = volume.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()) else { return };
    let (namespace, name) = (reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let Ok(claim) = claims.get_opt(&name).await else { return };
    let claim = claim.filter(|claim| claim.uid() == reference.uid);
    let status = |phase: &str| Patch::Merge(json!({"status": {"phase": phase}}));
    let parameters = PatchParams::default();
    match claim {
        Some(claim) => {
            if phase != "Bound" {
                drop(volumes.patch_status(&volume.name_any(), &parameters, &status("Bound")).await);
            }
            if claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_none()) {
                let patch = Patch::Merge(json!({
                    "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                    "spec": {"volumeName": volume.name_any()},
                }));
                drop(claims.patch(&name, &parameters, &patch).await);
            }
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
                drop(claims.patch_status(&name, &parameters, &status("Bound")).await);
            }
        }
        None if phase != "Released" => {
            drop(volumes.patch_status(&volume.name_any(), &parameters, &status("Released")).await);
        }
        None => {}
    }
    // Protection: nothing holds a volume back that is not bound, but others' finalizers.
    let guard = "kubernetes.io/pv-protection";
    if volume.metadata.deletion_timestamp.is_some()
        && phase == "Released"
        && volume.finalizers().iter().any(|finalizer| finalizer == guard)
    {
        let rest: Vec<&String> = volume.finalizers().iter().filter(|finalizer| *finalizer != guard).collect();
        let patch = json!({"metadata": {"resourceVersion": volume.resource_version(), "finalizers": rest}});
        drop(volumes.patch(&volume.name_any(), &parameters, &Patch::Merge(patch)).await);
    }
}
