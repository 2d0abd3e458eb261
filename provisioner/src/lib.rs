//! Volumes. Node half: pools, ledger, wipe engine, CSI services. Cluster half: [`cluster`].
//!
//! The engine works on a [`bedplate_blockdev::Host`] and needs no Kubernetes: Kubernetes is one front, standalone CSI
//! another. Decisions come from `bedplate-core`; nothing here frees a byte without a journalled Verified record.

pub mod cluster;
pub mod config;
pub mod csi;
pub mod engine;
pub mod mount;
pub mod pool;
pub mod queue;
pub mod receipts;
pub mod store;
pub mod surroundings;
