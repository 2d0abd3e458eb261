//! One or two claims on a node with few pools, as nearly all pods and nodes are: every choice is looked at, and nothing is
//! kept in memory between nodes. The answers are those of the search in [`pack`](super::pack), some times sooner.

use super::pack::{Cost, judge};
use super::{ClaimDemand, NodeView, PodDemand, Pool, Reason};
use crate::media::Media;
use crate::wipe::Level;

/// Most claims that are placed here.
const CLAIMS: usize = 2;
/// Most pools that a node may have; a bit each.
const POOLS: usize = 8;
/// In place of how far a medium is above what is asked, where it will not do.
const NEVER: u8 = u8::MAX;

/// The claims of a pod, the larger one first, with what they ask of a medium looked up before.
#[derive(Debug)]
pub(super) struct Few<'a> {
    first: Ask<'a>,
    second: Option<Ask<'a>>,
}

#[derive(Debug)]
struct Ask<'a> {
    claim: &'a ClaimDemand,
    /// How far each medium is above what is asked.
    waste: [u8; Media::ALL.len()],
    /// Which levels will do; the first stands for none.
    levels: [bool; Level::ALL.len() + 1],
}

impl<'a> Ask<'a> {
    fn new(claim: &'a ClaimDemand) -> Self {
        let waste = Media::ALL.map(|media| media.waste(claim.media).unwrap_or(NEVER));
        let mut levels = [claim.wipe.is_none(); Level::ALL.len() + 1];
        for level in Level::ALL {
            levels[place_of(Some(level))] |= claim.wipe.is_some_and(|wanted| level.satisfies(wanted));
        }
        Self { claim, waste, levels }
    }

    fn waste(&self, pool: &Pool) -> u8 {
        self.waste[pool.media as usize]
    }

    /// Whether it fits alone: [`judge`] without a reason, and without branches that a processor would guess wrong.
    fn fits(&self, pool: &Pool, room: u64) -> bool {
        let fits = (self.waste(pool) != NEVER)
            & pool.present
            & (self.claim.bytes <= room.min(pool.largest).min(pool.capacity))
            & self.levels[place_of(pool.level)];
        fits && self.claim.pool.as_ref().is_none_or(|wanted| *wanted == pool.name)
    }
}

const fn place_of(level: Option<Level>) -> usize {
    match level {
        None => 0,
        Some(level) => 1 + level as usize,
    }
}

impl<'a> Few<'a> {
    /// The claims in `order`; `None` where they are too many for here.
    pub fn new(pod: &'a PodDemand, order: &[u16]) -> Option<Self> {
        let mut asks = order.iter().map(|place| Ask::new(&pod.claims[usize::from(*place)]));
        let few = Self { first: asks.next()?, second: asks.next() };
        asks.next().is_none().then_some(few)
    }

    /// A pool a claim, in the order of the claims; `None` where the node is not for here.
    pub fn place(&self, node: NodeView<'_>, held: &[u64]) -> Option<Result<[u16; CLAIMS], Reason>> {
        if node.pools.len() > POOLS {
            return None;
        }
        let mut rooms = [0; POOLS];
        let (mut first, mut second) = (0u8, 0u8);
        for (i, pool) in node.pools.iter().enumerate() {
            if usize::from(pool.shares) != i {
                return None;
            }
            let room = pool.room().saturating_sub(held.get(i).copied().unwrap_or(0));
            rooms[i] = room;
            first |= u8::from(self.first.fits(pool, room)) << i;
            second |= u8::from(self.second.as_ref().is_some_and(|ask| ask.fits(pool, room))) << i;
        }
        if first == 0 {
            return Some(Err(furthest(node, &self.first, &rooms)));
        }
        let cost = |ask: &Ask<'_>, at: u16| {
            let at = usize::from(at);
            Cost { waste: ask.waste(&node.pools[at]).into(), room: rooms[at].into() }
        };
        let mut best: Option<(Cost, [u16; CLAIMS])> = None;
        let mut consider = |cost: Cost, pools| {
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, pools));
            }
        };
        match &self.second {
            None => places(first).for_each(|a| consider(cost(&self.first, a), [a, a])),
            Some(ask) if second == 0 => return Some(Err(furthest(node, ask, &rooms))),
            Some(ask) => {
                for a in places(first) {
                    let (alone, left) = (cost(&self.first, a), rooms[usize::from(a)] - self.first.claim.bytes);
                    for b in places(second).filter(|b| a != *b || ask.claim.bytes <= left) {
                        consider(alone.plus(cost(ask, b)), [a, b]);
                    }
                }
            }
        }
        Some(best.map(|(_, pools)| pools).ok_or(Reason::Together))
    }
}

/// Why a claim fits into no pool.
fn furthest(node: NodeView<'_>, ask: &Ask<'_>, rooms: &[u64]) -> Reason {
    let reasons = node.pools.iter().zip(rooms).filter_map(|(pool, room)| judge(pool, ask.claim, *room).err());
    reasons.max().unwrap_or(Reason::NoPool)
}

/// The places of the bits that are set, from the lowest.
fn places(bits: u8) -> impl Iterator<Item = u16> {
    (0..8).filter(move |place| bits & (1 << place) != 0)
}
