//! An embedded cluster in one process, for the demo and the suites.
//!
//! Owns: the API server's subset, and the scheduler, kubelet and controllers that stand in for the real ones. These are
//! ordinary HTTP clients and run as well against any API server by kubeconfig. Never used by a program that is shipped.

pub mod apiserver;
pub mod controllers;
pub mod kubelet;
mod mirror;
mod notes;
mod objects;
pub mod scheduler;

pub use apiserver::ApiServer;
pub use mirror::Running;
