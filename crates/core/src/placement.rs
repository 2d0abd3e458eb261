//! Where a pod's claims fit: the one function that extender, admission, explain and demo all call (G6, G7).
//!
//! All claims of a pod are placed together on one node's pools, exactly: never each alone. Claims that already have a volume
//! only say which node it must be. Room that others hold is an argument. Pure: a node's facts come from its agent's
//! status, what is promised beyond them from whoever keeps the ledger of volumes.

mod brief;
mod demand;
mod explain;
mod few;
mod pack;
mod reason;
mod runs;
mod snapshot;

pub use brief::Brief;
pub use demand::{ClaimDemand, PodDemand};
pub use explain::{ClaimView, Detail, Explanation, PoolView, explain};
pub use pack::{Evaluator, Fit};
pub use reason::Reason;
pub use runs::Runs;
pub use snapshot::{Filesystems, Node, NodeView, Pool};

/// Whether `pod` fits on the node of that name, and where. `held` are bytes held for other pods, a number a pool in the
/// node's order; missing ones are zero. For many nodes, one [`Evaluator`] is faster.
///
/// # Errors
/// Why it does not fit.
pub fn evaluate(
    name: &str,
    node: Option<NodeView<'_>>,
    pod: &PodDemand,
    held: &[u64],
) -> Result<(Vec<u16>, u8), Reason> {
    Evaluator::new(pod).node(name, node, held).map(|fit| (fit.pools.to_vec(), fit.score))
}

#[cfg(test)]
mod tests;
