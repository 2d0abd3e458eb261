//! All claims of a pod onto one node's pools at once: an exact search, the least wasteful fit first.
//!
//! Waste is counted in the order: media above what is asked, then room left beside the volume. The search is bounded; a pod
//! whose claims are so many that the bound is met without an answer is refused, never guessed.

use super::few::Few;
use super::{Filesystems, NodeView, PodDemand, Pool, Reason};
use crate::volume::Mode;

/// Steps of one node's search. Two claims on four pools take at most twenty; ten different ones on ten pools rarely a
/// thousand.
const MOST_STEPS: u32 = 4_096;

/// Where the claims go and how good that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit<'a> {
    /// A pool a claim, by their places in the pod and in the node.
    pub pools: &'a [u16],
    /// 0 to 10: the less is wasted, the higher.
    pub score: u8,
}

/// One pod against many nodes; keeps its scratch space between them.
#[derive(Debug)]
pub struct Evaluator<'a> {
    pod: &'a PodDemand,
    /// The filesystems that its claims need.
    filesystems: Filesystems,
    /// The short way, where the pod's claims are few.
    few: Option<Few>,
    /// Claims, largest first, like ones beside each other.
    order: Vec<u16>,
    /// Bytes of the claims at and behind each place of `order`.
    behind: Vec<u64>,
    /// Whether a claim is like the one before it in `order`.
    like: Vec<bool>,
    /// Free bytes of each pool.
    free: Vec<u64>,
    /// Free bytes of each group of pools that share their room, at the group's first pool; empty where none share.
    shared: Vec<u64>,
    /// What each claim may use: pool, media above what is asked, room at the start.
    options: Vec<Choice>,
    /// Where the options of each place of `order` begin.
    starts: Vec<usize>,
    /// The choice under trial and the best one, in `order`.
    trial: Vec<u16>,
    best: Option<Cost>,
    best_pools: Vec<u16>,
    /// The answer, in the pod's order.
    answer: Vec<u16>,
    steps: u32,
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    pool: u16,
    cost: Cost,
}

/// Media above what is asked, in levels summed over claims; then room in the chosen pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    waste: u32,
    room: u128,
}

impl Cost {
    const fn plus(self, other: Self) -> Self {
        Self { waste: self.waste + other.waste, room: self.room + other.room }
    }
}

impl<'a> Evaluator<'a> {
    /// Get ready for a pod.
    #[must_use]
    pub fn new(pod: &'a PodDemand) -> Self {
        let claims = &pod.claims;
        let mut order: Vec<u16> = (0..u16::try_from(claims.len()).unwrap_or(u16::MAX)).collect();
        let at = |i: &u16| &claims[usize::from(*i)];
        order.sort_by(|a, b| {
            let key = |i| {
                let claim = at(i);
                (std::cmp::Reverse(claim.bytes), claim.media.map(|m| m as u8), claim.wipe.map(|w| w as u8), &claim.pool)
            };
            key(a).cmp(&key(b))
        });
        let mut behind: Vec<u64> = order.iter().map(|i| at(i).bytes).collect();
        for i in (0..behind.len().saturating_sub(1)).rev() {
            behind[i] = behind[i].saturating_add(behind[i + 1]);
        }
        let like = (0..order.len()).map(|i| i > 0 && at(&order[i]).like(at(&order[i - 1]))).collect();
        let n = order.len();
        let wanted = claims.iter().filter_map(|claim| match claim.mode {
            Mode::Filesystem(fs) => Some(fs),
            Mode::Block => None,
        });
        Self {
            pod,
            filesystems: wanted.collect(),
            few: Few::new(pod, &order),
            order,
            behind,
            like,
            free: Vec::new(),
            shared: Vec::new(),
            options: Vec::new(),
            starts: Vec::with_capacity(n + 1),
            trial: vec![0; n],
            best: None,
            best_pools: vec![0; n],
            answer: vec![0; n],
            steps: 0,
        }
    }

    /// The same without the short way.
    #[cfg(test)]
    pub(super) fn searching(pod: &'a PodDemand) -> Self {
        Self { few: None, ..Self::new(pod) }
    }

