//! When new figures take the place of published ones.
//!
//! One measurement of a disk in use may be anything: a neighbour's burst, a cache, a throttled minute. So the first
//! one is published, and after that only a measurement that another agrees with. A disturbed measurement never takes
//! the place of an idle one: it only shows that the disk was busy.

use serde::{Deserialize, Serialize};

use super::figures::{Conditions, Figures, ScratchFigures};

/// Two figures agree when the larger is at most this many times the smaller.
const AGREE: f64 = 1.25;

/// What is published and what waits for a second opinion.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled<M = Figures> {
    /// The figures in force.
    pub published: Option<M>,
    /// A measurement that disagreed with them, alone so far.
    pub pending: Option<M>,
}

impl<M> Default for Settled<M> {
    fn default() -> Self {
        Self { published: None, pending: None }
    }
}

/// What can take the place of an earlier measurement of the same thing.
pub trait Measurement {
    /// What else was going on.
    fn conditions(&self) -> Conditions;
    /// Whether both tell the same.
    fn agrees(&self, other: &Self) -> bool;
}

impl Measurement for Figures {
    fn conditions(&self) -> Conditions {
        self.conditions
    }

    fn agrees(&self, other: &Self) -> bool {
        agrees(self, other)
    }
}

/// Writes in a pool, and what else its disk was doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolWrites {
    /// The figures.
    pub figures: ScratchFigures,
    /// What else went on.
    pub conditions: Conditions,
}

impl Measurement for PoolWrites {
    fn conditions(&self) -> Conditions {
        self.conditions
    }

    /// The median of an fsync and the random writes a second within 25 %.
    fn agrees(&self, other: &Self) -> bool {
        let (a, b) = (self.figures.usable(), other.figures.usable());
        near(a.fsync_p50_us, b.fsync_p50_us) && near(a.random_write_iops, b.random_write_iops)
    }
}

/// Whether two measurements tell the same of a disk: the same block size and medium, the median latency at depth 1
/// and the reads per second at the deepest depth that both reached within 25 %.
pub fn agrees(a: &Figures, b: &Figures) -> bool {
    if a.block_size != b.block_size || a.method.medium != b.method.medium {
        return false;
    }
    let latency = match (a.latency(), b.latency()) {
        (Some(a), Some(b)) => near(a.p50_us, b.p50_us),
        _ => false,
    };
    let common = a.read.iter().rev().find_map(|x| b.read.iter().find(|y| y.depth == x.depth).map(|y| (x, y)));
    latency && common.is_some_and(|(x, y)| near(x.iops, y.iops))
}

/// Takes a new measurement into account.
#[must_use]
pub fn settle<M: Measurement>(before: Settled<M>, new: M) -> Settled<M> {
    let Some(published) = before.published else {
        return Settled { published: Some(new), pending: None };
    };
    if new.conditions() == Conditions::Disturbed && published.conditions() == Conditions::Idle {
        return Settled { published: Some(published), pending: before.pending };
    }
    let idle_at_last = new.conditions() == Conditions::Idle && published.conditions() == Conditions::Disturbed;
    let seconded = published.agrees(&new) || before.pending.as_ref().is_some_and(|p| p.agrees(&new));
    if idle_at_last || seconded {
        Settled { published: Some(new), pending: None }
    } else {
        Settled { published: Some(published), pending: Some(new) }
    }
}

