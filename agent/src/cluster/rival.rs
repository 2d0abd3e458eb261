//! Whether another agent speaks under this node's name: pure, over what the StorageNode says and when.
//!
//! Two agents with ledgers of their own would overwrite each other without end. What an API server restored from a backup
//! brings back looks the same once; only what comes again is somebody who is there. While there is one, this agent is
//! silent, and what it serves goes on.

use std::time::Duration;

use tokio::time::Instant;

/// So many times in [`WINDOW`] must our word be replaced by another ledger's.
const TIMES: usize = 2;
/// Within this time.
const WINDOW: Duration = Duration::from_mins(10);
/// How long to be silent then, before it is tried again.
pub const SILENCE: Duration = Duration::from_mins(2);

/// What has been heard.
#[derive(Debug)]
pub struct Rivals {
    own: String,
    /// Whether our word stood there last.
    stood: bool,
    /// When it was replaced, the latest last.
    replaced: Vec<Instant>,
    silent_until: Option<Instant>,
}

impl Rivals {
    /// Nobody yet. `own` is this ledger's id.
    pub const fn new(own: String) -> Self {
        Self { own, stood: false, replaced: Vec::new(), silent_until: None }
    }

    /// The StorageNode says this ledger's id. Whether it is a rival's, from now on.
    pub fn heard(&mut self, ledger: &str, now: Instant) -> bool {
        if ledger.is_empty() {
            return false;
        }
        if ledger == self.own {
            self.stood = true;
            return false;
        }
        if !std::mem::replace(&mut self.stood, false) {
            return false;
        }
        self.replaced.retain(|at| now.duration_since(*at) < WINDOW);
        self.replaced.push(now);
        if self.replaced.len() < TIMES {
            return false;
        }
        self.silent_until = Some(now + SILENCE);
        true
    }

    /// Until when to be silent, if at all.
    pub fn silent_until(&self, now: Instant) -> Option<Instant> {
        self.silent_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backup_brings_back_once_is_no_rival_and_what_comes_again_is() {
        let mut rivals = Rivals::new("own".to_owned());
        let now = Instant::now();
        assert!(!rivals.heard("other", now), "it stood there before we spoke");
        assert!(!rivals.heard("own", now));
        assert!(!rivals.heard("other", now), "a backup");
        assert!(!rivals.heard("other", now), "said again, not done again");
        assert!(!rivals.heard("own", now));
        assert_eq!(rivals.silent_until(now), None);
        assert!(rivals.heard("other", now));
        assert_eq!(rivals.silent_until(now), Some(now + SILENCE));
        assert_eq!(rivals.silent_until(now + SILENCE), None);
    }

    #[test]
    fn what_happens_once_in_a_long_while_is_no_rival() {
        let mut rivals = Rivals::new("own".to_owned());
        let mut now = Instant::now();
        for _ in 0..5 {
            assert!(!rivals.heard("own", now) && !rivals.heard("other", now));
            now += WINDOW;
        }
    }
}
