//! Figures as labels: buckets of ×2 that a value must leave clearly before the label changes.
//!
//! A label that flips between two buckets re-schedules nothing but costs a Node write each time and makes selectors
//! lie, so a value has to pass the bucket's edge by a quarter first. Figures themselves live in StorageNode.

/// The bucket of a capability (IOPS, MiB/s): the largest power of two not above `value`, so that the label never
/// promises more than was seen; with `previous`, unchanged while the value is within 25 % beyond the bucket's edges.
/// 0 is its own bucket and has no hysteresis.
pub fn bucket(previous: Option<u64>, value: u64) -> u64 {
    if value == 0 {
        return 0;
    }
    let fresh = 1u64 << (u64::BITS - 1 - value.leading_zeros());
    match previous.filter(|p| p.is_power_of_two()) {
        // The bucket of p is [p, 2p); it is left below 0.75 p or from 2.5 p.
        Some(p) if stays(value, 3 * u128::from(p), 10 * u128::from(p)) => p,
        _ => fresh,
    }
}

/// The bucket of a latency: the smallest power of two not below `value`, because less is better and the label must
/// not promise less than was seen; the same hysteresis.
pub fn bucket_latency(previous: Option<u64>, value: u64) -> u64 {
    if value == 0 {
        return 0;
    }
    let fresh = value.checked_next_power_of_two().unwrap_or(1 << (u64::BITS - 1));
    match previous.filter(|p| p.is_power_of_two()) {
        // The bucket of p is (p/2, p]; it is left below 0.375 p or from 1.25 p. In quarters of p/2: 1.5 and 5.
        Some(p) if stays(2 * value.min(u64::MAX / 2), 3 * u128::from(p), 10 * u128::from(p)) => p,
        _ => fresh,
    }
}

/// Whether `low ≤ 4 × value < high`.
fn stays(value: u64, low: u128, high: u128) -> bool {
    (low..high).contains(&(4 * u128::from(value)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_at_an_edge_does_not_flip_its_label() {
        let first = bucket(None, 32_768);
        assert_eq!(first, 32_768);
        let wobbling = [32_700, 33_000, 30_000, 25_000, 70_000, 80_000];
        assert!(wobbling.iter().all(|&v| bucket(Some(first), v) == first));
        assert_eq!(bucket(Some(first), 24_000), 16_384);
        assert_eq!(bucket(Some(first), 82_000), 65_536);
    }

    #[test]
    fn a_latency_is_never_promised_shorter_than_it_was() {
        assert_eq!(bucket_latency(None, 9_000), 16_384);
        assert_eq!(bucket_latency(Some(16_384), 20_000), 16_384, "within a quarter");
        assert_eq!(bucket_latency(Some(16_384), 20_480), 32_768);
        assert_eq!(bucket_latency(Some(16_384), 6_145), 16_384);
        assert_eq!(bucket_latency(Some(16_384), 6_100), 8_192);
    }

    proptest! {
        #[test]
        fn a_fresh_bucket_is_below_the_value_and_above_half(value in 1u64..) {
            let b = bucket(None, value);
            prop_assert!(b.is_power_of_two() && b <= value && u128::from(value) < 2 * u128::from(b));
        }

        #[test]
        fn a_latency_bucket_is_above_the_value_and_below_double(value in 1u64..=1 << 62) {
            let b = bucket_latency(None, value);
            prop_assert!(b.is_power_of_two() && b >= value && b < 2 * value);
        }

        #[test]
        fn asking_again_with_the_same_value_changes_nothing(previous in prop::option::of(0u32..63), value: u64) {
            let previous = previous.map(|p| 1u64 << p);
            let once = bucket(previous, value);
            prop_assert_eq!(bucket(Some(once), value), once);
            let once = bucket_latency(previous, value);
            prop_assert_eq!(bucket_latency(Some(once), value), once);
        }
    }
}
