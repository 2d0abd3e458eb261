//! The read ramp as data: which depth comes next, how many reads and how long it may take, and when to stop.
//!
//! Input is the plan (budgets) and what the finished steps showed; output is the next [`Step`] or a [`StopReason`].
//! It must never allow more than the budget: every step's allowance is cut from what is left.
//! Sources of the numbers: diskplorer's doubling ramp (stop when a depth brings little) and Ceph's, Scylla's and the
//! SNIA texts' lessons on short tests; the limits per disk are Bedplate's own and are listed in docs/probing.md.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A pilot's median read latency from which a disk is treated as a mechanical one, whatever it says about itself:
/// mechanical disks answer a random read in 4-15 ms, SATA flash in 0.06-0.2 ms, network block devices in 0.3-3 ms.
/// It is a caution, not a classification: a slow network disk merely gets the smaller budget.
pub const SLOW_P50: Duration = Duration::from_millis(2);
/// Reads allowed on a disk that answers like a mechanical one.
pub const SLOW_READS: u64 = 600;
/// Reads at depth 1 that choose the budget. They also take the first-touch costs and are not part of any figure.
pub const PILOT_READS: u64 = 32;
/// Longest time one depth may take, so that no depth starves those after it.
const STEP_TIME: Duration = Duration::from_millis(1500);
/// A deeper queue must bring at least this factor, else the ramp ends.
const MIN_GAIN: f64 = 1.10;
/// The ramp ends when p99 exceeds this many times the median at depth 1: beyond it reads only queue.
const KNEE: u32 = 3;
/// Floor and factor of the watchdog that ends a running step (see [`Ramp::watchdog`]).
const WATCHDOG_FLOOR: Duration = Duration::from_millis(20);
const WATCHDOG_FACTOR: u32 = 10;

/// What one probe of one disk may cost, all steps together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Wall-clock time.
    pub time: Duration,
    /// Bytes read.
    pub bytes: u64,
    /// Number of reads.
    pub reads: u64,
}

impl Default for Budget {
    /// 5 s, 256 MiB, 20 000 reads.
    fn default() -> Self {
        Self { time: Duration::from_secs(5), bytes: 256 << 20, reads: 20_000 }
    }
}

impl Budget {
    /// The same budget, with no more reads than a mechanical disk is asked for.
    #[must_use]
    pub fn slow(self) -> Self {
        Self { reads: self.reads.min(SLOW_READS), ..self }
    }
}

/// What to read and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// Bytes of one read; a power of two, at least the disk's logical block.
    pub block_size: u32,
    /// Queue depths in the order they are tried.
    pub depths: Vec<u16>,
    /// The cost of it all.
    pub budget: Budget,
}

impl ReadPlan {
    /// The default plan: 4 KiB reads (or the logical block in bytes, if that is larger) at depths 1, 4, 16, 32.
    pub fn new(logical_block: u32) -> Self {
        let block_size = logical_block.max(4096).next_power_of_two();
        Self { block_size, depths: vec![1, 4, 16, 32], budget: Budget::default() }
    }

    /// The plan for a disk that is known to be mechanical before the first read.
    #[must_use]
    pub fn slow(mut self) -> Self {
        self.budget = self.budget.slow();
        self
    }
}

/// Why a step is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Chooses the budget; not a figure.
    Pilot,
    /// Becomes a figure.
    Measure,
}

/// One allowed piece of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Pilot or measurement.
    pub kind: StepKind,
    /// Reads in flight.
    pub depth: u16,
    /// At most this many reads may be issued.
    pub reads: u64,
    /// No read may be issued after this time.
    pub time: Duration,
}

/// What a finished step showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutcome {
    /// Reads per second.
    pub iops: f64,
    /// Median latency of a read.
    pub p50: Duration,
    /// 99th percentile of the latency of a read.
    pub p99: Duration,
    /// Reads issued, failed ones included.
    pub reads: u64,
    /// Time the step took.
    pub elapsed: Duration,
}

/// Why the ramp ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// All depths were measured.
    RampComplete,
    /// The last depth brought less than 10 % more reads per second.
    SmallGain,
    /// The last depth's p99 was beyond three times the median at depth 1.
    LatencyKnee,
    /// The time was used up.
    TimeBudget,
    /// The bytes were used up.
    ByteBudget,
    /// The number of reads was used up.
    ReadBudget,
    /// A running step was cut off because reads became far slower than at its start.
    Watchdog,
    /// Every block of the range was read once; no block is read twice.
    RangeExhausted,
}

