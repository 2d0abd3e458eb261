//! How steady a measurement was, and what lowers the confidence in it.
//!
//! The test is borrowed from SNIA SSS PTS 2.0.2 §2.1.24 (five rounds; range at most 20 % and best-fit slope at most
//! 10 % of the average), applied to five equal parts of some seconds. Passing it does not make a figure a
//! "steady state": only the unsteady ones can be told.

use super::figures::{Confidence, Doubt};

/// Parts that a measurement is cut into.
pub const WINDOWS: usize = 5;
const MAX_RANGE: f64 = 0.20;
const MAX_SLOPE: f64 = 0.10;
/// With fewer reads than this in a window, on average, chance alone exceeds the allowed range.
const MIN_PER_WINDOW: u64 = 20;
/// Share of all-zero blocks beyond which the figure is likely that of unwritten flash, which answers without looking.
const MAX_ZERO: f64 = 0.5;

/// Spread and trend over the windows, as fractions of their average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stability {
    /// (largest − smallest) / average.
    pub range: f64,
    /// Excursion of the best-fit line from first to last window / average.
    pub slope: f64,
}

impl Stability {
    /// Whether both are inside the limits (20 % and 10 %).
    pub fn steady(&self) -> bool {
        self.range <= MAX_RANGE && self.slope <= MAX_SLOPE
    }
}

/// Merges counts of equal short slices of time into [`WINDOWS`] windows. Slices that do not fill a window are dropped
/// from the end. `None` with fewer slices than windows.
pub fn windows(slices: &[u32]) -> Option<[u64; WINDOWS]> {
    let per = slices.len() / WINDOWS;
    (per > 0).then(|| std::array::from_fn(|w| slices[w * per..(w + 1) * per].iter().map(|&c| u64::from(c)).sum()))
}

/// Spread and trend of five counts. Nothing counted at all is as unsteady as can be.
pub fn stability(counts: &[u64; WINDOWS]) -> Stability {
    let n = WINDOWS as f64;
    let average = counts.iter().map(|&c| c as f64).sum::<f64>() / n;
    if average <= 0.0 {
        return Stability { range: f64::INFINITY, slope: f64::INFINITY };
    }
    let max = counts.iter().copied().max().unwrap_or(0) as f64;
    let min = counts.iter().copied().min().unwrap_or(0) as f64;
    let middle = (n - 1.0) / 2.0;
    let (mut top, mut bottom) = (0.0, 0.0);
    for (i, &count) in counts.iter().enumerate() {
        let x = i as f64 - middle;
        top += x * (count as f64 - average);
        bottom += x * x;
    }
    let excursion = (top / bottom * (n - 1.0)).abs();
    Stability { range: (max - min) / average, slope: excursion / average }
}

/// The confidence in a probe: `depths` are the window counts of each measured depth (`None`: too short to cut).
pub fn judge(depths: &[Option<[u64; WINDOWS]>], blocks_read: u64, zero_blocks: u64) -> Confidence {
    let mut doubts = Vec::new();
    if blocks_read > 0 && zero_blocks as f64 > MAX_ZERO * blocks_read as f64 {
        doubts.push(Doubt::MostlyZero);
    }
    let enough = |w: &[u64; WINDOWS]| w.iter().sum::<u64>() >= MIN_PER_WINDOW * WINDOWS as u64;
    if depths.is_empty() || !depths.iter().all(|d| d.as_ref().is_some_and(enough)) {
        doubts.push(Doubt::FewReads);
    }
    let measured = || depths.iter().flatten().map(stability);
    if measured().any(|s| s.range > MAX_RANGE) {
        doubts.push(Doubt::Unsteady);
    }
    if measured().any(|s| s.slope > MAX_SLOPE) {
        doubts.push(Doubt::Drifting);
    }
    if doubts.is_empty() { Confidence::High } else { Confidence::Low(doubts) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_windows_are_steady_and_a_ramp_is_drifting() {
        assert!(stability(&[1000; 5]).steady());
        let drifting = stability(&[950, 975, 1000, 1025, 1070]);
        assert!(drifting.range <= 0.20 && drifting.slope > 0.10, "{drifting:?}");
        let burst = stability(&[1000, 1000, 1300, 1000, 1000]);
        assert!(burst.range > 0.20 && burst.slope < 0.01, "{burst:?}");
    }

    #[test]
    fn a_disk_that_is_mostly_zeroes_is_not_trusted() {
        let steady = [Some([1000; 5])];
        assert_eq!(judge(&steady, 5000, 2500), Confidence::High);
        assert_eq!(judge(&steady, 5000, 2501), Confidence::Low(vec![Doubt::MostlyZero]));
    }

    #[test]
    fn a_measurement_of_a_handful_of_reads_says_so() {
        assert_eq!(judge(&[Some([10; 5])], 50, 0), Confidence::Low(vec![Doubt::FewReads]));
        assert_eq!(judge(&[None], 3, 0), Confidence::Low(vec![Doubt::FewReads]));
        assert_eq!(judge(&[], 0, 0), Confidence::Low(vec![Doubt::FewReads]));
    }

    proptest! {
        #[test]
        fn windows_neither_lose_nor_invent_reads(slices in prop::collection::vec(0u32..1000, 5..400)) {
            let counted: u64 = windows(&slices).unwrap().iter().sum();
            let used = slices.len() / WINDOWS * WINDOWS;
            prop_assert_eq!(counted, slices[..used].iter().map(|&c| u64::from(c)).sum::<u64>());
        }

        #[test]
        fn steadiness_does_not_depend_on_the_scale(counts in prop::array::uniform5(1u64..100_000), k in 1u64..1000) {
            let (a, b) = (stability(&counts), stability(&counts.map(|c| c * k)));
            prop_assert!((a.range - b.range).abs() < 1e-6 && (a.slope - b.slope).abs() < 1e-6);
        }
    }
}
