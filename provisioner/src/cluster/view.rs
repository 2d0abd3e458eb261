//! What the watches showed and what own writes were answered with, indexed by what a decision asks for.
//!
//! A plain struct with synchronous methods: one task owns it. It tells which cases and nodes a change touches. It never
//! concludes anything from what it does not hold: that is for live reads.

mod changes;
mod store;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use bedplate_api::placement::Ledger;

use crate::cluster::objects::{
    Capacity, Claim, Class, CsiSeen, Local, NodeSeen, PodSeen, Policy, Record, Storage, Volume, VolumePhase, path,
};

pub use store::{Op, Store};

/// A thing that is decided about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A claim's uid: the claim, its PersistentVolume, its LocalVolumes.
    Case(String),
    /// A node's name: records to rebuild from, capacities.
    Node(String),
}

/// News of one object.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the kinds by their names")]
pub enum Change {
    Claim(Op<Claim>),
    Volume(Op<Volume>),
    Local(Op<Local>),
    Class(Op<Class>),
    Pod(Op<PodSeen>),
    Node(Op<NodeSeen>),
    Csi(Op<CsiSeen>),
    Storage(Op<Storage>),
    Capacity(Op<Capacity>),
}

/// Everything known.
#[derive(Debug, Default)]
pub struct View {
    claims: Store<Claim>,
    volumes: Store<Volume>,
    locals: Store<Local>,
    classes: Store<Class>,
    pods: Store<PodSeen>,
    nodes: Store<NodeSeen>,
    csi: Store<CsiSeen>,
    storages: Store<Storage>,
    capacities: Store<Capacity>,
    by_uid: HashMap<String, String>,
    /// PersistentVolumes of any kind, by the volume that they name.
    of_handle: HashMap<String, BTreeSet<String>>,
    /// Claims that are not bound, by uid, and since when they want to be where they want to be.
    open: BTreeMap<String, (Option<String>, Instant)>,
    of_claim: HashMap<String, BTreeSet<String>>,
    users: HashMap<String, BTreeSet<String>>,
    of_node: HashMap<String, BTreeSet<String>>,
    /// Since when a Node, its StorageNode or its driver has been missing after having been there.
    missing: HashMap<String, Instant>,
    /// When a live list of a namespace's pods was asked for last.
    looked: HashMap<String, Instant>,
    /// Since when a LocalVolume that was there has been missing.
    absent: HashMap<String, Instant>,
    /// Nodes whose record names a claim, by the claim's uid.
    recorded: HashMap<String, BTreeSet<String>>,
    /// When the server was last seen to have gone back in time.
    rewound: Option<Instant>,
    /// Room, by what nodes and LocalVolumes say and by orders under way.
    ledger: Ledger,
    /// Orders under way, by job: their bytes count before anybody has answered.
    promised: HashMap<u64, Vec<String>>,
    /// LocalVolumes that were finished here, so that an old record does not bring them back.
    finished: HashMap<String, Instant>,
}

impl View {
    /// Take news in; what is touched by it.
    pub fn apply(&mut self, change: Change, now: Instant) -> Vec<Key> {
        match change {
            Change::Claim(op) => {
                let news = self.claims.apply(op, now);
                news.into_iter().flat_map(|(old, new)| self.claim_changed(old.as_ref(), new, now)).collect()
            }
            Change::Volume(op) => {
                let news = self.volumes.apply(op, now);
                news.into_iter().flat_map(|(old, new)| self.volume_changed(old.as_ref(), new.as_ref())).collect()
            }
            Change::Local(op) => {
                let news = self.locals.apply(op, now);
                news.into_iter().flat_map(|(old, new)| self.local_changed(old.as_ref(), new.as_ref(), now)).collect()
            }
            Change::Class(op) => {
                if self.classes.apply(op, now).is_empty() {
                    Vec::new()
                } else {
                    self.everything()
                }
            }
            Change::Pod(op) => {
                let news = self.pods.apply(op, now);
                news.into_iter().flat_map(|(old, new)| self.pod_changed(old.as_ref(), new.as_ref())).collect()
            }
            Change::Node(op) => {
                let news = self.nodes.apply(op, now);
                let changed = |old: &Option<NodeSeen>, new: &Option<NodeSeen>| {
                    old.as_ref().map(|node| &node.meta.uid) != new.as_ref().map(|node| &node.meta.uid)
                };
                news.into_iter()
                    .filter(|(old, new)| changed(old, new))
                    .flat_map(|(old, new)| self.node_changed(old.as_ref(), new.as_ref(), now))
                    .collect()
            }
            Change::Csi(op) => {
                let news = self.csi.apply(op, now);
                let registered = |node: &Option<CsiSeen>| node.as_ref().is_some_and(|node| node.registered);
                news.into_iter()
                    .filter(|(old, new)| registered(old) != registered(new))
                    .flat_map(|(old, new)| {
                        let gone = new.filter(|node| node.registered);
                        self.node_changed(old.as_ref(), gone.as_ref(), now)
                    })
                    .collect()
            }
            Change::Storage(mut op) => {
                if let Op::Listed(node) | Op::Applied(node) = &mut op
                    && let Some(facts) = node.facts.take()
                {
                    self.ledger.apply_node(*facts);
                }
                let news = self.storages.apply(op, now);
                for (old, new) in &news {
                    self.records_changed(old.as_ref(), new.as_ref());
                    if let (Some(old), None) = (old, new) {
                        self.ledger.remove_node(&old.meta.name);
                    }
                }
                news.into_iter().flat_map(|(old, new)| self.node_changed(old.as_ref(), new.as_ref(), now)).collect()
            }
            Change::Capacity(op) => {
                let news = self.capacities.apply(op, now);
                news.into_iter().flat_map(|(old, new)| self.capacity_changed(old.as_ref(), new.as_ref())).collect()
            }
        }
    }

