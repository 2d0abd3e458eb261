//! What the extender knows of the cluster, in a few words an object: claims, volumes, classes, room, holds.
//!
//! Fed by watches (`feed`), asked by requests (`judge`). One lock over everything, so that what one filter holds the next
//! one sees; nobody waits for anything while having it. Pods and nodes are not kept: a pod is in its request, and only its
//! end matters here.

mod objects;
mod relist;
mod state;

pub use objects::{Claim, Key, Objects, StorageClass, Volume};
pub use relist::Op;
pub use state::{Change, Kind, State};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::holds::Millis;

/// The index, shared between feed, requests and wake-ups.
#[derive(Debug)]
pub struct Index {
    state: Mutex<State>,
    begun: Instant,
    synced: AtomicBool,
    /// Told after every change that a request may wait for.
    changes: watch::Sender<u64>,
    /// Told when a rejected pod should be looked at again.
    pub(crate) wake: Notify,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            begun: Instant::now(),
            synced: AtomicBool::new(false),
            changes: watch::channel(0).0,
            wake: Notify::new(),
        }
    }
}

impl Index {
    /// An empty index that nothing feeds yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Milliseconds since the index began.
    #[must_use]
    pub fn now(&self) -> Millis {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Everything, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Something happened in the cluster.
    pub fn apply(&self, change: Change) {
        let now = self.now();
        let (synced, wake) = {
            let mut state = self.state.lock();
            state.apply(change, now);
            (state.synced(), state.holds.take_wake())
        };
        if synced {
            self.synced.store(true, Ordering::Release);
        }
        if wake {
            self.wake.notify_one();
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// End holds whose time is up.
    pub fn expire(&self) {
        let now = self.now();
        let mut state = self.state.lock();
        state.holds.expire(now);
        if state.holds.take_wake() {
            self.wake.notify_one();
        }
    }

    /// Whether every kind was listed once.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Told after every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests;
