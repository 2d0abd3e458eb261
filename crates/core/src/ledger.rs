//! The ledger: the journal's current state. It decides what exists on this node, not the API and not the disk.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ids::{LedgerId, NodeName, PoolName, VolumeId};
use crate::journal::Record;
use crate::receipt::{Receipt, genesis};
use crate::volume::{AnyVolume, Backing, Change, IllegalChange, Reserved, Retained, Spec, Volume};
use crate::wipe::LevelLoss;

/// Volumes that are over and still remembered after a compaction.
pub const TOMBSTONES: usize = 1_000;

/// A pool as it was first seen: the directory with this marker, on the filesystem with this UUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRecord {
    /// In the pool's marker file.
    pub uuid: Uuid,
    /// Of the filesystem beneath.
    pub fs_uuid: Uuid,
    /// Where it was; for people.
    pub directory: String,
}

/// What is journalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Event {
    /// The first line: a new ledger.
    Opened {
        /// Its id.
        ledger: LedgerId,
        /// On which node.
        node: NodeName,
    },
    /// The first line of a compacted journal.
    Snapshot {
        /// Everything.
        state: Ledger,
    },
    /// A pool was made or met.
    PoolAdded {
        /// Its name.
        name: PoolName,
        /// How to know it again.
        pool: PoolRecord,
    },
    /// Space is promised to a new volume.
    Reserved {
        /// What it will be.
        spec: Spec,
    },
    /// A file found in a pool was taken on, bytes and all, on a person's word: withheld until released.
    Adopted {
        /// What it is.
        spec: Spec,
        /// Its space.
        backing: Backing,
    },
    /// A volume changed.
    Volume {
        /// Which.
        id: VolumeId,
        /// How.
        #[serde(flatten)]
        change: Change,
    },
}

/// What exists on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Its id.
    pub id: LedgerId,
    /// The node.
    pub node: NodeName,
    /// Every pool ever seen here.
    pub pools: BTreeMap<PoolName, PoolRecord>,
    /// Every volume ever made here.
    pub volumes: BTreeMap<VolumeId, AnyVolume>,
    /// Receipts given out.
    pub receipts: u64,
    /// Hash of the last receipt, or of the ledger's id.
    pub last_receipt: String,
    /// Names of forgotten tombstones that an orchestrator's object may ask for again (a cluster restored from a backup
    /// does), as the first eight bytes of their SHA-256: such a name is never used for another volume.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub used_names: BTreeSet<u64>,
}

/// Why an event does not fit the ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum IllegalEvent {
    #[error("the journal does not begin with an opening record")]
    NoBeginning,
    #[error("a second opening record")]
    SecondBeginning,
    #[error("volume {id} exists already: an id is never used again")]
    Reused { id: VolumeId },
    #[error("volume {id} was never reserved")]
    Unknown { id: VolumeId },
    #[error("pool {name} is known with another marker")]
    PoolChanged { name: PoolName },
    #[error("receipt {number} does not follow the last one")]
    ReceiptOutOfOrder { number: u64 },
    #[error(transparent)]
    Change(#[from] IllegalChange),
}

/// How a log of receipts differs from what the ledger knows it gave out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum LogDiffers {
    #[error("receipt {number} of ledger {ledger} is missing at the end: the ledger gave out {given}")]
    Missing { ledger: LedgerId, number: u64, given: u64 },
    #[error("receipt {number} of ledger {ledger} is not the one that the ledger gave out: its hash differs")]
    Different { ledger: LedgerId, number: u64 },
}

impl Ledger {
    /// Check the end of a log, whose chains are whole in themselves: it holds every receipt this ledger gave out, up to
    /// the last one, but those whose volumes wait for being written there before they are freed. The log may have been
    /// read later than the ledger and hold more.
    ///
    /// # Errors
    /// Where the end was cut off or written anew.
    pub fn check_log(&self, receipts: &[Receipt]) -> Result<(), LogDiffers> {
        let mut own = receipts.iter().filter(|r| r.ledger == self.id).map(|r| (r.number, r.hash.as_str()));
        let logged = own.clone().count() as u64;
        if let Some((number, hash)) = own.find(|(number, _)| *number == self.receipts)
            && hash != self.last_receipt
        {
            return Err(LogDiffers::Different { ledger: self.id, number });
        }
        let waits = |number: u64| {
            self.volumes.values().any(|v| matches!(v, AnyVolume::Verified(v) if v.state.receipt.number == number))
        };
        match (logged + 1..=self.receipts).find(|number| !waits(*number)) {
            Some(number) => Err(LogDiffers::Missing { ledger: self.id, number, given: self.receipts }),
            None => Ok(()),
        }
    }

    /// A new, empty one.
    #[must_use]
    pub fn new(id: LedgerId, node: NodeName) -> Self {
        Self {
            id,
            node,
            pools: BTreeMap::new(),
            volumes: BTreeMap::new(),
            receipts: 0,
            last_receipt: genesis(id),
            used_names: BTreeSet::new(),
        }
    }

    /// Replay a whole journal; `None` where it is empty.
    ///
    /// # Errors
    /// At the first event that does not fit.
    pub fn replay(records: Vec<Record>) -> Result<Option<Self>, IllegalEvent> {
        let mut ledger: Option<Self> = None;
        for record in records {
            match (&mut ledger, record.event) {
                (None, Event::Opened { ledger: id, node }) => ledger = Some(Self::new(id, node)),
                (None, Event::Snapshot { state }) => ledger = Some(state),
                (None, _) => return Err(IllegalEvent::NoBeginning),
                (Some(_), Event::Opened { .. } | Event::Snapshot { .. }) => return Err(IllegalEvent::SecondBeginning),
                (Some(ledger), event) => ledger.apply(event)?,
            }
        }
        Ok(ledger)
    }

