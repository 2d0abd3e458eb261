//! Making a volume: reserve, allocate, look at the map, ready. A crash at any point leaves either a volume or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bedplate_blockdev::HostError;
use bedplate_core::bytes::Bytes;
use bedplate_core::chain::chain;
use bedplate_core::class::{Class, MediaDemand};
use bedplate_core::ids::{PoolName, VolumeId};
use bedplate_core::ledger::{Event, Ledger};
use bedplate_core::volume::{AnyVolume, Backing, BadSize, Change, Mode, Origin, Spec};
use bedplate_core::wipe::{Level, LevelLoss, VerifyDemand, losses_in_life};
use uuid::Uuid;

use super::{Busy, Engine, VolumeView};
use crate::config::PoolConfig;
use crate::pool::{Pool, SUFFIX};
use crate::store::CommitError;

/// A volume that somebody wants.
#[derive(Clone, Debug)]
pub struct CreateVolume {
    /// Under this name; asking again gives the same volume.
    pub name: String,
    /// At least this many bytes; 0 for any.
    pub required: u64,
    /// At most this many bytes; 0 for no limit.
    pub limit: u64,
    /// Offered how.
    pub mode: Mode,
    /// Of this class.
    pub class: Class,
    /// The parameters that the class was read from.
    pub parameters: BTreeMap<String, String>,
    /// What the orchestrator's object says besides; with it, a name that was ever used is refused.
    pub origin: Option<Origin>,
}

/// Why one pool does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum Misfit {
    #[error("pool {pool} is absent ({why})")]
    Absent { pool: PoolName, why: String },
    #[error("pool {pool} is not the one the class names")]
    NotNamed { pool: PoolName },
    #[error("pool {pool} is on {has}, the class asks for {wants}")]
    Medium { pool: PoolName, has: &'static str, wants: &'static str },
    #[error("pool {pool} can wipe to level {best}, the class demands {wants}")]
    Level { pool: PoolName, best: Level, wants: Level },
    #[error("pool {pool} has {free} free of the {wants} asked (its host keeps a reserve of {reserve})")]
    Full { pool: PoolName, free: Bytes, wants: Bytes, reserve: Bytes },
    #[error(
        "pool {pool} may have the {wants} asked or only {free}: it is known when the volumes that are being made there are made, ask again"
    )]
    Crowded { pool: PoolName, free: Bytes, wants: Bytes },
    #[error("pool {pool} is draining: no new volumes are made in it")]
    Draining { pool: PoolName },
    #[error("pool {pool} has {left} of its {budget} operations a second left, {wants} are asked")]
    Iops { pool: PoolName, left: u64, budget: u64, wants: u64 },
    #[error("pool {pool} gave blocks whose wipe could only state isolation, the class demands {wants}: {why}")]
    Blocks { pool: PoolName, wants: Level, why: String },
}

/// Why no volume was made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum CreateError {
    #[error(transparent)]
    Busy(Busy),
    #[error("volume name {name:?} is taken by {id}, which differs in {what}; use another name")]
    Taken { name: String, id: VolumeId, what: String },
    #[error("volume {id} of the name {name:?} is being deleted ({phase}); try again when its wipe is done")]
    BeingDeleted { name: String, id: VolumeId, phase: &'static str },
    #[error(
        "volume name {name:?} was used before on this node; what was made under it is gone and is never made again"
    )]
    UsedUp { name: String },
    #[error("volume {name:?}: required_bytes {required} is above limit_bytes {limit}")]
    Contradiction { name: String, required: u64, limit: u64 },
    #[error("volume {name:?}: the smallest possible here is {smallest} ({why}), above limit_bytes {limit}")]
    LimitTooSmall { name: String, smallest: Bytes, limit: u64, why: String },
    #[error("volume {name:?}: required_bytes {required} is more than can be counted")]
    TooLarge { name: String, required: u64 },
    #[error("volume {name:?} fits nowhere on this node: {}", .misfits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Misfit { name: String, misfits: Vec<Misfit> },
    #[error("volume {name:?} cannot be made yet: {}", .misfits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Crowded { name: String, misfits: Vec<Misfit> },
    #[error("volume {name:?} could not be made in pool {pool}; nothing of it is left")]
    Host {
        name: String,
        pool: PoolName,
        #[source]
        source: HostError,
    },
    #[error(
        "volume {name:?} could not be made in pool {pool}, and what was made could not be removed ({cleanup}): it stays withheld, and its removal is tried again"
    )]
    HostAndCleanup {
        name: String,
        pool: PoolName,
        #[source]
        source: HostError,
        cleanup: String,
    },
    #[error("volume {name:?} could not be journalled")]
    Commit {
        name: String,
        #[source]
        source: CommitError,
    },
}

