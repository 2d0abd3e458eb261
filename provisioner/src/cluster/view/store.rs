//! One kind of object, as the newest of watch events and answers to own writes.
//!
//! A list that lacks an object removes it, unless an own write made it so lately that the list may be older than it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::cluster::objects::Kept;

/// How long a deleted object's uid and a finished volume's name are remembered.
pub const MEMORY: Duration = Duration::from_mins(10);
/// How long an own write stands before a list without it is believed.
const ASSUMED: Duration = Duration::from_secs(30);

/// News of an object.
#[derive(Clone, Debug)]
pub enum Op<T> {
    /// A list begins.
    Begin,
    /// It holds this.
    Listed(T),
    /// It ends.
    Listing,
    /// Added or changed.
    Applied(T),
    /// Deleted.
    Deleted(T),
    /// The answer to an own write.
    Written(T),
    /// An own deletion is done, or a live read found nothing under this name.
    Gone(String),
}

/// What changed: before and after.
pub type News<T> = Vec<(Option<T>, Option<T>)>;

#[derive(Clone, Debug)]
struct Entry<T> {
    object: T,
    since: Instant,
    written: Option<Instant>,
}

impl<T> Entry<T> {
    /// Whether an own write put it here so lately that a list may be older.
    fn is_assumed(&self, now: Instant) -> bool {
        self.written.is_some_and(|at| now.saturating_duration_since(at) < ASSUMED)
    }
}

/// Objects of one kind.
#[derive(Debug)]
pub struct Store<T> {
    objects: HashMap<String, Entry<T>>,
    listed: bool,
    list: Option<HashSet<String>>,
    gone: HashMap<String, Instant>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { objects: HashMap::new(), listed: false, list: None, gone: HashMap::new() }
    }
}

impl<T: Kept + Clone + PartialEq> Store<T> {
    /// Take news in.
    pub fn apply(&mut self, op: Op<T>, now: Instant) -> News<T> {
        match op {
            Op::Begin => {
                self.list = Some(HashSet::new());
                Vec::new()
            }
            Op::Listed(object) => {
                let key = object.key();
                if let Some(list) = &mut self.list {
                    list.insert(key.clone());
                }
                // A list is believed even where it goes back (a server restored from a backup), but for an own write that
                // it may not have seen yet.
                if let Some(known) = self.objects.get(&key)
                    && !known.is_assumed(now)
                {
                    return self.replace(key, object, now, None);
                }
                self.put(object, now, false)
            }
            Op::Listing => {
                self.listed = true;
                let Some(list) = self.list.take() else { return Vec::new() };
                let lost = self.objects.iter().filter(|(key, entry)| !list.contains(*key) && !entry.is_assumed(now));
                let lost: Vec<String> = lost.map(|(key, _)| key.clone()).collect();
                lost.into_iter().filter_map(|key| self.objects.remove(&key)).map(|e| (Some(e.object), None)).collect()
            }
            Op::Applied(object) => self.put(object, now, false),
            Op::Deleted(object) => {
                self.gone.retain(|_, at| now.duration_since(*at) < MEMORY);
                self.gone.insert(object.meta().uid.clone(), now);
                self.remove(&object.key(), Some(&object.meta().uid))
            }
            Op::Written(object) => {
                if self.gone.contains_key(&object.meta().uid) {
                    return Vec::new();
                }
                self.put(object, now, true)
            }
            Op::Gone(key) => {
                if let Some(entry) = self.objects.get(&key) {
                    self.gone.insert(entry.object.meta().uid.clone(), now);
                }
                self.remove(&key, None)
            }
        }
    }

    /// Own writes count no more than what a list says.
    pub fn distrust(&mut self) {
        self.objects.values_mut().for_each(|entry| entry.written = None);
    }

    fn put(&mut self, object: T, now: Instant, written: bool) -> News<T> {
        let key = object.key();
        if self.objects.get(&key).is_some_and(|known| object.meta().is_older_than(known.object.meta())) {
            return Vec::new();
        }
        self.replace(key, object, now, written.then_some(now))
    }

    fn replace(&mut self, key: String, object: T, now: Instant, written: Option<Instant>) -> News<T> {
        let before = self.objects.get(&key);
        let since = before.filter(|e| e.object.meta().uid == object.meta().uid).map_or(now, |entry| entry.since);
        let before = before.map(|entry| entry.object.clone());
        let same = before.as_ref() == Some(&object);
        self.objects.insert(key, Entry { object: object.clone(), since, written });
        if same { Vec::new() } else { vec![(before, Some(object))] }
    }

    fn remove(&mut self, key: &str, uid: Option<&str>) -> News<T> {
        let is_it = self.objects.get(key).is_some_and(|e| uid.is_none_or(|uid| e.object.meta().uid == uid));
        if !is_it {
            return Vec::new();
        }
        self.objects.remove(key).map(|entry| (Some(entry.object), None)).into_iter().collect()
    }

    /// The object under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&T> {
        self.objects.get(key).map(|entry| &entry.object)
    }

    /// Since when it has been known.
    #[must_use]
    pub fn since(&self, key: &str) -> Option<Instant> {
        self.objects.get(key).map(|entry| entry.since)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.objects.values().map(|entry| &entry.object)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether a first list has ended.
    #[must_use]
    pub const fn is_listed(&self) -> bool {
        self.listed
    }
}

#[cfg(test)]
mod tests;
