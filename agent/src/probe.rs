//! Measures what disks can do, with manners: one disk at a time, read-only, within a budget, never a busy one.
//!
//! [`Prober::probe`] looks whether the disk is busy, runs core's ramp on blockdev's engine, goes quiet between steps to
//! see whether somebody else needs the disk, and gives way if so. What it returns says what happened; only
//! [`Outcome::Measured`] carries figures, in every other case the last good ones stay (`bedplate_core::probe::settle`).
//! Writes are measured by [`Prober::probe_pool`] in a pool's own scratch file and nowhere else.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bedplate_blockdev::probe_io::{End, EngineChoice, Flow, Live, ProbeIoError, ReadTarget, Report, Request};
use bedplate_core::probe::{
    Conditions, DepthFigure, Doubt, Engine, Figures, Medium, Method, Next, Offsets, Ramp, ReadHealth, ReadPlan, Step,
    StepKind, StepOutcome, StopReason, WINDOWS, judge, windows,
};
use jiff::Timestamp;

use crate::discover::Roots;

pub(crate) mod neighbours;
mod pool;
mod single;
mod survey;

pub use neighbours::Busy;
use neighbours::Neighbours;
pub use pool::{PoolFigures, PoolOutcome};
pub use single::{ReadParameters, SingleRead, read_probe};
pub use survey::{Choice, Measured, Record, Survey, survey};

/// A range smaller than this may sit in a cache of the disk or the host.
const WIDE: u64 = 4 << 30;
/// Reads after which a running step's p99 means something to the watchdog.
const WATCHDOG_READS: u64 = 200;

/// A disk to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name, as in `/sys/block`: `nvme0n1`.
    pub name: String,
    /// Device node to read from.
    pub node: PathBuf,
    /// Logical block in bytes.
    pub logical_block: u32,
    /// Whether it is known to turn, so that even the first reads are few.
    pub mechanical: bool,
}

/// How far a probe is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// Kernel name of the disk, or the pool's directory.
    pub disk: &'a str,
    /// What is being done there.
    pub phase: Phase,
    /// 0 to 1.
    pub fraction: f64,
}

/// What a probe is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Looking whether somebody else uses the disk.
    Watching,
    /// Reading at this depth.
    Reading(u16),
    /// Writing in a pool's scratch file.
    Writing,
}

