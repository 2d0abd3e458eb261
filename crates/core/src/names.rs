//! Every label, parameter, topology and driver name, in one place.

/// The CSI driver's name.
pub const DRIVER: &str = "bedplate.dev";
/// Topology key; its value is the node's name.
pub const TOPOLOGY_NODE: &str = "topology.bedplate.dev/node";

/// StorageClass: place in this pool.
pub const PARAMETER_POOL: &str = "bedplate.dev/pool";
/// StorageClass: on this medium.
pub const PARAMETER_MEDIA: &str = "bedplate.dev/media";
/// StorageClass: performance profile.
pub const PARAMETER_PROFILE: &str = "bedplate.dev/profile";
/// StorageClass: spreading of Raft members.
pub const PARAMETER_SPREAD: &str = "bedplate.dev/spread";
/// StorageClass: the level a wipe must reach.
pub const PARAMETER_WIPE: &str = "bedplate.dev/wipe";
/// StorageClass: how a wipe is verified.
pub const PARAMETER_VERIFY: &str = "bedplate.dev/verify";
/// StorageClass: a disk of its own.
pub const PARAMETER_EXCLUSIVE_DISK: &str = "bedplate.dev/exclusive-disk";
/// StorageClass: extra `mkfs` arguments.
pub const PARAMETER_MKFS_OPTIONS: &str = "bedplate.dev/mkfs-options";
/// StorageClass: filesystem, by Kubernetes' own name.
pub const PARAMETER_FSTYPE: &str = "csi.storage.k8s.io/fstype";
/// Every parameter a class may carry.
pub const PARAMETERS: [&str; 9] = [
    PARAMETER_EXCLUSIVE_DISK,
    PARAMETER_MEDIA,
    PARAMETER_MKFS_OPTIONS,
    PARAMETER_POOL,
    PARAMETER_PROFILE,
    PARAMETER_SPREAD,
    PARAMETER_VERIFY,
    PARAMETER_WIPE,
    PARAMETER_FSTYPE,
];

/// Metadata that provisioners add to the parameters: the claim's name.
pub const METADATA_CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";
/// The claim's namespace.
pub const METADATA_CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
/// The claim's uid.
pub const METADATA_CLAIM_UID: &str = "csi.storage.k8s.io/pvc/uid";
/// The PersistentVolume's name.
pub const METADATA_VOLUME_NAME: &str = "csi.storage.k8s.io/pv/name";
