//! What the loops tell each other: the last word on each matter, and a wake-up when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bedplate_api::StorageNodeStatus;
use tokio::sync::watch::Sender;
use tokio::time::Instant;

use super::disks::Seen;
use super::figures::Book;

/// The Node object, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its uid: another one under the same name is a new Node for the same machine.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The board.
#[derive(Debug, Default)]
pub struct Board {
    /// Whether it is known if there is a Node.
    pub node_looked: Sender<bool>,
    /// The Node, while there is one.
    pub node: Sender<Option<NodeFacts>>,
    /// Disks, after the first look.
    pub disks: Sender<Option<Seen>>,
    /// Figures.
    pub figures: Sender<Arc<Book>>,
    /// Whether every pool that is wanted here has been tried once.
    pub pools_known: Sender<bool>,
    /// Pools came, went or changed.
    pub pools_changed: Sender<()>,
    /// What the kubelet answered to our registration.
    pub registered: Sender<Option<Result<(), String>>>,
    /// Until when to write nothing, because another agent speaks under this node's name.
    pub silent_until: Sender<Option<Instant>>,
    /// The StorageNode as it is to be.
    pub told: Sender<Option<Arc<StorageNodeStatus>>>,
}
