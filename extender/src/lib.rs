//! The scheduler extender: filter and prioritize over an in-memory index.
//!
//! `wire` reads and writes the protocol, `feed` keeps the `index` by watches, `needs` says what a pod asks for, `judge`
//! evaluates and keeps `holds`, `serve` is HTTP around it. It decides nothing for good: admission does, and this makes its
//! refusals rare. It writes one object ever, to wake pods that it turned away (`wake`).

pub mod config;
pub mod feed;
pub mod fetch;
pub mod holds;
pub mod index;
pub mod judge;
pub mod metrics;
pub mod needs;
pub mod serve;
pub mod wake;
pub mod wire;

pub use config::Config;
pub use index::Index;
pub use judge::Judge;
pub use metrics::Metrics;
pub use serve::serve;
