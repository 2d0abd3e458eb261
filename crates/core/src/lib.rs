//! What Bedplate believes, pure.
//!
//! Facts about disks, verdicts, plans, states and record formats. No tokio, no kube, no system call: time, ids and
//! randomness are arguments, so every decision can be tested by calling it. Carrying decisions out is the work of
//! `bedplate-blockdev` (devices) and `bedplate-provisioner` (volumes).

pub mod bytes;
pub mod chain;
pub mod class;
pub mod disk;
pub mod extent;
pub mod filesystem;
pub mod identity;
pub mod ids;
pub mod journal;
pub mod ledger;
pub mod media;
pub mod names;
pub mod placement;
pub mod probe;
pub mod receipt;
pub mod signature;
pub mod verdict;
pub mod volume;
pub mod wipe;
