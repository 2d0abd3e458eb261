//! Volumes, cluster half: claims become LocalVolumes, those become PersistentVolumes, and released ones are given up.
//!
//! Decisions are pure functions over a [`view::View`] of what the watches showed and return [`action::Action`]s; [`hands`]
//! carries them out, each write with a precondition and under the leader's deadline, each irreversible one after uncached
//! reads. Nothing here opens a device, and no absence of an object is ever a reason to give bytes up (G8). The node half
//! knows nothing of this module.

pub mod action;
pub mod admission;
pub mod announce;
pub mod authority;
pub mod capacity;
pub mod case;
pub mod claim;
pub mod config;
pub mod fit;
pub mod hands;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod objects;
pub mod rebuild;
pub mod run;
pub mod template;
pub mod view;
pub mod watch;

#[cfg(test)]
mod testing;
