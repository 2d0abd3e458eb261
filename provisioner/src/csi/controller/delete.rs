//! DeleteVolume. OK means: proven clean, or never existed. Until then the call works on as long as its caller waits and
//! answers ABORTED, which an orchestrator repeats.

use crate::csi::reply::status_about;
use crate::csi::request::{self, BadField};
use crate::csi::{Phase, View};
use crate::engine::{Engine, ReleaseError};
use crate::store::CommitError;
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::{AnyVolume, ReleaseKind};
use std::time::Instant;
use tonic::{Code, Status};

/// Why the orchestrator must not forget the volume yet.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// The id is missing or malformed.
    #[error(transparent)]
    Field(BadField),
    /// It is released and not yet clean.
    #[error("released, {how}; call again until it is verified")]
    Underway { how: String },
    /// The wipe needs a person.
    #[error("its wipe is stuck: {0}")]
    Stuck(String),
    /// It cannot be reached, so its wipe is owed until it can.
    #[error("its wipe is owed, because it cannot be reached: {0}")]
    Owed(String),
    /// The engine said no.
    #[error(transparent)]
    Engine(ReleaseError),
    /// Its end is not durable.
    #[error("its end could not be journalled")]
    Ledger(#[source] CommitError),
}

impl DeleteError {
    /// The answer to the orchestrator.
    pub fn status(&self, id: &str) -> Status {
        use crate::engine::ReleaseError as E;
        let code = match self {
            Self::Field(_) => Code::InvalidArgument,
            Self::Underway { .. } => Code::Aborted,
            Self::Stuck(_) | Self::Owed(_) => Code::FailedPrecondition,
            Self::Ledger(_) => Code::Internal,
            Self::Engine(error) => match error {
                E::Busy(_) => Code::Aborted,
                E::InUse { .. } | E::PoolAbsent { .. } | E::Retained { .. } | E::WasStaged { .. } => {
                    Code::FailedPrecondition
                }
                E::Host { .. } | E::Commit { .. } => Code::Internal,
            },
        };
        status_about(code, "volume", id, self)
    }
}

/// Reads the id.
pub fn read(text: &str) -> Result<VolumeId, DeleteError> {
    request::volume_id(text).map_err(DeleteError::Field)
}

/// Records that the volume may be wiped, where it still exists.
pub fn release(engine: &Engine, id: &VolumeId) -> Result<(), DeleteError> {
    if View::find(engine, id).is_none_or(|view| view.phase == Phase::Gone) {
        return engine.durable().map_err(DeleteError::Ledger);
    }
    engine.release(id, ReleaseKind::Deleted, "CSI DeleteVolume").map_err(DeleteError::Engine)
}

/// Waits until the volume is given back (not only until it is proven clean: its room shall be there for the next one), or
/// nothing more can be waited for, or `until` has come. Holds no thread: many deletions may wait for long.
pub async fn wait(engine: &Engine, id: &VolumeId, until: Instant) {
    let mut changes = engine.changes();
    loop {
        changes.borrow_and_update();
        let settled = engine.peek(id).is_none_or(|volume| {
            volume.is_over() || matches!(volume, AnyVolume::Stuck(_)) || engine.absence(&volume).is_some()
        });
        // The engine outlives the call, so the sender is there.
        if settled || !matches!(tokio::time::timeout_at(until.into(), changes.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// What can be answered now. OK only once the record that it rests on is durable.
pub fn answer(engine: &Engine, id: &VolumeId) -> Result<(), DeleteError> {
    match View::find(engine, id).map(|view| view.phase) {
        None | Some(Phase::Gone) => engine.durable().map_err(DeleteError::Ledger),
        Some(Phase::Stuck(why)) => Err(DeleteError::Stuck(why)),
        Some(Phase::Absent(why)) => Err(DeleteError::Owed(why)),
        Some(Phase::Wiping(how)) => Err(DeleteError::Underway { how }),
        Some(Phase::Making | Phase::Ready | Phase::Retained) => {
            Err(DeleteError::Underway { how: "not yet recorded".to_owned() })
        }
    }
}
