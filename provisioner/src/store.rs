//! The ledger on disk: write ahead, many commits per fsync, closed for good at the first doubt.
//!
//! A commit decides on the current state, is appended and fsynced, and only then returns: what follows may act on it.
//! Commits of several threads share one fsync. After a failed append or fsync nobody knows what is on disk, so the store
//! refuses everything until the agent restarts and reads it again.

mod read;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bedplate_blockdev::{Dir, Host, HostError, Lock};
use bedplate_core::chain::chain;
use bedplate_core::ids::{LedgerId, NodeName, VolumeId};
use bedplate_core::journal::{Tail, Unencodable, encode, encode_witness};
use bedplate_core::ledger::{Event, IllegalEvent, Ledger};
use bedplate_core::volume::{AnyVolume, Change};
pub(crate) use read::half;
pub use read::{OpenStoreError, open};

use crate::surroundings::Surroundings;

/// The journal's name in the state directory.
pub const JOURNAL: &str = "ledger.log";
const NEXT: &str = "ledger.next";
const LOCK: &str = "lock";
const WITNESSES: [&str; 2] = ["ledger.witness.0", "ledger.witness.1"];
/// A journal larger than this, in bytes, is compacted.
const COMPACT_AT: u64 = 8 << 20;

/// The open ledger.
pub struct Store {
    host: Arc<dyn Host>,
    surroundings: Arc<dyn Surroundings>,
    dir: Dir,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// The same for those who do not wait in a thread of their own.
    pulse: tokio::sync::watch::Sender<()>,
    _lock: Box<dyn Lock>,
}

struct Inner {
    ledger: Ledger,
    /// The last line handed out, durable or not.
    tail: Tail,
    /// Lines not yet appended.
    queue: Vec<u8>,
    /// The last durable line.
    durable: Tail,
    /// A thread is appending.
    syncing: bool,
    /// A line worth a witness is in the queue.
    witness_due: bool,
    /// Bytes of the journal.
    size: u64,
    failed: Option<String>,
    /// Volumes with changes that are not durable yet, and the line each waits for.
    dirty: BTreeMap<VolumeId, u64>,
    /// Bytes above which the journal is compacted: at least twice the last snapshot.
    compact_above: u64,
}

