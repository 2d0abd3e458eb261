//! What is kept of each Kubernetes object: only what a decision reads, so that a big cluster fits into little memory.
//!
//! Filled from watches and from answers to own writes; never written back. A write always starts from a live object or is
//! a patch of single fields.

mod around;

use std::collections::BTreeMap;

use bedplate_api::local_volume::{ClaimReference, Phase, ReleaseKind};
use bedplate_api::placement::VolumeFacts;
use bedplate_api::{LocalVolume, names};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cluster::claim::Wish;

pub use around::{Capacity, Class, CsiSeen, NodeSeen, PodSeen, Record, Storage};

/// Identity and version of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Version, for preconditions.
    pub version: String,
}

impl Meta {
    fn of(meta: &ObjectMeta) -> Self {
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
        }
    }

    /// Whether this is the same object at a later version than `other`. Versions that are no numbers count as later: a
    /// watch gives them in order.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        match (self.version.parse::<u64>(), other.version.parse::<u64>()) {
            (Ok(own), Ok(others)) => self.uid == other.uid && own < others,
            _ => false,
        }
    }
}

/// An object of the view.
pub trait Kept {
    /// Under which key.
    fn key(&self) -> String;
    /// Which one, and how new.
    fn meta(&self) -> &Meta;
}

macro_rules! kept {
    ($($kind:ty),*) => { $(impl Kept for $kind {
        fn key(&self) -> String { self.meta.name.clone() }
        fn meta(&self) -> &Meta { &self.meta }
    })* };
}
kept!(Volume, Local, Class, NodeSeen, CsiSeen, Storage, Capacity);

/// The key of an object in a namespace.
#[must_use]
pub fn path(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// Which.
    pub meta: Meta,
    /// Where.
    pub namespace: String,
    /// Whether the control plane named us as its provisioner.
    pub ours: bool,
    /// Where its pod is to run.
    pub selected_node: Option<String>,
    /// The next attempt's number, as far as the claim itself remembers.
    pub attempt: i64,
    /// The volume it is bound to or asks for by name.
    pub volume_name: Option<String>,
    /// It is being deleted.
    pub deleting: bool,
    /// Name of its class.
    pub class_name: String,
    /// What it asks for; dropped once it is bound.
    pub wish: Option<Box<Wish>>,
}

impl Kept for Claim {
    fn key(&self) -> String {
        path(&self.namespace, &self.meta.name)
    }
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl From<PersistentVolumeClaim> for Claim {
    fn from(claim: PersistentVolumeClaim) -> Self {
        let empty = BTreeMap::new();
        let annotations = claim.metadata.annotations.as_ref().unwrap_or(&empty);
        let annotated = |name: &str| annotations.get(name).filter(|value| !value.is_empty());
        let spec = claim.spec.unwrap_or_default();
        let volume_name = spec.volume_name.clone().filter(|name| !name.is_empty());
        Self {
            meta: Meta::of(&claim.metadata),
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            ours: annotated(names::ANNOTATION_PROVISIONER)
                .or_else(|| annotated(names::ANNOTATION_PROVISIONER_BETA))
                .is_some_and(|driver| driver == names::DRIVER),
            selected_node: annotated(names::ANNOTATION_SELECTED_NODE).cloned(),
            attempt: annotated(names::ANNOTATION_ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0).max(0),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            class_name: spec.storage_class_name.clone().unwrap_or_default(),
            wish: volume_name.is_none().then(|| Box::new(Wish::of(&spec, claim.metadata.labels))),
            volume_name,
        }
    }
}

/// Where a PersistentVolume is in its life, as the control plane says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VolumePhase {
    /// Not yet bound.
    #[default]
    Pending,
    /// Bound.
    Bound,
    /// Its claim is gone.
    Released,
    /// Anything else.
    Other,
}

/// A PersistentVolume's reclaim policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Its bytes are wiped.
    Delete,
    /// They are kept.
    Retain,
    /// None that we know: nothing is done.
    #[default]
    Other,
}

/// A PersistentVolume of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// Which.
    pub meta: Meta,
    /// Whether we made it: driver, annotation and name.
    pub ours: bool,
    /// Its claim: namespace, name, uid.
    pub claim: Option<(String, String, String)>,
    /// What is to become of it when its claim goes.
    pub policy: Policy,
    /// Where it is in its life.
    pub phase: VolumePhase,
    /// It is being deleted.
    pub deleting: bool,
    /// Whether our finalizer is on it.
    pub held: bool,
    /// The volume's id on its node; empty where it is another driver's.
    pub handle: String,
    /// The LocalVolume behind it.
    pub local: String,
    /// The node it lies on, by its affinity.
    pub node: Option<String>,
}

