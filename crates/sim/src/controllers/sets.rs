//! StatefulSets: members in order or in parallel, each with its claims, and scaling back in; and the claims of pods with
//! ephemeral volumes. Members are never updated in place: a changed template reaches a member when it is made again.
//! Pure.

use super::World;
use super::act::{Act, Job, Target};
use crate::objects::{controller_of, is_over, is_ready};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ApiResource;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What StatefulSets want done.
pub(super) fn pass(world: &World) -> Vec<Job> {
    let jobs = world.sets.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).map(|set| one(world, set));
    jobs.filter(|acts| !acts.is_empty()).map(Job::from).collect()
}

fn one(world: &World, set: &StatefulSet) -> Vec<Act> {
    let spec = set.spec.clone().unwrap_or_default();
    let replicas = spec.replicas.unwrap_or(1);
    let in_order = spec.pod_management_policy.as_deref() != Some("Parallel");
    let members: BTreeMap<i32, &Arc<Pod>> = world
        .pods
        .iter()
        .filter(|pod| controller_of(pod.owner_references()).map(|owner| &owner.uid) == set.metadata.uid.as_ref())
        .filter_map(|pod| Some((pod.name_any().strip_prefix(&format!("{}-", set.name_any()))?.parse().ok()?, pod)))
        .collect();
    let mut acts = vec![];
    let mut settled = true;
    for ordinal in 0..replicas {
        match members.get(&ordinal) {
            None => {
                let (claims, waits) = claims(world, set, ordinal);
                acts.extend(claims);
                if !waits {
                    acts.push(create_member(set, ordinal));
                }
                settled = false;
            }
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => settled = false,
            Some(pod) if is_over(pod) => {
                acts.push(Act::Delete(Target::of(pod.as_ref()), None));
                settled = false;
            }
            Some(pod) => settled &= is_ready(pod),
        }
        if in_order && !settled {
            break;
        }
    }
    let condemned = members.iter().rev().filter(|(ordinal, _)| **ordinal >= replicas);
    for (_, pod) in condemned.filter(|_| settled || !in_order) {
        if pod.metadata.deletion_timestamp.is_none() {
            acts.push(Act::Delete(Target::of(pod.as_ref()), None));
        }
        if in_order {
            break;
        }
    }
    if retention(set, |policy| policy.when_scaled.as_deref()) {
        acts.extend(left_over(world, set, replicas, &members));
    }
    acts.extend(status(set, &members));
    acts
}

type Policy = k8s_openapi::api::apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy;

fn retention(set: &StatefulSet, when: impl Fn(&Policy) -> Option<&str>) -> bool {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    policy.and_then(when) == Some("Delete")
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.name_any(), set.name_any())
}

fn claim_named<'a>(world: &'a World, namespace: Option<&str>, name: &str) -> Option<&'a Arc<PersistentVolumeClaim>> {
    world.claims.iter().find(|claim| claim.name_any() == name && claim.metadata.namespace.as_deref() == namespace)
}

/// The member's claims that are to be made, and whether it must wait because one is being deleted.
fn claims(world: &World, set: &StatefulSet, ordinal: i32) -> (Vec<Act>, bool) {
    let (mut acts, mut waits) = (vec![], false);
    let selector = set.spec.as_ref().map(|spec| spec.selector.match_labels.clone().unwrap_or_default());
    for template in templates(set) {
        let name = claim_name(set, template, ordinal);
        if let Some(claim) = claim_named(world, set.metadata.namespace.as_deref(), &name) {
            waits |= claim.metadata.deletion_timestamp.is_some();
            continue;
        }
        let mut labels = template.labels().clone();
        labels.extend(selector.clone().unwrap_or_default());
        let owned = retention(set, |policy| policy.when_deleted.as_deref());
        let owners = if owned { json!([set.owner_ref(&())]) } else { json!([]) };
        let annotations = template.annotations();
        acts.push(create::<PersistentVolumeClaim>(
            set.namespace(),
            &name,
            json!({ "labels": labels, "annotations": annotations, "ownerReferences": owners }),
            &json!(template.spec),
        ));
    }
    (acts, waits)
}

