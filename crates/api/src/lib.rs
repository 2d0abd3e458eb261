//! What Bedplate and Kubernetes say to each other: custom resources, names, StorageClass parameters.
//!
//! Types only, and the pure conversions between them and `bedplate-core`. No client, no watch, no decision. The CRDs under
//! `deploy/` are generated from here by `make generate`; CI fails when they differ.

#![allow(clippy::duplicated_attributes)] // kube's `printcolumn` comes once a column, and columns share their type

pub mod crds;
pub mod disk_pool;
pub mod labels;
pub mod local_volume;
pub mod names;
pub mod placement;
pub mod storage_node;
pub mod wipe_receipt;

pub use disk_pool::{DiskPool, DiskPoolSpec, DiskPoolStatus};
pub use local_volume::{LocalVolume, LocalVolumeSpec, LocalVolumeStatus};
pub use storage_node::{StorageNode, StorageNodeSpec, StorageNodeStatus};
pub use wipe_receipt::{WipeReceipt, WipeReceiptSpec};

#[cfg(test)]
mod tests;
