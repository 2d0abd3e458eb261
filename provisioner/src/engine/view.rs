//! What people and front ends see of volumes and pools.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;

use bedplate_core::extent::PhysicalMap;
use bedplate_core::ids::{LedgerId, NodeName, PoolName, VolumeId};
use bedplate_core::ledger::Ledger;
use bedplate_core::volume::{AnyVolume, Claim, Mode};
use bedplate_core::wipe::Level;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Engine, PoolState};
use crate::pool::Found;

/// What a wipe is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Planting canaries.
    Canaries,
    /// Overwriting.
    Wiping,
    /// Reading back.
    Verifying,
}

/// How far a wipe is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// At what.
    pub stage: Stage,
    /// Bytes done of this stage.
    pub done: u64,
    /// Bytes of this stage.
    pub total: u64,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView {
    /// Its id.
    pub id: VolumeId,
    /// The name it was asked for under.
    pub name: String,
    /// Its pool.
    pub pool: PoolName,
    /// Its size in bytes.
    pub bytes: u64,
    /// How it is offered.
    pub mode: Mode,
    /// Whose it is.
    pub claim: Claim,
    /// The level its class demands.
    pub demand: Option<Level>,
    /// When it was asked for.
    pub created: Timestamp,
    /// Its state: `Reserved`, `Ready`, `Released`, `Quarantined`, `Wiping`, `Flushed`, `Verifying`, `Verified`, `Freed`,
    /// `Stuck`, `Debt`, `Retained`, `Forgotten` or `Discarded`.
    pub phase: String,
    /// What there is to say about it: who holds it, why it is stuck, what is owed.
    pub detail: String,
    /// Where it is staged.
    pub staged: Option<String>,
    /// How far its wipe is.
    pub progress: Option<Progress>,
    /// Number of its receipt.
    pub receipt: Option<u64>,
}

/// Where a volume's bytes lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ranges {
    /// Block device beneath (major, minor).
    pub device: Option<(u32, u32)>,
    /// The filesystem between; on ext4 and xfs physical offsets are those of the device.
    pub fs_type: String,
    /// The recorded extents.
    pub map: PhysicalMap,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// Its name.
    pub name: PoolName,
    /// Where it lies.
    pub directory: String,
    /// Backend: `image`.
    pub backend: String,
    /// `None` where it is open, else why it is absent.
    pub absent: Option<String>,
    /// Filesystem of the host beneath.
    pub fs_type: Option<String>,
    /// UUID of that filesystem.
    pub fs_uuid: Option<String>,
    /// Block device beneath (major, minor).
    pub device: Option<(u32, u32)>,
    /// The best level its wipes can state.
    pub level: Option<Level>,
    /// Bytes in service.
    pub allocated: u64,
    /// Bytes withheld: released and not yet verified, retained, forgotten, or found and unknown.
    pub withheld: u64,
    /// Bytes a new volume may take now.
    pub free: u64,
    /// Bytes left to the host.
    pub reserve: u64,
    /// Files that the ledger does not know.
    pub found: Vec<Found>,
    /// Whether no new volumes are made in it.
    #[serde(default)]
    pub draining: bool,
    /// Operations a second that may be promised in all.
    #[serde(default)]
    pub iops: Option<u64>,
    /// The medium beneath: `nvme`, `ssd` or `hdd`.
    #[serde(default)]
    pub media: Option<String>,
}

impl Engine {
    /// The ledger's id.
    pub fn ledger_id(&self) -> LedgerId {
        self.store.look(|ledger| ledger.id)
    }

    /// Receipts given out so far.
    pub fn receipts_given(&self) -> u64 {
        self.store.look(|ledger| ledger.receipts)
    }

    /// This node's name.
    pub fn node(&self) -> &NodeName {
        &self.config.node
    }

    /// One volume as it is wanted to be: its last change may not be durable yet. Never waits.
    pub fn peek(&self, id: &VolumeId) -> Option<AnyVolume> {
        self.store.look(|ledger| ledger.volumes.get(id).cloned())
    }

    /// One volume as the ledger has it.
    pub fn state(&self, id: &VolumeId) -> Option<AnyVolume> {
        self.volume_now(id)
    }

    /// Why a volume's pool is not there, if it is not.
    pub fn absence(&self, volume: &AnyVolume) -> Option<String> {
        self.pool(&volume.spec().pool).err()
    }

    /// Where a volume is staged, in this boot.
    pub fn staged_now(&self, volume: &AnyVolume) -> Option<PathBuf> {
        let AnyVolume::Ready(ready) = volume else { return None };
        let staged = ready.state.staged.as_ref().filter(|staged| staged.boot == self.surroundings.boot());
        staged.map(|staged| PathBuf::from(&staged.path))
    }

    /// One volume.
    pub fn volume(&self, id: &VolumeId) -> Option<VolumeView> {
        self.volume_now(id).map(|volume| self.view(&volume))
    }

    /// Where the bytes of a volume lie, as recorded when it was made, and on which block device (major, minor).
    pub fn ranges(&self, id: &VolumeId) -> Option<Ranges> {
        let volume = self.volume_now(id)?;
        let map = volume.backing()?.map.clone();
        let pool = self.pool(&volume.spec().pool).ok()?;
        let facts = self.host.pool_facts(&pool.dir).ok()?;
        Some(Ranges { device: facts.device, fs_type: facts.fs_type, map })
    }

