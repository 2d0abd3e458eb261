//! What is written down about each operation, the same for both engines.

use std::time::Duration;

use bedplate_core::probe::Engine;
use hdrhistogram::Histogram;

use super::ProbeIoError;

/// Latencies up to a minute in nanoseconds; longer ones count as a minute.
const LONGEST_NS: u64 = 60_000_000_000;
/// Faults kept one by one; the rest are counted.
const FAULTS_KEPT: usize = 16;

/// Latencies in nanoseconds, to 1 %.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u32>);

impl Latencies {
    pub(crate) fn new() -> Result<Self, ProbeIoError> {
        // Bounds are fixed: one that grows by itself does not do so when it saturates.
        Histogram::new_with_bounds(1, LONGEST_NS, 2).map(Self).map_err(|source| ProbeIoError::Histogram { source })
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST_NS).min(LONGEST_NS);
        self.0.saturating_record(ns);
    }

    /// The latency that `quantile` (0 to 1) of all operations did not exceed. Zero when there were none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        if self.0.is_empty() { Duration::ZERO } else { Duration::from_nanos(self.0.value_at_quantile(quantile)) }
    }

    /// Operations recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Cannot fail: all have the same bounds.
        let _ = self.0.add(&other.0);
    }
}

/// An operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Byte offset.
    pub offset: u64,
    /// The kernel's error number; 0 when fewer bytes came than were asked for.
    pub errno: i32,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All operations asked for were done.
    Ops,
    /// The time was over.
    Time,
    /// There were no more offsets.
    RangeExhausted,
    /// An operation failed.
    Faults,
    /// The observer said stop.
    Observer,
}

/// A look at a run under way.
#[derive(Debug)]
pub struct Live<'a> {
    /// Operations done.
    pub completed: u64,
    /// Time since the first was issued.
    pub elapsed: Duration,
    /// Their latencies.
    pub latencies: &'a Latencies,
}

/// What a run did.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which engine ran.
    pub engine: Engine,
    /// Operations issued, failed ones included. Never more than asked for.
    pub issued: u64,
    /// Operations that succeeded.
    pub completed: u64,
    /// Blocks read that were all zeroes.
    pub zero_blocks: u64,
    /// Operations that failed.
    pub fault_count: u64,
    /// The first of them.
    pub faults: Vec<Fault>,
    /// From the first issue to the last completion.
    pub elapsed: Duration,
    /// Latencies of the successful operations.
    pub latencies: Latencies,
    /// Successful operations in each whole millisecond.
    pub slices: Vec<u32>,
    /// Why it ended.
    pub end: End,
}

impl Report {
    /// Successful operations per second.
    pub fn iops(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.completed as f64 / seconds } else { 0.0 }
    }
}

/// The running account.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) latencies: Latencies,
    slices: Vec<u32>,
    pub(super) completed: u64,
    zero_blocks: u64,
    pub(super) fault_count: u64,
    faults: Vec<Fault>,
    last: Duration,
}

impl Record {
    pub(super) fn new() -> Result<Self, ProbeIoError> {
        Ok(Self {
            latencies: Latencies::new()?,
            slices: Vec::new(),
            completed: 0,
            zero_blocks: 0,
            fault_count: 0,
            faults: Vec::new(),
            last: Duration::ZERO,
        })
    }

    /// A success that took `latency` and ended `at` after the start.
    pub(super) fn success(&mut self, at: Duration, latency: Duration, zero: bool) {
        self.latencies.record(latency);
        self.completed += 1;
        self.zero_blocks += u64::from(zero);
        self.last = self.last.max(at);
        let slice = usize::try_from(at.as_millis()).unwrap_or(usize::MAX - 1);
        if slice >= self.slices.len() {
            self.slices.resize(slice + 1, 0);
        }
        self.slices[slice] = self.slices[slice].saturating_add(1);
    }

    /// A failure that came back `at` after the start.
    pub(super) fn failure(&mut self, at: Duration, fault: Fault) {
        self.fault_count += 1;
        self.last = self.last.max(at);
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(fault);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.completed += other.completed;
        self.zero_blocks += other.zero_blocks;
        self.fault_count += other.fault_count;
        let room = FAULTS_KEPT.saturating_sub(self.faults.len());
        self.faults.extend(other.faults.iter().take(room));
        self.last = self.last.max(other.last);
        if other.slices.len() > self.slices.len() {
            self.slices.resize(other.slices.len(), 0);
        }
        for (sum, n) in self.slices.iter_mut().zip(&other.slices) {
            *sum = sum.saturating_add(*n);
        }
    }

    pub(super) fn into_report(mut self, engine: Engine, issued: u64, end: End) -> Report {
        // The millisecond that the run ended in is not whole.
        self.slices.truncate(usize::try_from(self.last.as_millis()).unwrap_or(usize::MAX));
        Report {
            engine,
            issued,
            completed: self.completed,
            zero_blocks: self.zero_blocks,
            fault_count: self.fault_count,
            faults: self.faults,
            elapsed: self.last,
            latencies: self.latencies,
            slices: self.slices,
            end: if self.fault_count > 0 { End::Faults } else { end },
        }
    }
}

/// Whether a block is all zeroes.
pub(super) fn all_zero(block: &[u8]) -> bool {
    // Almost every block of real data differs in its first words, so this is cheap where it matters.
    let (body, tail) = block.as_chunks::<16>();
    body.iter().all(|chunk| u128::from_ne_bytes(*chunk) == 0) && tail.iter().all(|&b| b == 0)
}
