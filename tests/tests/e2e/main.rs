//! Bedplate in a cluster, as people use it: written once, played on the embedded cluster, or by `BEDPLATE_E2E_KUBECONFIG`
//! on any cluster where `deploy/` is installed. What a story finds on disks it finds on the raw disk beneath.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

mod away;
mod crowds;
mod drained;
mod life;
mod misfits;
mod restarts;
