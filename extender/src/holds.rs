//! Room held for pods that the scheduler is placing, so that two pods in flight are not sent to the same bytes.
//!
//! Pure: time is an argument, and what happens is told by calls. A hold begins as "on one of these nodes" (filter), narrows
//! (prioritize), is pinned (one survivor, nominated node, selected-node, nodeName), and ends when LocalVolumes take its
//! place, or the pod is bound, deleted or found unschedulable after the filter, or nobody has heard of it for a while.
//! Never authority for anything: admission is the commit point, holds only make its refusals rare.

mod account;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use account::Account;
use bedplate_api::placement::Slot;

/// Milliseconds since the process began.
pub type Millis = u64;

/// How long a hold lives that nothing happens to.
pub const TTL: Millis = 15_000;
/// Nodes in all holds together: about 40 MiB. Beyond it the oldest holds end early, which costs a refusal at admission.
pub const MOST_NODES: usize = 4 << 20;

/// A claim that room is held for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its uid.
    pub claim: Arc<str>,
    /// Bytes its volume will take.
    pub bytes: u64,
}

/// What a filter found for a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survivors {
    /// The claims that need room.
    pub claims: Vec<Held>,
    /// The nodes, in the request's order.
    pub nodes: Vec<Slot>,
    /// A pool a claim, node by node.
    pub pools: Vec<u16>,
    /// A score a node.
    pub scores: Vec<u8>,
}

/// What the scheduler knew of the pod when it asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The pod's resourceVersion.
    pub resource: u64,
    /// What its PodScheduled=False condition said, in short; 0 for none.
    pub unscheduled: u64,
}

/// A pod as a watch shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its uid.
    pub uid: Arc<str>,
    /// Its version.
    pub version: Version,
    /// The node it is bound to or nominated for.
    pub node: Option<Arc<str>>,
}

#[derive(Debug)]
struct Hold {
    found: Survivors,
    version: Version,
    /// Whether the node is certain.
    pinned: bool,
    expires: Millis,
}

/// All holds.
#[derive(Debug)]
pub struct Holds {
    pods: HashMap<Arc<str>, Hold>,
    /// Which pod a claim's hold is of.
    claims: HashMap<Arc<str>, Arc<str>>,
    expiries: BTreeSet<(Millis, Arc<str>)>,
    account: Account,
    /// Pods that are gone, until nobody asks about them any more.
    gone: HashMap<Arc<str>, Millis>,
    nodes: usize,
    most: usize,
    evicted: u64,
}

impl Default for Holds {
    fn default() -> Self {
        Self::new(MOST_NODES)
    }
}

