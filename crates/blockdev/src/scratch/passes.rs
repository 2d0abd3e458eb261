//! The two write passes over the scratch file: fdatasync latency, random writes, sequential writes.
//!
//! The second pass writes exactly what the first one wrote, in the same order, so that the only difference is whether
//! the filesystem had to change its map.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate_core::probe::{Engine, Offsets, WriteFigures};

use super::file::DATA_START;
use super::{RANDOM_DEPTH, RECORD_BYTES, ScratchBudget, ScratchError, Watch, WriteReport};
use crate::Aligned;
use crate::probe_io::{Flow, Job, Latencies, Live, Op, Request, fill, run as run_job};

/// Bytes of one sequential write.
const SEQUENTIAL_BYTES: u64 = 1 << 20;
/// The order of random writes is the same in both passes and in every probe; nothing is read back.
const ORDER: u64 = 0x0062_6564_706c_6174;

/// Where the three regions begin; each ends where the next begins, the last at `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    sync: u64,
    random: u64,
    pub(super) sequential: u64,
    end: u64,
}

impl Layout {
    /// An eighth for fdatasync records, three for random writes, four for sequential ones, in whole MiB.
    pub(super) fn of(bytes: u64) -> Self {
        let mib = bytes.saturating_sub(DATA_START) >> 20;
        let (sync, random) = ((mib / 8).max(1), (mib * 3 / 8).max(1));
        let start = DATA_START;
        Self {
            sync: start,
            random: start + (sync << 20),
            sequential: start + ((sync + random) << 20),
            end: start + (mib << 20),
        }
    }
}

/// How many operations each phase may do; the second pass gets what the first did.
#[derive(Debug, Clone, Copy)]
struct Quota {
    sync: u64,
    random: u64,
    sequential: u64,
}

/// The share of the total work that is done before each phase, and after the last.
const STEPS: f64 = 6.0;

struct Pass<'a> {
    file: &'a Arc<File>,
    path: &'a Path,
    layout: Layout,
    budget: &'a ScratchBudget,
    done: f64,
}

/// Runs both passes. Also returns the bytes written in the sequential region.
pub(super) fn run(
    file: &Arc<File>,
    path: &Path,
    budget: &ScratchBudget,
    watch: Watch<'_>,
) -> Result<(WriteReport, u64), ScratchError> {
    let layout = Layout::of(budget.bytes);
    let mut pass = Pass { file, path, layout, budget, done: 0.0 };
    let all = Quota {
        sync: (layout.random - layout.sync) / u64::from(RECORD_BYTES),
        random: (layout.sequential - layout.random) / u64::from(RECORD_BYTES),
        sequential: (layout.end - layout.sequential) / SEQUENTIAL_BYTES,
    };
    let (first_write, quota, engine) = pass.once(all, watch)?;
    let (overwrite, again, _) = pass.once(quota, watch)?;
    tracing::debug!(?quota, ?again, "scratch passes done");
    let report = WriteReport { first_write, overwrite, engine, file_bytes: budget.bytes };
    Ok((report, quota.sequential * SEQUENTIAL_BYTES))
}

