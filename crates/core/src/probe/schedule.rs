//! When a disk is measured again: once a day, not all disks and nodes at the same minute.

use jiff::{SignedDuration, Timestamp};

/// Between two measurements of one disk.
const PERIOD: SignedDuration = SignedDuration::from_hours(24);
/// The start is spread over this many seconds more.
const SPREAD_S: u64 = 2 * 3600;

/// When a disk measured at `last` is due again. `spread` is any number that differs between disks and nodes and stays
/// the same, such as a hash of the disk's identity. A disk whose identity changed is due at once: the caller's part.
pub fn next_due(last: Timestamp, spread: u64) -> Timestamp {
    let jitter = SignedDuration::from_secs(i64::try_from(spread % SPREAD_S).unwrap_or(0));
    last.saturating_add(PERIOD.saturating_add(jitter)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_disk_is_measured_at_most_daily_and_at_least_every_26_hours(at in 0i64..4_000_000_000, spread: u64) {
            let last = Timestamp::from_second(at).unwrap();
            let wait = next_due(last, spread).duration_since(last);
            prop_assert!(wait >= SignedDuration::from_hours(24) && wait < SignedDuration::from_hours(26));
        }
    }

    #[test]
    fn disks_are_not_all_due_at_the_same_moment() {
        let last = Timestamp::UNIX_EPOCH;
        assert_ne!(next_due(last, 1), next_due(last, 2));
        assert_eq!(next_due(last, 7), next_due(last, 7));
    }
}
