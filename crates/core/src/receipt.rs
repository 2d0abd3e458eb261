//! Receipts: what a wipe leaves behind (G3), each holding the hash of the one before.
//!
//! A receipt is part of the journal's Verified record, so no crash can part the proof from the state; the receipts log
//! is a copy for people and auditors. The hash is SHA-256 over the receipt's JSON with an empty `hash` field.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::extent::PhysicalMap;
use crate::ids::{LedgerId, NodeName, PoolName, VolumeId};
use crate::volume::{Claim, Release};
use crate::wipe::{Level, LevelLoss, Seed, Verification, ZeroMethod};

/// The disk beneath a pool, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskName {
    /// Serial number, or null.
    pub serial: Option<String>,
    /// World-wide name, or null.
    pub wwn: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// `strong` (serial or WWN) or `weak` (only the filesystem's UUID).
    pub identity: String,
    /// Kernel name at the time of the wipe; not an identity.
    pub device: Option<String>,
    /// UUID of the host filesystem that the range lies in.
    pub filesystem_uuid: Option<String>,
}

/// What was read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadBack {
    /// Full or sample.
    #[serde(flatten)]
    pub kind: Verification,
    /// Bytes read.
    pub bytes: u64,
    /// Share of unwiped blocks, in parts per million, that would escape with at most 5 % probability.
    pub bound_ppm: u32,
    /// Canaries planted, each read back before zeroing and searched for afterwards.
    pub canaries: u64,
}

/// The evidence of one finished wipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Format of this receipt.
    pub version: u32,
    /// Its number in this ledger, from 1.
    pub number: u64,
    /// The ledger that wrote it.
    pub ledger: LedgerId,
    /// On which node.
    pub node: NodeName,
    /// Which volume.
    pub volume: VolumeId,
    /// The name it was asked for under.
    pub name: String,
    /// Whose it was.
    pub claim: Claim,
    /// The class parameters it was made with.
    pub class: std::collections::BTreeMap<String, String>,
    /// The authority to wipe it.
    pub release: Release,
    /// In which pool.
    pub pool: PoolName,
    /// On which disk.
    pub disk: DiskName,
    /// How many bytes were wiped.
    pub bytes: u64,
    /// Which ranges, as recorded when the volume was made.
    pub ranges: PhysicalMap,
    /// How.
    pub method: ZeroMethod,
    /// Overwriting passes.
    pub passes: u32,
    /// Places of canaries and samples derive from it.
    pub seed: Seed,
    /// What was read back.
    pub verification: ReadBack,
    /// Offsets where the wipe went on after a restart.
    pub resumed_at: Vec<u64>,
    /// What the evidence carries.
    pub level: Level,
    /// Why not more.
    pub level_losses: Vec<LevelLoss>,
    /// When the wipe began.
    pub started: Timestamp,
    /// When its verification ended.
    pub ended: Timestamp,
    /// Version of the agent.
    pub agent: String,
    /// Hash of the receipt before; for the first, of the ledger's id.
    pub previous: String,
    /// Hash of this one.
    pub hash: String,
}

/// What a receipt of the first version says in `version`.
pub const RECEIPT_VERSION: u32 = 1;

/// The hash that the first receipt of a ledger follows.
#[must_use]
pub fn genesis(ledger: LedgerId) -> String {
    hex::encode(Sha256::digest(ledger.0.as_bytes()))
}

impl Receipt {
    /// The hash this receipt ought to have, or `None` where it cannot be written as JSON.
    #[must_use]
    pub fn computed_hash(&self) -> Option<String> {
        let mut blank = self.clone();
        blank.hash.clear();
        Some(hex::encode(Sha256::digest(serde_json::to_vec(&blank).ok()?)))
    }
}

/// What is wrong with a chain of receipts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum BrokenChain {
    #[error("receipt {number} (volume {volume}) was changed: its hash does not match its content")]
    Changed { number: u64, volume: VolumeId },
    #[error(
        "receipt {number} (volume {volume}) does not follow the one before: a receipt is missing, added or out of order"
    )]
    Gap { number: u64, volume: VolumeId },
}

/// The receipts of one ledger in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Which ledger.
    pub ledger: LedgerId,
    /// How many.
    pub receipts: u64,
    /// The hash that the next one must follow.
    pub last: String,
}

/// Check a whole log: every ledger that ever wrote into it has a chain of its own, in order of their first receipts. (A
/// ledger that was lost and begun anew goes on in the same log.)
///
/// # Errors
/// At the first receipt that does not fit.
pub fn verify_log(receipts: &[Receipt]) -> Result<Vec<Chain>, BrokenChain> {
    let mut ledgers: Vec<LedgerId> = Vec::new();
    for receipt in receipts {
        if !ledgers.contains(&receipt.ledger) {
            ledgers.push(receipt.ledger);
        }
    }
    let chain = |ledger| {
        let own = || receipts.iter().filter(move |r| r.ledger == ledger);
        Ok(Chain { ledger, receipts: own().count() as u64, last: verify_chain(ledger, own())? })
    };
    ledgers.into_iter().map(chain).collect()
}

/// Check a chain from its first receipt on; the answer is the hash the next one must follow.
///
/// # Errors
/// At the first receipt that does not fit.
pub fn verify_chain<'a>(
    ledger: LedgerId,
    receipts: impl IntoIterator<Item = &'a Receipt>,
) -> Result<String, BrokenChain> {
    let mut previous = genesis(ledger);
    for (number, receipt) in (1..).zip(receipts) {
        let volume = || receipt.volume.clone();
        if receipt.computed_hash().as_deref() != Some(&receipt.hash) {
            return Err(BrokenChain::Changed { number: receipt.number, volume: volume() });
        }
        if receipt.previous != previous || receipt.number != number || receipt.ledger != ledger {
            return Err(BrokenChain::Gap { number: receipt.number, volume: volume() });
        }
        previous.clone_from(&receipt.hash);
    }
    Ok(previous)
}
