//! A watch's events, and what a new list no longer has.

use std::collections::HashSet;
use std::hash::Hash;

/// What a watch tells of a kind.
#[derive(Clone, Debug)]
pub enum Op<T> {
    /// A list begins: what it does not have is gone.
    Begin,
    /// An object of the list.
    Listed(T),
    /// The list is complete.
    Complete,
    /// An object came or changed.
    Applied(T),
    /// An object is gone.
    Deleted(T),
}

/// What has been seen of a list so far.
#[derive(Debug, Default)]
pub(super) struct Listing<K> {
    seen: Option<HashSet<K>>,
    complete: bool,
}

impl<K: Hash + Eq> Listing<K> {
    /// Whether a list was ever complete.
    pub const fn complete(&self) -> bool {
        self.complete
    }

    pub fn begin(&mut self) {
        self.seen = Some(HashSet::new());
    }

    pub fn listed(&mut self, key: impl FnOnce() -> K) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key());
        }
    }

    /// The list is complete: its keys, where its beginning was seen. Without, nothing is known to be gone.
    pub fn end(&mut self) -> Option<HashSet<K>> {
        self.complete = true;
        self.seen.take()
    }
}
