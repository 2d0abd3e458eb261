//! Bytes held a pool, and which nodes turned somebody away because of them.

use std::collections::BTreeSet;

use bedplate_api::placement::Slot;

use super::Survivors;

/// The sum of all holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    held: Vec<Vec<u64>>,
    blamed: BTreeSet<Slot>,
    wake: bool,
}

impl Account {
    pub fn on(&self, slot: Slot) -> &[u64] {
        self.held.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    pub fn add(&mut self, found: &Survivors) {
        let most = found.nodes.iter().max().map_or(0, |slot| *slot as usize + 1);
        if self.held.len() < most {
            self.held.resize(most, Vec::new());
        }
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
            let Some(held) = self.held.get_mut(*slot as usize) else { continue };
            for (pool, claim) in pools.iter().zip(&found.claims) {
                let pool = usize::from(*pool);
                if held.len() <= pool {
                    held.resize(pool + 1, 0);
                }
                if let Some(held) = held.get_mut(pool) {
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
