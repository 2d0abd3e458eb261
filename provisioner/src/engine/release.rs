//! Recording that a volume may be wiped: the only authority there is (G8).

use bedplate_blockdev::HostError;
use bedplate_core::ids::VolumeId;
use bedplate_core::ledger::Event;
use bedplate_core::volume::{AnyVolume, Change, Release, ReleaseKind};

use super::{Busy, Engine, who};
use crate::store::CommitError;

/// Why a volume was not released.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum ReleaseError {
    #[error(transparent)]
    Busy(Busy),
    #[error("volume {id} is in use: {users}; end that use first, nothing was recorded")]
    InUse { id: VolumeId, users: String },
    #[error("volume {id} is retained: only a person may give up its bytes, with `bedplate volumes release {id}`")]
    Retained { id: VolumeId },
    #[error(
        "volume {id} was handed out once, so it is not one that never had an owner: nothing is wiped; release it by hand \
         with `bedplate volumes release {id}` once its data is not needed"
    )]
    WasStaged { id: VolumeId },
    #[error("volume {id}: pool {pool} is absent ({why}), so nobody can tell whether it is in use; bring its disk back")]
    PoolAbsent { id: VolumeId, pool: String, why: String },
    #[error("volume {id}: whether it is in use could not be found out")]
    Host {
        id: VolumeId,
        #[source]
        source: HostError,
    },
    #[error("volume {id} could not be journalled")]
    Commit {
        id: VolumeId,
        #[source]
        source: CommitError,
    },
}

impl Engine {
    /// Record that the volume may be wiped. From then on the wipe queue owns it. A volume already released, freed or
    /// never seen is fine.
    ///
    /// # Errors
    /// `InUse` while anybody uses it: then nothing is recorded.
    pub fn release(&self, id: &VolumeId, kind: ReleaseKind, by: &str) -> Result<(), ReleaseError> {
        let release = Release { kind, by: by.to_owned(), at: self.surroundings.now() };
        let turn = match self.turn_for(id) {
            Ok(turn) => turn,
            // The wipe queue has it: released long ago.
            Err(busy)
                if busy.closed.is_none()
                    && self.volume_now(id).is_some_and(|v| v.released().is_some() || v.is_pending() || v.is_over()) =>
            {
                return Ok(());
            }
            Err(busy) => return Err(ReleaseError::Busy(busy)),
        };
        let commit = |source| ReleaseError::Commit { id: id.clone(), source };
        let Some(volume) = self.volume_now(id) else { return Ok(()) };
        let spec = volume.spec().clone();
        let (identity, staged) = match &volume {
            // Judged here, under the volume's turn: whoever asked may have looked before it was handed out.
            AnyVolume::Ready(v) if kind == ReleaseKind::NeverBound && v.state.ever_staged => {
                return Err(ReleaseError::WasStaged { id: id.clone() });
            }
            AnyVolume::Ready(v) => (v.state.backing.identity, v.state.staged.clone()),
            AnyVolume::Retained(_) if kind != ReleaseKind::ByHand => {
                return Err(ReleaseError::Retained { id: id.clone() });
            }
            AnyVolume::Retained(v) => (v.state.backing.identity, None),
            AnyVolume::Reserved(_) => {
                // A creation that failed and could not clean up, in this run: nobody ever saw it.
                let absent = |why| ReleaseError::PoolAbsent { id: id.clone(), pool: spec.pool.to_string(), why };
                let pool = self.pool(&spec.pool).map_err(absent)?;
                self.remove_unseen(&pool, &spec.file)
                    .map_err(|source| ReleaseError::Host { id: id.clone(), source })?;
                return self.change(id, Change::Discarded).map_err(commit);
            }
            _ => return Ok(()),
        };
        if let Some(staged) = staged
            && staged.boot == self.surroundings.boot()
        {
            let users = format!("staged at {}", staged.path);
            return Err(ReleaseError::InUse { id: id.clone(), users });
        }
        let pool = self.pool(&spec.pool).map_err(|why| ReleaseError::PoolAbsent {
            id: id.clone(),
            pool: spec.pool.to_string(),
            why,
        })?;
        let failed = |source| ReleaseError::Host { id: id.clone(), source };
        // A file that is not ours any more is no obstacle to the release; the wipe will be Stuck and say so.
        let changed = self.backing_changed(&pool, &spec.file, &identity, spec.bytes).map_err(failed)?;
        if changed.is_none() {
            let device = self
                .host
                .attachments(&pool.dir, &spec.file, &identity)
                .map_err(failed)?
                .into_iter()
                .next()
                .map(|a| a.device);
            let users = self.host.users(&pool.dir, &spec.file, &identity, device.as_ref()).map_err(failed)?;
            if !users.is_empty() {
                return Err(ReleaseError::InUse { id: id.clone(), users: who(&users) });
            }
        }
        let event = Event::Volume { id: id.clone(), change: Change::Released { release } };
        match self.store.commit(|_| Ok::<_, std::convert::Infallible>((event, ()))).map_err(commit)? {
            Ok(()) => {}
        }
        drop(turn);
        tracing::info!(volume = %id, by, "volume released for wiping");
        self.store.nudge();
        Ok(())
    }
}
