//! What a pod needs of disks, from its claims: pure, over what the index has and what was fetched for this request.
//!
//! An object that is in neither is asked for, never guessed. A claim whose volume exists only says where the pod must run.

use std::collections::BTreeSet;
use std::sync::Arc;

use bedplate_api::local_volume::VolumeMode;
use bedplate_api::placement::{Ledger, demand};
use bedplate_core::placement::{PodDemand, Reason};

use crate::index::{Claim, Key, Objects, StorageClass, Volume};
use crate::wire::{PodIn, Source};

/// What was fetched for a request because the index lacked it.
#[derive(Debug, Default)]
pub struct Fetched {
    /// What is there.
    pub objects: Objects,
    /// What the API server says does not exist.
    pub absent: BTreeSet<Key>,
}

/// What a pod needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing of ours.
    Nothing,
    /// These objects must be known first.
    Lacking(Vec<Key>),
    /// It can be placed nowhere.
    Refused(Reason),
    /// Room, and a node.
    Room(Wanted),
}

/// Claims and where they may go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What evaluate asks.
    pub pod: PodDemand,
    /// Uids of the claims in it.
    pub claims: Vec<Arc<str>>,
    /// The node that the scheduler already told one of them.
    pub selected: Option<Arc<str>>,
}

/// One claim.
enum Asks {
    Nothing,
    Lacks(Key),
    Refused(Reason),
    /// It has a volume on this node.
    Has(Arc<str>),
    Room,
}

/// What `pod` needs.
#[must_use]
pub fn needs(pod: &PodIn, objects: &Objects, fetched: &Fetched, ledger: &Ledger) -> Needs {
    let known = Known { objects, fetched, ledger };
    let mut wanted = Wanted::default();
    let mut lacking = Vec::new();
    let mut refused = None;
    let mut ours = false;
    for source in pod.sources() {
        let Source::Claim(name) = source else { continue };
        let Some(claim) = known.claim(pod.namespace(), &name) else {
            let key = Key::Claim(pod.namespace().into(), (*name).into());
            if fetched.absent.contains(&key) {
                refused = refused.or(Some(Reason::NoClaim));
            } else {
                lacking.push(key);
            }
            continue;
        };
        match known.asks(claim) {
            Asks::Nothing => {}
            Asks::Lacks(key) => lacking.push(key),
            Asks::Refused(reason) => refused = refused.or(Some(reason)),
            Asks::Has(node) => {
                ours = true;
                wanted.pod.fixed.push(node);
            }
            Asks::Room => {
                ours = true;
                let Some(StorageClass::Ours(class)) = known.class(&claim.class) else { continue };
                let mode = if claim.block { VolumeMode::Block } else { VolumeMode::Filesystem };
                match demand(&name, &claim.storage, mode, class) {
                    Ok(demand) => {
                        wanted.pod.claims.push(demand);
                        wanted.claims.push(claim.uid.clone());
                        wanted.selected = wanted.selected.or_else(|| claim.selected.clone());
                    }
                    Err(_) => refused = refused.or(Some(Reason::Refused)),
                }
            }
        }
    }
    // What is lacking may belong to the pod's other claims: only with everything known is anything decided.
    if !lacking.is_empty() {
        return Needs::Lacking(lacking);
    }
    match refused {
        Some(reason) => Needs::Refused(reason),
        None if ours => Needs::Room(wanted),
        None => Needs::Nothing,
    }
}

struct Known<'a> {
    objects: &'a Objects,
    fetched: &'a Fetched,
    ledger: &'a Ledger,
}

impl<'a> Known<'a> {
    fn claim(&self, namespace: &str, name: &str) -> Option<&'a Claim> {
        self.objects.claim(namespace, name).or_else(|| self.fetched.objects.claim(namespace, name))
    }

    fn class(&self, name: &str) -> Option<&'a StorageClass> {
        self.objects.classes.get(name).or_else(|| self.fetched.objects.classes.get(name))
    }

    fn volume(&self, name: &str) -> Option<&'a Volume> {
        self.objects.volumes.get(name).or_else(|| self.fetched.objects.volumes.get(name))
    }

    fn asks(&self, claim: &Claim) -> Asks {
        if let Some(name) = &claim.volume {
            return match self.volume(name) {
                Some(Volume::Ours(node)) if !node.is_empty() => Asks::Has(node.clone()),
                Some(Volume::Ours(_)) => self.allocated(claim).unwrap_or(Asks::Refused(Reason::Refused)),
                None if !self.fetched.absent.contains(&Key::Volume(name.clone())) => {
                    Asks::Lacks(Key::Volume(name.clone()))
                }
                // Its volume is gone: where it was is still known, or nobody can say.
                None if claim.ours => self.allocated(claim).unwrap_or(Asks::Refused(Reason::NoClaim)),
                Some(Volume::Other) | None => Asks::Nothing,
            };
        }
        if claim.class.is_empty() {
            return Asks::Nothing;
        }
        match self.class(&claim.class) {
            Some(StorageClass::Refused) => Asks::Refused(Reason::Refused),
            Some(StorageClass::Ours(_)) if claim.refused => Asks::Refused(Reason::Refused),
            Some(StorageClass::Ours(_)) => self.allocated(claim).unwrap_or(Asks::Room),
            None if !self.fetched.absent.contains(&Key::Class((*claim.class).into())) => {
                Asks::Lacks(Key::Class((*claim.class).into()))
            }
            None if claim.ours => Asks::Refused(Reason::NoClass),
            // Another's, or a name that is only a label for volumes made by hand.
            Some(StorageClass::Other) | None => Asks::Nothing,
        }
    }

    fn allocated(&self, claim: &Claim) -> Option<Asks> {
        self.ledger.of_claim(&claim.uid).map(|volume| Asks::Has(volume.node))
    }
}

#[cfg(test)]
mod tests;
