//! The evaluation itself, under the index's lock, and what it does to holds.

use std::sync::Arc;

use bedplate_api::placement::Slot;
use bedplate_core::placement::{Evaluator, Reason};

use super::{Judge, Outcome, Verb};
use crate::holds::{Held, Survivors, Version};
use crate::index::State;
use crate::needs::Wanted;
use crate::wire::{self, Condition, Misfits, Nodes, PodIn};

impl Judge {
    /// Which nodes fit. The pod's own old hold does not count against it, and the survivors take its place.
    pub(super) fn filter(
        &self,
        verb: Verb,
        pod: &PodIn,
        wanted: &Wanted,
        nodes: &Nodes,
    ) -> (Vec<u8>, Outcome, Misfits) {
        let now = self.index.now();
        let uid: Arc<str> = pod.uid().into();
        let mut guard = self.index.lock();
        let state = &mut *guard;
        let own = state.holds.lift(&uid);
        let (fits, misfits, found) = evaluate(state, wanted, nodes, !verb.dry());
        if verb.dry() {
            state.holds.restore(&uid, own);
        } else {
            state.holds.replace(&uid, own, found, version(pod), now);
            if let Some(slot) = wanted.selected.as_ref().and_then(|node| state.ledger.slot(node)) {
                state.holds.pin(&uid, slot, now);
            }
        }
        let wake = state.holds.take_wake();
        drop(guard);
        if wake {
            self.index.wake.notify_one();
        }
        let outcome = if fits.is_empty() { Outcome::Nowhere } else { Outcome::Placed };
        (wire::filtered(nodes, &fits, &misfits), outcome, misfits)
    }

    /// How well nodes fit: what filter found, or the same evaluation where it found nothing.
    pub(super) fn prioritize(
        &self,
        verb: Verb,
        pod: &PodIn,
        wanted: &Wanted,
        nodes: &Nodes,
    ) -> (Vec<u8>, Outcome, Misfits) {
        let now = self.index.now();
        let mut guard = self.index.lock();
        let state = &mut *guard;
        let held = state.holds.scores(pod.uid()).and_then(|(slots, scores)| merge(state, nodes, slots, scores));
        let mut wake = false;
        let scores = if let Some((scores, chosen)) = held {
            if !verb.dry() {
                state.holds.narrow(pod.uid(), &chosen, now);
                wake = state.holds.take_wake();
            }
            scores
        } else {
            let own = state.holds.lift(pod.uid());
            let mut scores = vec![0; nodes.names.len()];
            let (fits, _, found) = evaluate(state, wanted, nodes, false);
            state.holds.restore(&pod.uid().into(), own);
            for (place, score) in fits.iter().zip(found.scores) {
                if let Some(slot) = scores.get_mut(*place as usize) {
                    *slot = score;
                }
            }
            scores
        };
        drop(guard);
        if wake {
            self.index.wake.notify_one();
        }
        (wire::scores(nodes.names.iter().zip(scores)), Outcome::Placed, Misfits::new())
    }
}

/// Judge each node. Where what others hold is the cause of a misfit, remember it: their end will wake the pod.
fn evaluate(state: &mut State, wanted: &Wanted, nodes: &Nodes, blame: bool) -> (Vec<u32>, Misfits, Survivors) {
    let n = wanted.pod.claims.len();
    let names = &nodes.names;
    let slots = state.ledger.slots(names.iter().map(|name| &**name));
    let mut fits = Vec::with_capacity(names.len());
    let mut misfits = Misfits::with_capacity(names.len());
    let mut found = Survivors {
        claims: (wanted.claims.iter().zip(&wanted.pod.claims))
            .map(|(uid, claim)| Held { claim: uid.clone(), bytes: claim.bytes })
            .collect(),
        nodes: Vec::with_capacity(names.len()),
        pools: Vec::with_capacity(names.len() * n),
        scores: Vec::with_capacity(names.len()),
    };
    let mut evaluator = Evaluator::new(&wanted.pod);
    let mut blamed = Vec::new();
    for ((place, name), slot) in (0..).zip(names).zip(slots) {
        let node = slot.and_then(|slot| state.ledger.at(slot));
        let held = slot.map_or(&[][..], |slot| state.holds.on(slot));
        match evaluator.node(name, node, held) {
            Ok(fit) => {
                fits.push(place);
                found.scores.push(fit.score);
                // A pod whose claims all have volumes may go to a node that nothing is known of; it holds nothing.
                if let Some(slot) = slot {
                    found.nodes.push(slot);
                    found.pools.extend_from_slice(fit.pools);
                }
            }
            Err(reason) => {
                misfits.push((place, reason));
                if let Some(slot) = slot.filter(|_| blame && is_held(reason, held))
                    && evaluator.node(name, node, &[]).is_ok()
                {
                    blamed.push(slot);
                }
            }
        }
    }
    for slot in blamed {
        state.holds.blame(slot);
    }
    (fits, misfits, found)
}

fn is_held(reason: Reason, held: &[u64]) -> bool {
    reason.is_about_room() && held.iter().any(|bytes| *bytes > 0)
}

/// The hold's scores for the request's nodes, and their places in the hold; `None` where a node is not in the hold. Both
/// are in the order of the same scheduler's list, so one walk finds them all.
fn merge(state: &State, nodes: &Nodes, slots: &[Slot], scores: &[u8]) -> Option<(Vec<u8>, Vec<usize>)> {
    let mut found = Vec::with_capacity(nodes.names.len());
    let mut chosen = Vec::with_capacity(nodes.names.len());
    let mut at = 0;
    for name in &nodes.names {
        let ahead = slots.get(at..)?.iter().position(|slot| state.ledger.is_named(*slot, name))?;
        found.push(*scores.get(at + ahead)?);
        chosen.push(at + ahead);
        at += ahead + 1;
    }
    Some((found, chosen))
}

/// What the scheduler knew of the pod.
fn version(pod: &PodIn) -> Version {
    Version { resource: pod.version().parse().unwrap_or(0), unscheduled: pod.unscheduled().map_or(0, said) }
}

/// A condition in short; never 0.
#[must_use]
pub(crate) fn said(condition: &Condition) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (condition.message.as_deref().unwrap_or_default(), condition.last_transition_time.as_deref().unwrap_or_default())
        .hash(&mut hasher);
    hasher.finish() | 1
}
