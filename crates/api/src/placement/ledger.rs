//! Room a pool, kept one object at a time: neither double-counted nor over-committed (G7).
//!
//! A StorageNode's status is one moment of its ledger: a pool's free bytes count every volume in `status.volumes` and no
//! other. So room = free − the bytes of its LocalVolumes that are not over and not in that list. A volume that is freed but
//! still listed stays counted until the node says otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use bedplate_core::media::Media;
use bedplate_core::placement::{Brief, Filesystems, NodeView, Pool, Runs};

use super::names::Names;
use super::{NodeFacts, VolumeFacts};

/// Where a node stands in the ledger. Its pools' places last as long: a pool that goes leaves a gap.
pub type Slot = u32;

/// What every part that places volumes knows of room.
///
/// What each node of each request is judged by (names, heads, briefs) lies apart from the rest and close together.
#[derive(Debug, Default)]
pub struct Ledger {
    names: Names,
    heads: Vec<Head>,
    briefs: Runs<Brief>,
    pools: Runs<Pool>,
    entries: Vec<Entry>,
    volumes: BTreeMap<Arc<str>, Volume>,
}

/// What is asked of a node before its pools.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// Whether a StorageNode of the name exists.
    known: bool,
    ready: bool,
    filesystems: Filesystems,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    ledger_id: Arc<str>,
    counted: HashSet<Box<str>>,
    volumes: BTreeSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Volume {
    slot: Slot,
    pool: u16,
    bytes: u64,
    takes_room: bool,
    serves: bool,
}

/// A volume that a claim has, or is about to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Name of its LocalVolume.
    pub name: Arc<str>,
    /// Its node.
    pub node: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// Bytes it takes.
    pub bytes: u64,
}

impl Ledger {
    /// The place of a node, if anything is known of it.
    #[must_use]
    #[inline]
    pub fn slot(&self, name: &str) -> Option<Slot> {
        self.names.find(name)
    }

