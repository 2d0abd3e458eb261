//! Carrying out a wipe: from Released to Freed, each step journalled before it is taken.
//!
//! Nothing here decides what is wiped or when a volume is clean: the plan and the transitions of core do. What a step
//! finds wrong makes the volume Stuck with a reason; only the ledger's own failure ends a drive with an error.

mod steps;

use std::sync::atomic::{AtomicBool, Ordering};

use bedplate_blockdev::{Device, HostError};
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::{AnyVolume, Change, StuckReason};
use bedplate_core::wipe::{Seed, WipePlan};

use super::{Engine, io_reason, who};
use crate::pool::Pool;
use crate::receipts::ReceiptsError;
use crate::store::CommitError;

/// Set from outside to end a drive after the current piece; the wipe goes on from its checkpoint another time.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Ask for the end.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a drive ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driven {
    /// Freed: its space is offered again.
    Freed,
    /// Somebody uses it; try again later.
    Waiting {
        /// Who.
        users: String,
    },
    /// Its pool is absent: the wipe is owed.
    Debt {
        /// Why.
        why: String,
    },
    /// It needs a person.
    Stuck {
        /// Why.
        reason: StuckReason,
    },
    /// There is nothing to wipe: in service, retained, forgotten or never seen.
    Nothing,
    /// The stop was set.
    Stopped,
}

/// Why a drive could not go on; nothing is lost, the ledger says where it stands.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum WipeError {
    #[error(transparent)]
    Busy(super::Busy),
    #[error("wipe of volume {id} could not be journalled")]
    Commit {
        id: VolumeId,
        #[source]
        source: CommitError,
    },
    #[error("wipe of volume {id}: its receipt could not be kept, so its space stays withheld")]
    Receipts {
        id: VolumeId,
        #[source]
        source: ReceiptsError,
    },
    #[error("wipe of volume {id}: its verified file could not be removed, so its space stays withheld")]
    Remove {
        id: VolumeId,
        #[source]
        source: HostError,
    },
    #[error("wipe of volume {id}: the plan is impossible")]
    Plan {
        id: VolumeId,
        #[source]
        source: bedplate_core::wipe::BadGeometry,
    },
}

/// What one state's work led to.
enum Next {
    /// On to the next state.
    On,
    /// The drive ends here.
    End(Driven),
    /// A person is needed.
    Stuck(StuckReason),
}

impl Engine {
    /// Bring one volume as far towards Freed as possible. `between` is called between pieces of work, to throttle.
    ///
    /// # Errors
    /// See [`WipeError`]; the next drive goes on where the ledger says.
    pub fn drive(&self, id: &VolumeId, stop: &Stop, between: &dyn Fn()) -> Result<Driven, WipeError> {
        let _turn = self.turn_for(id).map_err(WipeError::Busy)?;
        let commit = |source| WipeError::Commit { id: id.clone(), source };
        // Held from Quarantined to Freed.
        let mut device: Option<Box<dyn Device>> = None;
        let outcome = loop {
            if stop.is_set() {
                break Driven::Stopped;
            }
            let Some(volume) = self.volume_now(id) else { break Driven::Nothing };
            if let AnyVolume::Freed(_) = volume {
                break Driven::Freed;
            }
            if !volume.is_pending() {
                break match volume {
                    AnyVolume::Stuck(v) => Driven::Stuck { reason: v.state.reason },
                    _ => Driven::Nothing,
                };
            }
            let pool = match self.pool(&volume.spec().pool) {
                Ok(pool) => pool,
                Err(why) => break Driven::Debt { why },
            };
            match self.step(&pool, volume, &mut device, stop, between)? {
                Next::On => {}
                Next::End(driven) => break driven,
                Next::Stuck(reason) => {
                    tracing::error!(volume = %id, reason = %reason, "wipe is stuck, the space stays withheld");
                    let change = Change::Stuck { reason: reason.clone(), at: self.surroundings.now() };
                    self.change(id, change).map_err(commit)?;
                    break Driven::Stuck { reason };
                }
            }
        };
        self.progress_done(id);
        Ok(outcome)
    }

