//! The node agent: discovers, classifies and probes this machine's disks and serves volumes on them.
//!
//! A library, so that the command line can do on its own what the agent does all the time. Decisions are core's; devices
//! are opened by `bedplate-blockdev` only.

pub mod admin;
pub mod cluster;
pub mod config;
pub mod discover;
pub mod metrics;
pub mod probe;
pub mod serving;
pub mod standalone;
pub mod surroundings;
pub mod throttle;

/// Version of the agent, as receipts and logs name it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
