//! Handing a volume to a tenant: attach, make its filesystem once, record the staging; and back.

use std::path::PathBuf;
use std::sync::Arc;

use bedplate_blockdev::{HostError, LoopDevice, Mkfs, User};
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::{AnyVolume, Change, FileIdentity, Format, Mode, Ready, Staged, Volume};
use bedplate_core::wipe::{Level, LevelLoss, losses_in_life};
use uuid::Uuid;

use super::{Busy, Engine, who};
use crate::pool::Pool;
use crate::store::CommitError;

/// Why a volume cannot be handed out or taken back.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum ServeError {
    #[error(transparent)]
    Busy(Busy),
    #[error("volume {id} does not exist")]
    Unknown { id: VolumeId },
    #[error("volume {id} is {phase} and cannot be handed out any more")]
    NotReady { id: VolumeId, phase: &'static str },
    #[error("volume {id}: pool {pool} is absent ({why}); bring its disk back")]
    PoolAbsent { id: VolumeId, pool: String, why: String },
    #[error(
        "volume {id}: its backing file is not the one that was made ({what}); restore it, nothing is served from another"
    )]
    BackingChanged { id: VolumeId, what: String },
    #[error(
        "volume {id} was never formatted by Bedplate, yet its device carries {found}; nothing is formatted over it: \
         look at the data, then delete the volume"
    )]
    NotBlank { id: VolumeId, found: String },
    #[error(
        "volume {id} was handed out before it was formatted; nothing is formatted over what a tenant may have written"
    )]
    NoLicence { id: VolumeId },
    #[error("volume {id} is in use: {users}")]
    InUse { id: VolumeId, users: String },
    #[error("volume {id} is staged at {path} already; unstage it there first")]
    StagedElsewhere { id: VolumeId, path: String },
    #[error("volume {id}: the host could not do it")]
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
    /// Make the volume's device available at `path`'s staging: attached, formatted once, recorded as staged. The caller
    /// mounts it after this returns.
    ///
    /// # Errors
    /// See [`ServeError`]; the ledger never says less than what is attached.
    pub fn stage(&self, id: &VolumeId, path: &str) -> Result<LoopDevice, ServeError> {
        let _turn = self.turn_for(id).map_err(ServeError::Busy)?;
        let (volume, pool) = self.ready(id)?;
        let boot = self.surroundings.boot();
        if let Some(staged) = &volume.state.staged
            && staged.boot == boot
            && staged.path != path
        {
            return Err(ServeError::StagedElsewhere { id: id.clone(), path: staged.path.clone() });
        }
        let device = self.attach(&pool, &volume)?;
        if let Mode::Filesystem(fs_type) = volume.spec.mode {
            let prepared = self.prepare(&volume, &device, fs_type);
            if let Err(error) = prepared {
                // Nobody has it yet; what stays attached is detached at the next start.
                let _ = self.host.detach(&pool.dir, &volume.spec.file, &volume.state.backing.identity, &device);
                return Err(error);
            }
        }
        let staged = Staged { path: path.to_owned(), boot };
        if volume.state.staged.as_ref() != Some(&staged) {
            self.change(id, Change::Staged { staged })
                .map_err(|source| ServeError::Commit { id: id.clone(), source })?;
        }
        Ok(device)
    }

    /// Take the volume back: the caller has unmounted it. Unknown volumes and those not staged are fine.
    ///
    /// # Errors
    /// `InUse` while anybody holds the device.
    pub fn unstage(&self, id: &VolumeId) -> Result<(), ServeError> {
        let _turn = self.turn_for(id).map_err(ServeError::Busy)?;
        let Some(AnyVolume::Ready(volume)) = self.volume_now(id) else { return Ok(()) };
        let pool = self.pool_of(&volume)?;
        let failed = |source| ServeError::Host { id: id.clone(), source };
        let users = self.detach_or_users(&pool, &volume.spec.file, &volume.state.backing.identity).map_err(failed)?;
        if !users.is_empty() {
            return Err(ServeError::InUse { id: id.clone(), users: who(&users) });
        }
        if volume.state.staged.is_some() {
            self.change(id, Change::Unstaged).map_err(|source| ServeError::Commit { id: id.clone(), source })?;
        }
        Ok(())
    }

    /// The loop device that serves a staged volume now, if one does.
    ///
    /// # Errors
    /// Where the host cannot tell.
    pub fn device(&self, id: &VolumeId) -> Result<Option<PathBuf>, ServeError> {
        let Some(AnyVolume::Ready(volume)) = self.volume_now(id) else { return Ok(None) };
        let pool = self.pool_of(&volume)?;
        let attached = self
            .host
            .attachments(&pool.dir, &volume.spec.file, &volume.state.backing.identity)
            .map_err(|source| ServeError::Host { id: id.clone(), source })?;
        Ok(attached.into_iter().next().map(|a| a.device.path))
    }

    /// Let the staged volume's device refuse writes, or take them again.
    ///
    /// # Errors
    /// Where it is not staged, or the host cannot do it.
    pub fn set_read_only(&self, id: &VolumeId, read_only: bool) -> Result<(), ServeError> {
        let _turn = self.turn_for(id).map_err(ServeError::Busy)?;
        let (volume, pool) = self.ready(id)?;
        let failed = |source| ServeError::Host { id: id.clone(), source };
        let (dir, file, identity) = (&pool.dir, volume.spec.file.as_str(), &volume.state.backing.identity);
        for attachment in self.host.attachments(dir, file, identity).map_err(failed)? {
            self.host.set_read_only(dir, file, identity, &attachment.device, read_only).map_err(failed)?;
        }
        Ok(())
    }

    fn pool_of(&self, volume: &Volume<Ready>) -> Result<Arc<Pool>, ServeError> {
        let spec = &volume.spec;
        self.pool(&spec.pool).map_err(|why| ServeError::PoolAbsent {
            id: spec.id.clone(),
            pool: spec.pool.to_string(),
            why,
        })
    }

    fn ready(&self, id: &VolumeId) -> Result<(Volume<Ready>, Arc<Pool>), ServeError> {
        match self.volume_now(id) {
            None | Some(AnyVolume::Discarded(_) | AnyVolume::Freed(_)) => Err(ServeError::Unknown { id: id.clone() }),
            Some(AnyVolume::Ready(volume)) => {
                let pool = self.pool_of(&volume)?;
                Ok((volume, pool))
            }
            Some(other) => Err(ServeError::NotReady { id: id.clone(), phase: other.phase() }),
        }
    }

    /// Attach, or find what is attached; the map is compared, and what a wipe could not reach is remembered.
    fn attach(&self, pool: &Pool, volume: &Volume<Ready>) -> Result<LoopDevice, ServeError> {
        let id = &volume.spec.id;
        let failed = |source| ServeError::Host { id: id.clone(), source };
        let (file, identity) = (volume.spec.file.as_str(), &volume.state.backing.identity);
        if let Some(what) = self.backing_changed(pool, file, identity, volume.spec.bytes).map_err(failed)? {
            return Err(ServeError::BackingChanged { id: id.clone(), what });
        }
        let losses = self.losses(pool, volume).map_err(failed)?;
        let new: Vec<_> = losses.into_iter().filter(|l| !volume.state.losses.contains(l)).collect();
        if !new.is_empty() {
            tracing::warn!(volume = %id, losses = ?new, "old blocks of this volume lie where its wipe cannot reach");
            self.change(id, Change::LevelLowered { losses: new })
                .map_err(|source| ServeError::Commit { id: id.clone(), source })?;
        }
        let boot = self.surroundings.boot();
        let staged_here = volume.state.staged.as_ref().is_some_and(|staged| staged.boot == boot);
        let attached = self.host.attachments(&pool.dir, file, identity).map_err(failed)?;
        match attached.as_slice() {
            [] => self.host.attach(&pool.dir, file, identity).map_err(failed),
            // Read-only is how a staged block volume may be published.
            [only] if only.direct_io && only.discard_off && (!only.read_only || staged_here) => Ok(only.device.clone()),
            // Left by a kill between attaching and its settings, or meddled with: never served as it is.
            _ => {
                let users = self.detach_or_users(pool, file, identity).map_err(failed)?;
                if !users.is_empty() {
                    return Err(ServeError::InUse { id: id.clone(), users: who(&users) });
                }
                self.host.attach(&pool.dir, file, identity).map_err(failed)
            }
        }
    }

    /// What a wipe of this volume could not reach, as things are now.
    fn losses(&self, pool: &Pool, volume: &Volume<Ready>) -> Result<Vec<LevelLoss>, HostError> {
        let backing = &volume.state.backing;
        self.losses_now(pool, &volume.spec.file, &backing.identity, &backing.map, volume.spec.bytes)
    }

    /// Run `mkfs` if, and only if, the ledger holds the licence.
    fn prepare(
        &self,
        volume: &Volume<Ready>,
        device: &LoopDevice,
        fs_type: bedplate_core::filesystem::FsType,
    ) -> Result<(), ServeError> {
        let id = &volume.spec.id;
        let failed = |source| ServeError::Host { id: id.clone(), source };
        let commit = |source| ServeError::Commit { id: id.clone(), source };
        let (uuid, repeat) = match volume.state.format {
            Format::Formatted(_) => return Ok(()),
            Format::Formatting(uuid) => (uuid, true),
            Format::Never => {
                if let Some(found) = self.host.signature(device).map_err(failed)? {
                    return Err(ServeError::NotBlank { id: id.clone(), found });
                }
                (Uuid::from_u128(u128::from_le_bytes(crate::store::half(self.surroundings.random()))), false)
            }
        };
        // The typed transition is the licence; without it nothing below runs.
        let Some((licence, _)) = volume.clone().formatting(uuid) else {
            return Err(ServeError::NoLicence { id: id.clone() });
        };
        if !repeat {
            self.change(id, licence).map_err(commit)?;
        }
        let mkfs = Mkfs { fs_type, uuid, options: volume.spec.mkfs_options.clone(), repeat };
        self.host.mkfs(device, &mkfs).map_err(failed)?;
        self.change(id, Change::Formatted).map_err(commit)
    }

    /// How the file under that name differs from the one recorded, if it does.
    pub(super) fn backing_changed(
        &self,
        pool: &Pool,
        file: &str,
        identity: &FileIdentity,
        bytes: u64,
    ) -> Result<Option<String>, HostError> {
        let path = || pool.dir.path.join(file).display().to_string();
        Ok(match self.host.backing(&pool.dir, file)? {
            None => Some(format!("{} is missing", path())),
            Some(now) if now.identity != *identity => Some(format!(
                "{} is another file: inode {} born {}, recorded were inode {} born {}",
                path(),
                now.identity.inode,
                now.identity.born,
                identity.inode,
                identity.born
            )),
            Some(now) if now.size != bytes => Some(format!("{} has {} bytes instead of {bytes}", path(), now.size)),
            Some(_) => None,
        })
    }

    /// What a wipe of the file could not reach, as things are now.
    pub(super) fn losses_now(
        &self,
        pool: &Pool,
        file: &str,
        identity: &FileIdentity,
        recorded: &bedplate_core::extent::PhysicalMap,
        bytes: u64,
    ) -> Result<Vec<LevelLoss>, HostError> {
        let now = self.host.map(&pool.dir, file, identity)?;
        let mut losses = losses_in_life(recorded, &now, bytes);
        let links = self.host.backing(&pool.dir, file)?.map_or(1, |facts| facts.links);
        if links > 1 {
            losses.push(LevelLoss::Linked { links });
        }
        Ok(losses)
    }

    /// Detach every loop device of the file, or say who holds it.
    pub(super) fn detach_or_users(
        &self,
        pool: &Pool,
        file: &str,
        identity: &FileIdentity,
    ) -> Result<Vec<User>, HostError> {
        for attachment in self.host.attachments(&pool.dir, file, identity)? {
            let device = attachment.device;
            let users = self.host.users(&pool.dir, file, identity, Some(&device))?;
            if !users.is_empty() {
                return Ok(users);
            }
            match self.host.detach(&pool.dir, file, identity, &device)? {
                bedplate_blockdev::Detached::Gone => {}
                bedplate_blockdev::Detached::StillHeld => {
                    let users = self.host.users(&pool.dir, file, identity, Some(&device))?;
                    return Ok(if users.is_empty() {
                        vec![User::Unseen { why: format!("{} is not let go", device.path.display()) }]
                    } else {
                        users
                    });
                }
            }
        }
        Ok(Vec::new())
    }

    /// Detach loop devices that nobody uses; leave the others.
    pub(super) fn detach_idle(&self, pool: &Pool, file: &str, identity: &FileIdentity) -> Result<(), HostError> {
        let users = self.detach_or_users(pool, file, identity)?;
        if !users.is_empty() {
            tracing::warn!(file, users = who(&users), "a loop device that the ledger does not know staged is in use");
        }
        Ok(())
    }

    /// The level a wipe of this volume could state if it were done now; for reports.
    pub fn level_now(&self, id: &VolumeId) -> Option<Level> {
        let AnyVolume::Ready(volume) = self.volume_now(id)? else { return None };
        let pool = self.pool(&volume.spec.pool).ok()?;
        let clean = volume.state.losses.is_empty() && self.losses(&pool, &volume).ok()?.is_empty();
        Some(if clean { pool.best_level() } else { Level::Isolation })
    }
}
