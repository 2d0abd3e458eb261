//! Pods that wait for a node: ready to be tried, held back for a moment, or asleep until something changes
//! (kube-scheduler's activeQ, backoffQ and unschedulable pods). Pure: time is an argument.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long pods are held back.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After the first failed attempt; doubled after each further one.
    pub initial_backoff: Duration,
    /// The longest backoff.
    pub max_backoff: Duration,
    /// A sleeping pod is tried again after this even if nothing happened.
    pub asleep_at_most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            asleep_at_most: Duration::from_mins(5),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Active {
        since: Instant,
    },
    /// A pod that was rejected is taken before its time when nothing else waits; one that met an error is not.
    Backoff {
        until: Instant,
        error: bool,
    },
    Asleep {
        since: Instant,
        until: Instant,
        by_extender: bool,
    },
    /// Being tried or bound; what `Queue::events` was when that began.
    Away {
        events: u64,
    },
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    attempts: u32,
    place: Place,
}

/// Every pod without a node that this scheduler is to place.
#[derive(Debug, Default)]
pub(super) struct Queue {
    patience: Patience,
    entries: HashMap<String, Entry>,
    events: u64,
}

impl Queue {
    pub fn new(patience: Patience) -> Self {
        Self { patience, ..Self::default() }
    }

    /// A pod was made, or changed. A change of its own status wakes it only if an extender had rejected it.
    pub fn offer(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.uid().unwrap_or_default();
        let place = Place::Active { since: now };
        let entry = self.entries.entry(uid).or_insert_with(|| Entry { pod: pod.clone(), attempts: 0, place });
        let say = |pod: &Pod| (pod.spec.clone(), pod.labels().clone(), pod.annotations().clone());
        let changed = say(&entry.pod) != say(&pod);
        entry.pod = pod;
        match entry.place {
            Place::Asleep { by_extender, until, .. } if changed || by_extender => entry.place = wake(until, now),
            Place::Away { events } if changed => entry.place = Place::Away { events: events.wrapping_sub(1) },
            _ => {}
        }
    }

    /// A pod is gone, or has its node.
    pub fn forget(&mut self, uid: &str) {
        self.entries.remove(uid);
    }

    /// All others are gone.
    pub fn keep(&mut self, uids: &HashSet<String>) {
        self.entries.retain(|uid, _| uids.contains(uid));
    }

    /// A built-in object changed: sleepers may fit now.
    pub fn wake_all(&mut self, now: Instant) {
        self.events += 1;
        for entry in self.entries.values_mut() {
            if let Place::Asleep { until, .. } = entry.place {
                entry.place = wake(until, now);
            }
        }
    }

    /// The next pod to try: highest priority, then longest waiting; if there is none, one of those held back (as 1.33
    /// and later do). It is away until it is reported back.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        for entry in self.entries.values_mut() {
            match entry.place {
                Place::Backoff { until, .. } if until <= now => entry.place = Place::Active { since: until },
                Place::Asleep { since, .. } if since + self.patience.asleep_at_most <= now => {
                    entry.place = Place::Active { since: now };
                }
                _ => {}
            }
        }
        let ready = self.entries.values_mut().filter_map(|entry| match entry.place {
            Place::Active { since } => Some((false, since, entry)),
            Place::Backoff { until, error: false } => Some((true, until, entry)),
            _ => None,
        });
        let priority = |pod: &Pod| -i64::from(pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0));
        let (_, _, entry) = ready.min_by_key(|(early, since, entry)| {
            (*early, priority(&entry.pod), *since, entry.pod.creation_timestamp(), entry.pod.name_any())
        })?;
        entry.attempts += 1;
        entry.place = Place::Away { events: self.events };
        Some(entry.pod.clone())
    }

    /// It fitted nowhere: asleep until something changes, or held back if something did meanwhile.
    pub fn rejected(&mut self, uid: &str, by_extender: bool, now: Instant) {
        let events = self.events;
        self.report(uid, now, |place, until| match place {
            Place::Away { events: then } if then == events => Place::Asleep { since: now, until, by_extender },
            _ => Place::Backoff { until, error: false },
        });
    }

    /// Something went wrong with it: held back, then tried again.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        self.report(uid, now, |_, until| Place::Backoff { until, error: true });
    }

    fn report(&mut self, uid: &str, now: Instant, place: impl Fn(Place, Instant) -> Place) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let doublings = entry.attempts.saturating_sub(1).min(16);
        let backoff = self.patience.initial_backoff.saturating_mul(1 << doublings).min(self.patience.max_backoff);
        entry.place = place(entry.place, now + backoff);
    }

    /// When `pop` may have something new although nothing happened.
    pub fn next(&self) -> Option<Instant> {
        let times = self.entries.values().filter_map(|entry| match entry.place {
            Place::Backoff { until, .. } => Some(until),
            Place::Asleep { since, .. } => Some(since + self.patience.asleep_at_most),
            Place::Active { since } => Some(since),
            Place::Away { .. } => None,
        });
        times.min()
    }
}

/// Awake, but not before its backoff is over.
fn wake(until: Instant, now: Instant) -> Place {
    if until <= now { Place::Active { since: now } } else { Place::Backoff { until, error: false } }
}

#[cfg(test)]
mod tests;
