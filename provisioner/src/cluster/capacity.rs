//! CSIStorageCapacity: one object a node and class, so that a scheduler without the extender sees room too.
//!
//! Owned by the StorageNode, so that a node that leaves takes them along; written only when a figure changes. Pure.

use bedplate_core::filesystem::FsType;
use bedplate_core::volume::Mode;

use crate::cluster::action::{Action, Decision};
use crate::cluster::claim::parameters;
use crate::cluster::fit;
use crate::cluster::view::View;

/// What a node's capacities should be, beside what they are. A node without a Node object or without its agent offers
/// nothing: the scheduler would send pods there for ever.
pub fn decide(view: &View, node: &str, decision: &mut Decision) {
    let storage = view.storage(node);
    let served = view.has_node(node) && view.has_agent(node);
    let mut stale: Vec<_> = view.capacities_of(node).collect();
    for class in view.classes().filter(|class| class.waits && storage.is_some()) {
        let fs = class.parameters.get(bedplate_api::names::PARAMETER_FSTYPE).and_then(|name| name.parse().ok());
        let fs = fs.unwrap_or(FsType::Ext4);
        let Ok(wanted) = parameters(class, Mode::Filesystem(fs)) else { continue };
        let room = view.ledger().node(node).filter(|_| served).map(|node| fit::room(node, &wanted, fs));
        let (bytes, largest) = room.unwrap_or((0, 0));
        let at = stale.iter().position(|capacity| capacity.class == class.meta.name);
        let present = at.map(|at| stale.swap_remove(at));
        if present.is_some_and(|present| present.bytes == Some(bytes) && present.largest == Some(largest)) {
            continue;
        }
        decision.act(Action::Publish {
            node: node.to_owned(),
            owner: storage.map(|storage| storage.meta.uid.clone()).unwrap_or_default(),
            class: class.meta.name.clone(),
            bytes,
            largest,
            present: present.map(|present| present.meta.clone()),
        });
    }
    for capacity in stale {
        decision.act(Action::Unpublish(capacity.meta.clone()));
    }
}
