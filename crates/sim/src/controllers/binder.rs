//! Binds claims and volumes to each other and names the provisioner of a claim, in the in-tree binder's order and with
//! its annotations and phases. Pure.

use super::World;
use super::act::{Act, Check, Job, Target};
use crate::scheduler::ANNOTATION_BIND_COMPLETED;
use bedplate_api::names::{ANNOTATION_PROVISIONER, ANNOTATION_PROVISIONER_BETA, ANNOTATION_SELECTED_NODE};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::ApiResource;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

const ANNOTATION_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

type Key = (String, String);
type Claims<'a> = HashMap<Key, &'a Arc<PersistentVolumeClaim>>;

/// Volumes by name, and by the claim they are meant for.
struct Volumes<'a> {
    by_name: HashMap<String, &'a Arc<PersistentVolume>>,
    by_claim: HashMap<Key, Vec<&'a Arc<PersistentVolume>>>,
}

/// Everything that is to be bound, released or told whose it is.
pub(super) fn pass(world: &World, now: jiff::Timestamp) -> Vec<Job> {
    let key = |claim: &PersistentVolumeClaim| (claim.namespace().unwrap_or_default(), claim.name_any());
    let claims: Claims = world.claims.iter().map(|claim| (key(claim), claim)).collect();
    let by_name = world.volumes.iter().map(|volume| (volume.name_any(), volume)).collect();
    let mut volumes = Volumes { by_name, by_claim: HashMap::new() };
    for volume in &world.volumes {
        if let Some(wanted) = reference(volume).cloned() {
            let key = (wanted.namespace.unwrap_or_default(), wanted.name.unwrap_or_default());
            volumes.by_claim.entry(key).or_default().push(volume);
        }
    }
    let of_claims = world.claims.iter().filter_map(|claim| claim_job(world, &volumes, claim, now));
    of_claims.chain(world.volumes.iter().filter_map(|volume| volume_job(volume, &claims, now))).collect()
}

fn reference(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether the volume is meant for this very claim, or for any of its name.
fn meant_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    reference(volume).is_some_and(|wanted| {
        wanted.name.as_deref() == Some(&claim.name_any())
            && wanted.namespace == claim.namespace()
            && wanted.uid.as_ref().is_none_or(|uid| Some(uid) == claim.metadata.uid.as_ref())
    })
}

fn claim_job(world: &World, volumes: &Volumes, claim: &PersistentVolumeClaim, now: jiff::Timestamp) -> Option<Job> {
    let spec = claim.spec.clone().unwrap_or_default();
    let phase = claim.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let completed = claim.annotations().contains_key(ANNOTATION_BIND_COMPLETED);
    let wanted = spec.volume_name.filter(|name| !name.is_empty());
    let key = (claim.namespace().unwrap_or_default(), claim.name_any());
    let mut offered = volumes.by_claim.get(&key).into_iter().flatten().copied();
    let volume = match &wanted {
        Some(name) => volumes.by_name.get(name).copied(),
        None => offered.find(|volume| meant_for(volume, claim)),
    };
    let lost = || (phase != "Lost").then(|| vec![Act::Status(Target::of(claim), json!({ "phase": "Lost" }))]);
    let acts = match volume {
        Some(volume) if meant_for(volume, claim) => bind(claim, volume, wanted.is_some() && completed, &phase, now),
        Some(volume) if reference(volume).is_none() => bind(claim, volume, false, &phase, now),
        Some(_) | None if completed => lost()?,
        None if wanted.is_none() => {
            let class = spec.storage_class_name?;
            let class = world.classes.iter().find(|known| known.name_any() == class)?;
            let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
            let chosen = !waits || claim.annotations().contains_key(ANNOTATION_SELECTED_NODE);
            let named = claim.annotations().get(ANNOTATION_PROVISIONER) == Some(&class.provisioner);
            if !chosen || named || class.provisioner == "kubernetes.io/no-provisioner" {
                return None;
            }
            let names = [ANNOTATION_PROVISIONER, ANNOTATION_PROVISIONER_BETA];
            let names: Value = names.iter().map(|name| ((*name).to_owned(), json!(class.provisioner))).collect();
            vec![super::act::metadata(claim, json!({ "annotations": names }))]
        }
        Some(_) | None => return None,
    };
    (!acts.is_empty()).then(|| acts.into())
}

/// Both sides, in the order of the real one: the volume's reference, its phase, the claim's volume, its status.
fn bind(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    completed: bool,
    phase: &str,
    now: jiff::Timestamp,
) -> Vec<Act> {
    let mut acts = Vec::new();
    if reference(volume).and_then(|reference| reference.uid.as_ref()).is_none() {
        let by_user = reference(volume).is_some();
        let reference = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.namespace(),
            "name": claim.name_any(),
            "uid": claim.uid(),
        });
        let mut patch = json!({
            "metadata": { "resourceVersion": volume.resource_version() },
            "spec": { "claimRef": reference },
        });
        if !by_user {
            patch["metadata"]["annotations"] = json!({ ANNOTATION_BY_CONTROLLER: "yes" });
        }
        acts.push(Act::Patch(Target::of(volume), patch));
    }
    acts.extend(to_phase(volume, "Bound", now));
    if !completed {
        let chosen_by_us = claim.spec.as_ref().is_none_or(|spec| spec.volume_name.is_none());
        let by_us = chosen_by_us.then_some("yes");
        let annotations = json!({ ANNOTATION_BIND_COMPLETED: "yes", ANNOTATION_BY_CONTROLLER: by_us });
        let metadata = json!({ "resourceVersion": claim.resource_version(), "annotations": annotations });
        let patch = json!({ "metadata": metadata, "spec": { "volumeName": volume.name_any() } });
        acts.push(Act::Patch(Target::of(claim), patch));
    }
    if !completed || phase != "Bound" {
        let spec = volume.spec.clone().unwrap_or_default();
        let status = json!({ "phase": "Bound", "accessModes": spec.access_modes, "capacity": spec.capacity });
        acts.push(Act::Status(Target::of(claim), status));
    }
    acts
}

/// A volume whose claim is gone is Released; one that has none is Available.
fn volume_job(volume: &Arc<PersistentVolume>, claims: &Claims, now: jiff::Timestamp) -> Option<Job> {
    let wanted = reference(volume);
    let Some((reference, uid)) = wanted.and_then(|wanted| Some((wanted, wanted.uid.clone()?))) else {
        return to_phase(volume, "Available", now).map(|act| vec![act].into());
    };
    let (namespace, name) =
        (reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default());
    let holder = claims.get(&(namespace.clone(), name.clone()));
    if holder.is_some_and(|claim| claim.metadata.uid.as_ref() == Some(&uid)) {
        return None;
    }
    let claim = Target::named(ApiResource::erase::<PersistentVolumeClaim>(&()), Some(namespace), name, Some(uid));
    let act = to_phase(volume, "Released", now)?;
    Some(Job { only_if: Some(Check::Gone(vec![claim])), acts: vec![act] })
}

fn to_phase(volume: &PersistentVolume, phase: &str, now: jiff::Timestamp) -> Option<Act> {
    let current = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let status = json!({ "phase": phase, "lastPhaseTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() });
    (current != Some(phase)).then(|| Act::Status(Target::of(volume), status))
}
