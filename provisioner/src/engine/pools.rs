//! Pools that come, change and go while the engine runs: opened under their lock, drained before they are let go of.
//!
//! A pool is let go of only when no volume of the ledger is left in it; what its directory holds is never touched.

use std::path::PathBuf;

use bedplate_core::ids::PoolName;

use super::open::open_pool;
use super::{Busy, Engine, OpenError, PoolState};
use crate::config::PoolConfig;
use crate::pool::PoolProblem;
use bedplate_core::chain::chain;

/// Why a pool was not taken on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum PutPoolError {
    #[error(transparent)]
    Busy(Busy),
    #[error("pool {pool} lies in {from}: it cannot move to {to}; give it its directory back, or make another pool", from = .from.display(), to = .to.display())]
    Moved { pool: PoolName, from: PathBuf, to: PathBuf },
    #[error("pool {pool} is absent")]
    Absent {
        pool: PoolName,
        #[source]
        source: PoolProblem,
    },
    #[error("it cannot be a pool")]
    Refused(#[source] PoolProblem),
    #[error("the pool could not be journalled")]
    Open(#[source] OpenError),
}

impl Engine {
    /// Take on a pool, or give one that is there other settings; its directory cannot change. A pool that the ledger
    /// knows and that is not there is taken on as absent: its volumes wait.
    ///
    /// # Errors
    /// See [`PutPoolError`]; only `Absent` leaves the pool taken on.
    pub fn put_pool(&self, config: PoolConfig) -> Result<(), PutPoolError> {
        let name = config.name.clone();
        let _turn = self.turn(format!("pool {name}")).map_err(PutPoolError::Busy)?;
        let state = self.pool_states().remove(&name);
        if let Some(state) = &state
            && state.config.directory != config.directory
        {
            let from = state.config.directory.clone();
            return Err(PutPoolError::Moved { pool: name, from, to: config.directory });
        }
        match state {
            Some(PoolState { config: same, .. }) if same == config => return Ok(()),
            Some(PoolState { open: Ok(pool), .. }) => {
                self.set_pool(PoolState { open: Ok(pool.with(config.clone()).into()), config });
                self.store.nudge();
                return Ok(());
            }
            Some(_) | None => {}
        }
        let known = self.store.look(|ledger| ledger.pools.contains_key(&name));
        let before = self.ids_in(|pool| *pool == name);
        let opened = match open_pool(&self.host, &*self.surroundings, &self.store, &config) {
            Ok(pool) => {
                tracing::info!(pool = %name, directory = %config.directory.display(), "pool opened");
                self.set_pool(PoolState { open: Ok(pool), config });
                if let Err(error) = self.settle(before) {
                    tracing::error!(pool = %name, error = %chain(&error), "what a crash left there could not be settled");
                }
                Ok(())
            }
            Err(OpenError::Pool(problem)) if known => {
                self.set_pool(PoolState { open: Err(chain(&problem)), config });
                Err(PutPoolError::Absent { pool: name, source: problem })
            }
            Err(OpenError::Pool(problem)) => Err(PutPoolError::Refused(problem)),
            Err(error) => Err(PutPoolError::Open(error)),
        };
        self.store.nudge();
        opened
    }

    /// Let go of a pool that is draining and has no volume left; `false` where it must stay. Its marker stays in its
    /// directory, so the same pool can be taken on again.
    ///
    /// # Errors
    /// While another thread opens it.
    pub fn close_pool(&self, name: &PoolName) -> Result<bool, Busy> {
        let _turn = self.turn(format!("pool {name}"))?;
        // Draining is set before the ledger is looked at: whoever chose the pool before has reserved by now, and nobody
        // chooses it after.
        if !self.pool_states().get(name).is_some_and(|state| state.config.draining) || !self.is_empty(name) {
            return Ok(false);
        }
        self.pools.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(name);
        self.store.nudge();
        Ok(true)
    }

    /// Whether no volume of the ledger lives in the pool or is owed there.
    pub fn is_empty(&self, name: &PoolName) -> bool {
        self.store.look(|ledger| !ledger.volumes.values().any(|v| &v.spec().pool == name && !v.is_over()))
    }

    /// How a pool is set up, where the engine was told of it.
    pub fn pool_config(&self, name: &PoolName) -> Option<PoolConfig> {
        self.pool_states().remove(name).map(|state| state.config)
    }

    /// Pools of the ledger that still hold volumes: name and directory as they were last seen.
    pub fn inhabited(&self) -> Vec<(PoolName, PathBuf)> {
        self.store.look(|ledger| {
            let lives = |name: &PoolName| ledger.volumes.values().any(|v| &v.spec().pool == name && !v.is_over());
            let inhabited = ledger.pools.iter().filter(|(name, _)| lives(name));
            inhabited.map(|(name, record)| (name.clone(), PathBuf::from(&record.directory))).collect()
        })
    }
}
