//! What several stand-ins read out of Kubernetes objects, and small patches that several write. Pure.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, Pod, PodCondition, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference, Time};
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use std::collections::BTreeMap;

/// Labels or annotations.
pub(crate) type Labels = BTreeMap<String, String>;

/// A quantity as a number of its base unit (bytes, cores, pieces); zero where it is no number.
pub(crate) fn amount(quantity: &Quantity) -> f64 {
    const UNITS: [(&str, f64); 12] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let text = quantity.0.as_str();
    let (number, factor) =
        UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1.0));
    number.parse::<f64>().unwrap_or(0.0) * factor
}

/// The claim that a pod's volume stands for: its name, and whether it is an ephemeral one of that pod.
pub(crate) fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some((claim.claim_name.clone(), false)),
        (None, Some(_)) => Some((format!("{}-{}", pod.name_any(), volume.name), true)),
        (None, None) => None,
    }
}

/// Every claim of a pod: volume name, claim name, ephemeral or not.
pub(crate) fn claims_of(pod: &Pod) -> impl Iterator<Item = (&str, String, bool)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| claim_of(pod, volume).map(|(claim, own)| (volume.name.as_str(), claim, own)))
}

/// The node a pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Succeeded or Failed: its containers do not run any more.
pub(crate) fn is_over(pod: &Pod) -> bool {
    phase_of(pod).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

/// The pod's phase.
pub(crate) fn phase_of(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// The Ready condition is True.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The pod's conditions with `new` in the place of its type; None where it says the same already.
pub(crate) fn with_condition(pod: &Pod, mut new: PodCondition, now: jiff::Timestamp) -> Option<Vec<PodCondition>> {
    let mut all = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let old = all.iter().position(|condition| condition.type_ == new.type_);
    new.last_transition_time = Some(Time(now));
    if let Some(old) = old {
        let old = all.remove(old);
        if (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message) {
            return None;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time;
        }
    }
    all.push(new);
    Some(all)
}

/// A label selector as Kubernetes reads it: none selects nothing, an empty one everything.
pub(crate) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let parsed = selector.cloned().map(Selector::try_from);
    parsed.is_some_and(|selector| selector.is_ok_and(|selector| selector.matches(labels)))
}

/// Whether one of the terms holds on a node of this name with these labels.
pub(crate) fn node_selected(selector: &NodeSelector, name: &str, labels: &Labels) -> bool {
    let own = Labels::from([("metadata.name".to_owned(), name.to_owned())]);
    selector.node_selector_terms.iter().any(|term| {
        let (expressions, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
        let (expressions, fields) = (expressions.unwrap_or_default(), fields.unwrap_or_default());
        !(expressions.is_empty() && fields.is_empty())
            && expressions.iter().all(|wanted| holds(wanted, labels))
            && fields.iter().all(|wanted| holds(wanted, &own))
    })
}

fn holds(wanted: &NodeSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&wanted.key);
    let values = wanted.values.as_deref().unwrap_or_default();
    let number = |text: &String| text.parse::<i64>().ok();
    let both = || Some((number(value?)?, number(values.first()?)?));
    match wanted.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => !value.is_some_and(|value| values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => both().is_some_and(|(value, bound)| value > bound),
        "Lt" => both().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// The owner who manages an object.
pub(crate) fn controller_of(owners: &[OwnerReference]) -> Option<&OwnerReference> {
    owners.iter().find(|owner| owner.controller == Some(true))
}
