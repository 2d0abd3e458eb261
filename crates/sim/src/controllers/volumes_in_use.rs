//! Keeps a claim that a pod on a node names, and a volume that is bound, until they are free: the in-tree protection
//! finalizers. They are also put back where somebody took them off. Pure.

use super::World;
use super::act::{Act, Check, Job, metadata, uses};
use kube::{Resource, ResourceExt};
use serde_json::json;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

/// Finalizers to add and to take off.
pub(super) fn pass(world: &World) -> Vec<Job> {
    let claims = world.claims.iter().filter_map(|claim| {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        let mut pods = world.pods.iter().filter(|pod| pod.namespace().as_ref() == Some(&namespace));
        let acts = vec![change(claim.as_ref(), CLAIM, || !pods.any(|pod| uses(pod, &name)))?];
        let off = claim.metadata.deletion_timestamp.is_some();
        Some(Job { only_if: off.then_some(Check::Unused(namespace, name)), acts })
    });
    let volumes = world.volumes.iter().filter_map(|volume| {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        Some(vec![change(volume.as_ref(), VOLUME, || phase != Some("Bound"))?].into())
    });
    claims.chain(volumes).collect()
}

/// On while it lives, off when it is deleted and free.
fn change<K: Resource<DynamicType = ()>>(object: &K, ours: &str, free: impl FnOnce() -> bool) -> Option<Act> {
    let has = object.finalizers().iter().any(|finalizer| finalizer == ours);
    let finalizers: Vec<&str> = match (object.meta().deletion_timestamp.is_some(), has) {
        (false, false) => object.finalizers().iter().map(String::as_str).chain([ours]).collect(),
        (true, true) if free() => object.finalizers().iter().map(String::as_str).filter(|name| *name != ours).collect(),
        _ => return None,
    };
    Some(metadata(object, json!({ "finalizers": finalizers })))
}
