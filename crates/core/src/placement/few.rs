//! One or two claims on a node with few pools, as nearly all pods and nodes are: the best pool of each claim, and every pair
//! only where both want the same one. Nothing is kept in memory between nodes. The answers are as good as those of the search
//! in [`pack`](super::pack), some times sooner.

use super::brief::{Brief, Kind};
use super::pack::{filled, points};
use super::{ClaimDemand, NodeView, PodDemand, Reason};

/// Most claims that are placed here.
const CLAIMS: usize = 2;
/// Most pools that a node may have.
const POOLS: usize = 1 << POOL;

/// The claims of a pod, the larger one first, with what they ask of a pool looked up before.
#[derive(Debug)]
pub(super) struct Few {
    first: Ask,
    second: Option<Ask>,
}

/// Where claims go: a pool a claim, in the order of the claims, and how good that is.
#[derive(Debug)]
pub(super) struct Placed {
    pub pools: [u16; CLAIMS],
    pub score: u8,
}

#[derive(Debug)]
struct Ask {
    bytes: u64,
    /// What a pool of each kind costs beside its room; [`NEVER`] where it will not do.
    kinds: [u64; Kind::COUNT],
    /// Why it will not do.
    why: [Reason; Kind::COUNT],
}

impl Ask {
    fn new(claim: &ClaimDemand) -> Self {
        let bytes = claim.bytes;
        let mut ask = Self { bytes, kinds: [NEVER; Kind::COUNT], why: [Reason::PoolAbsent; Kind::COUNT] };
        for (place, media, level) in Kind::present() {
            match media.waste(claim.media) {
                None => ask.why[place] = Reason::Media,
                Some(_) if claim.wipe.is_some_and(|wanted| !level.is_some_and(|level| level.satisfies(wanted))) => {
                    ask.why[place] = Reason::Level;
                }
                Some(waste) => ask.kinds[place] = u64::from(waste) << WASTE,
            }
        }
        ask
    }

    /// What it costs to put it into a pool alone. No branch: a processor would guess it wrong.
    #[inline]
    fn cost(&self, pool: u64, brief: &Brief, room: u64) -> u64 {
        let never = u64::from(room.min(brief.single) < self.bytes).wrapping_neg();
        self.kinds[brief.kind.place()] | (room.min(MOST) << POOL) | pool | never
    }

    /// Why it fits into no pool, as [`judge`](super::pack::judge) tells.
    fn furthest(&self, briefs: &[Brief], held: &[u64]) -> Reason {
        let mut furthest = Reason::NoPool;
        for (brief, held) in briefs.iter().zip(held) {
            let kind = brief.kind.place();
            let room = if self.bytes > room(brief, *held) { Reason::NoRoom } else { Reason::Pieces };
            let size = if self.bytes > brief.capacity { Reason::TooLarge } else { room };
            furthest = furthest.max(if self.kinds[kind] == NEVER { self.why[kind] } else { size });
        }
        furthest
    }
}

// What a choice costs, in one number: waste first, then room, then the pool's place. Pools of more than 256 PiB are as good
// as any other of them.
const POOL: u32 = 3;
const WASTE: u32 = 61;
const MOST: u64 = (1 << (WASTE - POOL)) - 1;
/// Where a pool will not do.
const NEVER: u64 = u64::MAX;

const fn pool(cost: u64) -> usize {
    (cost & 0b111) as usize
}

const fn waste(cost: u64) -> u8 {
    (cost >> WASTE) as u8
}

#[inline]
const fn room(brief: &Brief, held: u64) -> u64 {
    brief.room.saturating_sub(held)
}

impl Few {
    /// The claims in `order`; `None` where they are too many for here, or want a pool by its name.
    pub fn new(pod: &PodDemand, order: &[u16]) -> Option<Self> {
        let mut claims = order.iter().map(|place| &pod.claims[usize::from(*place)]);
        if claims.clone().any(|claim| claim.pool.is_some()) {
            return None;
        }
        let few = Self { first: Ask::new(claims.next()?), second: claims.next().map(Ask::new) };
        claims.next().is_none().then_some(few)
    }