impl Engine {
    /// Make a volume, or give the one of this name.
    ///
    /// # Errors
    /// See [`CreateError`]; nothing is left behind unless it says so.
    pub fn create(&self, want: &CreateVolume) -> Result<VolumeView, CreateError> {
        let _turn = self.turn(format!("volume name {:?}", want.name)).map_err(CreateError::Busy)?;
        let commit = |source| CreateError::Commit { name: want.name.clone(), source };
        let bytes = size(want)?;
        let known = self.store.look(|ledger| ledger.by_name(&want.name).map(|v| v.spec().id.clone()));
        if let Some(volume) = known.and_then(|id| self.volume_now(&id)) {
            // A change that never became durable must not be answered as if it had.
            if let Some(why) = self.failure() {
                return Err(CreateError::Busy(Busy {
                    object: format!("volume {}", volume.spec().id),
                    closed: Some(why),
                }));
            }
            return self.again(want, &volume);
        }
        let (id, file) = self.fresh_names();
        let _making = Making::of(&self.making, &id);
        // Chosen and reserved under one lock: two requests cannot both take the last room.
        let reserved = self.store.commit(|ledger| {
            if want.origin.is_some() && (ledger.named(&want.name).is_some() || ledger.is_used_up(&want.name)) {
                return Err(CreateError::UsedUp { name: want.name.clone() });
            }
            let pool = self.choose(ledger, want, bytes)?;
            let spec = Spec {
                id: id.clone(),
                name: want.name.clone(),
                pool: pool.config.name.clone(),
                bytes,
                mode: want.mode,
                file: file.clone(),
                demand: want.class.wipe,
                verify: match want.class.verify {
                    VerifyDemand::Auto => pool.config.verify,
                    demand => demand,
                },
                mkfs_options: want.class.mkfs_options.clone(),
                claim: want.class.claim.clone(),
                parameters: want.parameters.clone(),
                created: self.surroundings.now(),
                origin: want.origin.clone(),
            };
            Ok::<_, CreateError>((Event::Reserved { spec: spec.clone() }, (spec, pool)))
        });
        let (spec, pool) = reserved.map_err(commit)??;
        let _volume_turn = self.turn_for(&id).map_err(CreateError::Busy)?;
        let problem = match self.make(&pool, &spec) {
            Ok(backing) => match blocks_fit(&pool, &spec, &backing) {
                Ok(()) => {
                    self.change(&id, Change::Ready { backing }).map_err(commit)?;
                    tracing::info!(volume = %id, name = want.name, pool = %spec.pool, bytes, "volume made");
                    return self
                        .volume(&id)
                        .ok_or(CreateError::Busy(Busy { object: format!("volume {id}"), closed: None }));
                }
                Err(misfit) => CreateError::Misfit { name: want.name.clone(), misfits: vec![misfit] },
            },
            Err(source) if source.is_full() => {
                let misfit = self.full(&pool, bytes);
                CreateError::Misfit { name: want.name.clone(), misfits: vec![misfit] }
            }
            Err(source) => CreateError::Host { name: want.name.clone(), pool: spec.pool.clone(), source },
        };
        // Nobody has seen it: what was made may go without a wipe.
        match self.remove_unseen(&pool, &spec.file) {
            Ok(()) => {
                self.change(&id, Change::Discarded).map_err(commit)?;
                Err(problem)
            }
            Err(cleanup) => {
                let source = match problem {
                    CreateError::Host { source, .. } => source,
                    other => HostError::failed("make", want.name.clone(), std::io::Error::other(other.to_string())),
                };
                let cleanup = chain(&cleanup);
                self.unmade.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
                Err(CreateError::HostAndCleanup { name: want.name.clone(), pool: spec.pool, source, cleanup })
            }
        }
    }

