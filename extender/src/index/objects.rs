//! Claims, volumes and classes, reduced to what a placement asks of them.

use std::collections::HashMap;
use std::sync::Arc;

use bedplate_api::names;
use bedplate_api::placement::Unsupported;
use bedplate_core::class::Class;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec};
use k8s_openapi::api::storage::v1 as storage;
use kube::ResourceExt;

/// An object that a pod may need.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A claim, by namespace and name.
    Claim(Box<str>, Box<str>),
    /// A PersistentVolume.
    Volume(Box<str>),
    /// A StorageClass.
    Class(Box<str>),
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its uid.
    pub uid: Arc<str>,
    /// The storage it requests, as written.
    pub storage: Box<str>,
    /// Whether it wants a raw device.
    pub block: bool,
    /// Its class; empty where it has none.
    pub class: Arc<str>,
    /// The PersistentVolume it is bound to, or wants.
    pub volume: Option<Box<str>>,
    /// The node that the scheduler told it.
    pub selected: Option<Arc<str>>,
    /// Whether the control plane says that its volume is ours to make.
    pub ours: bool,
    /// Whether it asks for what is not supported: the provisioner refuses it in words.
    pub refused: bool,
}

/// A PersistentVolume: the node it is on, if it is one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// Somebody else's.
    Other,
    /// Ours, on this node.
    Ours(Arc<str>),
}

/// A StorageClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageClass {
    /// Somebody else's.
    Other,
    /// Ours, but its parameters or its binding mode are refused.
    Refused,
    /// Ours.
    Ours(Box<Class>),
}

/// The objects of a cluster, or those that one request had fetched.
#[derive(Debug, Default)]
pub struct Objects {
    /// By namespace, then name.
    pub claims: HashMap<Box<str>, HashMap<Box<str>, Claim>>,
    /// By name.
    pub volumes: HashMap<Box<str>, Volume>,
    /// By name.
    pub classes: HashMap<Box<str>, StorageClass>,
}

impl Objects {
    /// A claim.
    #[must_use]
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(namespace)?.get(name)
    }
}

impl From<&PersistentVolumeClaim> for Claim {
    fn from(claim: &PersistentVolumeClaim) -> Self {
        let annotation = |name: &str| claim.annotations().get(name).map(String::as_str);
        let provisioner = annotation(names::ANNOTATION_PROVISIONER).or(annotation(names::ANNOTATION_PROVISIONER_BETA));
        let empty = PersistentVolumeClaimSpec::default();
        let spec = claim.spec.as_ref().unwrap_or(&empty);
        let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let text = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(Box::from);
        Self {
            uid: claim.uid().unwrap_or_default().into(),
            storage: requests.and_then(|all| all.get("storage")).map(|q| q.0.as_str()).unwrap_or_default().into(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            class: spec.storage_class_name.as_deref().unwrap_or_default().into(),
            volume: text(&spec.volume_name),
            selected: annotation(names::ANNOTATION_SELECTED_NODE).filter(|node| !node.is_empty()).map(Into::into),
            ours: provisioner == Some(names::DRIVER),
            refused: Unsupported::of(spec).is_some(),
        }
    }
}

impl From<&PersistentVolume> for Volume {
    fn from(volume: &PersistentVolume) -> Self {
        let Some(spec) = &volume.spec else { return Self::Other };
        if spec.csi.as_ref().is_none_or(|csi| csi.driver != names::DRIVER) {
            return Self::Other;
        }
        let terms = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        let expressions = terms.iter().flat_map(|all| &all.node_selector_terms).flat_map(|t| &t.match_expressions);
        let node = expressions.flatten().find(|e| e.key == names::TOPOLOGY_NODE && e.operator == "In");
        let node = node.and_then(|e| e.values.as_ref()?.first()).map_or("", String::as_str);
        Self::Ours(node.into())
    }
}

impl From<&storage::StorageClass> for StorageClass {
    fn from(class: &storage::StorageClass) -> Self {
        if class.provisioner != names::DRIVER {
            return Self::Other;
        }
        if class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer") {
            return Self::Refused;
        }
        Class::parse(&class.parameters.clone().unwrap_or_default())
            .map_or(Self::Refused, |class| Self::Ours(class.into()))
    }
}
