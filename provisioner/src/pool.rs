//! An `image` pool: a directory on a host filesystem, known again by its marker and the filesystem's UUID.
//!
//! A missing mount is an absent pool, never a new one in the empty directory. What the pool's filesystem cannot promise
//! is refused here, by name, before anything is written.

use std::path::PathBuf;
use std::sync::Arc;

use bedplate_blockdev::{Dir, Host, HostError, Lock, PoolFacts};
use bedplate_core::bytes::Bytes;
use bedplate_core::ids::{LedgerId, PoolName, VolumeId};
use bedplate_core::ledger::{Ledger, PoolRecord};
use bedplate_core::volume::{AnyVolume, GRAIN};
use bedplate_core::wipe::{Level, ZeroMethod};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::PoolConfig;

/// The marker file's name.
pub const MARKER: &str = ".bedplate-pool";
const MARKER_NEXT: &str = ".bedplate-pool.next";
const LOCK: &str = ".bedplate-lock";
/// How backing files end.
pub const SUFFIX: &str = ".img";

/// What the marker file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    version: u32,
    pool: PoolName,
    uuid: Uuid,
    fs_uuid: Uuid,
    ledger: LedgerId,
}

/// Why a directory cannot be (or is not) the pool.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum PoolProblem {
    #[error("pool {pool}: directory {directory} cannot be used")]
    Host {
        pool: PoolName,
        directory: PathBuf,
        #[source]
        source: HostError,
    },
    #[error(
        "pool {pool}: directory {directory} is on {fs_type}; set `directory` to one on ext4, xfs or btrfs, where what a \
         file's blocks were can be proven"
    )]
    WrongFilesystem { pool: PoolName, directory: PathBuf, fs_type: String },
    #[error(
        "pool {pool}: directory {directory} is mounted read-only; remount it writable, or set `directory` elsewhere"
    )]
    ReadOnly { pool: PoolName, directory: PathBuf },
    #[error(
        "pool {pool}: the filesystem of {directory} is mounted with data=journal, which keeps copies of data in the host's \
         journal; remount it with data=ordered"
    )]
    DataJournal { pool: PoolName, directory: PathBuf },
    #[error(
        "pool {pool}: on btrfs, {directory} must be the root of a subvolume of its own, so that host snapshots of \
         others leave it alone; make it with `btrfs subvolume create {directory}`"
    )]
    NotOwnSubvolume { pool: PoolName, directory: PathBuf },
    #[error(
        "pool {pool}: on btrfs, {directory} must have copy-on-write and compression off before the first file; run \
         `chattr +C {directory}` on the empty directory and mount without compress"
    )]
    CopyOnWrite { pool: PoolName, directory: PathBuf },
    #[error("pool {pool}: the filesystem of {directory} has no UUID that this kernel tells; use ext4, xfs or btrfs")]
    NoUuid { pool: PoolName, directory: PathBuf },
    #[error(
        "pool {pool} is absent: {directory} has no {MARKER} of this pool; mount its filesystem there (nothing is made in \
         the directory as it is)"
    )]
    MarkerMissing { pool: PoolName, directory: PathBuf },
    #[error("pool {pool}: {directory}/{MARKER} cannot be read ({why}); restore it from a backup")]
    MarkerBroken { pool: PoolName, directory: PathBuf, why: String },
    #[error(
        "pool {pool}: {directory}/{MARKER} is of {what}; this directory is another pool, or a copy: set `directory` to \
         where this pool really is"
    )]
    OtherPool { pool: PoolName, directory: PathBuf, what: String },
    #[error(
        "pool {pool}: {directory} has no {MARKER} but holds {file}, which looks like a volume; give back the marker file, \
         or use an empty directory"
    )]
    NotEmpty { pool: PoolName, directory: PathBuf, file: String },
}

/// A file in the pool that the ledger does not know: withheld, never touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Its name.
    pub file: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// An open pool, locked for this process.
pub struct Pool {
    /// Its settings.
    pub config: PoolConfig,
    /// Its directory.
    pub dir: Dir,
    /// How the ledger knows it.
    pub record: PoolRecord,
    /// Files in it that the ledger does not know.
    pub found: Vec<Found>,
    /// Whether the ledger must still be told of it.
    pub is_new: bool,
    lock: Arc<dyn Lock>,
}

