//! What is read back after a wipe: everything, or a stratified sample with a stated bound.

use std::ops::Range;

use rand_chacha::rand_core::RngCore;
use serde::{Deserialize, Serialize};

use super::WipePlan;
use super::canary::rng;
use crate::bytes::MIB;

/// Samples of a sampled verification: misses 0.1 % of unwiped blocks with a probability of 5 % (ln 0.05 / ln 0.999).
const SAMPLES: u32 = 2_995;

/// What the class or pool asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyDemand {
    /// Full up to the pool's size budget, a sample above it.
    #[default]
    Auto,
    /// Every byte.
    Full,
    /// A sample.
    Sample,
}

impl VerifyDemand {
    /// What that means for `size` bytes.
    #[must_use]
    pub fn resolve(self, size: u64, full_up_to: u64) -> Verification {
        match self {
            Self::Full => Verification::Full,
            Self::Auto if size <= full_up_to => Verification::Full,
            Self::Auto | Self::Sample => Verification::Sample { samples: SAMPLES },
        }
    }
}

/// What is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Verification {
    /// Every byte.
    Full,
    /// One random block in each of `samples` equal strata, beside the fixed places of [`WipePlan::to_verify`].
    Sample {
        /// How many.
        samples: u32,
    },
}

impl Verification {
    /// The largest share of unwiped blocks, in parts per million, that would escape with a probability of at most 5 %:
    /// 1 − 0.05^(1/n). Zero for a full one.
    #[must_use]
    pub fn bound_ppm(self) -> u32 {
        match self {
            Self::Full => 0,
            Self::Sample { samples: 0 } => 1_000_000,
            Self::Sample { samples } => {
                let bound = 1.0 - 0.05_f64.powf(1.0 / f64::from(samples));
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1e6")]
                let ppm = (bound * 1e6).ceil() as u32;
                ppm
            }
        }
    }
}

/// The longest range handed out at once, so that a reader's memory stays small.
const PIECE: u64 = 8 * MIB;

impl WipePlan {
    /// The ranges to read back, sorted, apart, each at most 8 MiB. A sample always holds the first and last MiB, every
    /// chunk boundary and both sides of every place where a wipe was resumed.
    #[must_use]
    pub fn to_verify(&self, resumed_at: &[u64]) -> Vec<Range<u64>> {
        let block = u64::from(self.geometry.block);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        match self.verification {
            Verification::Full => ranges.push(0..self.size),
            Verification::Sample { samples } => {
                ranges.push(0..self.size.min(MIB));
                ranges.push(self.size.saturating_sub(MIB)..self.size);
                let seams = self.chunks(0).map(|c| c.start).chain(resumed_at.iter().copied());
                ranges.extend(seams.map(|seam| seam.saturating_sub(block)..self.size.min(seam + block)));
                let blocks = self.size / block;
                let strata = u64::from(samples).clamp(1, blocks);
                ranges.extend((0..strata).map(|i| {
                    // u128: the product of two block counts may not fit.
                    let edge = |i: u64| u64::try_from(u128::from(blocks) * u128::from(i) / u128::from(strata));
                    let (from, to) = (edge(i).unwrap_or(0), edge(i + 1).unwrap_or(blocks));
                    let place = from + rng(&self.seed, b"sample", i).next_u64() % (to - from).max(1);
                    place * block..(place + 1) * block
                }));
            }
        }
        merged(ranges).into_iter().flat_map(pieces).collect()
    }
}

fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|r| r.start < r.end);
    ranges.sort_unstable_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let count = (range.end - range.start).div_ceil(PIECE);
    (0..count).map(move |i| range.start + i * PIECE..range.end.min(range.start + (i + 1) * PIECE))
}

/// Whether every byte is zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROES: [u8; 4096] = [0; 4096];
    // Slice equality is memcmp: fast in every build profile.
    bytes.chunks(ZEROES.len()).all(|piece| piece == &ZEROES[..piece.len()])
}
