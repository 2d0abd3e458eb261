//! What only a person may order: another try, a lower level, forgetting, taking on a found file.

use bedplate_blockdev::HostError;
use bedplate_core::ids::{PoolName, VolumeId};
use bedplate_core::ledger::Event;
use bedplate_core::volume::{AnyVolume, Backing, Change, Claim, Mode, Spec, StuckReason};
use bedplate_core::wipe::VerifyDemand;

use super::{Busy, Engine};
use crate::store::CommitError;

/// Why an order was not followed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum CommandError {
    #[error(transparent)]
    Busy(Busy),
    #[error("volume {id} does not exist; `bedplate volumes` lists those that do")]
    Unknown { id: VolumeId },
    #[error("volume {id} is {phase}: {order} is for volumes that are {wants}")]
    WrongPhase { id: VolumeId, phase: String, order: &'static str, wants: &'static str },
    #[error("pool {pool} cannot be looked at: {why}")]
    Pool { pool: PoolName, why: String },
    #[error("pool {pool} holds no unknown file {file:?}; `bedplate pools` lists them")]
    NoSuchFile { pool: PoolName, file: String },
    #[error("file {file} in pool {pool} has {bytes} bytes, which no volume has; look at it and move it away by hand")]
    NotAVolume { pool: PoolName, file: String, bytes: u64 },
    #[error("file {file} in pool {pool} could not be looked at")]
    Host {
        pool: PoolName,
        file: String,
        #[source]
        source: HostError,
    },
    #[error("the order could not be journalled")]
    Commit(#[source] CommitError),
}

impl Engine {
    fn known(&self, id: &VolumeId) -> Result<AnyVolume, CommandError> {
        self.volume_now(id).ok_or_else(|| CommandError::Unknown { id: id.clone() })
    }

    /// Wipe a stuck volume again, from the start.
    ///
    /// # Errors
    /// Where it is not stuck.
    pub fn retry(&self, id: &VolumeId, by: &str) -> Result<(), CommandError> {
        let _turn = self.turn_for(id).map_err(CommandError::Busy)?;
        match self.known(id)? {
            AnyVolume::Stuck(_) => {
                self.change(id, Change::Retried { by: by.to_owned() }).map_err(CommandError::Commit)?;
                self.store.nudge();
                Ok(())
            }
            other => Err(CommandError::WrongPhase {
                id: id.clone(),
                phase: other.phase().to_owned(),
                order: "retry",
                wants: "Stuck",
            }),
        }
    }

    /// Accept that a volume stuck on its level gets a receipt that says `isolation`.
    ///
    /// # Errors
    /// Where it is not stuck for that reason.
    pub fn accept_level(&self, id: &VolumeId, by: &str) -> Result<(), CommandError> {
        let _turn = self.turn_for(id).map_err(CommandError::Busy)?;
        match self.known(id)? {
            AnyVolume::Stuck(v) if matches!(v.state.reason, StuckReason::LevelLost { .. }) => {
                self.change(id, Change::LevelAccepted { by: by.to_owned() }).map_err(CommandError::Commit)?;
                self.store.nudge();
                Ok(())
            }
            other => Err(CommandError::WrongPhase {
                id: id.clone(),
                phase: other.phase().to_owned(),
                order: "accept",
                wants: "Stuck(level-lost)",
            }),
        }
    }

    /// Stop waiting for a wipe that is owed. The space stays withheld for ever, should the disk come back.
    ///
    /// # Errors
    /// Where no wipe is owed.
    pub fn forget(&self, id: &VolumeId, by: &str) -> Result<(), CommandError> {
        let _turn = self.turn_for(id).map_err(CommandError::Busy)?;
        let volume = self.known(id)?;
        if volume.released().is_none() {
            return Err(CommandError::WrongPhase {
                id: id.clone(),
                phase: volume.phase().to_owned(),
                order: "forget",
                wants: "released and not yet verified",
            });
        }
        self.change(id, Change::Forgotten { by: by.to_owned() }).map_err(CommandError::Commit)?;
        tracing::warn!(volume = %id, by, "a wipe that was owed is forgotten, the space stays withheld");
        Ok(())
    }

    /// Keep a volume's bytes without an owner, until it is released by hand.
    ///
    /// # Errors
    /// Where it is not in service.
    pub fn retain(&self, id: &VolumeId, by: &str) -> Result<(), CommandError> {
        let _turn = self.turn_for(id).map_err(CommandError::Busy)?;
        match self.known(id)? {
            AnyVolume::Ready(v) if v.state.staged.is_none() => {
                self.change(id, Change::Retained { by: by.to_owned() }).map_err(CommandError::Commit)
            }
            other => Err(CommandError::WrongPhase {
                id: id.clone(),
                phase: other.phase().to_owned(),
                order: "retain",
                wants: "Ready and not staged",
            }),
        }
    }

    /// Take on a file that a pool holds and the ledger does not know: it becomes a Retained volume, bytes and all.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn adopt(&self, pool: &PoolName, file: &str, by: &str) -> Result<VolumeId, CommandError> {
        let _turn = self.turn(format!("file {file}")).map_err(CommandError::Busy)?;
        let open = self.pool(pool).map_err(|why| CommandError::Pool { pool: pool.clone(), why })?;
        let failed = |source| CommandError::Host { pool: pool.clone(), file: file.to_owned(), source };
        let unknown = self.store.look(Clone::clone);
        let found = open.unknown_files(&*self.host, &unknown).map_err(failed)?;
        let missing = || CommandError::NoSuchFile { pool: pool.clone(), file: file.to_owned() };
        if !found.iter().any(|f| f.file == file) {
            return Err(missing());
        }
        let facts = self.host.backing(&open.dir, file).map_err(failed)?.ok_or_else(missing)?;
        if facts.size == 0 || !facts.size.is_multiple_of(u64::from(self.config.geometry.block)) {
            return Err(CommandError::NotAVolume { pool: pool.clone(), file: file.to_owned(), bytes: facts.size });
        }
        let map = self.host.map(&open.dir, file, &facts.identity).map_err(failed)?;
        let spec = Spec {
            id: VolumeId::from_random(crate::store::half(self.surroundings.random())),
            name: format!("adopted {file} by {by}"),
            pool: pool.clone(),
            bytes: facts.size,
            mode: Mode::Block,
            file: file.to_owned(),
            demand: None,
            verify: VerifyDemand::Full,
            mkfs_options: Vec::new(),
            claim: Claim::default(),
            parameters: std::collections::BTreeMap::new(),
            created: self.surroundings.now(),
            origin: None,
        };
        let id = spec.id.clone();
        let event = Event::Adopted { spec, backing: Backing { identity: facts.identity, map } };
        match self.store.commit(|_| Ok::<_, std::convert::Infallible>((event, ()))).map_err(CommandError::Commit)? {
            Ok(()) => Ok(id),
        }
    }
}
