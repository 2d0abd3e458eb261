//! What a pool's directory can do: writes in a scratch file, then reads of what was written there.
//!
//! The reads serve where the disk itself may not be opened (a host's policy, a container without the device): they
//! tell its latency, at lower confidence because the range is small.

use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bedplate_blockdev::probe_io::Flow;
use bedplate_blockdev::scratch::{
    RANDOM_DEPTH, RECORD_BYTES, Scratch, ScratchBudget, ScratchError, Stale, remove_stale_scratch,
};
use bedplate_core::probe::{Budget, Conditions, Medium, ReadPlan, ScratchFigures};
use jiff::Timestamp;

use super::neighbours::Neighbours;
use super::{OnProgress, Outcome, Phase, Prober, Progress, Run};

/// Reading back may take this long.
const READ_TIME: Duration = Duration::from_secs(2);
/// The writes' share of the progress.
const WRITING: f64 = 0.8;

/// What a pool's directory showed.
#[derive(Debug)]
pub struct PoolFigures {
    /// Writes.
    pub write: ScratchFigures,
    /// What else the disk was doing when they began.
    pub conditions: Conditions,
    /// Reads of the scratch file, where the sequential writes left something to read.
    pub read: Option<Outcome>,
}

/// How measuring a pool ended.
#[derive(Debug)]
pub enum PoolOutcome {
    /// With figures.
    Measured(Box<PoolFigures>),
    /// Not begun: [`Outcome::Busy`], [`Outcome::Stopped`] or [`Outcome::Unwatched`].
    NotNow(Outcome),
}

impl Prober {
    /// Measures in `dir`, a pool's directory or one that the operator named. `disk` is the kernel name of the disk
    /// beneath, where it is one: it is watched as for a read probe. Without it nobody knows whether the disk was idle,
    /// and the figures say so. The scratch file is gone when this returns, and so are those that a killed process left.
    ///
    /// # Errors
    /// When the file cannot be made or written; see [`ScratchError`].
    pub fn probe_pool(
        &self,
        dir: &Path,
        disk: Option<&str>,
        budget: &ScratchBudget,
        seed: u64,
        on_progress: OnProgress<'_>,
    ) -> Result<PoolOutcome, ScratchError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let label = dir.to_string_lossy();
        let neighbours = disk.map(|disk| Neighbours::of(&self.roots, disk));
        on_progress(&Progress { disk: &label, phase: Phase::Watching, fraction: 0.0 });
        let conditions = match neighbours.as_ref().map(|n| n.before(&self.halt)) {
            None => Conditions::Disturbed,
            Some(Ok(conditions)) => conditions,
            Some(Err(outcome)) => return Ok(PoolOutcome::NotNow(outcome)),
        };
        let stale = remove_stale_scratch(dir)?;
        if stale != Stale::default() {
            tracing::info!(dir = %dir.display(), removed = ?stale.removed, kept = ?stale.kept, "scratch files found");
        }
        let mut scratch = Scratch::create(dir, budget)?;
        let report = scratch.measure(&mut |share| {
            on_progress(&Progress { disk: &label, phase: Phase::Writing, fraction: WRITING * share });
            if self.halt.stopped() { Flow::Stop } else { Flow::Continue }
        })?;
        let write = ScratchFigures {
            first_write: report.first_write,
            overwrite: report.overwrite,
            record_bytes: RECORD_BYTES,
            random_depth: RANDOM_DEPTH,
            engine: report.engine,
            file_bytes: report.file_bytes,
            when: Timestamp::now(),
        };
        let read = scratch.reader()?.map(|target| {
            let plan = ReadPlan::new(4096);
            // Each block once: a second read of so small a range says nothing.
            let reads = plan.budget.reads.min(target.size() / u64::from(plan.block_size));
            let plan = ReadPlan { budget: Budget { time: READ_TIME, reads, ..plan.budget }, ..plan };
            let run = Run {
                label: &label,
                target: &target,
                medium: Medium::ScratchFile,
                engine: budget.engine,
                neighbours: neighbours.as_ref(),
                halt: &self.halt,
            };
            let mut rest = |p: &Progress<'_>| {
                on_progress(&Progress { fraction: WRITING + (1.0 - WRITING) * p.fraction, ..*p });
            };
            run.ramp(plan, seed, Instant::now(), conditions, &mut rest)
        });
        Ok(PoolOutcome::Measured(Box::new(PoolFigures { write, conditions, read })))
    }
}