    fn step(
        &self,
        pool: &Pool,
        volume: AnyVolume,
        device: &mut Option<Box<dyn Device>>,
        stop: &Stop,
        between: &dyn Fn(),
    ) -> Result<Next, WipeError> {
        let spec = volume.spec().clone();
        let commit = |source| WipeError::Commit { id: spec.id.clone(), source };
        match volume {
            AnyVolume::Released(v) => {
                let backing = &v.state.backing;
                if let Some(end) = self.alone(pool, &spec.file, &backing.identity, spec.bytes) {
                    return Ok(end);
                }
                let losses = match self.losses_now(pool, &spec.file, &backing.identity, &backing.map, spec.bytes) {
                    Ok(losses) => losses,
                    Err(error) => return Ok(Next::Stuck(io_reason(&error))),
                };
                self.change(&spec.id, Change::Quarantined { losses }).map_err(commit)?;
                tracing::info!(volume = %spec.id, "volume quarantined");
            }
            AnyVolume::Quarantined(_) => {
                let plan = WipePlan::new(
                    spec.bytes,
                    self.config.geometry,
                    pool.config.method,
                    spec.verify,
                    pool.config.full_verify_up_to.get(),
                    Seed(self.surroundings.random()),
                )
                .map_err(|source| WipeError::Plan { id: spec.id.clone(), source })?;
                let at = self.surroundings.now();
                self.change(&spec.id, Change::WipePlanned { plan, at }).map_err(commit)?;
            }
            AnyVolume::Wiping(v) => {
                let resumed = device.is_none() && v.state.canaries_placed && v.state.offset > 0;
                let opened = match self.opened(pool, &spec, &v.state.released.backing.identity, device) {
                    Ok(opened) => opened,
                    Err(end) => return Ok(end),
                };
                return if resumed {
                    let offset = v.state.plan.resume_at(v.state.offset);
                    tracing::info!(volume = %spec.id, offset, "wipe resumed");
                    self.change(&spec.id, Change::Resumed { offset }).map_err(commit)?;
                    Ok(Next::On)
                } else if v.state.canaries_placed {
                    self.zero(&v, opened.as_mut(), stop, between)
                } else {
                    self.place_canaries(&v, opened.as_mut(), stop, between)
                };
            }
            AnyVolume::Flushed(_) => self.change(&spec.id, Change::Verifying).map_err(commit)?,
            AnyVolume::Verifying(v) => {
                let opened = match self.opened(pool, &spec, &v.state.wiping.released.backing.identity, device) {
                    Ok(opened) => opened,
                    Err(end) => return Ok(end),
                };
                return self.verify(pool, &v, opened.as_mut(), stop, between);
            }
            AnyVolume::Verified(v) => {
                self.give_back(pool, &v, device)?;
            }
            AnyVolume::Reserved(_)
            | AnyVolume::Ready(_)
            | AnyVolume::Retained(_)
            | AnyVolume::Freed(_)
            | AnyVolume::Discarded(_)
            | AnyVolume::Stuck(_)
            | AnyVolume::Forgotten(_) => return Ok(Next::End(Driven::Nothing)),
        }
        Ok(Next::On)
    }

    /// Prove that nobody uses the file: `None`, or how the drive ends.
    fn alone(
        &self,
        pool: &Pool,
        file: &str,
        identity: &bedplate_core::volume::FileIdentity,
        bytes: u64,
    ) -> Option<Next> {
        match self.backing_changed(pool, file, identity, bytes) {
            Ok(None) => {}
            Ok(Some(what)) => return Some(Next::Stuck(StuckReason::BackingChanged { what })),
            Err(error) => return Some(Next::Stuck(io_reason(&error))),
        }
        let users = self.detach_or_users(pool, file, identity).and_then(|users| {
            if users.is_empty() { self.host.users(&pool.dir, file, identity, None) } else { Ok(users) }
        });
        match users {
            Ok(users) if users.is_empty() => None,
            Ok(users) => Some(Next::End(Driven::Waiting { users: who(&users) })),
            // A look that failed says nothing about the disk: look again, and do nothing until it succeeds.
            Err(error) => Some(Next::End(Driven::Waiting { users: bedplate_core::chain::chain(&error) })),
        }
    }

    /// The device, opened alone and proven to be the recorded file, or how the drive ends.
    fn opened<'a>(
        &self,
        pool: &Pool,
        spec: &bedplate_core::volume::Spec,
        identity: &bedplate_core::volume::FileIdentity,
        device: &'a mut Option<Box<dyn Device>>,
    ) -> Result<&'a mut Box<dyn Device>, Next> {
        if device.is_none() {
            if let Some(end) = self.alone(pool, &spec.file, identity, spec.bytes) {
                return Err(end);
            }
            match self.host.open_backing(&pool.dir, &spec.file, identity, spec.bytes) {
                Ok(opened) => *device = Some(opened),
                Err(HostError::Refused(refused)) => {
                    return Err(Next::End(Driven::Waiting { users: refused.to_string() }));
                }
                Err(error @ HostError::Failed(_)) => return Err(Next::Stuck(io_reason(&error))),
            }
        }
        device.as_mut().ok_or(Next::End(Driven::Nothing))
    }
}
