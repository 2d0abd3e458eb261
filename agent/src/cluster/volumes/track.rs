//! What is known of one LocalVolume object, and whether its status is worth a write. Pure but for the clock it is given.

use std::time::{Duration, Instant};

use bedplate_api::{LocalVolume, LocalVolumeStatus};

/// One object.
pub struct Tracked {
    /// As it was last seen, without what is not needed.
    pub object: LocalVolume,
    /// The status last written, until something else is seen.
    pub written: Option<LocalVolumeStatus>,
    /// When.
    pub written_at: Option<Instant>,
    /// The engine works on it.
    pub working: bool,
    /// A write is under way.
    pub writing: bool,
    /// Why it will not be made.
    pub refusal: Option<String>,
    /// Why what was asked cannot be done now.
    pub note: Option<String>,
    /// When to try again.
    pub retry: Option<Instant>,
}

impl Tracked {
    /// A new one.
    pub fn new(object: LocalVolume) -> Self {
        Self {
            object: lean(object),
            written: None,
            written_at: None,
            working: false,
            writing: false,
            refusal: None,
            note: None,
            retry: None,
        }
    }

    /// It was seen (again). Events of before our own last write, which come late, say nothing new; a list is the truth,
    /// also where it is older: an API server restored from a backup goes back in its versions.
    pub fn seen(&mut self, object: LocalVolume, listed: bool) {
        if object.metadata.uid != self.object.metadata.uid {
            *self = Self::new(object);
            return;
        }
        if !listed && older(&object, &self.object) {
            return;
        }
        if self.written.is_some() && object.status != self.written {
            self.written = None;
        }
        self.object = lean(object);
    }

    /// A write ended: this is what the API server has.
    pub fn written_back(&mut self, object: LocalVolume) {
        if object.metadata.uid == self.object.metadata.uid && !older(&object, &self.object) {
            self.object = lean(object);
        }
    }

    /// This is being written.
    pub fn wrote(&mut self, status: LocalVolumeStatus, now: Instant) {
        self.written = Some(status);
        self.written_at = Some(now);
    }
}

/// Whether `a` is an older version than `b`. Resource versions of one object are comparable numbers in every API server
/// there is (and by contract since Kubernetes 1.35); where they are not, nothing is older.
fn older(a: &LocalVolume, b: &LocalVolume) -> bool {
    let version = |object: &LocalVolume| object.metadata.resource_version.as_ref()?.parse::<u64>().ok();
    matches!((version(a), version(b)), (Some(a), Some(b)) if a < b)
}

fn lean(mut object: LocalVolume) -> LocalVolume {
    object.metadata.managed_fields = None;
    object.metadata.annotations = None;
    object
}

/// Whether `status` is worth a write: it differs from what is there and from what was written last; progress alone at
/// most every `pace`.
pub fn write_due(tracked: &Tracked, status: &LocalVolumeStatus, now: Instant, pace: Duration) -> bool {
    let there = tracked.object.status.as_ref();
    if there == Some(status) || tracked.written.as_ref() == Some(status) {
        return false;
    }
    let only_progress = there.or(tracked.written.as_ref()).is_some_and(|there| {
        LocalVolumeStatus { wipe: None, ..there.clone() } == LocalVolumeStatus { wipe: None, ..status.clone() }
    });
    !only_progress || tracked.written_at.is_none_or(|at| now.duration_since(at) >= pace)
}

#[cfg(test)]
mod tests;
