//! What goes when something else went: objects whose owners are all gone (in the background), and pods of nodes that no
//! longer exist. An owner counts as gone only after the server itself said so. Pure.

use super::World;
use super::act::{Act, Check, Job, Target};
use crate::objects::node_of;
use bedplate_api::names::{GROUP, VERSION};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::Store;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Custom resources that may have owners.
pub(super) fn custom_kinds() -> Vec<ApiResource> {
    let kinds = ["StorageNode", "LocalVolume", "WipeReceipt"];
    kinds.iter().map(|kind| ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind))).collect()
}

/// Objects that had owners and have none left.
pub(super) fn garbage(
    world: &World,
    nodes: &[Arc<Node>],
    capacities: &[Arc<CSIStorageCapacity>],
    custom: &[(ApiResource, Store<DynamicObject>)],
) -> Vec<Job> {
    let mut alive: HashSet<String> = world.pods.iter().filter_map(|pod| pod.uid()).collect();
    alive.extend(world.claims.iter().filter_map(|claim| claim.uid()));
    alive.extend(world.sets.iter().filter_map(|set| set.uid()));
    alive.extend(nodes.iter().filter_map(|node| node.uid()));
    alive.extend(custom.iter().flat_map(|(_, store)| store.state()).filter_map(|object| object.uid()));
    let mut jobs = Vec::new();
    let mut judge = |owners: &[OwnerReference], target: Target, deleting: bool| {
        let namespace = target.namespace().map(str::to_owned);
        if owners.is_empty() || deleting || owners.iter().any(|owner| alive.contains(&owner.uid)) {
            return;
        }
        let owners = owners.iter().map(|owner| owner_target(owner, namespace.clone())).collect();
        jobs.push(Job { only_if: Some(Check::Gone(owners)), acts: vec![Act::Delete(target, None)] });
    };
    macro_rules! each {
        ($objects:expr) => {
            for object in $objects {
                let deleting = object.metadata.deletion_timestamp.is_some();
                judge(object.owner_references(), Target::of(object.as_ref()), deleting);
            }
        };
    }
    each!(&world.pods);
    each!(&world.claims);
    each!(capacities);
    for (kind, store) in custom {
        for object in store.state() {
            let target = Target::named(kind.clone(), object.namespace(), object.name_any(), object.uid());
            judge(object.owner_references(), target, object.metadata.deletion_timestamp.is_some());
        }
    }
    jobs
}

fn owner_target(owner: &OwnerReference, namespace: Option<String>) -> Target {
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &owner.kind));
    let cluster_scoped = group == GROUP || ["Node", "Namespace", "PersistentVolume"].contains(&owner.kind.as_str());
    let namespace = namespace.filter(|_| !cluster_scoped);
    Target::named(kind, namespace, owner.name.clone(), Some(owner.uid.clone()))
}

/// Pods on nodes that have been gone for `after`; `missing` remembers since when.
pub(super) fn orphans(
    world: &World,
    nodes: &[Arc<Node>],
    missing: &mut HashMap<String, Instant>,
    after: Duration,
    now: Instant,
) -> Vec<Job> {
    let known: HashSet<String> = nodes.iter().map(|node| node.name_any()).collect();
    let gone = |pod: &&Arc<Pod>| node_of(pod).is_some_and(|node| !known.contains(node));
    let lost: Vec<&Arc<Pod>> = world.pods.iter().filter(gone).collect();
    let names: HashSet<&str> = lost.iter().filter_map(|pod| node_of(pod)).collect();
    missing.retain(|node, _| names.contains(node.as_str()));
    let mut since = |pod: &Pod| *missing.entry(node_of(pod).unwrap_or_default().to_owned()).or_insert(now);
    let due = lost.into_iter().filter(|pod| now.duration_since(since(pod)) >= after);
    due.map(|pod| vec![Act::Delete(Target::of(pod.as_ref()), Some(0))].into()).collect()
}
