//! What a decision asks to be done. Values, so that a test compares them; [`crate::cluster::hands`] carries them out.

use std::collections::BTreeSet;
use std::time::Duration;

use bedplate_api::LocalVolume;
use bedplate_api::local_volume::ReleaseKind;

use crate::cluster::objects::{Claim, Meta, PodSeen};
use crate::cluster::template::Terms;

/// Something to do in the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask a node for a volume.
    Order(Box<LocalVolume>),
    /// Mark a Ready LocalVolume as bound from now on, and make its PersistentVolume.
    Bind {
        /// Which LocalVolume.
        local: Meta,
        /// Whether it bears the mark already.
        marked: bool,
        /// What the PersistentVolume takes from claim and class.
        terms: Terms,
    },
    /// Note on a LocalVolume that its PersistentVolume was seen.
    Confirm {
        /// Which.
        local: Meta,
    },
    /// Give a volume up, after live reads.
    Release {
        /// Which LocalVolume.
        local: Meta,
        /// Why.
        kind: ReleaseKind,
        /// Its claim.
        claim: ClaimName,
    },
    /// Send a claim back to the scheduler: clear its selected-node, after live reads.
    Bounce {
        /// Which claim.
        claim: ClaimName,
        /// Where it was to go.
        node: String,
        /// The number of the next attempt.
        attempt: i64,
        /// Only if the Node object is really gone.
        node_must_be_gone: bool,
        /// For people.
        notices: Vec<Notice>,
    },
    /// Let a PersistentVolume go, after live reads: delete it and take our finalizer off.
    DropVolume {
        /// Which.
        volume: Meta,
        /// The LocalVolume behind it.
        local: String,
    },
    /// Let a LocalVolume go, after live reads.
    DropLocal {
        /// Which.
        local: Meta,
        /// Its claim's uid.
        claim_uid: String,
    },
    /// Make a LocalVolume again from its node's record, after live reads.
    Rebuild {
        /// Whose record.
        node: String,
        /// Name of the LocalVolume.
        local: String,
    },
    /// Make or change a CSIStorageCapacity.
    Publish {
        /// Which node.
        node: String,
        /// Its StorageNode's uid, the owner.
        owner: String,
        /// Which class.
        class: String,
        /// Bytes in all.
        bytes: u64,
        /// Bytes of the largest single volume.
        largest: u64,
        /// The one there is.
        present: Option<Meta>,
    },
    /// Remove a CSIStorageCapacity that stands for nothing any more.
    Unpublish(Meta),
    /// List a namespace's pods live: the watch shows none that uses a claim.
    Look {
        /// Which namespace.
        namespace: String,
    },
    /// Tell people.
    Say(Notice),
}

/// A claim, fully named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

impl From<&Claim> for ClaimName {
    fn from(claim: &Claim) -> Self {
        Self { namespace: claim.namespace.clone(), name: claim.meta.name.clone(), uid: claim.meta.uid.clone() }
    }
}

/// The kinds that Events are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the kinds by their names")]
pub enum Kind {
    Claim,
    Volume,
    Local,
    Pod,
}

/// An Event to be written; the same one again is only counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// About which kind of object.
    pub kind: Kind,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// One word.
    pub reason: &'static str,
    /// A sentence that names object, field and way out.
    pub message: String,
}

impl Notice {
    /// About a claim.
    #[must_use]
    pub fn on_claim(claim: &Claim, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Claim, Some(&claim.namespace), &claim.meta, reason, message)
    }

    /// About a pod.
    #[must_use]
    pub fn on_pod(pod: &PodSeen, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Pod, Some(&pod.namespace), &pod.meta, reason, message)
    }

    /// About an object without namespace.
    #[must_use]
    pub fn on(kind: Kind, meta: &Meta, reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(kind, None, meta, reason, message)
    }

    fn new(
        kind: Kind,
        namespace: Option<&String>,
        meta: &Meta,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let (name, uid) = (meta.name.clone(), meta.uid.clone());
        Self { kind, namespace: namespace.cloned(), name, uid, reason, message: message.into() }
    }
}

/// What was decided about a key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// To be done, side by side.
    pub actions: Vec<Action>,
    /// Uids of the claims that it is about: none of them is decided about again before all is done.
    pub holds: BTreeSet<String>,
    /// When to look again though nothing changes.
    pub again: Option<Duration>,
    /// The claim that decides for this one.
    pub follow: Option<String>,
}

impl Decision {
    /// Do this too.
    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Say this too.
    pub fn say(&mut self, notice: Notice) {
        self.actions.push(Action::Say(notice));
    }

    /// Look again after `wait` at the latest.
    pub fn again_in(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |before| before.min(wait)));
    }
}
