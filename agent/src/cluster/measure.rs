//! When disks and pools are measured: once a day, one at a time, never a busy one, with the budgets of the probes.
//!
//! Reads go to disks that a pool stands on; writes go to a pool's own scratch file. A probe that is not begun or not
//! finished changes no figure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate_blockdev::probe_io::EngineChoice;
use bedplate_blockdev::scratch::ScratchBudget;
use bedplate_core::chain::chain;
use bedplate_core::probe::{PoolWrites, ReadPlan, next_due};
use jiff::Timestamp;

use super::Context;
use super::figures::Book;
use crate::discover::Disk;
use crate::probe::{Disk as Target, Outcome, PoolOutcome, Prober};
use crate::standalone::beneath;

/// Between two looks at what is due, and before the first: a machine that starts has other things to do.
const LOOK: Duration = Duration::from_mins(1);
/// How long a disk that was busy is left alone.
const BUSY: Duration = Duration::from_mins(10);

/// What is due.
struct Due {
    pool: String,
    directory: PathBuf,
    disk: Disk,
    id: String,
    reads: bool,
    writes: bool,
}

/// Ends a running probe when the loop is dropped.
struct Halting(Arc<Prober>);

impl Drop for Halting {
    fn drop(&mut self) {
        self.0.halt().stop();
    }
}

/// Run for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let mut book = Book::load(&context.state_dir);
    context.board.figures.send_replace(Arc::new(book.clone()));
    if !context.settings.probe {
        return std::future::pending().await;
    }
    let prober = Halting(Arc::new(Prober::new(context.settings.discover.roots.clone(), EngineChoice::Auto)));
    // Pools that could not be measured, and until when they are left alone.
    let mut later: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK).await;
        later.retain(|_, until| *until > Instant::now());
        let Some(due) = due(&context, &book, &later) else { continue };
        let pool = due.pool.clone();
        let (prober, roots) = (prober.0.clone(), context.settings.discover.roots.clone());
        let before = book.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let mut book = before;
            let finished = measure(&prober, &roots, &due, &mut book);
            (book, finished)
        });
        match measured.await {
            Ok((measured, finished)) => {
                if !finished {
                    later.insert(pool, Instant::now() + BUSY);
                }
                if measured != book {
                    book = measured;
                    if let Err(error) = book.save(&context.state_dir) {
                        tracing::warn!(error = %error, "figures could not be kept, they are measured again after a restart");
                    }
                    context.board.figures.send_replace(Arc::new(book.clone()));
                }
            }
            Err(error) => tracing::error!(error = %error, "a probe ended badly"),
        }
    }
}

/// The first pool that is due.
fn due(context: &Context, book: &Book, later: &BTreeMap<String, Instant>) -> Option<Due> {
    let seen = context.board.disks.borrow().clone()?;
    let now = Timestamp::now();
    context
        .engine
        .pools()
        .into_iter()
        .filter(|pool| pool.absent.is_none() && !later.contains_key(pool.name.as_str()))
        .find_map(|pool| {
            let disk = beneath(&seen.disks, pool.directory.as_ref())?.clone();
            let id = disk.identity.id.as_ref()?.to_string();
            let spread = spread(&id, context.node.as_str());
            let is_due = |last: Option<Timestamp>| last.is_none_or(|last| next_due(last, spread) <= now);
            let reads = is_due(book.disk_time(&id));
            let writes = !pool.draining && is_due(book.pool_time(pool.name.as_str(), &id));
            (reads || writes).then(|| Due {
                pool: pool.name.to_string(),
                directory: pool.directory.clone().into(),
                disk,
                id,
                reads,
                writes,
            })
        })
}

/// A number that differs between disks and nodes and stays the same.
fn spread(disk: &str, node: &str) -> u64 {
    // FNV-1a: small, and stable across versions of everything.
    disk.bytes()
        .chain(node.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Measure; `false` where it was not the time.
fn measure(prober: &Prober, roots: &crate::discover::Roots, due: &Due, book: &mut Book) -> bool {
    let seed: u64 = rand::random();
    let mut finished = true;
    if due.reads {
        let target = Target::of(&due.disk.facts, roots);
        match prober.probe(&target, ReadPlan::new(target.logical_block), seed, &mut |_| {}) {
            Outcome::Measured(figures) => book.read(&due.id, figures),
            Outcome::Unhealthy(health) => {
                tracing::error!(disk = target.name, ?health, "reading a disk failed, it is left alone");
                book.unhealthy(&due.id, health);
                return false;
            }
            other => {
                tracing::debug!(disk = target.name, outcome = ?other, "a disk was not measured");
                finished = false;
            }
        }
    }
    if due.writes && finished {
        let budget = ScratchBudget::default();
        match prober.probe_pool(&due.directory, Some(&due.disk.facts.name), &budget, seed, &mut |_| {}) {
            Ok(PoolOutcome::Measured(found)) => {
                book.wrote(&due.pool, &due.id, PoolWrites { figures: found.write, conditions: found.conditions });
            }
            Ok(PoolOutcome::NotNow(outcome)) => {
                tracing::debug!(pool = due.pool, ?outcome, "a pool was not measured");
                finished = false;
            }
            Err(error) => {
                tracing::debug!(pool = due.pool, error = %chain(&error), "a pool could not be measured");
                finished = false;
            }
        }
    }
    finished
}
