//! What the provisioner is told at start.

use std::net::SocketAddr;
use std::time::Duration;

/// How long it waits for others before it acts without them.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the other claims of a pod to get their selected-node.
    pub sibling: Duration,
    /// For an agent to come (back) to a selected node.
    pub agent: Duration,
    /// For a Node object to come back.
    pub node: Duration,
    /// For an agent to answer an order, before people are told.
    pub answer: Duration,
    /// Before a LocalVolume that is missing beside its node's record is made again.
    pub record: Duration,
    /// After the API server went back in time, for the agents to say what their nodes really have.
    pub rewound: Duration,
    /// Between two looks at capacities that change.
    pub capacity: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            sibling: Duration::from_mins(1),
            agent: Duration::from_secs(30),
            node: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            record: Duration::from_secs(5),
            rewound: Duration::from_secs(10),
            capacity: Duration::from_millis(200),
        }
    }
}

/// The Lease's times; `duration` > `deadline` > `retry`.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTimes {
    /// How long others wait after the last sign of life before they take over.
    pub duration: Duration,
    /// How long after the start of its last renewal a leader may write.
    pub deadline: Duration,
    /// Between two tries.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// The provisioner's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the Lease and the CSIStorageCapacities live.
    pub namespace: String,
    /// Who this one is in the Lease.
    pub identity: String,
    /// Health and metrics; `None` for none.
    pub listen: Option<SocketAddr>,
    /// The Lease's times.
    pub lease: LeaseTimes,
    /// How long it waits for others.
    pub patience: Patience,
    /// The most API calls under way at once.
    pub parallel: usize,
    /// The longest a single API call may take.
    pub call: Duration,
}

impl Config {
    /// Default settings.
    #[must_use]
    pub fn new(namespace: String, identity: String) -> Self {
        Self {
            namespace,
            identity,
            listen: None,
            lease: LeaseTimes::default(),
            patience: Patience::default(),
            parallel: 64,
            call: Duration::from_secs(10),
        }
    }
}
