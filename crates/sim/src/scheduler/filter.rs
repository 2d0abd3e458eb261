//! Which nodes a pod may run on, volumes aside: kube-scheduler's filter plugins, in their order and with their texts, as
//! far as the stories need them. Spread constraints, ports and host limits are left out. Pure.

use super::verdict::Out;
use crate::objects::{Labels, amount, node_selected, selects};
use k8s_openapi::api::core::v1::{Affinity, Node, Pod, PodAffinityTerm, Taint, Toleration};
use kube::ResourceExt;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The nodes of one cycle and the pods on each, those included that are still being bound.
pub(super) struct Nodes {
    /// By name.
    pub all: Vec<Arc<Node>>,
    /// By the name of their node.
    pub pods: HashMap<String, Vec<Arc<Pod>>>,
}

impl Nodes {
    fn pods_on(&self, node: &Node) -> &[Arc<Pod>] {
        self.pods.get(&node.name_any()).map_or(&[], Vec::as_slice)
    }
}

type Domain = (String, String);

/// What is known about a pod before any node is looked at (PreFilter).
pub(super) struct Wanted<'a> {
    pod: &'a Pod,
    requests: BTreeMap<String, f64>,
    /// Domains with a pod that this pod keeps away from.
    avoided: HashSet<Domain>,
    /// Domains with a pod that keeps away from this pod.
    closed: HashSet<Domain>,
    /// For each term of its affinity: the topology key and the domains where it holds. None: holds anywhere.
    near: Vec<(String, Option<HashSet<Domain>>)>,
}

impl<'a> Wanted<'a> {
    pub fn new(pod: &'a Pod, nodes: &Nodes) -> Self {
        let (near_terms, far_terms) = terms(pod);
        let mut wanted = Self {
            pod,
            requests: requests(pod),
            avoided: HashSet::new(),
            closed: HashSet::new(),
            near: near_terms.iter().map(|term| (term.topology_key.clone(), Some(HashSet::new()))).collect(),
        };
        for node in &nodes.all {
            let domain = |key: &String| Some((key.clone(), node.labels().get(key)?.clone()));
            for other in nodes.pods_on(node) {
                let avoided = far_terms.iter().filter(|term| concerns(term, pod, other));
                wanted.avoided.extend(avoided.filter_map(|term| domain(&term.topology_key)));
                let closed = terms(other).1.iter().filter(|term| concerns(term, other, pod));
                wanted.closed.extend(closed.filter_map(|term| domain(&term.topology_key)));
                for (term, (key, places)) in near_terms.iter().zip(&mut wanted.near) {
                    if let (true, Some(places), Some(place)) = (concerns(term, pod, other), places, domain(key)) {
                        places.insert(place);
                    }
                }
            }
        }
        // The first pod of a group that wants to be near its own kind may go anywhere.
        let alone = wanted.near.iter().all(|(_, places)| places.as_ref().is_some_and(HashSet::is_empty));
        if alone && near_terms.iter().all(|term| concerns(term, pod, pod)) {
            wanted.near.iter_mut().for_each(|(_, places)| *places = None);
        }
        wanted
    }