/// Makes an object of a core kind.
fn create<K: Resource<DynamicType = ()>>(
    namespace: Option<String>,
    name: &str,
    mut metadata: Value,
    spec: &Value,
) -> Act {
    let kind = ApiResource::erase::<K>(&());
    (metadata["name"], metadata["namespace"]) = (json!(name), json!(namespace));
    let object = json!({ "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec });
    Act::Create(Target::named(kind, namespace, name.to_owned(), None), object)
}

fn create_member(set: &StatefulSet, ordinal: i32) -> Act {
    let name = format!("{}-{ordinal}", set.name_any());
    let template = set.spec.clone().map(|spec| (spec.template, spec.service_name)).unwrap_or_default();
    let (template, service) = template;
    let metadata = template.metadata.unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    let mut spec = json!(template.spec);
    let claimed = templates(set).iter().map(|template| {
        json!({
            "name": template.name_any(),
            "persistentVolumeClaim": { "claimName": claim_name(set, template, ordinal) },
        })
    });
    let claimed: Vec<Value> = claimed.collect();
    let other = spec["volumes"].as_array().cloned().unwrap_or_default();
    let other = other.into_iter().filter(|volume| claimed.iter().all(|claimed| claimed["name"] != volume["name"]));
    spec["volumes"] = other.chain(claimed.iter().cloned()).collect();
    spec["hostname"] = json!(name);
    spec["subdomain"] = json!(service);
    let owners = json!([set.controller_owner_ref(&())]);
    let metadata = json!({ "labels": labels, "annotations": metadata.annotations, "ownerReferences": owners });
    create::<Pod>(set.namespace(), &name, metadata, &spec)
}

/// Claims of members that were scaled away and are gone.
fn left_over(world: &World, set: &StatefulSet, replicas: i32, members: &BTreeMap<i32, &Arc<Pod>>) -> Vec<Act> {
    let of_template = |template: &PersistentVolumeClaim| format!("{}-{}-", template.name_any(), set.name_any());
    let prefixes: Vec<String> = templates(set).iter().map(of_template).collect();
    let mine = world.claims.iter().filter(|claim| {
        let name = claim.name_any();
        let ordinal = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)?.parse::<i32>().ok());
        claim.namespace() == set.namespace()
            && claim.metadata.deletion_timestamp.is_none()
            && ordinal.is_some_and(|ordinal| ordinal >= replicas && !members.contains_key(&ordinal))
    });
    mine.map(|claim| Act::Delete(Target::of(claim.as_ref()), None)).collect()
}

fn status(set: &StatefulSet, members: &BTreeMap<i32, &Arc<Pod>>) -> Option<Act> {
    let ready = members.values().filter(|pod| is_ready(pod)).count();
    let wanted = json!({
        "observedGeneration": set.metadata.generation,
        "replicas": members.len(),
        "currentReplicas": members.len(),
        "readyReplicas": ready,
        "availableReplicas": ready,
    });
    let current = json!(set.status);
    let differs = wanted.as_object().into_iter().flatten().any(|(key, value)| current[key] != *value);
    let differs = differs && !(current.is_null() && members.is_empty());
    differs.then(|| Act::Status(Target::of(set), wanted))
}

/// Claims that pods bring along.
pub(super) fn ephemeral(world: &World) -> Vec<Job> {
    let mut jobs = Vec::new();
    for pod in world.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && !is_over(pod)) {
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let template = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.clone());
            let name = format!("{}-{}", pod.name_any(), volume.name);
            let Some(template) =
                template.filter(|_| claim_named(world, pod.metadata.namespace.as_deref(), &name).is_none())
            else {
                continue;
            };
            let metadata = template.metadata.unwrap_or_default();
            let owners = json!([pod.controller_owner_ref(&())]);
            let metadata =
                json!({ "labels": metadata.labels, "annotations": metadata.annotations, "ownerReferences": owners });
            let act = create::<PersistentVolumeClaim>(pod.namespace(), &name, metadata, &json!(template.spec));
            jobs.push(vec![act].into());
        }
    }
    jobs
}