fn near(a: u64, b: u64) -> bool {
    let (low, high) = (a.min(b), a.max(b));
    high as f64 <= low as f64 * AGREE
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::super::figures::{Confidence, DepthFigure, Engine, Medium, Method};
    use super::super::plan::StopReason;
    use super::*;

    fn figures(p50: u64, iops: u64, conditions: Conditions) -> Figures {
        let depth = |depth, iops| DepthFigure { depth, iops, p50_us: p50, p99_us: 0, p999_us: 0, mib_s: 0.0, reads: 1 };
        Figures {
            read: vec![depth(1, 1_000_000 / p50.max(1)), depth(32, iops)],
            method: Method { engine: Engine::IoUring, medium: Medium::WholeDisk },
            block_size: 4096,
            span_bytes: 1 << 40,
            reads: 1000,
            zero_blocks: 0,
            when: Timestamp::UNIX_EPOCH,
            confidence: Confidence::High,
            conditions,
            stopped: StopReason::RampComplete,
        }
    }

    #[test]
    fn one_odd_measurement_changes_nothing_and_two_do() {
        let first = figures(80, 60_000, Conditions::Idle);
        let slow = figures(800, 6_000, Conditions::Idle);
        let state = settle(Settled::default(), first.clone());
        let state = settle(state, slow.clone());
        assert_eq!(state.published.as_ref(), Some(&first));
        assert_eq!(state.pending.as_ref(), Some(&slow));
        let slow_again = figures(850, 6_500, Conditions::Idle);
        let state = settle(state, slow_again.clone());
        assert_eq!(state, Settled { published: Some(slow_again), pending: None });
    }

    #[test]
    fn an_agreeing_measurement_refreshes_the_age_and_forgets_the_odd_one() {
        let state = settle(Settled::default(), figures(80, 60_000, Conditions::Idle));
        let state = settle(state, figures(800, 6_000, Conditions::Idle));
        let fresh = figures(85, 65_000, Conditions::Idle);
        assert_eq!(settle(state, fresh.clone()), Settled { published: Some(fresh), pending: None });
    }

    #[test]
    fn a_busy_measurement_never_lowers_an_idle_one_however_often_it_is_repeated() {
        let idle = figures(80, 60_000, Conditions::Idle);
        let mut state = settle(Settled::default(), idle.clone());
        for _ in 0..5 {
            state = settle(state, figures(800, 6_000, Conditions::Disturbed));
        }
        assert_eq!(state.published, Some(idle));
    }

    #[test]
    fn an_idle_measurement_replaces_a_busy_one_at_once() {
        let state = settle(Settled::default(), figures(800, 6_000, Conditions::Disturbed));
        let idle = figures(80, 60_000, Conditions::Idle);
        assert_eq!(settle(state, idle.clone()).published, Some(idle));
    }

    #[test]
    fn a_scratch_file_does_not_second_a_whole_disk() {
        let disk = figures(80, 60_000, Conditions::Idle);
        let mut file = disk.clone();
        file.method.medium = Medium::ScratchFile;
        assert!(!agrees(&disk, &file));
    }

    #[test]
    fn writes_in_a_pool_settle_by_the_same_rule() {
        use super::super::figures::WriteFigures;
        let writes = |fsync: u64, conditions| {
            let one = WriteFigures {
                fsync_count: 500,
                fsync_p50_us: fsync,
                fsync_p99_us: fsync * 4,
                random_write_iops: 1_000_000 / fsync,
                sequential_mib_s: 100.0,
            };
            let figures = ScratchFigures {
                first_write: one.clone(),
                overwrite: one,
                record_bytes: 4096,
                random_depth: 16,
                engine: Engine::Threads,
                file_bytes: 64 << 20,
                when: Timestamp::UNIX_EPOCH,
            };
            PoolWrites { figures, conditions }
        };
        let idle = writes(100, Conditions::Idle);
        let state = settle(Settled::default(), idle.clone());
        let state = settle(state, writes(900, Conditions::Disturbed));
        assert_eq!(state.published.as_ref(), Some(&idle), "a busy one never lowers it");
        let slow = writes(900, Conditions::Idle);
        let state = settle(state, slow.clone());
        assert_eq!(state.published.as_ref(), Some(&idle), "one alone changes nothing");
        assert_eq!(settle(state, slow.clone()).published, Some(slow));
    }

    proptest! {
        #[test]
        fn published_figures_change_only_when_the_newest_has_a_second(
            values in prop::collection::vec((1u64..1000, 1u64..100_000), 1..20)
        ) {
            let mut state = Settled::default();
            let mut seen: Vec<Figures> = Vec::new();
            for (p50, iops) in values {
                let new = figures(p50, iops, Conditions::Idle);
                let before = state.published.clone();
                state = settle(state, new.clone());
                if before.is_some() && state.published != before {
                    prop_assert_eq!(state.published.as_ref(), Some(&new));
                    prop_assert!(seen.iter().any(|s| agrees(s, &new)));
                }
                seen.push(new);
            }
        }

        #[test]
        fn agreement_does_not_depend_on_the_order(a in 1u64..10_000, b in 1u64..10_000) {
            let (x, y) = (figures(a, a, Conditions::Idle), figures(b, b, Conditions::Idle));
            prop_assert_eq!(agrees(&x, &y), agrees(&y, &x));
        }
    }
}
