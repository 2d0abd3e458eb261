//! The fallback engine: one thread per operation in flight, `pread` or `pwrite` on the shared descriptor.
//!
//! Threads own what they use, so that a disk which never answers costs this process some parked threads and not its
//! safety: the caller is told `Hung` and goes on.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use bedplate_core::probe::{Engine, Offsets};

use super::record::{End, Fault, Live, Record, Report, all_zero};
use super::{DRAIN_GRACE, Flow, Job, Observer, Op, ProbeIoError, TICK, fill};
use crate::Aligned;

/// Each worker needs a few calls' worth of stack.
const STACK: usize = 128 << 10;

/// What the workers share.
struct Shared {
    job: Job,
    start: Instant,
    issue: Mutex<Issue>,
    records: Vec<Mutex<Record>>,
    running: Mutex<usize>,
    all_done: Condvar,
}

/// The one place where operations are handed out.
struct Issue {
    offsets: Offsets,
    issued: u64,
    end: Option<End>,
}

/// A worker's panic leaves plain numbers behind, which stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The next offset to work on, or `None` when the run has ended.
    fn take(&self) -> Option<u64> {
        let mut issue = lock(&self.issue);
        if issue.end.is_none() {
            if issue.issued >= self.job.request.ops {
                issue.end = Some(End::Ops);
            } else if self.start.elapsed() >= self.job.request.time {
                issue.end = Some(End::Time);
            } else if let Some(offset) = issue.offsets.next() {
                issue.issued += 1;
                return Some(self.job.base + offset);
            } else {
                issue.end = Some(End::RangeExhausted);
            }
        }
        None
    }

    fn stop(&self, end: End) {
        lock(&self.issue).end.get_or_insert(end);
    }

    fn work(&self, record: &Mutex<Record>) {
        let length = self.job.request.block_size as usize;
        let mut block = Aligned::zeroed(length);
        if self.job.op == Op::Write {
            fill(&mut block);
        }
        while let Some(offset) = self.take() {
            let began = Instant::now();
            let result = match self.job.op {
                Op::Read => self.job.file.read_at(&mut block, offset),
                Op::Write => self.job.file.write_at(&block, offset),
            };
            let ended = Instant::now();
            let at = ended - self.start;
            let failure = match result {
                Ok(n) if n == length => {
                    let zero = self.job.op == Op::Read && all_zero(&block);
                    lock(record).success(at, ended - began, zero);
                    continue;
                }
                Ok(_) => 0,
                Err(error) => error.raw_os_error().unwrap_or(0),
            };
            self.stop(End::Faults);
            lock(record).failure(at, Fault { offset, errno: failure });
        }
    }

    fn total(&self) -> Result<Record, ProbeIoError> {
        let mut total = Record::new()?;
        for record in &self.records {
            total.add(&lock(record));
        }
        Ok(total)
    }
}

/// Leaves the count of running workers, also when unwinding.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        *lock(&self.0.running) -= 1;
        self.0.all_done.notify_all();
    }
}

/// Runs the job on threads.
pub(super) fn run(job: &Job, offsets: &mut Offsets, observer: Observer<'_>) -> Result<Report, ProbeIoError> {
    let depth = usize::from(job.request.depth);
    let shared = Arc::new(Shared {
        job: job.clone(),
        start: Instant::now(),
        issue: Mutex::new(Issue { offsets: offsets.clone(), issued: 0, end: None }),
        records: (0..depth).map(|_| Record::new().map(Mutex::new)).collect::<Result<_, _>>()?,
        running: Mutex::new(0),
        all_done: Condvar::new(),
    });
    let mut failed = None;
    for index in 0..depth {
        if let Err(source) = spawn(&shared, index) {
            shared.stop(End::Observer);
            failed = Some(ProbeIoError::Engine { engine: Engine::Threads.name(), source });
            break;
        }
    }
    let outcome = supervise(&shared, observer);
    let issue = lock(&shared.issue);
    *offsets = issue.offsets.clone();
    match (failed, outcome) {
        (_, Err(hung)) => Err(hung),
        (Some(failed), _) => Err(failed),
        (None, Ok(())) => {
            Ok(shared.total()?.into_report(Engine::Threads, issue.issued, issue.end.unwrap_or(End::Observer)))
        }
    }
}

fn spawn(shared: &Arc<Shared>, index: usize) -> io::Result<()> {
    *lock(&shared.running) += 1;
    let own = Arc::clone(shared);
    let spawned = thread::Builder::new().name(format!("probe-{index}")).stack_size(STACK).spawn(move || {
        let leaving = Leaving(&own);
        leaving.0.work(&own.records[index]);
    });
    spawned.map(drop).inspect_err(|_| *lock(&shared.running) -= 1)
}

/// Waits until every worker left, asking the observer meanwhile.
fn supervise(shared: &Shared, observer: Observer<'_>) -> Result<(), ProbeIoError> {
    let mut ended: Option<Instant> = None;
    let mut running = lock(&shared.running);
    while *running > 0 {
        running = shared.all_done.wait_timeout(running, TICK).unwrap_or_else(PoisonError::into_inner).0;
        let outstanding = *running as u64;
        drop(running);
        let elapsed = shared.start.elapsed();
        if elapsed >= shared.job.request.time {
            shared.stop(End::Time);
        }
        if lock(&shared.issue).end.is_some() {
            let waited = ended.get_or_insert_with(Instant::now).elapsed();
            if waited > DRAIN_GRACE && outstanding > 0 {
                return Err(ProbeIoError::Hung { outstanding, waited });
            }
        } else {
            let total = shared.total()?;
            let live = Live { completed: total.completed, elapsed, latencies: &total.latencies };
            if observer(&live) == Flow::Stop {
                shared.stop(End::Observer);
            }
        }
        running = lock(&shared.running);
    }
    Ok(())
}