    /// Whether the pod may run there.
    pub fn fits(&self, node: &Node, nodes: &Nodes) -> Result<(), Out> {
        let spec = self.pod.spec.as_ref();
        let tolerations = spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
        let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        if unschedulable && !tolerated(&taint("node.kubernetes.io/unschedulable"), tolerations) {
            return Err(Out::for_good("node(s) were unschedulable"));
        }
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).cloned();
        let taints = taints.chain(is_not_ready(node).then(|| taint("node.kubernetes.io/not-ready")));
        let mut hard = taints.filter(|taint| taint.effect != "PreferNoSchedule");
        if hard.any(|taint| !tolerated(&taint, tolerations)) {
            return Err(Out::for_good("node(s) had untolerated taint(s)"));
        }
        let selector = spec.and_then(|spec| spec.node_selector.as_ref());
        let affinity = spec.and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
        let required = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
        let labels = node.labels();
        if !selector.into_iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
            || !required.is_none_or(|terms| node_selected(terms, &node.name_any(), labels))
        {
            return Err(Out::for_good("node(s) didn't match Pod's node affinity/selector"));
        }
        self.has_room(node, nodes.pods_on(node))
    }

    fn has_room(&self, node: &Node, here: &[Arc<Pod>]) -> Result<(), Out> {
        let Some(most) = node.status.as_ref().and_then(|status| status.allocatable.as_ref()) else { return Ok(()) };
        let mut reasons = Vec::new();
        if most.get("pods").is_some_and(|pods| amount(pods) < here.len() as f64 + 1.0) {
            reasons.push("Too many pods".to_owned());
        }
        let mut used = BTreeMap::<String, f64>::new();
        for (name, value) in here.iter().flat_map(|pod| requests(pod)) {
            *used.entry(name).or_default() += value;
        }
        let left = |name: &String| most.get(name).map_or(0.0, amount) - used.get(name).unwrap_or(&0.0);
        let short = self.requests.iter().filter(|(name, wanted)| **wanted > left(name));
        let mut evictable = true;
        for (name, wanted) in short {
            evictable &= most.get(name).is_some_and(|most| *wanted <= amount(most));
            reasons.push(format!("Insufficient {name}"));
        }
        if reasons.is_empty() { Ok(()) } else { Err(Out { reasons, evictable }) }
    }

    /// Whether the pods already there, and this one, can stand each other; asked last.
    pub fn gets_along(&self, node: &Node) -> Result<(), Out> {
        let labels: &Labels = node.labels();
        let in_one = |places: &HashSet<Domain>| places.iter().any(|(key, value)| labels.get(key) == Some(value));
        let near = |(key, places): &(String, Option<HashSet<Domain>>)| {
            labels.contains_key(key) && places.as_ref().is_none_or(in_one)
        };
        if !self.near.iter().all(near) {
            return Err(Out::for_good("node(s) didn't match pod affinity rules"));
        }
        if in_one(&self.avoided) {
            return Err(Out::for_now("node(s) didn't match pod anti-affinity rules"));
        }
        if in_one(&self.closed) {
            return Err(Out::for_now("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}

/// Required terms of a pod: (affinity, anti-affinity).
fn terms(pod: &Pod) -> (&[PodAffinityTerm], &[PodAffinityTerm]) {
    let affinity: Option<&Affinity> = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let far = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let near = near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_deref());
    let far = far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_deref());
    (near.unwrap_or_default(), far.unwrap_or_default())
}

/// Whether `owner`'s term speaks of `other`.
fn concerns(term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let other_space = other.namespace().unwrap_or_default();
    let named = term.namespaces.as_deref().unwrap_or_default();
    let space = if named.is_empty() && term.namespace_selector.is_none() {
        owner.namespace().unwrap_or_default() == other_space
    } else {
        // Namespaces' labels are not known here: a selector that is not empty selects none.
        named.contains(&other_space) || selects(term.namespace_selector.as_ref(), &Labels::new())
    };
    space && selects(term.label_selector.as_ref(), other.labels())
}

fn requests(pod: &Pod) -> BTreeMap<String, f64> {
    let mut sum = BTreeMap::new();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    for resources in containers.filter_map(|container| container.resources.as_ref()) {
        for (name, wanted) in resources.requests.iter().flatten() {
            *sum.entry(name.clone()).or_default() += amount(wanted);
        }
    }
    sum
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() }
}

fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let exists = toleration.operator.as_deref() == Some("Exists");
        let key = toleration.key.as_deref().unwrap_or_default();
        let value = |value: &Option<String>| value.clone().unwrap_or_default();
        toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect)
            && (key == taint.key || (key.is_empty() && exists))
            && (exists || value(&toleration.value) == value(&taint.value))
    })
}

/// On a real cluster a controller taints such a node; here the condition is read.
fn is_not_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status != "True")
}

#[cfg(test)]
mod tests;
