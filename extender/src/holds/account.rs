//! Bytes held a pool, and which nodes turned somebody away because of them.

use std::collections::BTreeSet;

use bedplate_api::placement::Slot;
use bedplate_core::placement::Runs;

use super::Survivors;

/// The sum of all holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    held: Runs<u64>,
    blamed: BTreeSet<Slot>,
    wake: bool,
}

/// Most nodes have no more pools than this: their numbers are made at once, and never move.
const FEW_POOLS: usize = 4;

impl Account {
    #[inline]
    pub fn on(&self, slot: Slot) -> &[u64] {
        self.held.get(slot as usize)
    }

    pub fn add(&mut self, found: &Survivors) {
        self.each(found, |held, bytes| *held = held.saturating_add(bytes));
    }

    pub fn subtract(&mut self, found: &Survivors) {
        self.each(found, |held, bytes| *held = held.saturating_sub(bytes));
    }

    fn each(&mut self, found: &Survivors, change: impl Fn(&mut u64, u64)) {
        let n = found.claims.len();
        if n == 0 {
            return;
        }
        for (slot, pools) in found.nodes.iter().zip(found.pools.chunks_exact(n)) {
            let slot = *slot as usize;
            let most = pools.iter().copied().max().map_or(0, usize::from) + 1;
            if self.held.get(slot).len() < most {
                self.held.lengthen(slot, most.next_multiple_of(FEW_POOLS), 0);
            }
            let held = self.held.get_mut(slot);
            for (pool, claim) in pools.iter().zip(&found.claims) {
                if let Some(held) = held.get_mut(usize::from(*pool)) {
                    change(held, claim.bytes);
                }
            }
        }
    }

    /// Whether any node turned somebody away.
    pub fn blames(&self) -> bool {
        !self.blamed.is_empty()
    }

    pub fn blame(&mut self, slot: Slot) {
        self.blamed.insert(slot);
    }

    /// What these survivors held is free again, but for the nodes in `kept`.
    pub fn given_back(&mut self, old: &Survivors, kept: &BTreeSet<Slot>) {
        if self.blamed.is_empty() {
            return;
        }
        for slot in &old.nodes {
            if !kept.contains(slot) && self.blamed.remove(slot) {
                self.wake = true;
            }
        }
    }

    pub fn take_wake(&mut self) -> bool {
        std::mem::take(&mut self.wake)
    }
}
