//! Every group, label, annotation, finalizer, field manager and reason that Bedplate writes into a cluster, in one place.
//!
//! Driver, topology key and StorageClass parameters are core's, because the node half needs them with no Kubernetes near.

pub use bedplate_core::names::*;

/// API group of the custom resources.
pub const GROUP: &str = "bedplate.dev";
/// Their version.
pub const VERSION: &str = "v1alpha1";

/// Keeps a LocalVolume until its space is wiped, and a PersistentVolume until its LocalVolume is gone (G2).
pub const FINALIZER: &str = "bedplate.dev/wipe";

/// What all node labels of ours begin with.
pub const LABEL_PREFIX: &str = "bedplate.dev/";
/// Node label prefix of pools present: `bedplate.dev/pool.<name>=true`.
pub const LABEL_POOL_PREFIX: &str = "bedplate.dev/pool.";
/// Node label prefix of filesystems the node can make: `bedplate.dev/fs.<type>=true`.
pub const LABEL_FS_PREFIX: &str = "bedplate.dev/fs.";
/// On objects that a Bedplate part manages: which part.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// On LocalVolumes and CSIStorageCapacities: the node, so that a person can list them.
pub const LABEL_NODE: &str = "bedplate.dev/node";
/// On CSIStorageCapacities: the class.
pub const LABEL_CLASS: &str = "bedplate.dev/class";

/// On the one CSIStorageCapacity that exists to wake rejected pods: how often it did.
pub const ANNOTATION_WAKE: &str = "bedplate.dev/wake";
/// Name of that object.
pub const WAKE_OBJECT: &str = "bedplate-wake";
/// On a PersistentVolume: which LocalVolume stands behind it.
pub const ANNOTATION_LOCAL_VOLUME: &str = "bedplate.dev/local-volume";

/// On a LocalVolume: that a PersistentVolume is about to be made for it (`binding`) or was seen (`bound`). With it on,
/// `never-bound` is out of the question.
pub const ANNOTATION_BOUND: &str = "bedplate.dev/volume";
/// On a claim that was sent back to the scheduler: the number of its next attempt.
pub const ANNOTATION_ATTEMPT: &str = "bedplate.dev/attempt";

/// Set by the control plane on a claim: who is to make its volume.
pub const ANNOTATION_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, by its older name.
pub const ANNOTATION_PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// Set by the scheduler on a claim: where its pod is to run.
pub const ANNOTATION_SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Set by us on a PersistentVolume: who made it.
pub const ANNOTATION_PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Server-side apply field manager of the agent.
pub const MANAGER_AGENT: &str = "bedplate-agent";
/// Server-side apply field manager of the agent for node labels, and no other field of a Node.
pub const MANAGER_AGENT_LABELS: &str = "bedplate-agent-labels";
/// Server-side apply field manager of the agents in DiskPools, each followed by its node's name.
pub const MANAGER_AGENT_PREFIX: &str = "bedplate-agent-";
/// Server-side apply field manager of the provisioner.
pub const MANAGER_PROVISIONER: &str = "bedplate-provisioner";
/// Server-side apply field manager of the extender.
pub const MANAGER_EXTENDER: &str = "bedplate-extender";

/// The namespace that the manifests make.
pub const NAMESPACE: &str = "bedplate-system";
/// The Lease that the leading provisioner holds.
pub const LEASE: &str = "bedplate-provisioner";

/// Key of a CSI volume's context that names the LocalVolume.
pub const CONTEXT_LOCAL_VOLUME: &str = "bedplate.dev/local-volume";

/// Name of the registration socket below `<kubelet>/plugins_registry`.
pub const REGISTRATION_SOCKET: &str = "bedplate.dev-reg.sock";
/// Version of CSI that the kubelet is told. A kubelet refuses a driver of the same name whose version is not higher.
pub const PLUGIN_VERSION: &str = "1.0.0";
/// Name of the plugin's folder below `<kubelet>/plugins`.
pub const PLUGIN_FOLDER: &str = "bedplate.dev";

/// Event on a claim: its StorageClass does not exist.
pub const REASON_CLASS: &str = "StorageClassNotFound";
/// Event on a claim: its class binds at once.
pub const REASON_IMMEDIATE: &str = "ImmediateBinding";
/// Event on a claim: a parameter or mount option of its class cannot be met.
pub const REASON_PARAMETER: &str = "BadParameter";
/// Event on a claim: its data source is not supported.
pub const REASON_SOURCE: &str = "UnsupportedDataSource";
/// Event on a claim: selectors are not supported.
pub const REASON_SELECTOR: &str = "UnsupportedSelector";
/// Event on a claim: VolumeAttributesClasses are not supported.
pub const REASON_ATTRIBUTES: &str = "UnsupportedVolumeAttributesClass";
/// Event on a claim: its access mode is not possible.
pub const REASON_ACCESS_MODE: &str = "UnsupportedAccessMode";
/// Event on a claim: its size is none.
pub const REASON_SIZE: &str = "BadSize";
/// Event on a claim: another claim of its pod keeps it waiting.
pub const REASON_SIBLING: &str = "WaitsForOtherClaim";
/// Event on a claim and its pods: it does not fit on the selected node.
pub const REASON_MISFIT: &str = "DoesNotFit";
/// Event on a claim and its pods: the selected node is gone.
pub const REASON_NODE_GONE: &str = "NodeGone";
/// Event on a claim and its pods: the selected node has no agent.
pub const REASON_NO_AGENT: &str = "NoAgent";
/// Event on a claim: the agent takes long.
pub const REASON_WAITING: &str = "WaitsForAgent";
/// Event on a claim and its PersistentVolume: the volume is lost.
pub const REASON_LOST: &str = "VolumeLost";
/// Event on a PersistentVolume: its LocalVolume is missing.
pub const REASON_NO_RECORD: &str = "LocalVolumeMissing";
/// Event on a claim: a volume of it, beside the one that counts, holds bytes on a node.
pub const REASON_OTHER_VOLUME: &str = "OtherVolumeKept";
/// Event on a PersistentVolume: its claimRef is not the one it was made with.
pub const REASON_CLAIM_REF: &str = "ClaimRefChanged";
/// Event on a PersistentVolume: another one, made by hand, names the same volume.
pub const REASON_SHARED: &str = "VolumeShared";
/// Event on a LocalVolume: deleted without a release.
pub const REASON_DELETED_WITHOUT_RELEASE: &str = "DeletedWithoutRelease";
/// Event on a LocalVolume: nobody is left who could release it.
pub const REASON_UNRELEASED: &str = "NeverReleased";
/// Event on a LocalVolume: made again from its node's record.
pub const REASON_REBUILT: &str = "Rebuilt";