/// What the filesystem beneath must be, whatever the pool holds.
fn suited(config: &PoolConfig, facts: &PoolFacts) -> Result<Uuid, PoolProblem> {
    let (pool, directory) = (config.name.clone(), config.directory.clone());
    match facts.fs_type.as_str() {
        "ext4" if facts.options.iter().any(|o| o == "data=journal") => {
            return Err(PoolProblem::DataJournal { pool, directory });
        }
        "btrfs" if !facts.own_subvolume => return Err(PoolProblem::NotOwnSubvolume { pool, directory }),
        "btrfs" if !facts.overwrites_in_place => return Err(PoolProblem::CopyOnWrite { pool, directory }),
        "ext4" | "xfs" | "btrfs" => {}
        _ => return Err(PoolProblem::WrongFilesystem { pool, directory, fs_type: facts.fs_type.clone() }),
    }
    if facts.read_only {
        return Err(PoolProblem::ReadOnly { pool, directory });
    }
    facts.fs_uuid.ok_or(PoolProblem::NoUuid { pool, directory })
}

impl Pool {
    /// Open a pool, or make it where the ledger has never seen one of this name.
    ///
    /// # Errors
    /// Whenever it cannot be proven to be this pool on a filesystem that keeps the promises.
    pub fn open(host: &Arc<dyn Host>, config: PoolConfig, ledger: &Ledger, fresh: Uuid) -> Result<Self, PoolProblem> {
        let (name, directory) = (config.name.clone(), config.directory.clone());
        let failed = |source| PoolProblem::Host { pool: name.clone(), directory: directory.clone(), source };
        let dir = host.open_dir(&config.directory).map_err(failed)?;
        let facts = host.pool_facts(&dir).map_err(failed)?;
        let known = ledger.pools.get(&config.name);
        let marker = host.read(&dir, MARKER).map_err(failed)?;
        if let (Some(_), None) = (known, &marker) {
            // Before looking at the filesystem: an unmounted pool's directory may well be on a wrong one.
            return Err(PoolProblem::MarkerMissing { pool: name, directory });
        }
        let fs_uuid = suited(&config, &facts)?;
        let lock = host.lock(&dir, LOCK).map_err(failed)?;
        let marker = match marker {
            Some(bytes) => serde_json::from_slice::<Marker>(&bytes).map_err(|e| PoolProblem::MarkerBroken {
                pool: name.clone(),
                directory: directory.clone(),
                why: e.to_string(),
            })?,
            None => begin(&**host, &dir, &config, fs_uuid, ledger.id, fresh, failed)?,
        };
        let other = |what: String| PoolProblem::OtherPool { pool: name.clone(), directory: directory.clone(), what };
        if marker.pool != config.name {
            return Err(other(format!("pool {}", marker.pool)));
        }
        if marker.fs_uuid != fs_uuid {
            return Err(other(format!("filesystem {}, not {fs_uuid}", marker.fs_uuid)));
        }
        if known.is_some_and(|known| known.uuid != marker.uuid || known.fs_uuid != marker.fs_uuid) {
            return Err(other(format!("a pool with uuid {}", marker.uuid)));
        }
        if known.is_none() {
            // Whoever wrote the marker may have been killed before its name was durable; the ledger must not know a
            // pool that a power cut can take away.
            host.sync_dir(&dir).map_err(failed)?;
        }
        let record = PoolRecord { uuid: marker.uuid, fs_uuid, directory: config.directory.display().to_string() };
        let mut pool = Self { config, dir, record, found: Vec::new(), is_new: known.is_none(), lock: lock.into() };
        pool.found = pool.unknown_files(&**host, ledger).map_err(failed)?;
        Ok(pool)
    }

    /// The same open pool under other settings; the directory stays.
    #[must_use]
    pub fn with(&self, config: PoolConfig) -> Self {
        Self {
            config: PoolConfig { directory: self.config.directory.clone(), ..config },
            dir: self.dir.clone(),
            record: self.record.clone(),
            found: self.found.clone(),
            is_new: false,
            lock: self.lock.clone(),
        }
    }