    /// The places of nodes that are asked for one after another.
    #[must_use]
    pub fn slots<'a>(&mut self, names: impl Iterator<Item = &'a str>) -> Vec<Option<Slot>> {
        let mut before = Slot::MAX;
        let mut slot = |name| {
            let found = self.names.find_after(before, name);
            before = found.unwrap_or(before);
            found
        };
        names.map(&mut slot).collect()
    }

    /// Whether the node at a place has that name.
    #[must_use]
    #[inline]
    pub fn is_named(&self, slot: Slot, name: &str) -> bool {
        self.names.is_at(slot, name)
    }

    /// The node at a place, if it has a StorageNode.
    #[must_use]
    #[inline]
    pub fn at(&self, slot: Slot) -> Option<NodeView<'_>> {
        let at = slot as usize;
        let head = self.heads.get(at).filter(|head| head.known)?;
        Some(NodeView::new(head.ready, head.filesystems, self.pools.get(at), self.briefs.get(at)))
    }

    /// The name of the node at a place.
    #[must_use]
    pub fn name(&self, slot: Slot) -> Option<&Arc<str>> {
        self.entry(slot).map(|entry| &entry.name)
    }

    /// A node by its name, if it has a StorageNode.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<NodeView<'_>> {
        self.at(self.slot(name)?)
    }

    /// The id of a node's own ledger, as its StorageNode tells.
    #[must_use]
    pub fn ledger_id(&self, name: &str) -> Option<&Arc<str>> {
        let slot = self.slot(name)?;
        self.entry(slot).filter(|_| self.is_known(slot)).map(|entry| &entry.ledger_id)
    }

    /// Every node that has a StorageNode.
    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, NodeView<'_>)> {
        (0..).zip(&self.entries).filter_map(|(slot, entry)| Some((&entry.name, self.at(slot)?)))
    }

    /// How many LocalVolumes are known.
    #[must_use]
    pub fn volumes(&self) -> usize {
        self.volumes.len()
    }

    /// The volume that a claim has, bound or on the way: of its attempts the latest that still serves.
    #[must_use]
    pub fn of_claim(&self, claim_uid: &str) -> Option<Allocation> {
        let prefix = format!("pvc-{claim_uid}-");
        let attempts = self.volumes.range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded));
        let attempts = attempts.take_while(|(name, _)| name.starts_with(&prefix)).filter(|(_, volume)| volume.serves);
        let number = |name: &str| name[prefix.len()..].parse::<u64>().unwrap_or(0);
        let (name, volume) = attempts.max_by_key(|(name, _)| number(name))?;
        let entry = self.entry(volume.slot)?;
        let pool = self.pools.get(volume.slot as usize).get(usize::from(volume.pool))?.name.clone();
        Some(Allocation { name: name.clone(), node: entry.name.clone(), pool, bytes: volume.bytes })
    }

    /// A StorageNode came or changed.
    pub fn apply_node(&mut self, facts: NodeFacts) -> Slot {
        let slot = self.place(&facts.name);
        let NodeFacts { name: _, ledger_id, ready, filesystems, pools, counted } = facts;
        let places: Vec<u16> = pools.iter().map(|pool| self.pool_place(slot, &pool.name)).collect();
        let at = slot as usize;
        if let (Some(head), Some(entry)) = (self.heads.get_mut(at), self.entries.get_mut(at)) {
            *head = Head { known: true, ready, filesystems };
            entry.ledger_id = ledger_id;
            entry.counted = counted;
        }
        let own = self.pools.get_mut(at);
        clear(own);
        let mut first: HashMap<Box<str>, u16> = HashMap::new();
        let mut ordered: Vec<_> = places.into_iter().zip(pools).collect();
        ordered.sort_by_key(|(place, _)| *place);
        for (place, facts) in ordered {
            let shares = facts.filesystem.map_or(place, |fs| *first.entry(fs).or_insert(place));
            if let Some(pool) = own.get_mut(usize::from(place)) {
                *pool = Pool {
                    name: facts.name,
                    media: facts.media,
                    level: facts.level,
                    present: facts.present,
                    capacity: facts.capacity,
                    free: facts.free,
                    largest: facts.largest,
                    promised: 0,
                    shares,
                };
            }
        }
        self.count(slot);
        slot
    }

    /// A StorageNode is gone. Its volumes stay known: an unknown node is no deleted volume.
    pub fn remove_node(&mut self, name: &str) -> Option<Slot> {
        let slot = self.slot(name)?;
        let at = slot as usize;
        *self.heads.get_mut(at)? = Head::default();
        self.entries.get_mut(at)?.counted = HashSet::new();
        clear(self.pools.get_mut(at));
        self.count(slot);
        Some(slot)
    }

    /// A LocalVolume came or changed. The place of its node.
    pub fn apply_volume(&mut self, facts: &VolumeFacts) -> Slot {
        let slot = self.place(&facts.node);
        let pool = self.pool_place(slot, &facts.pool);
        let VolumeFacts { name, claim: _, node: _, pool: _, bytes, takes_room, serves } = facts;
        let volume = Volume { slot, pool, bytes: *bytes, takes_room: *takes_room, serves: *serves };
        if let Some(before) = self.volumes.insert(name.clone(), volume)
            && before.slot != slot
        {
            // The node is immutable: this is another object of the same name.
            self.forget(name, before.slot);
        }
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.volumes.insert(name.clone());
        }
        self.count(slot);
        slot
    }

    /// A LocalVolume is gone. The place of the node it was on.
    pub fn remove_volume(&mut self, name: &str) -> Option<Slot> {
        let volume = self.volumes.remove(name)?;
        self.forget(name, volume.slot);
        Some(volume.slot)
    }

    /// The names of all LocalVolumes, for whoever compares them with a new list.
    pub fn volume_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.volumes.keys()
    }

    fn forget(&mut self, name: &str, slot: Slot) {
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.volumes.remove(name);
        }
        self.count(slot);
    }

    fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot as usize)
    }

    fn is_known(&self, slot: Slot) -> bool {
        self.heads.get(slot as usize).is_some_and(|head| head.known)
    }

    fn place(&mut self, name: &Arc<str>) -> Slot {
        let slot = self.names.place(name);
        if self.entries.len() < self.names.len() {
            self.heads.push(Head::default());
            self.entries.push(Entry {
                name: name.clone(),
                ledger_id: "".into(),
                counted: HashSet::new(),
                volumes: BTreeSet::new(),
            });
        }
        slot
    }

    fn pool_place(&mut self, slot: Slot, name: &Arc<str>) -> u16 {
        let pools = self.pools.get(slot as usize);
        let at = pools.iter().position(|pool| pool.name == *name).unwrap_or(pools.len());
        let place = u16::try_from(at).unwrap_or(u16::MAX);
        if at == pools.len() && place < u16::MAX {
            self.pools.lengthen(slot as usize, at + 1, gap(name.clone(), place));
        }
        place
    }

    /// Sum what is promised on a node beyond what it counts itself, and note its pools in brief.
    fn count(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get(slot as usize) else { return };
        let pools = self.pools.get_mut(slot as usize);
        for pool in &mut *pools {
            pool.promised = 0;
        }
        for name in &entry.volumes {
            let Some(volume) = self.volumes.get(name) else { continue };
            if volume.takes_room
                && !entry.counted.contains(&**name)
                && let Some(pool) = pools.get_mut(usize::from(volume.pool))
            {
                pool.promised = pool.promised.saturating_add(volume.bytes);
            }
        }
        let at = slot as usize;
        if let Some(first) = pools.first() {
            self.briefs.lengthen(at, pools.len(), Brief::of((0, first)));
        }
        for (brief, pool) in self.briefs.get_mut(at).iter_mut().zip(pools.iter().enumerate()) {
            *brief = Brief::of(pool);
        }
    }
}

/// Forget what a node told; its pools keep their places.
fn clear(pools: &mut [Pool]) {
    for (place, pool) in (0..).zip(pools) {
        *pool = gap(pool.name.clone(), place);
    }
}

/// A pool that its node does not tell of.
fn gap(name: Arc<str>, shares: u16) -> Pool {
    Pool {
        name,
        media: Media::Unknown,
        level: None,
        present: false,
        capacity: 0,
        free: 0,
        largest: 0,
        promised: 0,
        shares,
    }
}