impl Pass<'_> {
    /// One pass. Half of its time is for fdatasync, a quarter each for the other two.
    fn once(&mut self, quota: Quota, watch: Watch<'_>) -> Result<(WriteFigures, Quota, Engine), ScratchError> {
        let quarter = self.budget.time / 8;
        let (syncs, sync) = self.sync(quota.sync, quarter * 2, watch)?;
        self.done += 1.0;
        let (random_iops, random, engine) = self.random(quota.random, quarter, watch)?;
        self.done += 1.0;
        let (bytes_s, sequential) = self.sequential(quota.sequential, quarter, watch)?;
        self.done += 1.0;
        let figures = WriteFigures {
            fsync_count: sync,
            fsync_p50_us: micros(syncs.quantile(0.5)),
            fsync_p99_us: micros(syncs.quantile(0.99)),
            random_write_iops: whole(random_iops),
            sequential_mib_s: (bytes_s / f64::from(1 << 20) * 10.0).round() / 10.0,
        };
        Ok((figures, Quota { sync, random, sequential }, engine))
    }

    /// One record, one fdatasync, and again: what a write-ahead log does.
    fn sync(&self, most: u64, time: Duration, watch: Watch<'_>) -> Result<(Latencies, u64), ScratchError> {
        let mut latencies = Latencies::new().map_err(|e| self.engine(e))?;
        let mut record = Aligned::zeroed(RECORD_BYTES as usize);
        fill(&mut record);
        let start = Instant::now();
        let mut count = 0;
        while count < most && start.elapsed() < time {
            let began = Instant::now();
            let offset = self.layout.sync + count * u64::from(RECORD_BYTES);
            self.write(&record, offset)?;
            self.flush()?;
            latencies.record(began.elapsed());
            count += 1;
            self.ask(watch, count as f64 / most as f64)?;
        }
        self.some("fdatasync", count)?;
        Ok((latencies, count))
    }

    /// 4 KiB writes at random places, flushed at the end; the flush is part of the time.
    fn random(&self, most: u64, time: Duration, watch: Watch<'_>) -> Result<(f64, u64, Engine), ScratchError> {
        let Layout { random, sequential, .. } = self.layout;
        let mut offsets = Offsets::new(sequential - random, RECORD_BYTES, ORDER);
        let engine = self.budget.engine;
        let request = Request { depth: RANDOM_DEPTH, block_size: RECORD_BYTES, ops: most, time, engine };
        let job = Job { file: Arc::clone(self.file), op: Op::Write, base: random, request };
        let start = Instant::now();
        let mut stopped = false;
        let report = run_job(&job, &mut offsets, &mut |live: &Live<'_>| {
            let flow = watch((self.done + live.completed as f64 / most as f64) / STEPS);
            stopped |= flow == Flow::Stop;
            flow
        })
        .map_err(|e| self.engine(e))?;
        if let Some(fault) = report.faults.first() {
            let source = if fault.errno == 0 {
                io::Error::from(io::ErrorKind::WriteZero)
            } else {
                io::Error::from_raw_os_error(fault.errno)
            };
            return Err(ScratchError::Write { path: self.path.to_owned(), offset: fault.offset, source });
        }
        if stopped {
            return Err(ScratchError::Stopped { path: self.path.to_owned() });
        }
        self.flush()?;
        self.some("random write", report.completed)?;
        Ok((report.completed as f64 / start.elapsed().as_secs_f64(), report.completed, report.engine))
    }

    /// 1 MiB writes one after the other, flushed at the end; the flush is part of the time.
    fn sequential(&self, most: u64, time: Duration, watch: Watch<'_>) -> Result<(f64, u64), ScratchError> {
        let mut chunk = Aligned::zeroed(1 << 20);
        fill(&mut chunk);
        let start = Instant::now();
        let mut count = 0;
        while count < most && start.elapsed() < time {
            self.write(&chunk, self.layout.sequential + count * SEQUENTIAL_BYTES)?;
            count += 1;
            self.ask(watch, count as f64 / most as f64)?;
        }
        self.flush()?;
        self.some("sequential write", count)?;
        Ok(((count * SEQUENTIAL_BYTES) as f64 / start.elapsed().as_secs_f64(), count))
    }

    fn write(&self, block: &[u8], offset: u64) -> Result<(), ScratchError> {
        let failed = |source| ScratchError::Write { path: self.path.to_owned(), offset, source };
        self.file.write_all_at(block, offset).map_err(failed)
    }

    fn flush(&self) -> Result<(), ScratchError> {
        self.file.sync_data().map_err(|source| super::file::failed("flushing", self.path, source))
    }

    fn ask(&self, watch: Watch<'_>, part: f64) -> Result<(), ScratchError> {
        match watch((self.done + part) / STEPS) {
            Flow::Continue => Ok(()),
            Flow::Stop => Err(ScratchError::Stopped { path: self.path.to_owned() }),
        }
    }

    fn some(&self, phase: &'static str, count: u64) -> Result<(), ScratchError> {
        if count > 0 { Ok(()) } else { Err(ScratchError::TooSlow { path: self.path.to_owned(), phase }) }
    }

    fn engine(&self, source: crate::probe_io::ProbeIoError) -> ScratchError {
        ScratchError::Engine { path: self.path.to_owned(), source }
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

/// A rate as a whole number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // rates are positive and far below 2^53
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}
