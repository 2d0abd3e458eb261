//! What is decided about a node: LocalVolumes to be made again from its record, and its capacities. Pure.
//!
//! A LocalVolume can be deleted by anybody, and its CRD with it; the node's ledger still holds the volume. Its object is
//! made again from what the agent reports. The other way round nothing is concluded: a record that is missing ends nothing.

use std::time::Instant;

use crate::cluster::action::{Action, Decision};
use crate::cluster::capacity;
use crate::cluster::config::Patience;
use crate::cluster::view::View;

/// Decide about the node of that name.
#[must_use]
pub fn decide(view: &View, node: &str, now: Instant, patience: &Patience) -> Decision {
    let mut decision = Decision::default();
    if let Some(storage) = view.storage(node) {
        for record in storage.records.iter().filter(|record| !record.phase.is_over()) {
            if view.local(&record.name).is_some() || view.is_finished(&record.name) {
                continue;
            }
            let since = view.absent_since(node, &record.name).unwrap_or(now);
            let waited = now.saturating_duration_since(since);
            if waited < patience.record {
                decision.again_in(patience.record.saturating_sub(waited));
            } else {
                decision.act(Action::Rebuild { node: node.to_owned(), local: record.name.clone() });
            }
        }
    }
    capacity::decide(view, node, &mut decision);
    decision
}

#[cfg(test)]
mod tests;
