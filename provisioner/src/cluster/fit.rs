//! Whether a group's claims fit on a node together, and what a class could still have there: the view's ledger handed to
//! placement, the one function that the extender calls too (DESIGN §7).

use bedplate_core::bytes::Bytes;
use bedplate_core::class::Class;
use bedplate_core::filesystem::FsType;
use bedplate_core::placement::{Explanation, NodeView, PodDemand, Reason, explain};

use crate::cluster::claim::Order;
use crate::cluster::template::Spot;
use crate::cluster::view::View;

/// Where each of a pod's claims goes on a node.
///
/// # Errors
/// Why they do not fit together, in words.
pub fn place(view: &View, name: &str, orders: &[&Order]) -> Result<Vec<Spot>, String> {
    let ledger = view.ledger();
    let node = ledger.node(name);
    let pod = PodDemand { claims: orders.iter().map(|order| order.demand.clone()).collect(), fixed: Vec::new() };
    let explained = explain(name, node, &pod, &[]);
    let (places, _) = explained.verdict.as_ref().map_err(|reason| in_words(*reason, &explained))?;
    let id = ledger.ledger_id(name).map(ToString::to_string).unwrap_or_default();
    let pool =
        |place: &u16| node.and_then(|node| node.pools.get(usize::from(*place))).map(|pool| pool.name.to_string());
    let spot = |pool| Spot { node: name.to_owned(), ledger: id.clone(), pool, disk: None };
    let spots: Option<Vec<Spot>> = places.iter().map(|place| pool(place).map(spot)).collect();
    spots.filter(|spots| spots.len() == orders.len()).ok_or_else(|| "its pools changed meanwhile".to_owned())
}

/// The reason as the scheduler shows it, and the numbers behind it.
fn in_words(reason: Reason, explained: &Explanation) -> String {
    let mut text = reason.text().trim_start_matches("bedplate: ").to_owned();
    for claim in &explained.claims {
        let pools: Vec<String> = claim.pools.iter().map(|pool| pool.detail.to_string()).collect();
        let pools = if pools.is_empty() { "no pools".to_owned() } else { pools.join(", ") };
        text = format!("{text}; claim {} needs {}: {pools}", claim.id, Bytes(claim.bytes));
    }
    text
}

/// Bytes in all and of the largest single volume that a class can still have on a node, with that filesystem.
#[must_use]
pub fn room(node: NodeView<'_>, class: &Class, fs: FsType) -> (u64, u64) {
    if !node.ready || !node.filesystems.has(fs) {
        return (0, 0);
    }
    let fitting = node.pools.iter().enumerate().filter(|(_, pool)| {
        pool.present
            && class.pool.as_ref().is_none_or(|name| *name.as_str() == *pool.name)
            && pool.waste(class.media).is_some()
            && class.wipe.is_none_or(|demand| pool.level.is_some_and(|level| level.satisfies(demand)))
    });
    let mut counted = Vec::new();
    let (mut all, mut largest) = (0_u64, 0_u64);
    for (_, pool) in fitting {
        let room = pool.room();
        largest = largest.max(room.min(pool.largest));
        // Pools on one filesystem draw on the same room: it is there once.
        if !counted.contains(&pool.shares) {
            counted.push(pool.shares);
            all = all.saturating_add(room);
        }
    }
    (all, largest)
}

#[cfg(test)]
mod tests;
