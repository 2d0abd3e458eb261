//! G8: whatever administrators do to the cluster's objects, not one live byte is lost and not one dirty byte is offered.
//! Every story ends with the same two questions, asked of the pods, of the ledgers and of the raw disks.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

mod absence;
mod crds;
mod deletes;
mod finalizers;
mod leaders;
mod pools;
mod renamed;
mod restored;
mod tenants;