    /// Whether the pod fits on this node, and where. `held` as in [`evaluate`](super::evaluate).
    ///
    /// # Errors
    /// Why it does not fit.
    pub fn node(&mut self, name: &str, node: Option<NodeView<'_>>, held: &[u64]) -> Result<Fit<'_>, Reason> {
        let pod = self.pod;
        if pod.fixed.iter().any(|fixed| **fixed != *name) {
            return Err(Reason::OtherNode);
        }
        if pod.claims.is_empty() {
            // Never for room, medium or class: a restart must not cost a quorum.
            return Ok(Fit { pools: &[], score: 10 });
        }
        let node = node.ok_or(Reason::NoAgent)?;
        if !node.ready {
            return Err(Reason::NotReady);
        }
        if !node.filesystems.has_all(self.filesystems) {
            return Err(Reason::Filesystem);
        }
        if let Some(placed) = self.few.as_ref().and_then(|few| few.place(node, held)) {
            let placed = placed?;
            for (claim, pool) in self.order.iter().zip(placed.pools) {
                self.answer[usize::from(*claim)] = pool;
            }
            return Ok(Fit { pools: &self.answer, score: placed.score });
        }
        self.rooms(node, held);
        self.list(node)?;
        self.best = None;
        self.steps = 0;
        let total = self.free.iter().fold(0u64, |sum, free| sum.saturating_add(*free));
        self.search(node, 0, Cost::default(), total);
        if self.best.is_none() {
            return Err(if self.steps >= MOST_STEPS { Reason::TooMany } else { Reason::Together });
        }
        for (place, claim) in self.order.iter().enumerate() {
            self.answer[usize::from(*claim)] = self.best_pools[place];
        }
        Ok(Fit { pools: &self.answer, score: self.score(node, held) })
    }

    fn rooms(&mut self, node: NodeView<'_>, held: &[u64]) {
        let held = |i: usize| held.get(i).copied().unwrap_or(0);
        self.free.clear();
        self.free.extend(node.pools.iter().enumerate().map(|(i, pool)| pool.room().saturating_sub(held(i))));
        self.shared.clear();
        if node.pools.iter().enumerate().any(|(i, pool)| usize::from(pool.shares) != i) {
            self.shared.resize(node.pools.len(), 0);
            for (i, pool) in node.pools.iter().enumerate() {
                let group = &mut self.shared[usize::from(pool.shares).min(i)];
                *group = if pool.present { (*group).max(pool.free) } else { *group };
            }
            for (i, pool) in node.pools.iter().enumerate() {
                let group = &mut self.shared[usize::from(pool.shares).min(i)];
                *group = group.saturating_sub(pool.promised).saturating_sub(held(i));
            }
        }
    }

    /// What each claim may use when it is alone.
    fn list(&mut self, node: NodeView<'_>) -> Result<(), Reason> {
        self.options.clear();
        self.starts.clear();
        for place in 0..self.order.len() {
            let claim = &self.pod.claims[usize::from(self.order[place])];
            let begin = self.options.len();
            self.starts.push(begin);
            let mut furthest = Reason::NoPool;
            for (i, pool) in node.pools.iter().enumerate() {
                match judge(pool, claim, self.available(node, i)) {
                    Ok(waste) => {
                        let cost = Cost { waste: waste.into(), room: self.free[i].into() };
                        self.options.push(Choice { pool: u16::try_from(i).unwrap_or(u16::MAX), cost });
                    }
                    Err(reason) => furthest = furthest.max(reason),
                }
            }
            if self.options.len() == begin {
                return Err(furthest);
            }
            // Good ones first: the search is cut short by what it has found. One or two claims are tried sooner than sorted.
            if self.order.len() > 2 {
                self.options[begin..].sort_by_key(|option| option.cost);
            }
        }
        self.starts.push(self.options.len());
        Ok(())
    }

    fn available(&self, node: NodeView<'_>, pool: usize) -> u64 {
        let own = self.free[pool];
        if self.shared.is_empty() { own } else { own.min(self.shared[usize::from(node.pools[pool].shares).min(pool)]) }
    }

    fn search(&mut self, node: NodeView<'_>, place: usize, cost: Cost, total: u64) {
        if place == self.order.len() {
            if self.best.is_none_or(|best| cost < best) {
                self.best = Some(cost);
                self.best_pools.copy_from_slice(&self.trial);
            }
            return;
        }
        if self.behind[place] > total {
            return;
        }
        let bytes = self.pod.claims[usize::from(self.order[place])].bytes;
        // Like claims are interchangeable: only one of their orders is tried.
        let after = if self.like[place] { self.place_of(place, self.trial[place - 1]) } else { 0 };
        for at in self.starts[place] + after..self.starts[place + 1] {
            let option = self.options[at];
            let cost = cost.plus(option.cost);
            if self.best.is_some_and(|best| cost >= best) {
                continue;
            }
            if self.steps >= MOST_STEPS {
                return;
            }
            self.steps += 1;
            let pool = usize::from(option.pool);
            if self.available(node, pool) < bytes {
                continue;
            }
            let group = usize::from(node.pools[pool].shares).min(pool);
            self.free[pool] -= bytes;
            if let Some(shared) = self.shared.get_mut(group) {
                *shared -= bytes;
            }
            self.trial[place] = option.pool;
            self.search(node, place + 1, cost, total - bytes.min(total));
            self.free[pool] += bytes;
            if let Some(shared) = self.shared.get_mut(group) {
                *shared += bytes;
            }
        }
    }

    /// Where among the options of a place a pool stands.
    fn place_of(&self, place: usize, pool: u16) -> usize {
        self.options[self.starts[place]..self.starts[place + 1]].iter().position(|o| o.pool == pool).unwrap_or(0)
    }

    fn score(&self, node: NodeView<'_>, held: &[u64]) -> u8 {
        let mut worst = 0;
        let mut full = 0.0;
        for (claim, chosen) in self.pod.claims.iter().zip(&self.answer) {
            let pool = &node.pools[usize::from(*chosen)];
            worst = worst.max(pool.waste(claim.media).unwrap_or(2));
            let mine = self.pod.claims.iter().zip(&self.answer).filter(|(_, other)| *other == chosen);
            let mine = mine.fold(0u64, |sum, (claim, _)| sum.saturating_add(claim.bytes));
            let held = held.get(usize::from(*chosen)).copied().unwrap_or(0);
            full += filled(pool.capacity, pool.room().saturating_sub(held).saturating_sub(mine));
        }
        points(worst, full, self.pod.claims.len())
    }
}

/// The share of a pool that is taken when so many bytes are left.
#[inline]
pub(super) fn filled(capacity: u64, left: u64) -> f64 {
    (capacity.saturating_sub(left) as f64 / capacity.max(1) as f64).min(1.0)
}

/// Half for not wasting a better medium, half for filling what is chosen: a point for each fifth, on the average of the
/// claims. `filled` is their sum.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 5
#[inline]
pub(super) fn points(worst: u8, filled: f64, claims: usize) -> u8 {
    let full = 5.0 * filled / claims.max(1) as f64;
    let media: u8 = match worst {
        0 => 5,
        1 => 2,
        _ => 0,
    };
    media + full.min(5.0) as u8
}

/// Whether a claim alone fits into a pool with that much room: how far its medium is above what is asked, or the first
/// reason against it in the order of [`Reason`], so that the furthest pool's reason is the one to tell.
pub(super) fn judge(pool: &Pool, claim: &super::ClaimDemand, available: u64) -> Result<u8, Reason> {
    if claim.pool.as_ref().is_some_and(|wanted| *wanted != pool.name) {
        return Err(Reason::NoPool);
    }
    if !pool.present {
        return Err(Reason::PoolAbsent);
    }
    let waste = pool.waste(claim.media).ok_or(Reason::Media)?;
    if let Some(wanted) = claim.wipe
        && !pool.level.is_some_and(|level| level.satisfies(wanted))
    {
        return Err(Reason::Level);
    }
    if claim.bytes > pool.capacity {
        return Err(Reason::TooLarge);
    }
    if claim.bytes > available {
        return Err(Reason::NoRoom);
    }
    if claim.bytes > pool.largest {
        return Err(Reason::Pieces);
    }
    Ok(waste)
}
