//! The stand-ins through an embedded API server: what a real scheduler, kubelet and controller-manager would do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

mod claims;
mod driver;
mod extender;
mod kubelet;
mod rig;
mod workloads;
