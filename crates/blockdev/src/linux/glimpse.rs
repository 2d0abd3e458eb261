//! Descriptors that this process has open only to ask a question: whoever looks for users of a device at that moment, in
//! another thread, need not count them.
//!
//! Noted after the open and struck out before the close, so what is noted is never anything else. Who looks in between sees a
//! descriptor for one moment too many, never one too few.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

static NOTED: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// A noted descriptor; give it up before the file it is of.
pub(super) struct Glimpse(RawFd);

impl Glimpse {
    pub(super) fn of(file: &File) -> Self {
        let fd = file.as_raw_fd();
        noted().insert(fd);
        Self(fd)
    }
}

impl Drop for Glimpse {
    fn drop(&mut self) {
        noted().remove(&self.0);
    }
}

/// Whether a descriptor of this process is a glimpse. Ask after it was seen to lead to the device: then it either is the one
/// that was seen, or that one is closed by now.
pub(super) fn is_glimpse(fd: RawFd) -> bool {
    noted().contains(&fd)
}

fn noted() -> MutexGuard<'static, BTreeSet<RawFd>> {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner)
}