/// Why a commit did not happen, or may not have.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum CommitError {
    #[error(
        "the ledger could not be written ({why}); it is closed until the agent restarts, nothing is offered or freed"
    )]
    Closed { why: String },
    #[error("the ledger refuses the change")]
    Illegal(#[source] IllegalEvent),
    #[error("the ledger cannot encode the change")]
    Encode(#[source] Unencodable),
}

impl Store {
    /// The state directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Look at the current state.
    pub fn look<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R {
        look(&self.inner().ledger)
    }

    /// Why the store is closed, if it is.
    pub fn failure(&self) -> Option<String> {
        self.inner().failed.clone()
    }

    /// Decide on the current state, journal the decision, and return once it is durable. Where `decide` refuses,
    /// nothing is journalled.
    ///
    /// # Errors
    /// The outer one where the ledger could not take it, the inner one where `decide` refused.
    pub fn commit<R, E>(
        &self,
        decide: impl FnOnce(&Ledger) -> Result<(Event, R), E>,
    ) -> Result<Result<R, E>, CommitError> {
        let mut inner = self.inner();
        if let Some(why) = &inner.failed {
            return Err(CommitError::Closed { why: why.clone() });
        }
        let (event, result) = match decide(&inner.ledger) {
            Ok(decided) => decided,
            Err(refused) => return Ok(Err(refused)),
        };
        let witnessed = deserves_witness(&event);
        let touched = match &event {
            Event::Volume { id, .. } => Some(id.clone()),
            Event::Reserved { spec } | Event::Adopted { spec, .. } => Some(spec.id.clone()),
            Event::Opened { .. } | Event::Snapshot { .. } | Event::PoolAdded { .. } => None,
        };
        let (line, tail) = encode(inner.tail, self.surroundings.now(), event.clone()).map_err(CommitError::Encode)?;
        inner.ledger.apply(event).map_err(CommitError::Illegal)?;
        inner.dirty.extend(touched.map(|id| (id, tail.seq)));
        inner.tail = tail;
        inner.queue.extend_from_slice(&line);
        inner.witness_due |= witnessed;
        self.until_durable(inner, tail.seq)?;
        Ok(Ok(result))
    }

    /// Wait until `seq` is durable; whoever finds nobody appending, appends for all.
    fn until_durable<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, seq: u64) -> Result<(), CommitError> {
        loop {
            if inner.durable.seq >= seq {
                return Ok(());
            }
            if let Some(why) = &inner.failed {
                return Err(CommitError::Closed { why: why.clone() });
            }
            if inner.syncing {
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            inner.syncing = true;
            let lines = std::mem::take(&mut inner.queue);
            let tail = inner.tail;
            let witness = std::mem::take(&mut inner.witness_due);
            drop(inner);
            let written = self.write(&lines, tail, witness);
            inner = self.inner();
            inner.syncing = false;
            match written {
                Ok(()) => {
                    inner.durable = tail;
                    inner.dirty.retain(|_, seq| *seq > tail.seq);
                    inner.size += lines.len() as u64;
                    if inner.size > inner.compact_above && inner.queue.is_empty() {
                        self.compact(&mut inner);
                    }
                }
                Err(error) => inner.failed = Some(chain(&error)),
            }
            self.wake();
        }
    }

    /// Wait until everything that [`Store::look`] shows now is durable: a state may be seen while its record is still being
    /// written.
    ///
    /// # Errors
    /// The ledger could not take it.
    pub fn durable(&self) -> Result<(), CommitError> {
        let inner = self.inner();
        if let Some(why) = &inner.failed {
            return Err(CommitError::Closed { why: why.clone() });
        }
        let seq = inner.tail.seq;
        self.until_durable(inner, seq)
    }

    /// Resolves whenever something has changed since it was last looked at.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.pulse.subscribe()
    }

    fn wake(&self) {
        self.changed.notify_all();
        self.pulse.send_replace(());
    }

    fn write(&self, lines: &[u8], tail: Tail, witness: bool) -> Result<(), HostError> {
        self.host.append(&self.dir, JOURNAL, lines)?;
        self.host.sync_file(&self.dir, JOURNAL)?;
        if witness {
            self.witness(tail)?;
        }
        Ok(())
    }

    /// Write down, beside the journal, that this line was acknowledged. Two files in turn: one may tear.
    fn witness(&self, tail: Tail) -> Result<(), HostError> {
        let name = WITNESSES[usize::from(!tail.seq.is_multiple_of(2))];
        self.host.write(&self.dir, name, &encode_witness(tail))?;
        self.host.sync_file(&self.dir, name)
    }

    /// Replace the journal by one snapshot. A failure before the rename changes nothing and is only logged; one after it
    /// closes the store.
    fn compact(&self, inner: &mut Inner) {
        let mut state = inner.ledger.clone();
        state.prune();
        let snapshot = Event::Snapshot { state: state.clone() };
        let (line, tail) = match encode(inner.tail, self.surroundings.now(), snapshot) {
            Ok(encoded) => encoded,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the ledger could not be compacted");
                return;
            }
        };
        if let Err(error) = prepare(&*self.host, &self.dir, &line) {
            // The journal in place is untouched; tried again when it has grown on.
            tracing::warn!(error = %chain(&error), "the ledger could not be compacted");
            inner.compact_above = inner.size.saturating_mul(2);
            return;
        }
        if let Err(error) = put_in_place(&*self.host, &self.dir) {
            inner.failed = Some(chain(&error));
            return;
        }
        inner.ledger = state;
        inner.tail = tail;
        inner.durable = tail;
        inner.size = line.len() as u64;
        inner.compact_above = compact_above(inner.size);
        if let Err(error) = self.witness(tail) {
            inner.failed = Some(chain(&error));
        }
    }

    /// Wait until `ready` gives something, or `deadline` passes.
    pub fn wait_until<R>(&self, deadline: Instant, mut ready: impl FnMut(&Ledger) -> Option<R>) -> Option<R> {
        let mut inner = self.inner();
        loop {
            if let Some(result) = ready(&inner.ledger) {
                return Some(result);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One volume, once no change of it is under way. After a failed write the answer is what was last wanted, not what
    /// is known to be on disk: callers that promise anything ask [`Store::failure`] after this.
    pub fn volume(&self, id: &VolumeId) -> Option<AnyVolume> {
        let mut inner = self.inner();
        while inner.dirty.contains_key(id) && inner.failed.is_none() {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.ledger.volumes.get(id).cloned()
    }

    /// Wait until `ready` gives something for a durable state of this volume, or `deadline` passes, or the store closes.
    pub fn wait_for_volume<R>(
        &self,
        id: &VolumeId,
        deadline: Instant,
        ready: impl Fn(&AnyVolume) -> Option<R>,
    ) -> Option<R> {
        let mut inner = self.inner();
        loop {
            if inner.failed.is_some() {
                return None;
            }
            if !inner.dirty.contains_key(id)
                && let Some(result) = inner.ledger.volumes.get(id).and_then(&ready)
            {
                return Some(result);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Wake everybody who waits, so that they look again.
    pub fn nudge(&self) {
        drop(self.inner());
        self.wake();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked between decide and append left no half state: the ledger changes in one step.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size at which a journal that was just written with `size` bytes is compacted.
fn compact_above(size: u64) -> u64 {
    COMPACT_AT.max(size.saturating_mul(2))
}

/// Put a whole new journal in place, atomically.
fn replace(host: &dyn Host, dir: &Dir, line: &[u8]) -> Result<(), HostError> {
    prepare(host, dir, line)?;
    put_in_place(host, dir)
}

/// Write a new journal beside the old one.
fn prepare(host: &dyn Host, dir: &Dir, line: &[u8]) -> Result<(), HostError> {
    host.write(dir, NEXT, line)?;
    host.sync_file(dir, NEXT)
}

/// Let the new journal take the old one's name.
fn put_in_place(host: &dyn Host, dir: &Dir) -> Result<(), HostError> {
    host.rename(dir, NEXT, JOURNAL)?;
    host.sync_dir(dir)
}

/// Records whose loss behind our back would cost data or space, not only work.
fn deserves_witness(event: &Event) -> bool {
    match event {
        Event::Opened { .. } | Event::Snapshot { .. } | Event::PoolAdded { .. } | Event::Adopted { .. } => true,
        Event::Reserved { .. } => false,
        Event::Volume { change, .. } => match change {
            Change::Ready { .. }
            | Change::Formatted
            | Change::Retained { .. }
            | Change::Released { .. }
            | Change::Quarantined { .. }
            | Change::Verified { .. }
            | Change::Freed
            | Change::Stuck { .. }
            | Change::Retried { .. }
            | Change::LevelAccepted { .. }
            | Change::Forgotten { .. }
            | Change::LevelLowered { .. } => true,
            Change::Discarded
            | Change::Formatting { .. }
            | Change::Staged { .. }
            | Change::Unstaged
            | Change::WipePlanned { .. }
            | Change::CanariesPlaced
            | Change::Wiped { .. }
            | Change::Resumed { .. }
            | Change::Flushed
            | Change::Verifying => false,
        },
    }
}

/// A ledger that begins.
fn beginning(id: LedgerId, node: NodeName) -> (Event, Ledger) {
    (Event::Opened { ledger: id, node: node.clone() }, Ledger::new(id, node))
}
