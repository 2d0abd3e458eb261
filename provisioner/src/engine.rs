//! The volume engine: makes, serves, releases and wipes volumes on a [`Host`], with the ledger as its only memory.
//!
//! Every step is journalled before it is taken; after a crash [`Engine::open`] and the wipe queue bring each volume to
//! a settled state. One operation a volume at a time: a second one is told so and may come again.

mod commands;
mod create;
mod open;
mod pools;
mod portrait;
mod release;
mod serve;
mod view;
mod wipe;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use bedplate_blockdev::{Host, HostError, User};
use bedplate_core::ids::{PoolName, VolumeId};
use bedplate_core::ledger::Event;
use bedplate_core::volume::{AnyVolume, Change, StuckReason};
pub use commands::CommandError;
pub use create::{CreateError, CreateVolume, Misfit};
pub use open::OpenError;
pub use pools::PutPoolError;
pub use portrait::{Knowledge, Known, Outline, Portrait};
pub use release::ReleaseError;
pub use serve::ServeError;
pub use view::{PoolView, Progress, Ranges, Stage, VolumeView};
pub use wipe::{Driven, Stop, WipeError};

use crate::config::{EngineConfig, PoolConfig};
use crate::pool::Pool;
use crate::store::{CommitError, Store};
use crate::surroundings::Surroundings;

/// The engine.
pub struct Engine {
    host: Arc<dyn Host>,
    surroundings: Arc<dyn Surroundings>,
    config: EngineConfig,
    store: Store,
    pools: RwLock<BTreeMap<PoolName, PoolState>>,
    busy: Mutex<BTreeSet<String>>,
    progress: Mutex<BTreeMap<VolumeId, Progress>>,
    receipts: crate::receipts::Log,
    /// Creations of this run that failed and could not clean up.
    unmade: Mutex<BTreeSet<VolumeId>>,
    /// Volumes that a call is making at this moment.
    making: Mutex<BTreeSet<VolumeId>>,
}

/// A pool that the engine was told of.
#[derive(Clone)]
struct PoolState {
    config: PoolConfig,
    /// Open; or why not: known to the ledger, but not there now. Its volumes are neither served nor wiped nor forgotten.
    open: Result<Arc<Pool>, String>,
}

/// Another operation on the same volume is under way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Busy {
    object: String,
    /// Why the ledger closed itself, where that is the reason.
    closed: Option<String>,
}

impl Busy {
    fn text(&self) -> String {
        match &self.closed {
            None => format!("another operation on {} is under way; try again when it has ended", self.object),
            Some(why) => format!("the ledger is closed until the agent restarts ({why}); {} waits", self.object),
        }
    }
}

/// The right to work on one volume or name, until dropped.
struct Turn<'a> {
    busy: &'a Mutex<BTreeSet<String>>,
    key: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Engine {
    fn turn(&self, key: String) -> Result<Turn<'_>, Busy> {
        if let Some(why) = self.store.failure() {
            return Err(Busy { object: key, closed: Some(why) });
        }
        if self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            Ok(Turn { busy: &self.busy, key })
        } else {
            Err(Busy { object: key, closed: None })
        }
    }

    fn turn_for(&self, id: &VolumeId) -> Result<Turn<'_>, Busy> {
        self.turn(format!("volume {id}"))
    }

    /// The volume as the disk has it: a change under way is waited for.
    fn volume_now(&self, id: &VolumeId) -> Option<AnyVolume> {
        self.store.volume(id)
    }

    /// An open pool, or why it is not.
    fn pool(&self, name: &PoolName) -> Result<Arc<Pool>, String> {
        match self.pools.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            Some(state) => state.open.clone(),
            None => Err(format!("pool {name} is not in the configuration; add it again")),
        }
    }

    /// Every pool as it is now. The list is let go of before the ledger is looked at: no lock is held across the other.
    fn pool_states(&self) -> BTreeMap<PoolName, PoolState> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_pool(&self, state: PoolState) {
        let name = state.config.name.clone();
        self.pools.write().unwrap_or_else(PoisonError::into_inner).insert(name, state);
    }

    /// Journal one change of a volume that this thread has its turn on.
    fn change(&self, id: &VolumeId, change: Change) -> Result<(), CommitError> {
        let event = Event::Volume { id: id.clone(), change };
        match self.store.commit(|_| Ok::<_, std::convert::Infallible>((event, ())))? {
            Ok(()) => Ok(()),
        }
    }

    /// Wait until `ready` gives something for this volume, or `deadline` passes.
    pub fn wait_until<R>(
        &self,
        id: &VolumeId,
        deadline: Instant,
        ready: impl Fn(&AnyVolume) -> Option<R>,
    ) -> Option<R> {
        self.store.wait_for_volume(id, deadline, ready)
    }

    /// Resolves whenever a volume has changed since it was last looked at.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.store.changes()
    }

    /// Wait until every state that can be seen now is durable; to be called before telling anybody who will rely on it.
    ///
    /// # Errors
    /// The ledger could not take it.
    pub fn durable(&self) -> Result<(), CommitError> {
        self.store.durable()
    }

    /// Why the ledger closed itself, if it did: nothing works any more until a restart.
    pub fn failure(&self) -> Option<String> {
        self.store.failure()
    }
}

/// Users as one sentence.
fn who(users: &[User]) -> String {
    users.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What went wrong with a backing file, as a reason that a person can act on.
fn io_reason(error: &HostError) -> StuckReason {
    StuckReason::IoError { what: bedplate_core::chain::chain(error) }
}
