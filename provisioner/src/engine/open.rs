//! Opening the engine: ledger, pools, and what a crash left half done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use bedplate_blockdev::{Host, HostError};
use bedplate_core::ids::{PoolName, VolumeId};
use bedplate_core::ledger::Event;
use bedplate_core::volume::{AnyVolume, Change};
use uuid::Uuid;

use super::{Engine, PoolState};
use crate::config::{EngineConfig, PoolConfig};
use crate::pool::{Pool, PoolProblem};
use crate::store::{self, CommitError, OpenStoreError};
use crate::surroundings::Surroundings;
use bedplate_core::chain::chain;

/// Why the engine does not open.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum OpenError {
    #[error("the ledger stays closed")]
    Store(#[source] OpenStoreError),
    #[error("the configured pool cannot be used")]
    Pool(#[source] PoolProblem),
    #[error("what the last run left half done could not be settled")]
    Commit(#[source] CommitError),
}

/// Open one pool, and tell the ledger of it where it is new.
pub(super) fn open_pool(
    host: &Arc<dyn Host>,
    surroundings: &dyn Surroundings,
    store: &store::Store,
    config: &PoolConfig,
) -> Result<Arc<Pool>, OpenError> {
    let ledger = store.look(Clone::clone);
    let fresh = Uuid::from_u128(u128::from_le_bytes(store::half(surroundings.random())));
    let pool = Pool::open(host, config.clone(), &ledger, fresh).map_err(OpenError::Pool)?;
    let name = &config.name;
    if pool.is_new {
        let event = Event::PoolAdded { name: name.clone(), pool: pool.record.clone() };
        let Ok(()) = store.commit(|_| Ok::<_, std::convert::Infallible>((event, ()))).map_err(OpenError::Commit)?;
    }
    for found in &pool.found {
        tracing::warn!(pool = %name, file = %found.file, bytes = found.bytes, "withheld a file that the ledger does not know");
    }
    Ok(Arc::new(pool))
}

impl Engine {
    /// Open everything and settle what a crash left half made. Wipes go on when the queue drives them.
    ///
    /// # Errors
    /// Where the ledger is in doubt, or a pool that was never seen before cannot be one. A known pool that is not there
    /// is absent, not an error.
    pub fn open(
        host: Arc<dyn Host>,
        surroundings: Arc<dyn Surroundings>,
        config: EngineConfig,
    ) -> Result<Self, OpenError> {
        let store = store::open(host.clone(), surroundings.clone(), &config.state_dir, &config.node)
            .map_err(OpenError::Store)?;
        let mut pools = BTreeMap::new();
        for settings in &config.pools {
            let known = store.look(|ledger| ledger.pools.contains_key(&settings.name));
            let open = match open_pool(&host, &*surroundings, &store, settings) {
                Ok(pool) => Ok(pool),
                Err(OpenError::Pool(problem)) if known => {
                    let why = chain(&problem);
                    tracing::error!(pool = %settings.name, why, "pool is absent, its volumes are neither served nor wiped");
                    Err(why)
                }
                Err(error) => return Err(error),
            };
            pools.insert(settings.name.clone(), PoolState { config: settings.clone(), open });
        }
        let engine = Self {
            host,
            surroundings,
            config,
            store,
            pools: RwLock::new(pools),
            busy: Mutex::new(BTreeSet::new()),
            progress: Mutex::new(BTreeMap::new()),
            receipts: crate::receipts::Log::default(),
            unmade: Mutex::new(BTreeSet::new()),
            making: Mutex::new(BTreeSet::new()),
        };
        engine.settle(engine.ids_in(|_| true)).map_err(OpenError::Commit)?;
        Ok(engine)
    }

    /// Look again for pools that are absent: a filesystem may be mounted late, and what is owed there is then paid.
    pub fn look_for_absent_pools(&self) {
        for (name, _) in self.pool_states().into_iter().filter(|(_, state)| state.open.is_err()) {
            let Ok(_turn) = self.turn(format!("pool {name}")) else { continue };
            // Looked at again under the turn: others may have opened it, or taken it away, meanwhile.
            let Some(state) = self.pool_states().remove(&name).filter(|state| state.open.is_err()) else { continue };
            // Those of before: as soon as it is open, new ones are made in it, and are no leavings of a crash.
            let before = self.ids_in(|pool| *pool == name);
            match open_pool(&self.host, &*self.surroundings, &self.store, &state.config) {
                Ok(pool) => {
                    self.set_pool(PoolState { open: Ok(pool), ..state });
                    tracing::info!(pool = %name, "an absent pool is back");
                    if let Err(error) = self.settle(before) {
                        tracing::error!(pool = %name, error = %chain(&error), "what a crash left there could not be settled");
                    }
                    self.store.nudge();
                }
                Err(error) => {
                    let why = chain(&error);
                    if state.open.as_ref().err() != Some(&why) {
                        self.set_pool(PoolState { open: Err(why), ..state });
                        self.store.nudge();
                    }
                }
            }
        }
    }

    /// Whether a pool is there.
    pub(crate) fn is_open(&self, name: &PoolName) -> bool {
        self.pool(name).is_ok()
    }

    pub(super) fn ids_in(&self, of: impl Fn(&PoolName) -> bool) -> Vec<VolumeId> {
        self.store.look(|ledger| {
            let inside = ledger.volumes.iter().filter(|(_, v)| of(&v.spec().pool));
            inside.map(|(id, _)| id.clone()).collect()
        })
    }

    /// Discard what was reserved and never made, detach what was attached and never handed out.
    pub(super) fn settle(&self, volumes: Vec<VolumeId>) -> Result<(), CommitError> {
        for id in volumes {
            // Whoever works on it settles it.
            let Ok(_turn) = self.turn_for(&id) else { continue };
            let Some(volume) = self.volume_now(&id) else { continue };
            let spec = volume.spec().clone();
            let Ok(pool) = self.pool(&spec.pool) else { continue };
            match volume {
                AnyVolume::Reserved(_) => match self.remove_unseen(&pool, &spec.file) {
                    Ok(()) => {
                        self.change(&spec.id, Change::Discarded)?;
                        tracing::info!(volume = %spec.id, "discarded a volume that a crash left half made");
                    }
                    Err(error) => {
                        tracing::warn!(volume = %spec.id, error = %chain(&error), "a half-made volume stays withheld");
                    }
                },
                AnyVolume::Ready(ready) if ready.state.staged.is_none() => {
                    let identity = ready.state.backing.identity;
                    if let Err(error) = self.detach_idle(&pool, &spec.file, &identity) {
                        tracing::warn!(volume = %spec.id, error = %chain(&error), "an idle loop device could not be detached");
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Remove a backing file that no tenant ever saw. Its name holds 128 bits drawn for this volume and journalled
    /// before the file was made, so a file of that name is ours; that nobody ever wrote to it is looked at, not
    /// believed: a ledger restored from an old copy may call a volume reserved that has long been in use.
    pub(super) fn remove_unseen(&self, pool: &Pool, file: &str) -> Result<(), HostError> {
        if let Some(facts) = self.host.backing(&pool.dir, file)? {
            let map = self.host.map(&pool.dir, file, &facts.identity)?;
            let attached = self.host.attachments(&pool.dir, file, &facts.identity)?;
            if map.unwritten < map.covered() || !attached.is_empty() {
                return Err(HostError::refused(
                    "remove",
                    pool.dir.path.join(file).display().to_string(),
                    "the ledger calls it reserved and never handed out, yet somebody wrote to it or has it attached",
                    "look at its data; restore the newest copy of the ledger, or begin a new one and adopt the file",
                ));
            }
            self.host.remove_backing(&pool.dir, file, &facts.identity)?;
        }
        // Also where there is none: a removal before the crash may not be durable yet.
        self.host.sync_dir(&pool.dir)
    }

    /// Volumes whose wipe needs no person, oldest release first.
    pub fn pending(&self) -> Vec<VolumeId> {
        let mut list: Vec<_> = self.store.look(|ledger| {
            ledger
                .volumes
                .iter()
                .filter(|(_, v)| v.is_pending())
                .map(|(id, v)| (v.released().map(|r| r.release.at), id.clone()))
                .collect()
        });
        // Verified ones (no release any more) sort first: giving back is quick.
        list.sort();
        list.into_iter().map(|(_, id)| id).collect()
    }

    /// Pending volumes of these pools, oldest release first.
    pub(crate) fn pending_in(&self, pools: &[PoolName]) -> Vec<VolumeId> {
        let mut list = self.pending();
        self.store.look(|ledger| {
            list.retain(|id| ledger.volumes.get(id).is_some_and(|v| pools.contains(&v.spec().pool)));
        });
        list
    }

    /// Wait until a volume of these pools is pending that is not to be left alone, or `wake` comes, or `other` is true.
    pub(crate) fn wait_for_work(
        &self,
        pools: &[PoolName],
        wake: Instant,
        later: &BTreeMap<VolumeId, Instant>,
        other: impl Fn() -> bool,
    ) {
        let _ = self.store.wait_until(wake, |ledger| {
            let work = ledger
                .volumes
                .iter()
                .any(|(id, v)| v.is_pending() && pools.contains(&v.spec().pool) && !later.contains_key(id));
            (work || other()).then_some(())
        });
    }

    /// Wake everybody who waits on the ledger.
    pub(crate) fn nudge(&self) {
        self.store.nudge();
    }
}