impl From<PersistentVolume> for Volume {
    fn from(volume: PersistentVolume) -> Self {
        let spec = volume.spec.unwrap_or_default();
        let annotations = volume.metadata.annotations.clone().unwrap_or_default();
        let csi = spec.csi.unwrap_or_default();
        let attribute =
            csi.volume_attributes.as_ref().and_then(|attributes| attributes.get(names::CONTEXT_LOCAL_VOLUME)).cloned();
        let claim = spec.claim_ref.map(|claim| {
            (claim.namespace.unwrap_or_default(), claim.name.unwrap_or_default(), claim.uid.unwrap_or_default())
        });
        let meta = Meta::of(&volume.metadata);
        let terms =
            spec.node_affinity.and_then(|affinity| affinity.required).map(|required| required.node_selector_terms);
        let node =
            terms.into_iter().flatten().flat_map(|term| term.match_expressions.unwrap_or_default()).find_map(|only| {
                let values = only.values.filter(|values| values.len() == 1 && only.key == names::TOPOLOGY_NODE);
                values.and_then(|mut values| values.pop())
            });
        Self {
            node,
            ours: csi.driver == names::DRIVER
                && annotations.get(names::ANNOTATION_PROVISIONED_BY).is_some_and(|driver| driver == names::DRIVER)
                && meta.name.starts_with("pvc-"),
            claim,
            policy: match spec.persistent_volume_reclaim_policy.as_deref() {
                Some("Delete") => Policy::Delete,
                Some("Retain") => Policy::Retain,
                _ => Policy::Other,
            },
            phase: match volume.status.and_then(|status| status.phase).as_deref() {
                None | Some("Pending" | "Available" | "") => VolumePhase::Pending,
                Some("Bound") => VolumePhase::Bound,
                Some("Released") => VolumePhase::Released,
                Some(_) => VolumePhase::Other,
            },
            deleting: volume.metadata.deletion_timestamp.is_some(),
            held: holds(&volume.metadata),
            handle: if csi.driver == names::DRIVER { csi.volume_handle } else { String::new() },
            local: annotations.get(names::ANNOTATION_LOCAL_VOLUME).cloned().or(attribute).unwrap_or_default(),
            meta,
        }
    }
}

/// Whether a PersistentVolume was or may have been made for a LocalVolume. Set before the first try to make it, under a
/// precondition, so that it and `never-bound` exclude each other whoever leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// None can have been.
    #[default]
    Unbound,
    /// One is about to be, or is.
    Binding,
    /// One was seen.
    Bound,
}

impl Mark {
    /// The annotation's value.
    #[must_use]
    pub const fn value(self) -> &'static str {
        match self {
            Self::Unbound => "",
            Self::Binding => "binding",
            Self::Bound => "bound",
        }
    }
}

/// A LocalVolume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Local {
    /// Which.
    pub meta: Meta,
    /// Its node.
    pub node: String,
    /// The ledger it was ordered from.
    pub ledger: String,
    /// Its pool.
    pub pool: String,
    /// Bytes it takes: what was ordered, or what it really has where that is more.
    pub bytes: u64,
    /// Uid of its claim.
    pub claim_uid: String,
    /// Its claim; labels dropped.
    pub claim: ClaimReference,
    /// Which try it is.
    pub attempt: i64,
    /// Name of its class.
    pub class_name: String,
    /// The release on record.
    pub release: Option<ReleaseKind>,
    /// What the agent says.
    pub phase: Option<Phase>,
    /// In words.
    pub message: String,
    /// Its id on the node.
    pub handle: Option<String>,
    /// Whether a PersistentVolume was made for it.
    pub mark: Mark,
    /// It is being deleted.
    pub deleting: bool,
    /// Whether our finalizer is on it.
    pub held: bool,
}

impl Local {
    /// Whether nothing of it is left on the node, by the agent's own word.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase.is_some_and(Phase::is_over)
    }

    /// Whether its object stands for nothing any more: nothing of it is left on the node, or its node never made it and it
    /// was given up before there could be a PersistentVolume.
    #[must_use]
    pub fn may_go(&self) -> bool {
        let never_made = self.phase == Some(Phase::Lost)
            && self.release == Some(ReleaseKind::NeverBound)
            && self.mark == Mark::Unbound;
        self.is_over() || never_made
    }

    /// What placement counts of it.
    #[must_use]
    pub fn facts(&self) -> VolumeFacts {
        let gone = self.is_over() || self.phase == Some(Phase::Lost);
        VolumeFacts {
            name: self.meta.name.as_str().into(),
            claim: self.claim_uid.as_str().into(),
            node: self.node.as_str().into(),
            pool: self.pool.as_str().into(),
            bytes: self.bytes,
            takes_room: !gone,
            serves: !gone && self.release.is_none(),
        }
    }
}

impl From<LocalVolume> for Local {
    fn from(volume: LocalVolume) -> Self {
        let mark = match volume.metadata.annotations.as_ref().and_then(|a| a.get(names::ANNOTATION_BOUND)) {
            None => Mark::Unbound,
            Some(value) if value == Mark::Bound.value() => Mark::Bound,
            // An unknown word is read as the one that forbids more.
            Some(_) => Mark::Binding,
        };
        let bytes = VolumeFacts::from(&volume).bytes;
        let status = volume.status.unwrap_or_default();
        let spec = volume.spec;
        Self {
            meta: Meta::of(&volume.metadata),
            node: spec.node_name,
            ledger: spec.ledger_id,
            pool: spec.pool,
            bytes,
            claim_uid: spec.claim_uid,
            claim: ClaimReference { labels: BTreeMap::new(), ..spec.claim },
            attempt: spec.attempt,
            class_name: spec.class_name,
            release: spec.release.map(|release| release.kind),
            phase: status.phase,
            message: status.message,
            handle: status.volume_handle,
            mark,
            deleting: volume.metadata.deletion_timestamp.is_some(),
            held: holds(&volume.metadata),
        }
    }
}

fn holds(meta: &ObjectMeta) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == names::FINALIZER)
}