    /// Every volume that still exists, withheld ones included; with `all`, freed ones too.
    pub fn volumes(&self, all: bool) -> Vec<VolumeView> {
        let list: Vec<AnyVolume> =
            self.store.look(|ledger| ledger.volumes.values().filter(|v| all || !v.is_over()).cloned().collect());
        list.iter().map(|volume| self.view(volume)).collect()
    }

    pub(super) fn view(&self, volume: &AnyVolume) -> VolumeView {
        let spec = volume.spec();
        let mut phase = volume.phase().to_owned();
        let mut detail = String::new();
        let mut staged = None;
        let mut receipt = None;
        match volume {
            AnyVolume::Ready(v) => {
                staged = v.state.staged.as_ref().map(|s| s.path.clone());
                detail = v.state.losses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            }
            AnyVolume::Stuck(v) => detail = v.state.reason.to_string(),
            AnyVolume::Forgotten(v) => detail = format!("by {}", v.state.by),
            AnyVolume::Freed(v) => receipt = Some(v.state.receipt),
            AnyVolume::Verified(v) => receipt = Some(v.state.receipt.number),
            AnyVolume::Retained(_) => "kept with its bytes until `bedplate volumes release`".clone_into(&mut detail),
            AnyVolume::Reserved(_)
            | AnyVolume::Released(_)
            | AnyVolume::Quarantined(_)
            | AnyVolume::Wiping(_)
            | AnyVolume::Flushed(_)
            | AnyVolume::Verifying(_)
            | AnyVolume::Discarded(_) => {}
        }
        if let Some(why) = self.debt(volume) {
            "Debt".clone_into(&mut phase);
            detail = why;
        }
        VolumeView {
            id: spec.id.clone(),
            name: spec.name.clone(),
            pool: spec.pool.clone(),
            bytes: spec.bytes,
            mode: spec.mode,
            claim: spec.claim.clone(),
            demand: spec.demand,
            created: spec.created,
            phase,
            detail,
            staged,
            progress: self.progress.lock().unwrap_or_else(PoisonError::into_inner).get(&spec.id).copied(),
            receipt,
        }
    }

    /// Why a wipe is owed and cannot be paid now: its pool is absent.
    fn debt(&self, volume: &AnyVolume) -> Option<String> {
        let owed = volume.is_pending() || matches!(volume, AnyVolume::Stuck(_));
        if owed { self.pool(&volume.spec().pool).err() } else { None }
    }

    /// Every pool that the engine was told of.
    pub fn pools(&self) -> Vec<PoolView> {
        let states = self.pool_states();
        self.store.look(|ledger| self.pool_views(&states, ledger))
    }

    /// Pools as `ledger` has them.
    pub(super) fn pool_views(&self, states: &BTreeMap<PoolName, PoolState>, ledger: &Ledger) -> Vec<PoolView> {
        states.iter().map(|(name, state)| self.pool_view(name, state, ledger)).collect()
    }

    fn pool_view(&self, name: &PoolName, state: &PoolState, ledger: &Ledger) -> PoolView {
        let sums = ledger.volumes.values().filter(|v| &v.spec().pool == name);
        let (allocated, withheld) = sums.fold((0u64, 0u64), |(live, withheld), v| match v {
            AnyVolume::Ready(_) | AnyVolume::Reserved(_) => (live.saturating_add(v.withholds()), withheld),
            _ => (live, withheld.saturating_add(v.withholds())),
        });
        let config = &state.config;
        let known = ledger.pools.get(name);
        match &state.open {
            Ok(pool) => {
                let facts = self.host.pool_facts(&pool.dir);
                let unknown = pool.still_unknown(ledger);
                let found: u64 = unknown.iter().fold(0, |sum, f| sum.saturating_add(f.bytes));
                PoolView {
                    name: name.clone(),
                    directory: config.directory.display().to_string(),
                    backend: "image".to_owned(),
                    absent: None,
                    free: facts.as_ref().map_or(0, |f| pool.free(ledger, f.available).get()),
                    fs_type: facts.as_ref().ok().map(|f| f.fs_type.clone()),
                    fs_uuid: Some(pool.record.fs_uuid.to_string()),
                    device: facts.ok().and_then(|f| f.device),
                    level: Some(pool.best_level()),
                    allocated,
                    withheld: withheld.saturating_add(found),
                    reserve: config.reserve.get(),
                    found: unknown,
                    draining: config.draining,
                    iops: config.iops,
                    media: config.media.map(|media| media.name().to_owned()),
                }
            }
            Err(why) => PoolView {
                name: name.clone(),
                directory: known.map(|p| p.directory.clone()).unwrap_or_default(),
                backend: "image".to_owned(),
                absent: Some(why.clone()),
                fs_type: None,
                fs_uuid: known.map(|p| p.fs_uuid.to_string()),
                device: None,
                level: None,
                allocated,
                withheld,
                free: 0,
                reserve: 0,
                found: Vec::new(),
                draining: config.draining,
                iops: config.iops,
                media: config.media.map(|media| media.name().to_owned()),
            },
        }
    }

    pub(super) fn all_progress(&self) -> BTreeMap<VolumeId, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn progress_at(&self, id: &VolumeId, stage: Stage, done: u64, total: u64) {
        let progress = Progress { stage, done, total };
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), progress);
    }

    pub(super) fn progress_done(&self, id: &VolumeId) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