    /// The server went back in time: what was written since then is as if it had never been.
    pub fn distrust(&mut self, now: Instant) {
        self.rewound = Some(now);
        self.claims.distrust();
        self.volumes.distrust();
        self.locals.distrust();
        self.pods.distrust();
        self.capacities.distrust();
        self.finished.clear();
    }

    /// Whether every watch has shown its first list.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.claims.is_listed()
            && self.volumes.is_listed()
            && self.locals.is_listed()
            && self.classes.is_listed()
            && self.pods.is_listed()
            && self.nodes.is_listed()
            && self.csi.is_listed()
            && self.storages.is_listed()
            && self.capacities.is_listed()
    }

    /// Every key there is.
    #[must_use]
    pub fn everything(&self) -> Vec<Key> {
        let cases = self.by_uid.keys().chain(self.of_claim.keys()).cloned();
        let volumes = self.volumes.iter().filter_map(|volume| volume.claim.as_ref()).map(|claim| claim.2.clone());
        let nodes = self.storages.iter().map(|node| node.meta.name.clone()).chain(self.of_node.keys().cloned());
        let keys: BTreeSet<Key> = cases.chain(volumes).map(Key::Case).chain(nodes.map(Key::Node)).collect();
        keys.into_iter().collect()
    }

    /// How many objects of each kind are held, for metrics.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize); 9] {
        [
            ("PersistentVolumeClaim", self.claims.len()),
            ("PersistentVolume", self.volumes.len()),
            ("LocalVolume", self.locals.len()),
            ("StorageClass", self.classes.len()),
            ("Pod", self.pods.len()),
            ("Node", self.nodes.len()),
            ("CSINode", self.csi.len()),
            ("StorageNode", self.storages.len()),
            ("CSIStorageCapacity", self.capacities.len()),
        ]
    }

    /// The claim of that uid.
    #[must_use]
    pub fn claim(&self, uid: &str) -> Option<&Claim> {
        self.claims.get(self.by_uid.get(uid)?)
    }

    /// The claim of that name.
    #[must_use]
    pub fn claim_named(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(&path(namespace, name))
    }

    /// The PersistentVolume that is or would be a claim's.
    #[must_use]
    pub fn volume_of(&self, claim_uid: &str) -> Option<&Volume> {
        self.volumes.get(&crate::cluster::template::volume_name(claim_uid)).filter(|volume| volume.ours)
    }

    /// Another PersistentVolume of the same volume, whose bytes somebody uses or wants to keep. Ours have a volume each: it was
    /// made by hand.
    #[must_use]
    pub fn shares(&self, volume: &Volume) -> Option<&Volume> {
        let same = self.of_handle.get(&volume.handle).into_iter().flatten().filter(|name| **name != volume.meta.name);
        same.filter_map(|name| self.volumes.get(name))
            .find(|other| other.phase != VolumePhase::Released || other.policy != Policy::Delete)
    }

    /// The LocalVolume of that name.
    #[must_use]
    pub fn local(&self, name: &str) -> Option<&Local> {
        self.locals.get(name)
    }

    /// A claim's LocalVolumes, the latest attempt last.
    #[must_use]
    pub fn locals_of(&self, claim_uid: &str) -> Vec<&Local> {
        let mut locals: Vec<&Local> =
            self.of_claim.get(claim_uid).into_iter().flatten().filter_map(|name| self.locals.get(name)).collect();
        locals.sort_by_key(|local| local.attempt);
        locals
    }

    /// Room on every node.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// An order is under way.
    pub fn promise(&mut self, job: u64, local: &Local) {
        self.ledger.apply_volume(&local.facts());
        self.promised.entry(job).or_default().push(local.meta.name.clone());
    }

    /// A job's orders are answered: what was made is in the view, what was not takes no room.
    pub fn kept(&mut self, job: u64) {
        for name in self.promised.remove(&job).unwrap_or_default() {
            match self.locals.get(&name) {
                Some(local) => self.ledger.apply_volume(&local.facts()),
                None => self.ledger.remove_volume(&name).unwrap_or_default(),
            };
        }
    }

    /// A class by name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// Our classes.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.iter().filter(|class| class.ours)
    }

    /// The pods that name a claim.
    pub fn pods_of(&self, namespace: &str, claim: &str) -> impl Iterator<Item = &PodSeen> {
        self.users.get(&path(namespace, claim)).into_iter().flatten().filter_map(|pod| self.pods.get(pod))
    }

    /// Whether a Node object of that name is there.
    #[must_use]
    pub fn has_node(&self, name: &str) -> bool {
        self.nodes.get(name).is_some()
    }

    /// Whether an agent serves a node, as far as objects tell: its StorageNode, and its driver with the kubelet. A node
    /// without any CSINode has no kubelet to ask.
    #[must_use]
    pub fn has_agent(&self, node: &str) -> bool {
        self.storage(node).is_some() && self.csi.get(node).is_none_or(|csi| csi.registered)
    }

    /// Since when something of a node has been missing.
    #[must_use]
    pub fn missing_since(&self, node: &str) -> Option<Instant> {
        self.missing.get(node).copied()
    }

    /// A node's storage, once its ledger has a name.
    #[must_use]
    pub fn storage(&self, node: &str) -> Option<&Storage> {
        self.storages.get(node).filter(|storage| !storage.ledger.is_empty())
    }

    /// What nodes have on record for a claim: node and record.
    pub fn records_of(&self, claim_uid: &str) -> impl Iterator<Item = (&str, &Record)> {
        let nodes = self.recorded.get(claim_uid).into_iter().flatten();
        nodes.filter_map(|node| self.storages.get(node)).flat_map(move |storage| {
            let its = storage.records.iter().filter(move |record| record.claim_uid == claim_uid);
            its.map(|record| (storage.meta.name.as_str(), record))
        })
    }

    /// When the server went back in time, if it ever did: nodes' records may be as old until their agents have spoken.
    #[must_use]
    pub const fn rewound_at(&self) -> Option<Instant> {
        self.rewound
    }

    /// The capacities of a node that are ours.
    pub fn capacities_of(&self, node: &str) -> impl Iterator<Item = &Capacity> {
        self.of_node.get(node).into_iter().flatten().filter_map(|name| self.capacities.get(name))
    }

    /// Since when an unbound claim has wanted the node it wants.
    #[must_use]
    pub fn wanted_since(&self, claim_uid: &str) -> Option<Instant> {
        self.open.get(claim_uid).map(|(_, since)| *since)
    }

    /// Since when an object has been in the view without a break.
    #[must_use]
    pub fn local_since(&self, name: &str) -> Option<Instant> {
        self.locals.since(name)
    }

    /// Since when a node's record of a volume has had no LocalVolume beside it.
    #[must_use]
    pub fn absent_since(&self, node: &str, local: &str) -> Option<Instant> {
        self.absent.get(local).copied().or_else(|| self.storages.since(node))
    }

    /// When the pods of a namespace were listed live.
    #[must_use]
    pub fn looked_at(&self, namespace: &str) -> Option<Instant> {
        self.looked.get(namespace).copied()
    }

    /// The pods of a namespace were listed live; the list was begun at `at`.
    pub fn looked(&mut self, namespace: &str, at: Instant) {
        self.looked.insert(namespace.to_owned(), at);
    }

    /// A LocalVolume was finished here.
    pub fn finish(&mut self, local: &str, now: Instant) {
        self.finished.retain(|_, at| now.duration_since(*at) < store::MEMORY);
        self.finished.insert(local.to_owned(), now);
    }

    /// Whether it was, not long ago.
    #[must_use]
    pub fn is_finished(&self, local: &str) -> bool {
        self.finished.contains_key(local)
    }
}
