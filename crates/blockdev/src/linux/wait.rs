//! Waiting for the kernel to get somewhere: look, wait a little, look again, up to a deadline.
//!
//! There is nothing to poll for where a loop device lets go or a node appears; what is waited for is always looked at,
//! never assumed after a time.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

/// Between two looks.
const TICK_MS: u16 = 5;

/// Looks until `seen` finds something or `longest` has passed; looks at least once.
pub(super) fn until<T>(longest: Duration, mut seen: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(found) = seen()? {
            return Ok(Some(found));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        // A signal only ends the pause early.
        let _ = poll(&mut [], PollTimeout::from(TICK_MS));
    }
}
