//! An embedded cluster in one process, for the demo and the suites.

pub mod apiserver;

pub use apiserver::ApiServer;