/// What the ramp wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run this step.
    Step(Step),
    /// Enough is known.
    Stop(StopReason),
}

/// The state of one probe's ramp: feed it each step's outcome, ask it for the next.
#[derive(Debug, Clone)]
pub struct Ramp {
    plan: ReadPlan,
    budget: Budget,
    pilot: Option<StepOutcome>,
    done: Vec<StepOutcome>,
    spent_reads: u64,
}

impl Ramp {
    /// A ramp that has not started.
    pub fn new(plan: ReadPlan) -> Self {
        let budget = plan.budget;
        Self { plan, budget, pilot: None, done: Vec::new(), spent_reads: 0 }
    }

    /// The next step, given the wall-clock time since the probe began (pauses count).
    pub fn next(&self, elapsed: Duration) -> Next {
        if let Some(reason) = self.finished() {
            return Next::Stop(reason);
        }
        let time = self.budget.time.saturating_sub(elapsed);
        if time.is_zero() {
            return Next::Stop(StopReason::TimeBudget);
        }
        let by_count = self.budget.reads.saturating_sub(self.spent_reads);
        let block = u64::from(self.plan.block_size.max(1));
        let by_bytes = (self.budget.bytes / block).saturating_sub(self.spent_reads);
        let left = by_count.min(by_bytes);
        if left == 0 {
            return Next::Stop(if by_bytes < by_count { StopReason::ByteBudget } else { StopReason::ReadBudget });
        }
        if self.pilot.is_none() {
            return Next::Step(Step { kind: StepKind::Pilot, depth: 1, reads: left.min(PILOT_READS), time });
        }
        let index = self.done.len();
        let depth = self.plan.depths[index].max(1);
        // Deeper steps are faster and need more reads for the same time: weights 1, 2, 3, 4.
        let weights: u64 = (index..self.plan.depths.len()).map(|i| i as u64 + 1).sum();
        let reads = (left * (index as u64 + 1) / weights).max(1);
        let steps_left = u32::try_from(self.plan.depths.len() - index).unwrap_or(u32::MAX);
        // The first steps may not take all; a step that runs out of reads early leaves its time to the later ones.
        let time = (time / steps_left).min(STEP_TIME);
        Next::Step(Step { kind: StepKind::Measure, depth, reads, time })
    }

    /// Takes note of a finished step.
    pub fn record(&mut self, step: &Step, outcome: StepOutcome) {
        self.spent_reads = self.spent_reads.saturating_add(outcome.reads);
        match step.kind {
            StepKind::Pilot => {
                if outcome.p50 >= SLOW_P50 {
                    self.budget = self.budget.slow();
                }
                self.pilot = Some(outcome);
            }
            StepKind::Measure => self.done.push(outcome),
        }
    }

    /// The p99 beyond which a running step is cut off, because somebody is being hurt: ten times the median at depth
    /// 1, and not less than 20 ms.
    pub fn watchdog(&self) -> Duration {
        let base = self.done.first().or(self.pilot.as_ref()).map_or(Duration::ZERO, |o| o.p50);
        (base * WATCHDOG_FACTOR).max(WATCHDOG_FLOOR)
    }

    /// Reads issued so far, the pilot's and failed ones included.
    pub fn reads(&self) -> u64 {
        self.spent_reads
    }

    /// How much of the work is done, 0 to 1, when `part` (0 to 1) of the step after the last recorded one is done.
    pub fn fraction(&self, part: f64) -> f64 {
        let weight = |steps: usize| (steps * (steps + 1) / 2) as f64;
        let (done, total) = (self.done.len(), weight(self.plan.depths.len()));
        if self.pilot.is_none() || total <= 0.0 {
            return 0.0;
        }
        let reached = weight(done) + part.clamp(0.0, 1.0) * (weight(done + 1) - weight(done));
        (reached / total).min(1.0)
    }

    fn finished(&self) -> Option<StopReason> {
        if self.done.len() >= self.plan.depths.len() {
            return Some(StopReason::RampComplete);
        }
        let (Some(first), Some(last)) = (self.done.first(), self.done.last()) else { return None };
        // At depth 1 nothing of ours queues: its own p99 says something about the disk, not about the ramp.
        let before = self.done.len().checked_sub(2).and_then(|i| self.done.get(i))?;
        if last.p99 > first.p50 * KNEE {
            return Some(StopReason::LatencyKnee);
        }
        (last.iops < before.iops * MIN_GAIN).then_some(StopReason::SmallGain)
    }
}

#[cfg(test)]
mod tests;