    /// Try once more to remove what failed creations of this run left behind. Only what the ledger calls reserved, and
    /// nobody ever wrote to, goes.
    pub fn clean_up_unmade(&self) {
        let left: Vec<VolumeId> = self.unmade.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        for id in left {
            let Ok(_turn) = self.turn_for(&id) else { continue };
            if let Some(AnyVolume::Reserved(volume)) = self.volume_now(&id) {
                let Ok(pool) = self.pool(&volume.spec.pool) else { continue };
                if let Err(error) = self.remove_unseen(&pool, &volume.spec.file) {
                    tracing::warn!(volume = %id, error = %chain(&error), "what a failed creation left is still there");
                    continue;
                }
                if let Err(error) = self.change(&id, Change::Discarded) {
                    tracing::error!(volume = %id, error = %chain(&error), "a removal could not be journalled");
                    continue;
                }
                tracing::info!(volume = %id, "what a failed creation left is removed");
            }
            self.unmade.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }

    /// The volume of that name, if it is what is wanted.
    fn again(&self, want: &CreateVolume, volume: &AnyVolume) -> Result<VolumeView, CreateError> {
        let spec = volume.spec();
        let taken = |what: String| CreateError::Taken { name: want.name.clone(), id: spec.id.clone(), what };
        if spec.bytes < want.required || (want.limit > 0 && spec.bytes > want.limit) {
            return Err(taken(format!("size: it has {} bytes", spec.bytes)));
        }
        if spec.mode != want.mode {
            return Err(taken(format!("mode: it is {}", spec.mode)));
        }
        if spec.parameters != want.parameters {
            return Err(taken("its class parameters".to_owned()));
        }
        match volume {
            AnyVolume::Ready(_) => Ok(self.view(volume)),
            AnyVolume::Reserved(_) => {
                Err(CreateError::Busy(Busy { object: format!("volume {}", spec.id), closed: None }))
            }
            other => {
                Err(CreateError::BeingDeleted { name: want.name.clone(), id: spec.id.clone(), phase: other.phase() })
            }
        }
    }

    fn fresh_names(&self) -> (VolumeId, String) {
        let random = self.surroundings.random();
        let file = format!("vol-{}{SUFFIX}", hex::encode(&random[16..]));
        (VolumeId::from_random(crate::store::half(random)), file)
    }

    /// The pool it goes to: among those that fit, the one with the most room.
    fn choose(&self, ledger: &Ledger, want: &CreateVolume, bytes: u64) -> Result<Arc<Pool>, CreateError> {
        let mut best: Option<(Bytes, Arc<Pool>)> = None;
        let mut misfits = Vec::new();
        for (name, state) in self.pool_states() {
            let pool = match state.open {
                Ok(pool) => pool,
                Err(why) => {
                    misfits.push(Misfit::Absent { pool: name, why });
                    continue;
                }
            };
            let fits = self.judge(ledger, &pool, &want.class, bytes).and_then(|free| {
                promise_fits(ledger, &pool.config, want.origin.as_ref())?;
                Ok(free)
            });
            match fits {
                Ok(free) if best.as_ref().is_none_or(|(most, _)| free > *most) => best = Some((free, pool)),
                Ok(_) => {}
                Err(misfit) => misfits.push(misfit),
            }
        }
        // Where the class names a pool, the others' "not named" is noise.
        if misfits.iter().any(|m| !matches!(m, Misfit::NotNamed { .. })) {
            misfits.retain(|m| !matches!(m, Misfit::NotNamed { .. }));
        }
        best.map(|(_, pool)| pool).ok_or_else(|| {
            let name = want.name.clone();
            if misfits.iter().any(|m| matches!(m, Misfit::Crowded { .. })) {
                CreateError::Crowded { name, misfits }
            } else {
                CreateError::Misfit { name, misfits }
            }
        })
    }

    /// Whether `bytes` of `class` fit into `pool`, and what is free there.
    fn judge(&self, ledger: &Ledger, pool: &Pool, class: &Class, bytes: u64) -> Result<Bytes, Misfit> {
        let name = || pool.config.name.clone();
        if class.pool.as_ref().is_some_and(|wanted| wanted != &pool.config.name) {
            return Err(Misfit::NotNamed { pool: name() });
        }
        if pool.config.draining {
            return Err(Misfit::Draining { pool: name() });
        }
        if let Some(wants) = class.media {
            let fits = pool.config.media == Some(wants)
                || (wants == MediaDemand::Ssd && pool.config.media == Some(MediaDemand::Nvme));
            if !fits {
                let has = pool.config.media.map_or("an unknown medium", MediaDemand::name);
                return Err(Misfit::Medium { pool: name(), has, wants: wants.name() });
            }
        }
        if let Some(wants) = class.wipe
            && !pool.best_level().satisfies(wants)
        {
            return Err(Misfit::Level { pool: name(), best: pool.best_level(), wants });
        }
        let available = match self.host.pool_facts(&pool.dir) {
            Ok(facts) => facts.available,
            Err(error) => return Err(Misfit::Absent { pool: name(), why: chain(&error) }),
        };
        let free = pool.free(ledger, available);
        if free.get() < bytes {
            // Those under way may have taken their blocks already and count twice. What was begun and is not being made,
            // because it failed and could not be removed or its pool is away, stays as it is: nothing to wait for.
            let making = self.making.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if pool.free_beside(ledger, available, |id| !making.contains(id)).get() >= bytes {
                return Err(Misfit::Crowded { pool: name(), free, wants: Bytes(bytes) });
            }
            return Err(Misfit::Full { pool: name(), free, wants: Bytes(bytes), reserve: pool.config.reserve });
        }
        Ok(free)
    }

    /// How much a volume of `class` may have here at most: the largest single room, and all of it. Pools on one
    /// filesystem draw on the same room, which counts once.
    pub fn room(&self, class: &Class) -> (Bytes, Bytes) {
        self.store.look(|ledger| {
            let mut rooms: BTreeMap<Uuid, Bytes> = BTreeMap::new();
            for pool in self.pool_states().into_values().filter_map(|state| state.open.ok()) {
                if let Ok(free) = self.judge(ledger, &pool, class, 0) {
                    let room = rooms.entry(pool.record.fs_uuid).or_default();
                    *room = free.max(*room);
                }
            }
            let sum = rooms.values().fold(Bytes::ZERO, |sum, room| sum.checked_add(*room).unwrap_or(Bytes(u64::MAX)));
            (rooms.into_values().max().unwrap_or_default(), sum)
        })
    }

    fn full(&self, pool: &Pool, bytes: u64) -> Misfit {
        let available = self.host.pool_facts(&pool.dir).map_or(0, |facts| facts.available);
        let free = self.store.look(|ledger| pool.free(ledger, available));
        Misfit::Full { pool: pool.config.name.clone(), free, wants: Bytes(bytes), reserve: pool.config.reserve }
    }

    /// Make the backing file, whole and durable.
    fn make(&self, pool: &Pool, spec: &Spec) -> Result<Backing, HostError> {
        let (host, dir, file) = (&self.host, &pool.dir, spec.file.as_str());
        let identity = host.create_backing(dir, file)?;
        host.allocate_backing(dir, file, &identity, spec.bytes)?;
        host.sync_file(dir, file)?;
        host.sync_dir(dir)?;
        let map = host.map(dir, file, &identity)?;
        Ok(Backing { identity, map })
    }
}

/// That a volume is being made, until dropped.
struct Making<'a> {
    all: &'a Mutex<BTreeSet<VolumeId>>,
    id: VolumeId,
}

