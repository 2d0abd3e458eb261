//! The state behind the lock, and how it takes changes in. No I/O, no clock.

use std::sync::Arc;

use bedplate_api::placement::{Ledger, NodeFacts, VolumeFacts};

use super::objects::{Claim, Objects, StorageClass, Volume};
use super::relist::{Listing, Op};
use crate::holds::{Holds, Millis, Seen};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kinds by their names")]
pub enum Kind {
    Pod,
    Claim,
    Volume,
    Class,
    StorageNode,
    LocalVolume,
}

/// Something that happened.
#[derive(Debug)]
pub enum Change {
    /// To a pod.
    Pod(Op<Seen>),
    /// To a claim: namespace, name, content.
    Claim(Op<(Box<str>, Box<str>, Claim)>),
    /// To a PersistentVolume.
    Volume(Op<(Box<str>, Volume)>),
    /// To a StorageClass.
    Class(Op<(Box<str>, StorageClass)>),
    /// To a StorageNode.
    Node(Op<NodeFacts>),
    /// To a LocalVolume.
    Local(Op<VolumeFacts>),
}

/// Everything known.
#[derive(Debug, Default)]
pub struct State {
    /// Room a pool.
    pub ledger: Ledger,
    /// What is held for pods in flight.
    pub holds: Holds,
    /// Claims, volumes and classes.
    pub objects: Objects,
    pods: Listing<Arc<str>>,
    /// Pods that had a hold when the list of pods began: later ones may be too new to be in it.
    held_before: Vec<Arc<str>>,
    claims: Listing<(Box<str>, Box<str>)>,
    volumes: Listing<Box<str>>,
    classes: Listing<Box<str>>,
    nodes: Listing<Arc<str>>,
    locals: Listing<Arc<str>>,
}

impl State {
    /// Whether every kind was listed once.
    #[must_use]
    pub const fn synced(&self) -> bool {
        self.pods.complete()
            && self.claims.complete()
            && self.volumes.complete()
            && self.classes.complete()
            && self.room_known()
    }

    /// Whether nodes and LocalVolumes were listed once: before, no room can be told.
    #[must_use]
    pub const fn room_known(&self) -> bool {
        self.nodes.complete() && self.locals.complete()
    }

    /// Take a change in.
    pub fn apply(&mut self, change: Change, now: Millis) {
        match change {
            Change::Pod(op) => self.pod(op, now),
            Change::Claim(op) => self.claim(op, now),
            Change::Volume(op) => match op {
                Op::Begin => self.volumes.begin(),
                Op::Listed((name, volume)) => {
                    self.volumes.listed(|| name.clone());
                    self.objects.volumes.insert(name, volume);
                }
                Op::Complete => {
                    let Some(seen) = self.volumes.end() else { return };
                    self.objects.volumes.retain(|name, _| seen.contains(name));
                }
                Op::Applied((name, volume)) => {
                    self.objects.volumes.insert(name, volume);
                }
                Op::Deleted((name, _)) => {
                    self.objects.volumes.remove(&name);
                }
            },
            Change::Class(op) => match op {
                Op::Begin => self.classes.begin(),
                Op::Listed((name, class)) => {
                    self.classes.listed(|| name.clone());
                    self.objects.classes.insert(name, class);
                }
                Op::Complete => {
                    let Some(seen) = self.classes.end() else { return };
                    self.objects.classes.retain(|name, _| seen.contains(name));
                }
                Op::Applied((name, class)) => {
                    self.objects.classes.insert(name, class);
                }
                Op::Deleted((name, _)) => {
                    self.objects.classes.remove(&name);
                }
            },
            Change::Node(op) => self.node(op),
            Change::Local(op) => self.local(op, now),
        }
    }

    fn pod(&mut self, op: Op<Seen>, now: Millis) {
        match op {
            Op::Begin => {
                self.pods.begin();
                self.held_before = self.holds.pods().cloned().collect();
            }
            Op::Listed(pod) => {
                self.pods.listed(|| pod.uid.clone());
                self.holds.seen(&pod, |node| self.ledger.slot(node), now);
            }
            Op::Complete => {
                let Some(seen) = self.pods.end() else { return };
                for pod in std::mem::take(&mut self.held_before) {
                    if !seen.contains(&pod) {
                        self.holds.gone(&pod, now);
                    }
                }
            }
            Op::Applied(pod) => self.holds.seen(&pod, |node| self.ledger.slot(node), now),
            Op::Deleted(pod) => self.holds.gone(&pod.uid, now),
        }
    }

    fn claim(&mut self, op: Op<(Box<str>, Box<str>, Claim)>, now: Millis) {
        match op {
            Op::Begin => self.claims.begin(),
            Op::Listed((namespace, name, claim)) => {
                self.claims.listed(|| (namespace.clone(), name.clone()));
                self.insert(namespace, name, claim, now);
            }
            Op::Complete => {
                let Some(seen) = self.claims.end() else { return };
                for (namespace, claims) in &mut self.objects.claims {
                    claims.retain(|name, _| seen.contains(&(namespace.clone(), name.clone())));
                }
                self.objects.claims.retain(|_, claims| !claims.is_empty());
            }
            Op::Applied((namespace, name, claim)) => self.insert(namespace, name, claim, now),
            Op::Deleted((namespace, name, _)) => {
                if let Some(claims) = self.objects.claims.get_mut(&namespace) {
                    claims.remove(&name);
                    if claims.is_empty() {
                        self.objects.claims.remove(&namespace);
                    }
                }
            }
        }
    }

    fn insert(&mut self, namespace: Box<str>, name: Box<str>, claim: Claim, now: Millis) {
        if let Some(slot) = claim.selected.as_ref().and_then(|node| self.ledger.slot(node)) {
            self.holds.selected(&claim.uid, slot, now);
        }
        self.objects.claims.entry(namespace).or_default().insert(name, claim);
    }

    fn node(&mut self, op: Op<NodeFacts>) {
        match op {
            Op::Begin => self.nodes.begin(),
            Op::Listed(facts) => {
                self.nodes.listed(|| facts.name.clone());
                self.ledger.apply_node(facts);
            }
            Op::Complete => {
                let Some(seen) = self.nodes.end() else { return };
                let gone: Vec<Arc<str>> =
                    self.ledger.nodes().map(|(name, _)| name).filter(|name| !seen.contains(*name)).cloned().collect();
                for name in gone {
                    self.ledger.remove_node(&name);
                }
            }
            Op::Applied(facts) => {
                self.ledger.apply_node(facts);
            }
            Op::Deleted(facts) => {
                self.ledger.remove_node(&facts.name);
            }
        }
    }

    fn local(&mut self, op: Op<VolumeFacts>, now: Millis) {
        match op {
            Op::Begin => self.locals.begin(),
            Op::Listed(facts) => {
                self.locals.listed(|| facts.name.clone());
                self.allocate(&facts, now);
            }
            Op::Complete => {
                let Some(seen) = self.locals.end() else { return };
                let gone: Vec<Arc<str>> =
                    self.ledger.volume_names().filter(|name| !seen.contains(*name)).cloned().collect();
                for name in gone {
                    self.ledger.remove_volume(&name);
                }
            }
            Op::Applied(facts) => self.allocate(&facts, now),
            Op::Deleted(facts) => {
                self.ledger.remove_volume(&facts.name);
            }
        }
    }

    fn allocate(&mut self, facts: &VolumeFacts, now: Millis) {
        let slot = self.ledger.apply_volume(facts);
        if facts.serves {
            self.holds.allocated(&facts.claim, slot, now);
        }
    }
}
