//! The wipe queue: one worker a disk, so that wipes on one disk follow each other and other disks do not wait.
//!
//! A worker sleeps on the ledger's condition and wakes when something changed or a waiting volume deserves another look.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bedplate_core::ids::{PoolName, VolumeId};

use crate::engine::{Driven, Engine, Stop, WipeError};
use bedplate_core::chain::chain;

/// How long a volume that is in use, or whose wipe failed for a passing reason, is left alone.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a volume is left alone on which another operation is under way: a release wakes the queue while it still has
/// its turn.
const SOON: Duration = Duration::from_millis(5);

/// How often absent pools are looked for.
const LOOK_FOR_POOLS: Duration = Duration::from_secs(5);

/// How long a worker wipes until it looks for the disk's other users again.
const WORK: Duration = Duration::from_secs(1);

/// A worker between two pieces of a wipe: it reads and writes nothing until it is let go on.
pub struct Pause<'a> {
    /// Set when the queue is to end.
    pub stop: &'a Stop,
    /// The block device beneath the worker's pools (major, minor), where one is known.
    pub device: Option<(u32, u32)>,
    /// Whether no other worker of this queue wipes now.
    pub alone: &'a dyn Fn() -> bool,
}

/// Called between pieces of a wipe, at most once in a second of work: waits while the disk's other users need it.
pub type Throttle = Arc<dyn Fn(&Pause<'_>) + Send + Sync>;

/// The running queue; dropping it stops every wipe at its next piece.
pub struct WipeQueue {
    engine: Arc<Engine>,
    stop: Arc<Stop>,
    throttle: Throttle,
    driving: Arc<AtomicUsize>,
    workers: Mutex<Vec<Worker>>,
}

/// One disk's worker, and the pools it looks after.
struct Worker {
    device: Option<(u32, u32)>,
    pools: Arc<Mutex<Vec<PoolName>>>,
    thread: JoinHandle<()>,
}

impl WipeQueue {
    /// Start a worker for every disk that carries a pool.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(engine: &Arc<Engine>, throttle: &Throttle) -> std::io::Result<Self> {
        let queue = Self {
            engine: engine.clone(),
            stop: Arc::new(Stop::default()),
            throttle: throttle.clone(),
            driving: Arc::default(),
            workers: Mutex::new(Vec::new()),
        };
        queue.follow()?;
        Ok(queue)
    }

    /// Look after pools that came since: each joins the worker of its disk, or gets one. A pool stays with its worker
    /// for good, so that no volume is ever driven by two.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn follow(&self) -> std::io::Result<()> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in self.engine.pools() {
            if workers.iter().any(|worker| locked(&worker.pools).contains(&pool.name)) {
                continue;
            }
            if let Some(worker) = workers.iter().find(|worker| worker.device == pool.device) {
                locked(&worker.pools).push(pool.name);
                continue;
            }
            let pools = Arc::new(Mutex::new(vec![pool.name]));
            let (engine, stop, theirs) = (self.engine.clone(), self.stop.clone(), pools.clone());
            let manners = Manners {
                throttle: self.throttle.clone(),
                driving: self.driving.clone(),
                device: pool.device,
                rested: Cell::new(None),
            };
            let thread = std::thread::Builder::new()
                .name("wipe".to_owned())
                .spawn(move || work(&engine, &theirs, &stop, &manners))?;
            workers.push(Worker { device: pool.device, pools, thread });
        }
        drop(workers);
        self.engine.nudge();
        Ok(())
    }
}

impl Drop for WipeQueue {
    fn drop(&mut self) {
        self.stop.set();
        self.engine.nudge();
        for worker in self.workers.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if worker.thread.join().is_err() {
                tracing::error!("a wipe worker panicked, its volume goes on at the next start");
            }
        }
    }
}

fn locked(pools: &Mutex<Vec<PoolName>>) -> MutexGuard<'_, Vec<PoolName>> {
    pools.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of those that wipe now, until dropped.
struct Driver<'a>(&'a AtomicUsize);

impl<'a> Driver<'a> {
    fn of(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }
}

impl Drop for Driver<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One worker's manners.
struct Manners {
    throttle: Throttle,
    /// Workers that wipe now.
    driving: Arc<AtomicUsize>,
    device: Option<(u32, u32)>,
    /// When this worker last looked for others.
    rested: Cell<Option<Instant>>,
}

impl Manners {
    fn drive(&self, engine: &Engine, id: &VolumeId, stop: &Stop) -> Result<Driven, WipeError> {
        let _one = Driver::of(&self.driving);
        engine.drive(id, stop, &|| self.between(stop))
    }

    fn between(&self, stop: &Stop) {
        if self.rested.get().is_some_and(|at| at.elapsed() < WORK) {
            return;
        }
        let alone = || self.driving.load(Ordering::Relaxed) == 1;
        (self.throttle)(&Pause { stop, device: self.device, alone: &alone });
        self.rested.set(Some(Instant::now()));
    }
}

fn work(engine: &Engine, pools: &Mutex<Vec<PoolName>>, stop: &Stop, manners: &Manners) {
    // When those that could not go on deserve another look.
    let mut later: BTreeMap<VolumeId, Instant> = BTreeMap::new();
    let mut retry = false;
    let mut looked = Instant::now();
    while !stop.is_set() {
        let now = Instant::now();
        if now.duration_since(looked) >= LOOK_FOR_POOLS {
            looked = now;
            engine.look_for_absent_pools();
            engine.clean_up_unmade();
        }
        // What lies in an absent pool is owed, not pending.
        let open = || -> Vec<PoolName> { locked(pools).iter().filter(|name| engine.is_open(name)).cloned().collect() };
        let here = open();
        let pending = engine.pending_in(&here);
        later.retain(|id, _| pending.contains(id));
        let fresh = pending.iter().find(|id| !later.contains_key(id));
        let due = later.iter().filter(|(_, at)| **at <= now).min_by_key(|(_, at)| **at).map(|(id, _)| id);
        // In turn: a look at a volume in use takes its time, and many of them must not keep the others from being wiped.
        retry = !retry;
        let Some(id) = (if retry { due.or(fresh) } else { fresh.or(due) }).cloned() else {
            let wake = later.values().min().copied().unwrap_or(now + LOOK_FOR_POOLS);
            engine.wait_for_work(&here, wake, &later, || stop.is_set() || open() != here);
            continue;
        };
        match manners.drive(engine, &id, stop) {
            Ok(Driven::Freed | Driven::Nothing | Driven::Stopped | Driven::Stuck { .. }) => {}
            Ok(Driven::Waiting { users }) => {
                tracing::info!(volume = %id, users, "wipe waits for the volume to be let go");
                later.insert(id, Instant::now() + AGAIN);
            }
            Ok(Driven::Debt { why }) => {
                tracing::warn!(volume = %id, why, "wipe is owed");
                later.insert(id, Instant::now() + LOOK_FOR_POOLS);
            }
            Err(WipeError::Busy(_)) => {
                later.insert(id, Instant::now() + SOON);
            }
            Err(error) => {
                tracing::error!(volume = %id, error = %chain(&error), "wipe could not go on");
                later.insert(id, Instant::now() + AGAIN * 10);
            }
        }
    }
}
