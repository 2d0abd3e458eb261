//! Which claims belong together: those of one pod that are Bedplate's and have no volume yet.
//!
//! A pod counts when all of its claims exist and all that are to be made want the same node: until then the scheduler has
//! not finished with it. Claims shared by such pods join their groups. The group's lead is the claim with the smallest uid,
//! so that every member comes to the same one and the group is decided about once.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::objects::{Claim, Kept, PodSeen};
use crate::cluster::view::View;

/// A group of claims, by uid, and the pods that want them.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Claims without a volume.
    pub claims: Vec<&'a Claim>,
    /// Pods that name one of them.
    pub pods: Vec<&'a PodSeen>,
    /// Where pods name the first claim and none counts yet: a claim that one of them waits for.
    pub late: Option<&'a str>,
}

impl<'a> Group<'a> {
    /// The group of a claim that has no volume.
    #[must_use]
    pub fn of(view: &'a View, first: &'a Claim) -> Self {
        let mut claims = BTreeMap::from([(first.meta.uid.as_str(), first)]);
        let mut pods: BTreeMap<String, &PodSeen> = BTreeMap::new();
        let mut late = None;
        let mut open = vec![first];
        while let Some(claim) = open.pop() {
            for pod in view.pods_of(&claim.namespace, &claim.meta.name) {
                if let Some(name) = lacks(view, pod, first.selected_node.as_deref()) {
                    late = late.or(Some(name));
                    continue;
                }
                if pods.insert(pod.key(), pod).is_some() {
                    continue;
                }
                let named: BTreeSet<&String> = pod.claims.iter().collect();
                let joint = named.into_iter().filter_map(|name| view.claim_named(&pod.namespace, name));
                for other in joint.filter(|other| is_to_be_made(view, other)) {
                    if claims.insert(&other.meta.uid, other).is_none() {
                        open.push(other);
                    }
                }
            }
        }
        let late = late.filter(|_| pods.is_empty());
        Self { claims: claims.into_values().collect(), pods: pods.into_values().collect(), late }
    }

    /// The uid of the claim that is decided under.
    #[must_use]
    pub fn lead(&self) -> &str {
        self.claims.first().map_or("", |claim| &claim.meta.uid)
    }
}

/// A claim of the pod that does not exist, or is to be made and does not want `node` (yet).
fn lacks<'a>(view: &'a View, pod: &'a PodSeen, node: Option<&str>) -> Option<&'a str> {
    let late = |name: &&String| match view.claim_named(&pod.namespace, name) {
        None => true,
        Some(claim) => {
            is_to_be_made(view, claim) && (claim.selected_node.as_deref() != node || !claim.ours && node.is_some())
        }
    };
    pod.claims.iter().find(late).map(String::as_str)
}

/// Whether a claim is ours to make: by its class, since the control plane names us on it only later.
fn is_to_be_made(view: &View, claim: &Claim) -> bool {
    claim.wish.is_some()
        && !claim.deleting
        && view.volume_of(&claim.meta.uid).is_none()
        && (claim.ours || view.class(&claim.class_name).is_some_and(|class| class.ours && class.waits))
}
