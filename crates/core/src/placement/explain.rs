//! The same judgement with its numbers, for people: slower, never on the scheduler's way.

use std::fmt;
use std::sync::Arc;

use super::pack::judge;
use super::{Evaluator, NodeView, PodDemand, Reason};
use crate::bytes::Bytes;
use crate::media::Media;
use crate::wipe::Level;

/// Why a pod fits on a node or not, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The node.
    pub node: Arc<str>,
    /// A pool's place a claim and the score, or the reason that the scheduler is told.
    pub verdict: Result<(Vec<u16>, u8), Reason>,
    /// Each claim alone.
    pub claims: Vec<ClaimView>,
}

/// One claim against every pool of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimView {
    /// Which claim.
    pub id: Arc<str>,
    /// The bytes its volume takes.
    pub bytes: u64,
    /// Pool by pool.
    pub pools: Vec<PoolView>,
}

/// One claim against one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Whether it fits there alone.
    pub verdict: Result<(), Reason>,
    /// The numbers.
    pub detail: Detail,
}

/// The numbers behind a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// The pool.
    pub pool: Arc<str>,
    /// What its disk is made of.
    pub media: Media,
    /// The best level its wipes can state.
    pub level: Option<Level>,
    /// Bytes it can hold in all.
    pub capacity: u64,
    /// Bytes free by its node's word.
    pub free: u64,
    /// Of those, promised to volumes that are not made yet.
    pub promised: u64,
    /// Of those, held for other pods.
    pub held: u64,
    /// The largest single volume, in bytes.
    pub largest: u64,
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, media, level, capacity, free, promised, held, largest } = self;
        let level = level.map_or("no level", Level::name);
        write!(
            f,
            "pool {pool} ({media}, wipes to {level}): {} of {} free, {} promised, {} held, largest {}",
            Bytes(*free),
            Bytes(*capacity),
            Bytes(*promised),
            Bytes(*held),
            Bytes(*largest)
        )
    }
}

/// Judge a node and tell everything. Arguments as in [`evaluate`](super::evaluate).
#[must_use]
pub fn explain(name: &str, node: Option<NodeView<'_>>, pod: &PodDemand, held: &[u64]) -> Explanation {
    let verdict = Evaluator::new(pod).node(name, node, held).map(|fit| (fit.pools.to_vec(), fit.score));
    let pools = node.map_or(&[][..], |node| node.pools);
    let claims = pod.claims.iter().map(|claim| ClaimView {
        id: claim.id.clone(),
        bytes: claim.bytes,
        pools: (pools.iter().enumerate())
            .map(|(i, pool)| {
                let held = held.get(i).copied().unwrap_or(0);
                PoolView {
                    verdict: judge(pool, claim, pool.room().saturating_sub(held)).map(|_| ()),
                    detail: Detail {
                        pool: pool.name.clone(),
                        media: pool.media,
                        level: pool.level,
                        capacity: pool.capacity,
                        free: pool.free,
                        promised: pool.promised,
                        held,
                        largest: pool.largest,
                    },
                }
            })
            .collect(),
    });
    Explanation { node: name.into(), verdict, claims: claims.collect() }
}