    /// Files that look like volumes but that no living volume of the ledger owns.
    pub fn unknown_files(&self, host: &dyn Host, ledger: &Ledger) -> Result<Vec<Found>, HostError> {
        let mut found = Vec::new();
        for file in host.list(&self.dir)?.into_iter().filter(|f| f.ends_with(SUFFIX)) {
            if !self.owns(ledger, &file) {
                let bytes = host.backing(&self.dir, &file)?.map_or(0, |facts| facts.size);
                found.push(Found { file, bytes });
            }
        }
        Ok(found)
    }

    fn owns(&self, ledger: &Ledger, file: &str) -> bool {
        ledger.volumes.values().any(|v| v.spec().pool == self.config.name && v.spec().file == file && !v.is_over())
    }

    /// Of the files found at the opening, those that are still unknown to the ledger.
    pub fn still_unknown(&self, ledger: &Ledger) -> Vec<Found> {
        self.found.iter().filter(|f| !self.owns(ledger, &f.file)).cloned().collect()
    }

    /// The best a wipe in this pool can state.
    pub fn best_level(&self) -> Level {
        match self.config.method {
            ZeroMethod::DirectWrites => Level::Clear,
            ZeroMethod::ZeroRange => Level::Isolation,
        }
    }

    /// Bytes that a new volume may take now. `available` is what the host's filesystem still gives.
    pub fn free(&self, ledger: &Ledger, available: u64) -> Bytes {
        // Reserved volumes may or may not have taken their blocks yet: counted in full, so never over-committed.
        self.free_beside(ledger, available, |_| true)
    }

    /// The same if only those Reserved volumes that are `counted` still had their blocks to take.
    pub fn free_beside(&self, ledger: &Ledger, available: u64, counted: impl Fn(&VolumeId) -> bool) -> Bytes {
        let pending: u64 = ledger
            .volumes
            .values()
            .filter(|v| {
                // Of every pool on this filesystem: they draw on the same room.
                let beneath = ledger.pools.get(&v.spec().pool).map(|p| p.fs_uuid);
                beneath == Some(self.record.fs_uuid) && matches!(v, AnyVolume::Reserved(_)) && counted(&v.spec().id)
            })
            .fold(0, |sum, v| sum.saturating_add(v.spec().bytes));
        let by_host = available.saturating_sub(pending).saturating_sub(self.config.reserve.get());
        let found: u64 = self.still_unknown(ledger).iter().fold(0, |sum, f| sum.saturating_add(f.bytes));
        let withheld = ledger.withheld(&self.config.name).saturating_add(found);
        let by_rule = self.config.capacity.map_or(u64::MAX, |c| c.get().saturating_sub(withheld));
        Bytes(by_host.min(by_rule)).align_down(GRAIN)
    }
}

/// Write the marker of a new pool.
fn begin(
    host: &dyn Host,
    dir: &Dir,
    config: &PoolConfig,
    fs_uuid: Uuid,
    ledger: LedgerId,
    uuid: Uuid,
    failed: impl Fn(HostError) -> PoolProblem,
) -> Result<Marker, PoolProblem> {
    if let Some(file) = host.list(dir).map_err(&failed)?.into_iter().find(|f| f.ends_with(SUFFIX)) {
        return Err(PoolProblem::NotEmpty { pool: config.name.clone(), directory: config.directory.clone(), file });
    }
    let marker = Marker { version: 1, pool: config.name.clone(), uuid, fs_uuid, ledger };
    let bytes = serde_json::to_vec_pretty(&marker).map_err(|e| PoolProblem::MarkerBroken {
        pool: config.name.clone(),
        directory: config.directory.clone(),
        why: e.to_string(),
    })?;
    host.write(dir, MARKER_NEXT, &bytes).map_err(&failed)?;
    host.sync_file(dir, MARKER_NEXT).map_err(&failed)?;
    host.rename(dir, MARKER_NEXT, MARKER).map_err(&failed)?;
    host.sync_dir(dir).map_err(&failed)?;
    Ok(marker)
}
