//! What is to be decided about, what waits, what is under way.
//!
//! A key that is touched while its actions are under way is decided about when they are done. One whose action failed
//! waits, longer each time, unless something touches it.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::cluster::view::Key;

/// The first and the longest wait after a failure.
pub const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

#[derive(Debug)]
struct Job {
    keys: Vec<Key>,
    left: usize,
    failed: bool,
}

/// The order of the day.
#[derive(Debug, Default)]
pub struct Agenda {
    due: BTreeSet<Key>,
    wakes: BTreeSet<(Instant, Key)>,
    at: HashMap<Key, Instant>,
    busy: HashMap<Key, u64>,
    again: BTreeSet<Key>,
    jobs: HashMap<u64, Job>,
    last_job: u64,
    failures: HashMap<Key, u32>,
    acted: HashMap<Key, Instant>,
}

impl Agenda {
    /// Something about it changed.
    pub fn touch(&mut self, key: Key) {
        if self.busy.contains_key(&key) {
            self.again.insert(key);
        } else {
            self.due.insert(key);
        }
    }

    /// Decide about `key` when those of `others` that are busy are done.
    pub fn touch_after(&mut self, key: Key, others: &[Key]) {
        let job = others.iter().find_map(|other| self.busy.get(other)).and_then(|job| self.jobs.get_mut(job));
        match job {
            Some(job) => job.keys.push(key),
            None => drop(self.due.insert(key)),
        }
    }

    /// Look at it then, at the latest.
    pub fn wake_at(&mut self, key: Key, at: Instant) {
        if let Some(before) = self.at.get(&key).copied() {
            if before <= at {
                return;
            }
            self.wakes.remove(&(before, key.clone()));
        }
        self.at.insert(key.clone(), at);
        self.wakes.insert((at, key));
    }

    /// When something is due next.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Make due what is.
    pub fn wake(&mut self, now: Instant) {
        while let Some((at, key)) = self.wakes.first().cloned() {
            if at > now {
                break;
            }
            self.wakes.remove(&(at, key.clone()));
            self.at.remove(&key);
            self.touch(key);
        }
    }

    /// The next key to decide about.
    pub fn next(&mut self) -> Option<Key> {
        self.due.pop_first()
    }

    /// Nothing is to be done about it now.
    pub fn calm(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// Whether actions are under way for any of them.
    #[must_use]
    pub fn is_any_busy(&self, keys: &[Key]) -> bool {
        keys.iter().any(|key| self.busy.contains_key(key))
    }

    /// How many keys have actions under way.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy.len()
    }

    /// Whether it was acted on less than `gap` ago; then it is looked at again when the gap is over.
    pub fn is_too_soon(&mut self, key: &Key, now: Instant, gap: Duration) -> bool {
        match self.acted.get(key) {
            Some(last) if now.saturating_duration_since(*last) < gap => {
                let at = *last + gap;
                self.wake_at(key.clone(), at);
                true
            }
            _ => {
                self.acted.insert(key.clone(), now);
                false
            }
        }
    }

    /// Actions for these keys begin.
    pub fn begin(&mut self, keys: Vec<Key>, actions: usize) -> u64 {
        self.last_job += 1;
        for key in &keys {
            self.busy.insert(key.clone(), self.last_job);
            self.due.remove(key);
        }
        self.jobs.insert(self.last_job, Job { keys, left: actions, failed: false });
        self.last_job
    }

    /// One of a job's actions is done. When all are, its keys are free again and this is true.
    pub fn finish(&mut self, job: u64, failed: bool, now: Instant) -> bool {
        let Some(known) = self.jobs.get_mut(&job) else { return false };
        known.left = known.left.saturating_sub(1);
        known.failed |= failed;
        if known.left > 0 {
            return false;
        }
        let Some(known) = self.jobs.remove(&job) else { return false };
        for key in known.keys {
            let was_busy = self.busy.get(&key) == Some(&job);
            if was_busy {
                self.busy.remove(&key);
            }
            let again = self.again.remove(&key);
            if known.failed && was_busy {
                let failures = self.failures.get(&key).copied().unwrap_or(0);
                self.failures.insert(key.clone(), (failures + 1).min(16));
                // What the failed call brought to light may already be the answer: look once or twice at once.
                if again && failures < 2 {
                    self.due.insert(key);
                } else {
                    let pause = (PAUSES.0 * 2_u32.saturating_pow(failures)).min(PAUSES.1);
                    self.wake_at(key, now + pause);
                }
            } else {
                self.failures.remove(&key);
                if again || !was_busy {
                    self.due.insert(key);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
