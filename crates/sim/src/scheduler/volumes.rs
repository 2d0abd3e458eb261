//! What a pod's claims say about nodes: kube-scheduler's VolumeBinding filter. Each claim is checked alone against the
//! published capacity, as the real one does. Static volumes are never matched to unbound claims. Pure.

use super::verdict::Out;
use crate::objects::{Labels, amount, claims_of, node_selected, selects};
use bedplate_api::names::ANNOTATION_SELECTED_NODE;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use std::sync::Arc;

/// Set on a claim when its volume is bound to it for good.
pub(crate) const ANNOTATION_BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

const NO_CAPACITY: &str = "node(s) did not have enough free storage";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
const WRONG_NODE: &str = "node(s) didn't match PersistentVolume's node affinity";
const VOLUME_GONE: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// Where the claims of a cycle are looked up.
pub(super) trait Lookup {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>>;
    /// The node this scheduler chose for a claim a moment ago.
    fn assumed_node(&self, namespace: &str, name: &str) -> Option<String>;
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
    fn driver(&self, name: &str) -> Option<Arc<CSIDriver>>;
    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>>;
}

/// A claim whose volume is made once its node is chosen.
#[derive(Debug)]
pub(super) struct Unbound {
    pub claim: Arc<PersistentVolumeClaim>,
    class: Arc<StorageClass>,
    node: Option<String>,
}

/// The claims of one pod.
#[derive(Default)]
pub(super) struct Claims {
    bound: Vec<Option<Arc<PersistentVolume>>>,
    pub unbound: Vec<Unbound>,
    /// Of the unbound ones' classes, where a driver publishes its capacity.
    capacities: Vec<Arc<CSIStorageCapacity>>,
    limited: Vec<String>,
}

impl Claims {
    /// Looks the claims of `pod` up. An error is said about the pod, not about nodes.
    pub fn of(pod: &Pod, lookup: &impl Lookup) -> Result<Self, String> {
        let space = pod.namespace().unwrap_or_default();
        let mut claims = Self::default();
        let mut immediate = false;
        for (_, name, ephemeral) in claims_of(pod) {
            let Some(claim) = lookup.claim(&space, &name) else {
                return Err(if ephemeral {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                });
            };
            let spec = claim.spec.clone().unwrap_or_default();
            let volume = spec.volume_name.filter(|name| !name.is_empty());
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
                let volume = volume.unwrap_or_default();
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if let Some(volume) = volume {
                if claim.annotations().contains_key(ANNOTATION_BIND_COMPLETED) {
                    claims.bound.push(lookup.volume(&volume));
                } else {
                    immediate = true;
                }
                continue;
            }
            let class = spec.storage_class_name.and_then(|class| lookup.class(&class));
            let waits =
                |class: &Arc<StorageClass>| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
            match class.filter(waits) {
                Some(class) => {
                    let node = lookup.assumed_node(&space, &name);
                    let node = node.or_else(|| claim.annotations().get(ANNOTATION_SELECTED_NODE).cloned());
                    claims.unbound.push(Unbound { claim, class, node });
                }
                None => immediate = true,
            }
        }
        if immediate {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        for Unbound { class, .. } in &claims.unbound {
            let driver = lookup.driver(&class.provisioner);
            if driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true)) {
                claims.limited.push(class.name_any());
            }
        }
        if !claims.limited.is_empty() {
            claims.capacities = lookup.capacities();
            claims.capacities.retain(|capacity| claims.limited.contains(&capacity.storage_class_name));
        }
        Ok(claims)
    }

    /// Whether `node` can serve every claim.
    pub fn fit(&self, node: &Node) -> Result<(), Out> {
        let (name, labels) = (node.name_any(), node.labels());
        let mut reasons = Vec::new();
        if self.bound.iter().flatten().any(|volume| !reachable(volume, &name, labels)) {
            reasons.push(WRONG_NODE.to_owned());
        }
        if self.unbound.iter().any(|unbound| unbound.node.as_ref().is_some_and(|node| *node != name)) {
            reasons.push(NO_VOLUME.to_owned());
        } else {
            reasons.extend(self.unbound.iter().find_map(|unbound| self.unfit(unbound, labels)).map(str::to_owned));
        }
        if self.bound.iter().any(Option::is_none) {
            reasons.push(VOLUME_GONE.to_owned());
        }
        if reasons.is_empty() { Ok(()) } else { Err(Out { reasons, evictable: false }) }
    }

    fn unfit(&self, unbound: &Unbound, labels: &Labels) -> Option<&'static str> {
        let class = &unbound.class;
        let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
        let allowed = topologies.is_empty()
            || topologies.iter().any(|term| {
                let mut wanted = term.match_label_expressions.iter().flatten();
                wanted.all(|wanted| labels.get(&wanted.key).is_some_and(|value| wanted.values.contains(value)))
            });
        if class.provisioner == "kubernetes.io/no-provisioner" || !allowed {
            return Some(NO_VOLUME);
        }
        let name = class.name_any();
        let spec = unbound.claim.spec.as_ref();
        let requests = spec.and_then(|spec| spec.resources.as_ref()).and_then(|all| all.requests.as_ref());
        let size = amount(requests.and_then(|requests| requests.get("storage"))?);
        let enough = |capacity: &Arc<CSIStorageCapacity>| {
            let most = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
            capacity.storage_class_name == name
                && most.is_some_and(|most| amount(most) >= size)
                && selects(capacity.node_topology.as_ref().map(|topology: &LabelSelector| topology), labels)
        };
        (self.limited.contains(&name) && !self.capacities.iter().any(enough)).then_some(NO_CAPACITY)
    }
}

/// Whether a volume can be used on a node.
pub(super) fn reachable(volume: &PersistentVolume, node: &str, labels: &Labels) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity.and_then(|affinity| affinity.required.as_ref()).is_none_or(|terms| node_selected(terms, node, labels))
}

#[cfg(test)]
mod tests;