impl Holds {
    /// No holds; at most so many nodes in all of them together.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            pods: HashMap::new(),
            claims: HashMap::new(),
            expiries: BTreeSet::new(),
            account: Account::default(),
            gone: HashMap::new(),
            nodes: 0,
            most,
            evicted: 0,
        }
    }

    /// Bytes held on a node, a number a pool.
    #[must_use]
    #[inline]
    pub fn on(&self, slot: Slot) -> &[u64] {
        self.account.on(slot)
    }

    /// How many pods have a hold.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether nobody has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// How many of them are pinned.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.pods.values().filter(|hold| hold.pinned).count()
    }

    /// How many were ended early for want of memory.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Lift a pod's hold for the length of a filter, so that the pod does not stand in its own way. Follow with
    /// [`replace`](Self::replace).
    pub fn lift(&mut self, pod: &str) -> Lifted {
        Lifted(self.take(pod))
    }

    /// Put the survivors of a filter in place of the pod's old hold. One survivor pins; none, or a pod that is gone, holds
    /// nothing.
    pub fn replace(&mut self, pod: &Arc<str>, old: Lifted, found: Survivors, version: Version, now: Millis) {
        let empty = found.nodes.is_empty() || found.claims.is_empty() || pod.is_empty() || self.gone.contains_key(pod);
        if !empty {
            let pinned = found.nodes.len() == 1;
            self.put(pod.clone(), Hold { found, version, pinned, expires: now + TTL });
        }
        // Only now, so that what is held again counts as never given back.
        if let Lifted(Some(old)) = old
            && self.account.blames()
        {
            let kept = self.pods.get(pod).map(|hold| hold.found.nodes.iter().copied().collect());
            self.account.given_back(&old.found, &kept.unwrap_or_default());
        }
        while self.nodes > self.most {
            let Some((_, pod)) = self.expiries.first().cloned() else { break };
            self.evicted += 1;
            self.end(&pod);
        }
    }

    /// Put a lifted hold back as it was.
    pub fn restore(&mut self, pod: &Arc<str>, old: Lifted) {
        if let Lifted(Some(old)) = old {
            self.put(pod.clone(), old);
        }
    }

    /// The nodes and scores that the last filter found for a pod, in its order.
    #[must_use]
    pub fn scores(&self, pod: &str) -> Option<(&[Slot], &[u8])> {
        let found = &self.pods.get(pod)?.found;
        Some((&found.nodes, &found.scores))
    }

    /// Prioritize names these nodes: the others are out. `chosen` are places among the hold's nodes, ascending.
    pub fn narrow(&mut self, pod: &str, chosen: &[usize], now: Millis) {
        let Some(hold) = self.pods.get(pod) else { return };
        if chosen.is_empty() {
            return;
        }
        if chosen.len() == hold.found.nodes.len() {
            self.extend(pod, now);
            return;
        }
        let Some(mut hold) = self.take(pod) else { return };
        let old = hold.found.clone();
        hold.found = old.only(chosen);
        hold.pinned |= hold.found.nodes.len() == 1;
        hold.expires = now + TTL;
        let kept: BTreeSet<Slot> = hold.found.nodes.iter().copied().collect();
        self.put(pod.into(), hold);
        self.account.given_back(&old, &kept);
    }

    /// The pod goes to this node. A hold that does not know the node cannot say which pools, and ends.
    pub fn pin(&mut self, pod: &str, node: Slot, now: Millis) {
        let Some(hold) = self.pods.get_mut(pod) else { return };
        match hold.found.nodes.iter().position(|slot| *slot == node) {
            Some(place) => {
                hold.pinned = true;
                self.narrow(pod, &[place], now);
            }
            None => self.end(pod),
        }
    }

    /// A claim was told where to go.
    pub fn selected(&mut self, claim: &str, node: Slot, now: Millis) {
        if let Some(pod) = self.claims.get(claim).cloned() {
            self.pin(&pod, node, now);
        }
    }

    /// A claim has a LocalVolume on this node: the ledger counts it from now on.
    pub fn allocated(&mut self, claim: &str, node: Slot, now: Millis) {
        let Some(pod) = self.claims.get(claim).cloned() else { return };
        self.pin(&pod, node, now);
        let Some(mut hold) = self.take(&pod) else { return };
        hold.found.forget(claim);
        if !hold.found.claims.is_empty() {
            self.put(pod, hold);
        }
    }

    /// A pod changed. `slot` finds a node's place.
    pub fn seen(&mut self, pod: &Seen, slot: impl Fn(&str) -> Option<Slot>, now: Millis) {
        let Some(hold) = self.pods.get(&pod.uid) else { return };
        if let Some(node) = &pod.node {
            match slot(node) {
                // What has no LocalVolume yet stays held until it has, or time is up.
                Some(slot) => self.pin(&pod.uid, slot, now),
                None => self.end(&pod.uid),
            }
        } else if pod.version.unscheduled != 0
            && pod.version.unscheduled != hold.version.unscheduled
            && pod.version.resource > hold.version.resource
        {
            // The scheduler gave up on it, after the filter that this hold is of.
            self.end(&pod.uid);
        }
    }

    /// A pod is gone.
    pub fn gone(&mut self, pod: &Arc<str>, now: Millis) {
        self.end(pod);
        self.gone.insert(pod.clone(), now + TTL);
    }

    /// The pods that have a hold.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pods.keys()
    }

    /// End what nobody has heard of for a while.
    pub fn expire(&mut self, now: Millis) {
        while let Some((_, pod)) = self.expiries.first().filter(|(expires, _)| *expires <= now).cloned() {
            self.end(&pod);
        }
        self.gone.retain(|_, until| *until > now);
    }

    /// A pod was turned away from this node because of what others hold there.
    pub fn blame(&mut self, slot: Slot) {
        self.account.blame(slot);
    }

    /// Whether room that was the cause of a refusal was given back since the last time this was asked.
    #[must_use]
    pub fn take_wake(&mut self) -> bool {
        self.account.take_wake()
    }

    /// End a pod's hold.
    pub fn end(&mut self, pod: &str) {
        if let Some(hold) = self.take(pod) {
            self.account.given_back(&hold.found, &BTreeSet::new());
        }
    }

    fn extend(&mut self, pod: &str, now: Millis) {
        let Some((uid, hold)) = self.pods.get_key_value(pod) else { return };
        let (uid, before) = (uid.clone(), hold.expires);
        self.expiries.remove(&(before, uid.clone()));
        self.expiries.insert((now + TTL, uid));
        if let Some(hold) = self.pods.get_mut(pod) {
            hold.expires = now + TTL;
        }
    }

    fn take(&mut self, pod: &str) -> Option<Hold> {
        let (uid, hold) = self.pods.remove_entry(pod)?;
        for claim in &hold.found.claims {
            self.claims.remove(&claim.claim);
        }
        self.nodes -= hold.found.nodes.len();
        self.account.subtract(&hold.found);
        self.expiries.remove(&(hold.expires, uid));
        Some(hold)
    }

    fn put(&mut self, pod: Arc<str>, hold: Hold) {
        for claim in &hold.found.claims {
            self.claims.insert(claim.claim.clone(), pod.clone());
        }
        self.nodes += hold.found.nodes.len();
        self.account.add(&hold.found);
        self.expiries.insert((hold.expires, pod.clone()));
        self.pods.insert(pod, hold);
    }
}

/// A pod's hold, out of the account while the pod is filtered anew.
#[derive(Debug)]
#[must_use]
pub struct Lifted(Option<Hold>);

impl Survivors {
    fn only(&self, chosen: &[usize]) -> Self {
        let n = self.claims.len();
        let nodes = chosen.iter().filter_map(|place| self.nodes.get(*place).copied());
        let pools = chosen.iter().flat_map(|place| self.pools.get(place * n..(place + 1) * n).unwrap_or_default());
        let scores = chosen.iter().map(|place| self.scores.get(*place).copied().unwrap_or(0));
        Self {
            claims: self.claims.clone(),
            nodes: nodes.collect(),
            pools: pools.copied().collect(),
            scores: scores.collect(),
        }
    }

    fn forget(&mut self, claim: &str) {
        let Some(at) = self.claims.iter().position(|held| &*held.claim == claim) else { return };
        let n = self.claims.len();
        let mut place = 0;
        self.pools.retain(|_| {
            place += 1;
            (place - 1) % n != at
        });
        self.claims.remove(at);
    }
}

#[cfg(test)]
mod tests;