    /// Where they go; `None` where the node is not for here.
    #[inline]
    pub fn place(&self, node: NodeView<'_>, held: &[u64]) -> Option<Result<Placed, Reason>> {
        match node.briefs() {
            Some(briefs) if briefs.len() <= held.len().min(POOLS) => self.choose(briefs, held),
            _ => self.prepare(node, held),
        }
    }

    /// The same where something is missing.
    fn prepare(&self, node: NodeView<'_>, held: &[u64]) -> Option<Result<Placed, Reason>> {
        let mut all = [0; POOLS];
        all.get(..node.pools.len())?;
        for (all, held) in all.iter_mut().zip(held) {
            *all = *held;
        }
        match node.briefs() {
            Some(briefs) => self.choose(briefs, &all),
            None => self.choose(&node.pools.iter().enumerate().map(Brief::of).collect::<Vec<_>>(), &all),
        }
    }

    /// Among at most [`POOLS`] pools.
    fn choose(&self, briefs: &[Brief], held: &[u64]) -> Option<Result<Placed, Reason>> {
        let second = self.second.as_ref().unwrap_or(&self.first);
        let (mut a, mut b, mut alone) = (NEVER, NEVER, true);
        for (i, (brief, held)) in briefs.iter().zip(held).enumerate() {
            let room = room(brief, *held);
            alone &= brief.alone;
            a = a.min(self.first.cost(i as u64, brief, room));
            b = b.min(second.cost(i as u64, brief, room));
        }
        if !alone {
            return None;
        }
        if a == NEVER {
            return Some(Err(self.first.furthest(briefs, held)));
        }
        if b == NEVER {
            return Some(Err(second.furthest(briefs, held)));
        }
        let left = |pool: usize, taken: u64| room(&briefs[pool], held[pool]).saturating_sub(taken);
        let (one, other) = (self.first.bytes, second.bytes);
        if self.second.is_none() {
            let filled = filled(briefs[pool(a)].capacity, left(pool(a), one));
            return Some(Ok(Placed { pools: [place(a), 0], score: points(waste(a), filled, 1) }));
        }
        let both = |pool: usize| other <= left(pool, one);
        if pool(a) == pool(b) && !both(pool(a)) {
            // Else the best of each stand side by side, and no pair is better.
            let cost = |ask: &Ask, i: usize| ask.cost(i as u64, &briefs[i], room(&briefs[i], held[i]));
            match pairs(briefs.len(), |i| cost(&self.first, i), |i| cost(second, i), both) {
                Some(pair) => (a, b) = pair,
                None => return Some(Err(Reason::Together)),
            }
        }
        let together = if pool(a) == pool(b) { one.saturating_add(other) } else { 0 };
        let fill = |cost: u64, own: u64| filled(briefs[pool(cost)].capacity, left(pool(cost), own.max(together)));
        let score = points(waste(a).max(waste(b)), fill(a, one) + fill(b, other), 2);
        Some(Ok(Placed { pools: [place(a), place(b)], score }))
    }
}

/// The best pair of two pools, or of one that has room for both.
#[cold]
fn pairs(
    pools: usize,
    first: impl Fn(usize) -> u64,
    second: impl Fn(usize) -> u64,
    both: impl Fn(usize) -> bool,
) -> Option<(u64, u64)> {
    let mut least = None;
    for a in (0..pools).map(first).filter(|a| *a != NEVER) {
        for b in (0..pools).map(&second).filter(|b| *b != NEVER) {
            // Two sums of waste do not fit beside each other.
            let sum = (waste(a) + waste(b), (a >> POOL & MOST) + (b >> POOL & MOST));
            if (pool(a) != pool(b) || both(pool(a))) && least.is_none_or(|(least, _)| sum < least) {
                least = Some((sum, (a, b)));
            }
        }
    }
    least.map(|(_, pair)| pair)
}

#[allow(clippy::cast_possible_truncation)] // below POOLS
const fn place(cost: u64) -> u16 {
    pool(cost) as u16
}