impl<'a> Making<'a> {
    fn of(all: &'a Mutex<BTreeSet<VolumeId>>, id: &VolumeId) -> Self {
        all.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        Self { all, id: id.clone() }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Whether the operations a second that are promised to the volume are still to be had (G7).
fn promise_fits(ledger: &Ledger, pool: &PoolConfig, origin: Option<&Origin>) -> Result<(), Misfit> {
    let wants = origin.and_then(|o| o.promise.as_ref()?.iops).unwrap_or_default();
    let Some(budget) = pool.iops.filter(|_| wants > 0) else { return Ok(()) };
    let left = budget.saturating_sub(ledger.promised_iops(&pool.name));
    if wants > left { Err(Misfit::Iops { pool: pool.name.clone(), left, budget, wants }) } else { Ok(()) }
}

/// The size to make.
fn size(want: &CreateVolume) -> Result<u64, CreateError> {
    let name = || want.name.clone();
    want.mode.size(want.required, want.limit).map_err(|bad| match bad {
        BadSize::Contradiction { required, limit } => CreateError::Contradiction { name: name(), required, limit },
        BadSize::LimitTooSmall { smallest, limit, why } => {
            CreateError::LimitTooSmall { name: name(), smallest, limit, why }
        }
        BadSize::TooLarge { required } => CreateError::TooLarge { name: name(), required },
    })
}

/// Whether the blocks that the filesystem gave can be wiped to what the class demands.
fn blocks_fit(pool: &Pool, spec: &Spec, backing: &Backing) -> Result<(), Misfit> {
    let losses = losses_in_life(&backing.map, &backing.map, spec.bytes);
    // A hole is an over-commitment, whatever the class says.
    let hole = losses.iter().any(|l| matches!(l, LevelLoss::Hole { .. }));
    let wants = spec.demand.unwrap_or(Level::Isolation);
    if losses.is_empty() || (!hole && Level::Isolation.satisfies(wants)) {
        return Ok(());
    }
    let why = losses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(Misfit::Blocks { pool: pool.config.name.clone(), wants, why })
}
