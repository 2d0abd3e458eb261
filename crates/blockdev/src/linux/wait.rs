//! Waiting for the kernel to get somewhere: look, wait a little, look again, up to a deadline.
//!
//! There is nothing to poll for where a loop device lets go or a node appears; what is waited for is always looked at,
//! never assumed after a time.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};

/// Between two looks.
const TICK_MS: u16 = 5;

/// Looks until `seen` finds something; the last look begins when `longest` has passed, however long one look takes.
pub(super) fn until<T>(longest: Duration, mut seen: impl FnMut() -> io::Result<Option<T>>) -> io::Result<Option<T>> {
    let deadline = Instant::now() + longest;
    loop {
        let last = Instant::now() >= deadline;
        if let Some(found) = seen()? {
            return Ok(Some(found));
        }
        if last {
            return Ok(None);
        }
        // A signal only ends the pause early.
        let _ = poll(&mut [], PollTimeout::from(TICK_MS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLANCE: Duration = Duration::from_millis(50);

    #[test]
    fn what_a_slow_look_finds_is_looked_at_again() {
        let mut looks = 0;
        let found = until(GLANCE, || {
            looks += 1;
            std::thread::park_timeout(GLANCE * 2);
            Ok((looks == 2).then_some(looks))
        });
        assert_eq!(found.unwrap(), Some(2));
    }

    #[test]
    fn the_last_look_begins_after_the_time_is_over() {
        let (start, mut last) = (Instant::now(), None);
        let found: Option<()> = until(GLANCE, || {
            last = Some(start.elapsed());
            std::thread::park_timeout(GLANCE * 2 / 3);
            Ok(None)
        })
        .unwrap();
        assert!(found.is_none() && last.unwrap() >= GLANCE);
    }
}
