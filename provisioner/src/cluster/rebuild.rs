//! What is decided about a node: LocalVolumes to be made again from its record, and its capacities. Pure.
//!
//! A LocalVolume can be deleted by anybody, and its CRD with it; the node's ledger still holds the volume. Its object is
//! made again from what the agent reports. The other way round nothing is concluded: a record that is missing ends nothing.

use std::time::Instant;

use bedplate_api::names;

use crate::cluster::action::{Action, Decision, Notice};
use crate::cluster::capacity;
use crate::cluster::config::Patience;
use crate::cluster::objects::Record;
use crate::cluster::view::View;

/// Decide about the node of that name.
#[must_use]
pub fn decide(view: &View, node: &str, now: Instant, patience: &Patience) -> Decision {
    let mut decision = Decision::default();
    if let Some(storage) = view.storage(node) {
        for record in storage.records.iter().filter(|record| !record.phase.is_over()) {
            if let Some(local) = view.local(&record.name) {
                if local.node != node {
                    namesake(view, node, record, &mut decision);
                }
                continue;
            }
            if view.is_finished(&record.name) {
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

/// A node keeps a volume under a name that another node's LocalVolume has by now: its object cannot be made again, and
/// its owner is told that it is there.
fn namesake(view: &View, node: &str, record: &Record, decision: &mut Decision) {
    let Some(claim) = view.claim(&record.claim_uid) else { return };
    let message = format!(
        "node {node} keeps another volume of this claim (as {}), with whatever was written there. It is not used and not \
         wiped; once its data is not needed, release it there with `bedplate volumes`",
        record.name
    );
    decision.say(Notice::on_claim(claim, names::REASON_OTHER_VOLUME, message));
}

#[cfg(test)]
mod tests;