    /// Take in one event. On an error the ledger is unchanged.
    ///
    /// # Errors
    /// Where it does not fit.
    pub fn apply(&mut self, event: Event) -> Result<(), IllegalEvent> {
        match event {
            Event::Opened { .. } | Event::Snapshot { .. } => Err(IllegalEvent::SecondBeginning),
            Event::PoolAdded { name, pool } => {
                if self.pools.get(&name).is_some_and(|known| known.uuid != pool.uuid || known.fs_uuid != pool.fs_uuid) {
                    return Err(IllegalEvent::PoolChanged { name });
                }
                self.pools.insert(name, pool);
                Ok(())
            }
            Event::Reserved { spec } => self.add(Volume { spec, state: Reserved }.into()),
            Event::Adopted { spec, backing } => {
                self.add(Volume { spec, state: Retained { backing, losses: vec![LevelLoss::HistoryUnknown] } }.into())
            }
            Event::Volume { id, change } => {
                let Some(volume) = self.volumes.get(&id) else { return Err(IllegalEvent::Unknown { id }) };
                let receipt = match &change {
                    Change::Verified { receipt } => {
                        if receipt.number != self.receipts + 1 || receipt.previous != self.last_receipt {
                            return Err(IllegalEvent::ReceiptOutOfOrder { number: receipt.number });
                        }
                        Some((receipt.number, receipt.hash.clone()))
                    }
                    _ => None,
                };
                let next = volume.clone().apply(change)?;
                self.volumes.insert(id, next);
                if let Some((number, hash)) = receipt {
                    self.receipts = number;
                    self.last_receipt = hash;
                }
                Ok(())
            }
        }
    }

    /// Forget the oldest tombstones. Ids are 128 random bits, so none is drawn again; a delete of an unknown id is
    /// answered like one of a freed one.
    pub fn prune(&mut self) {
        let mut over: Vec<(u64, VolumeId)> = self
            .volumes
            .iter()
            .filter_map(|(id, volume)| match volume {
                AnyVolume::Freed(v) => Some((v.state.receipt, id.clone())),
                AnyVolume::Discarded(_) => Some((0, id.clone())),
                _ => None,
            })
            .collect();
        over.sort_unstable();
        let surplus = over.len().saturating_sub(TOMBSTONES);
        for (_, id) in &over[..surplus] {
            if let Some(volume) = self.volumes.remove(id)
                && volume.spec().origin.is_some()
            {
                self.used_names.insert(digest(&volume.spec().name));
            }
        }
    }

    /// Whether the name belonged to a volume whose tombstone is forgotten. Collisions of 64 bits only refuse a name.
    #[must_use]
    pub fn is_used_up(&self, name: &str) -> bool {
        self.used_names.contains(&digest(name))
    }

    /// The volume that has or last had this name, over or not; the living one first.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&AnyVolume> {
        self.volumes.values().filter(|v| v.spec().name == name).max_by_key(|v| lately(v))
    }

    /// The same of every name at once.
    #[must_use]
    pub fn all_named(&self) -> BTreeMap<&str, &AnyVolume> {
        let mut named: BTreeMap<&str, &AnyVolume> = BTreeMap::new();
        for volume in self.volumes.values() {
            let last = named.entry(&volume.spec().name).or_insert(volume);
            if lately(volume) >= lately(last) {
                *last = volume;
            }
        }
        named
    }

    fn add(&mut self, volume: AnyVolume) -> Result<(), IllegalEvent> {
        let id = volume.spec().id.clone();
        if self.volumes.contains_key(&id) {
            return Err(IllegalEvent::Reused { id });
        }
        self.volumes.insert(id, volume);
        Ok(())
    }

    /// Bytes of `pool` that volumes keep from others.
    #[must_use]
    pub fn withheld(&self, pool: &PoolName) -> u64 {
        self.volumes.values().filter(|v| &v.spec().pool == pool).fold(0, |sum, v| sum.saturating_add(v.withholds()))
    }

    /// Operations a second that are promised to volumes in service in `pool`.
    #[must_use]
    pub fn promised_iops(&self, pool: &PoolName) -> u64 {
        let here = self.volumes.values().filter(|v| matches!(v, AnyVolume::Reserved(_) | AnyVolume::Ready(_)));
        here.map(AnyVolume::spec)
            .filter(|spec| &spec.pool == pool)
            .filter_map(|spec| spec.origin.as_ref()?.promise.as_ref()?.iops)
            .fold(0, u64::saturating_add)
    }

    /// The living volume of this name: not freed, discarded or forgotten.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&AnyVolume> {
        self.volumes.values().find(|v| v.spec().name == name && !v.is_over() && !matches!(v, AnyVolume::Forgotten(_)))
    }
}

/// By what the last of several volumes of one name is found.
fn lately(volume: &AnyVolume) -> (bool, Timestamp) {
    (!volume.is_over(), volume.spec().created)
}

/// The first eight bytes of a name's SHA-256.
fn digest(name: &str) -> u64 {
    Sha256::digest(name.as_bytes()).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