/// Told about progress. Must return soon: reads wait for it.
pub type OnProgress<'a> = &'a mut dyn FnMut(&Progress<'_>);

/// How a probe ended.
#[derive(Debug)]
pub enum Outcome {
    /// With figures.
    Measured(Figures),
    /// A read failed. The disk was left alone at once.
    Unhealthy(ReadHealth),
    /// Somebody else is using the disk or starving for I/O.
    Busy(Busy),
    /// The caller asked to stop.
    Stopped,
    /// The disk holds too few blocks, or answered too late, to measure anything.
    TooLittle,
    /// The disk could not be read at all.
    Failed(ProbeIoError),
    /// It cannot be seen whether the disk is busy, so it was not touched.
    Unwatched {
        /// What could not be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Asks a running probe to stop, from another thread.
#[derive(Debug, Default)]
pub struct Halt {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Halt {
    /// Ends the probe at the next chance, within some 20 ms.
    pub fn stop(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether [`Halt::stop`] was called.
    pub fn stopped(&self) -> bool {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `time` pass, or less if stopped meanwhile; tells which.
    fn pass(&self, time: Duration) -> Flow {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(asked, time, |asked| !*asked);
        let stopped = *waited.unwrap_or_else(PoisonError::into_inner).0;
        if stopped { Flow::Stop } else { Flow::Continue }
    }
}

/// Measures disks, one at a time however many threads ask.
#[derive(Debug)]
pub struct Prober {
    roots: Roots,
    engine: EngineChoice,
    halt: Halt,
    turn: Mutex<()>,
}

impl Prober {
    /// A prober that sees the machine through `roots` and reads with `engine`.
    pub fn new(roots: Roots, engine: EngineChoice) -> Self {
        Self { roots, engine, halt: Halt::default(), turn: Mutex::new(()) }
    }

    /// The handle that stops its probes.
    pub fn halt(&self) -> &Halt {
        &self.halt
    }

    /// Measures `disk` within `plan`, reading at places that `seed` chooses. Blocks for at most the plan's time plus
    /// what the last reads take.
    pub fn probe(&self, disk: &Disk, plan: ReadPlan, seed: u64, on_progress: OnProgress<'_>) -> Outcome {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let start = Instant::now();
        on_progress(&Progress { disk: &disk.name, phase: Phase::Watching, fraction: 0.0 });
        let neighbours = Neighbours::of(&self.roots, &disk.name);
        let conditions = match neighbours.before(&self.halt) {
            Ok(conditions) => conditions,
            Err(outcome) => return outcome,
        };
        let target = match ReadTarget::open(&disk.node) {
            Ok(target) => target,
            Err(error) => return Outcome::Failed(error),
        };
        let plan = if disk.mechanical { plan.slow() } else { plan };
        let run = Run {
            label: &disk.name,
            target: &target,
            medium: Medium::WholeDisk,
            engine: self.engine,
            neighbours: Some(&neighbours),
            halt: &self.halt,
        };
        run.ramp(plan, seed, start, conditions, on_progress)
    }
}

/// One ramp on one target.
struct Run<'a> {
    label: &'a str,
    target: &'a ReadTarget,
    medium: Medium,
    engine: EngineChoice,
    /// Looked at between steps, where there is a disk to look at.
    neighbours: Option<&'a Neighbours>,
    halt: &'a Halt,
}

/// What the ramp has gathered so far.
struct Gathered {
    ramp: Ramp,
    figures: Vec<DepthFigure>,
    windows: Vec<Option<[u64; WINDOWS]>>,
    engine: Engine,
    reads: u64,
    zero_blocks: u64,
    conditions: Conditions,
}

impl Run<'_> {
    fn ramp(
        &self,
        plan: ReadPlan,
        seed: u64,
        start: Instant,
        conditions: Conditions,
        on_progress: OnProgress<'_>,
    ) -> Outcome {
        let block_size = plan.block_size;
        let mut offsets = Offsets::new(self.target.size(), block_size, seed);
        let mut gathered = Gathered {
            ramp: Ramp::new(plan),
            figures: Vec::new(),
            windows: Vec::new(),
            engine: Engine::Threads,
            reads: 0,
            zero_blocks: 0,
            conditions,
        };
        let reason = loop {
            let step = match gathered.ramp.next(start.elapsed()) {
                Next::Stop(reason) => break reason,
                Next::Step(step) => step,
            };
            match self.step(step, block_size, &mut offsets, &mut gathered, on_progress) {
                ControlFlow::Continue(None) => {}
                ControlFlow::Continue(Some(reason)) => break reason,
                ControlFlow::Break(outcome) => return *outcome,
            }
            let Some(neighbours) = self.neighbours else { continue };
            match neighbours.between(self.halt) {
                Ok(seen) => gathered.conditions = worse(gathered.conditions, seen),
                Err(outcome) => return outcome,
            }
        };
        self.conclude(gathered, block_size, reason)
    }

    /// Runs one step and takes note of it; tells whether to go on, to conclude, or to give up.
    fn step(
        &self,
        step: Step,
        block_size: u32,
        offsets: &mut Offsets,
        gathered: &mut Gathered,
        on_progress: OnProgress<'_>,
    ) -> ControlFlow<Box<Outcome>, Option<StopReason>> {
        let Step { depth, reads, time, .. } = step;
        let request = Request { depth, block_size, ops: reads, time, engine: self.engine };
        let limit = gathered.ramp.watchdog();
        let phase = Phase::Reading(depth);
        on_progress(&Progress { disk: self.label, phase, fraction: gathered.ramp.fraction(0.0) });
        let mut slowed = None;
        let ran = self.target.read(&request, offsets, &mut |live: &Live<'_>| {
            let part = live.completed as f64 / reads.max(1) as f64;
            let fraction = gathered.ramp.fraction(part);
            on_progress(&Progress { disk: self.label, phase, fraction });
            let p99 = live.latencies.quantile(0.99);
            if live.completed >= WATCHDOG_READS && p99 > limit {
                slowed = Some(p99);
            }
            if slowed.is_some() || self.halt.stopped() { Flow::Stop } else { Flow::Continue }
        });
        let report = match ran {
            Ok(report) => report,
            Err(error) => return give_up(Outcome::Failed(error)),
        };
        gathered.engine = report.engine;
        if let Some(first) = report.faults.first() {
            return give_up(Outcome::Unhealthy(ReadHealth {
                errors: report.fault_count,
                first_offset: first.offset,
                errno: first.errno,
                good_reads: gathered.reads + report.completed,
            }));
        }
        gathered.reads += report.completed;
        gathered.zero_blocks += report.zero_blocks;
        if let Some(p99) = slowed {
            // A step that was cut off is no figure: it shows what the neighbours did.
            gathered.conditions = Conditions::Disturbed;
            if gathered.figures.is_empty() {
                return give_up(Outcome::Busy(Busy::Slowed { p99 }));
            }
            return ControlFlow::Continue(Some(StopReason::Watchdog));
        }
        if report.end == End::Observer {
            return give_up(Outcome::Stopped);
        }
        if report.completed > 0 {
            gathered.ramp.record(&step, outcome(&report));
            if step.kind == StepKind::Measure {
                gathered.figures.push(figure(depth, block_size, &report));
                gathered.windows.push(windows(&report.slices));
            }
        }
        ControlFlow::Continue(match report.end {
            End::RangeExhausted => Some(StopReason::RangeExhausted),
            End::Time if report.completed == 0 => Some(StopReason::TimeBudget),
            _ => None,
        })
    }

    fn conclude(&self, gathered: Gathered, block_size: u32, stopped: StopReason) -> Outcome {
        if gathered.figures.is_empty() {
            return Outcome::TooLittle;
        }
        let mut confidence = judge(&gathered.windows, gathered.reads, gathered.zero_blocks);
        if self.target.size() < WIDE {
            confidence = confidence.doubted(Doubt::SmallSpan);
        }
        Outcome::Measured(Figures {
            read: gathered.figures,
            method: Method { engine: gathered.engine, medium: self.medium },
            block_size,
            span_bytes: self.target.size(),
            reads: gathered.reads,
            zero_blocks: gathered.zero_blocks,
            when: Timestamp::now(),
            confidence,
            conditions: gathered.conditions,
            stopped,
        })
    }
}

fn give_up<C>(outcome: Outcome) -> ControlFlow<Box<Outcome>, C> {
    ControlFlow::Break(Box::new(outcome))
}

fn worse(a: Conditions, b: Conditions) -> Conditions {
    if a == Conditions::Idle { b } else { a }
}

fn outcome(report: &Report) -> StepOutcome {
    StepOutcome {
        iops: report.iops(),
        p50: report.latencies.quantile(0.5),
        p99: report.latencies.quantile(0.99),
        reads: report.issued,
        elapsed: report.elapsed,
    }
}

/// A finished step as a figure.
fn figure(depth: u16, block_size: u32, report: &Report) -> DepthFigure {
    let micros = |quantile| u64::try_from(report.latencies.quantile(quantile).as_micros()).unwrap_or(u64::MAX);
    let mib_s = report.iops() * f64::from(block_size) / f64::from(1 << 20);
    DepthFigure {
        depth,
        iops: whole(report.iops()),
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
        mib_s: (mib_s * 10.0).round() / 10.0,
        reads: report.completed,
    }
}

/// A rate as a whole number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // rates are positive and far below 2^53
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

#[cfg(test)]
mod tests;
