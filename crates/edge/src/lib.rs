//! What agent, provisioner and extender share where they meet the outside: their logs, the client of an API server, and
//! watches that never end.
//!
//! No decision stands here, and nothing of Bedplate's own kinds.

pub mod client;
pub mod logging;
pub mod watch;
