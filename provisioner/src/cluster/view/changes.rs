//! What a change does to the view's indexes, and whom it touches.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use super::store::MEMORY;
use super::{Key, View};
use crate::cluster::objects::{Capacity, Claim, Kept, Local, PodSeen, Storage, Volume, path};

/// LocalVolumes remembered as missing before the oldest are forgotten.
const MANY: usize = 1_024;

impl View {
    pub(super) fn claim_changed(&mut self, old: Option<&Claim>, new: Option<Claim>, now: Instant) -> Vec<Key> {
        let mut keys = Vec::new();
        if let Some(old) = old
            && new.as_ref().is_none_or(|new| new.meta.uid != old.meta.uid)
        {
            self.by_uid.remove(&old.meta.uid);
            self.open.remove(&old.meta.uid);
            keys.push(Key::Case(old.meta.uid.clone()));
        }
        if let Some(new) = new {
            let uid = new.meta.uid.clone();
            self.by_uid.insert(uid.clone(), new.key());
            if new.wish.is_none() {
                self.open.remove(&uid);
            } else if self.open.get(&uid).is_none_or(|(node, _)| *node != new.selected_node) {
                self.open.insert(uid.clone(), (new.selected_node.clone(), now));
            }
            keys.push(Key::Case(uid));
        }
        keys
    }

    /// The volume's own case, and those of others that name the same volume.
    pub(super) fn volume_changed(&mut self, old: Option<&Volume>, new: Option<&Volume>) -> Vec<Key> {
        let mut keys: Vec<Key> = case_of(new.or(old)).into_iter().collect();
        for volume in old.into_iter().chain(new).filter(|volume| !volume.handle.is_empty()) {
            forget(&mut self.of_handle, &volume.handle, &volume.meta.name);
            let others = self.of_handle.get(&volume.handle).into_iter().flatten();
            keys.extend(others.filter_map(|name| case_of(self.volumes.get(name))));
        }
        if let Some(new) = new.filter(|new| !new.handle.is_empty()) {
            self.of_handle.entry(new.handle.clone()).or_default().insert(new.meta.name.clone());
        }
        keys
    }

    pub(super) fn local_changed(&mut self, old: Option<&Local>, new: Option<&Local>, now: Instant) -> Vec<Key> {
        if let Some(old) = old {
            forget(&mut self.of_claim, &old.claim_uid, &old.meta.name);
            if self.absent.len() >= MANY {
                self.absent.retain(|_, at| now.saturating_duration_since(*at) < MEMORY);
            }
            self.absent.insert(old.meta.name.clone(), now);
            if new.is_none() {
                self.ledger.remove_volume(&old.meta.name);
            }
        }
        if let Some(new) = new {
            self.absent.remove(&new.meta.name);
            self.ledger.apply_volume(&new.facts());
            self.of_claim.entry(new.claim_uid.clone()).or_default().insert(new.meta.name.clone());
        }
        let Some(either) = new.or(old) else { return Vec::new() };
        vec![Key::Case(either.claim_uid.clone()), Key::Node(either.node.clone())]
    }

    pub(super) fn records_changed(&mut self, old: Option<&Storage>, new: Option<&Storage>) {
        for (storage, here) in [(old, false), (new, true)] {
            for (storage, record) in
                storage.iter().flat_map(|storage| storage.records.iter().map(move |r| (storage, r)))
            {
                if here {
                    let nodes = self.recorded.entry(record.claim_uid.clone()).or_default();
                    nodes.insert(storage.meta.name.clone());
                } else {
                    forget(&mut self.recorded, &record.claim_uid, &storage.meta.name);
                }
            }
        }
    }

    pub(super) fn pod_changed(&mut self, old: Option<&PodSeen>, new: Option<&PodSeen>) -> Vec<Key> {
        for (pod, here) in [(old, false), (new, true)] {
            for claim in pod.iter().flat_map(|pod| pod.claims.iter().map(|claim| path(&pod.namespace, claim))) {
                let name = pod.map(Kept::key).unwrap_or_default();
                if here {
                    self.users.entry(claim).or_default().insert(name);
                } else {
                    forget(&mut self.users, &claim, &name);
                }
            }
        }
        let claims = |pod: &PodSeen| pod.claims.iter().map(|claim| path(&pod.namespace, claim)).collect::<Vec<_>>();
        let touched: BTreeSet<String> = old.iter().chain(new.iter()).flat_map(|pod| claims(pod)).collect();
        touched
            .iter()
            .filter_map(|claim| self.claims.get(claim))
            .filter(|claim| claim.wish.is_some())
            .map(|claim| Key::Case(claim.meta.uid.clone()))
            .collect()
    }

    pub(super) fn node_changed<T: Kept>(&mut self, old: Option<&T>, new: Option<&T>, now: Instant) -> Vec<Key> {
        let Some(name) = new.or(old).map(|object| object.meta().name.clone()) else {
            return Vec::new();
        };
        if new.is_none() {
            self.missing.entry(name.clone()).or_insert(now);
        } else if self.has_node(&name) && self.has_agent(&name) {
            self.missing.remove(&name);
        }
        let waiting = self.open.iter().filter(|(_, (node, _))| node.as_deref() == Some(&name));
        let mut keys: Vec<Key> = waiting.map(|(uid, _)| Key::Case(uid.clone())).collect();
        keys.push(Key::Node(name));
        keys
    }

    pub(super) fn capacity_changed(&mut self, old: Option<&Capacity>, new: Option<&Capacity>) -> Vec<Key> {
        if let Some(old) = old {
            forget(&mut self.of_node, &old.node, &old.meta.name);
        }
        if let Some(new) = new {
            self.of_node.entry(new.node.clone()).or_default().insert(new.meta.name.clone());
        }
        old.into_iter().chain(new).map(|capacity| Key::Node(capacity.node.clone())).collect()
    }
}

fn case_of(volume: Option<&Volume>) -> Option<Key> {
    let volume = volume.filter(|volume| volume.ours)?;
    let uid = volume.meta.name.strip_prefix("pvc-")?;
    Some(Key::Case(uid.to_owned()))
}

fn forget(index: &mut HashMap<String, BTreeSet<String>>, key: &str, name: &str) {
    if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}
