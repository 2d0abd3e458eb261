//! The ledger at one moment, as a front end tells of it: every pool's room and every volume, without their extents.

use std::collections::BTreeMap;

use bedplate_core::ids::{LedgerId, PoolName, VolumeId};
use bedplate_core::ledger::Ledger;
use bedplate_core::receipt::Receipt;
use bedplate_core::volume::{AnyVolume, Claim, Mode, Origin};
use bedplate_core::wipe::Level;

use super::{Engine, PoolState, PoolView, Progress};
use crate::receipts::ReceiptsError;

/// How many names are looked up by a walk of their own.
const FEW: usize = 2;

/// A volume, without its extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Its id.
    pub id: VolumeId,
    /// The name it was asked for under.
    pub name: String,
    /// Its pool.
    pub pool: PoolName,
    /// Why that pool is not there, if it is not.
    pub absent: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// How it is offered.
    pub mode: Mode,
    /// Its backing file, where it still has one.
    pub file: Option<String>,
    /// Whose it is.
    pub claim: Claim,
    /// The level its class demands.
    pub demand: Option<Level>,
    /// Its class's parameters.
    pub parameters: BTreeMap<String, String>,
    /// What its orchestrator's object said besides.
    pub origin: Option<Origin>,
    /// Name of its state in the ledger.
    pub phase: &'static str,
    /// What there is to say about it.
    pub detail: String,
    /// Whether it may ever have been handed to anybody.
    pub ever_staged: bool,
    /// Number of its receipt.
    pub receipt: Option<u64>,
    /// How far its wipe is.
    pub progress: Option<Progress>,
}

/// What the ledger knows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing, ever.
    Never,
    /// A volume had it, whose tombstone is forgotten.
    UsedUp,
    /// This volume has it, or had it last.
    Volume(Box<Outline>),
}

/// What the ledger knows of some names, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knowledge {
    /// The ledger.
    pub ledger: LedgerId,
    /// Directory of every pool, where one is known.
    pub directories: BTreeMap<PoolName, String>,
    /// Of each name, in the order asked.
    pub known: Vec<Known>,
}

/// Pools and volumes of one moment: each pool's free bytes count every volume of the list, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portrait {
    /// The ledger.
    pub ledger: LedgerId,
    /// Every pool the engine was told of.
    pub pools: Vec<PoolView>,
    /// Every volume that is not over.
    pub volumes: Vec<Outline>,
    /// Operations a second promised, by pool.
    pub promised: BTreeMap<PoolName, u64>,
    /// Receipts given out so far.
    pub receipts: u64,
}

impl Engine {
    /// Everything at this moment. What it shows may not be durable yet: see [`Engine::durable`].
    pub fn portrait(&self) -> Portrait {
        let states = self.pool_states();
        let progress = self.all_progress();
        self.store.look(|ledger| {
            let pools = self.pool_views(&states, ledger);
            let promised = pools.iter().map(|pool| (pool.name.clone(), ledger.promised_iops(&pool.name))).collect();
            let living = ledger.volumes.values().filter(|volume| !volume.is_over());
            let volumes = living.map(|volume| outline(volume, &states, &progress)).collect();
            Portrait { ledger: ledger.id, pools, volumes, promised, receipts: ledger.receipts }
        })
    }

    /// What the ledger knows of a name.
    pub fn named(&self, name: &str) -> Known {
        self.knowledge(std::slice::from_ref(&name)).known.pop().unwrap_or(Known::Never)
    }

    /// What the ledger knows of some names. Asks no filesystem.
    pub fn knowledge<N: AsRef<str>>(&self, names: &[N]) -> Knowledge {
        let states = self.pool_states();
        let progress = self.all_progress();
        let known = |ledger: &Ledger, found: Option<&AnyVolume>, name: &str| match found {
            Some(volume) => Known::Volume(Box::new(outline(volume, &states, &progress))),
            None if ledger.is_used_up(name) => Known::UsedUp,
            None => Known::Never,
        };
        self.store.look(|ledger| {
            // One walk over the volumes for many names; few are walked to one by one.
            let known = if names.len() > FEW {
                let named = ledger.all_named();
                names.iter().map(AsRef::as_ref).map(|name| known(ledger, named.get(name).copied(), name)).collect()
            } else {
                names.iter().map(AsRef::as_ref).map(|name| known(ledger, ledger.named(name), name)).collect()
            };
            let directories = states.iter().filter_map(|(name, state)| {
                let directory = match &state.open {
                    Ok(_) => state.config.directory.display().to_string(),
                    Err(_) => ledger.pools.get(name)?.directory.clone(),
                };
                Some((name.clone(), directory))
            });
            Knowledge { ledger: ledger.id, directories: directories.collect(), known }
        })
    }

    /// This ledger's receipts from a place in the log on, some at a time, and the place where the next one begins; the same
    /// place where there are no more.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn receipts_from(&self, place: u64) -> Result<(Vec<Receipt>, u64), ReceiptsError> {
        let id = self.ledger_id();
        let (mut some, next) = crate::receipts::read_from(&*self.host, self.store.dir(), place)?;
        some.retain(|receipt| receipt.ledger == id);
        Ok((some, next))
    }
}

fn outline(
    volume: &AnyVolume,
    states: &BTreeMap<PoolName, PoolState>,
    progress: &BTreeMap<VolumeId, Progress>,
) -> Outline {
    let spec = volume.spec();
    let absent = match states.get(&spec.pool) {
        Some(PoolState { open: Ok(_), .. }) => None,
        Some(PoolState { open: Err(why), .. }) => Some(why.clone()),
        None => Some(format!("pool {} is not in the configuration; add it again", spec.pool)),
    };
    let (mut detail, mut receipt) = (String::new(), None);
    match volume {
        AnyVolume::Ready(v) => detail = v.state.losses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        AnyVolume::Stuck(v) => detail = v.state.reason.to_string(),
        AnyVolume::Forgotten(v) => detail = format!("by {}", v.state.by),
        AnyVolume::Freed(v) => receipt = Some(v.state.receipt),
        AnyVolume::Verified(v) => receipt = Some(v.state.receipt.number),
        AnyVolume::Reserved(_)
        | AnyVolume::Retained(_)
        | AnyVolume::Released(_)
        | AnyVolume::Quarantined(_)
        | AnyVolume::Wiping(_)
        | AnyVolume::Flushed(_)
        | AnyVolume::Verifying(_)
        | AnyVolume::Discarded(_) => {}
    }
    let ever_staged = match volume {
        AnyVolume::Ready(v) => v.state.ever_staged || v.state.staged.is_some(),
        AnyVolume::Reserved(_) | AnyVolume::Discarded(_) => false,
        // What came before the release is not kept: the careful answer.
        _ => true,
    };
    Outline {
        id: spec.id.clone(),
        name: spec.name.clone(),
        pool: spec.pool.clone(),
        absent,
        bytes: spec.bytes,
        mode: spec.mode,
        file: volume.backing().map(|_| spec.file.clone()),
        claim: spec.claim.clone(),
        demand: spec.demand,
        parameters: spec.parameters.clone(),
        origin: spec.origin.clone(),
        phase: volume.phase(),
        detail,
        ever_staged,
        receipt,
        progress: progress.get(&spec.id).copied(),
    }
}
