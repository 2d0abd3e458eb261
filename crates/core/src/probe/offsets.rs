//! Where a probe reads: aligned, uniform over the whole range, in an order given by a seed, and never twice.
//!
//! A second read of the same block may come from the disk's or the host's cache and would flatter the figure. A keyed
//! permutation (Feistel network, cycle-walked into the range) visits every block once without remembering any.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const ROUNDS: usize = 6;

/// Byte offsets of blocks in `[0, blocks × block_size)`, each at most once.
#[derive(Debug, Clone)]
pub struct Offsets {
    keys: [u64; ROUNDS],
    half_bits: u32,
    blocks: u64,
    block_size: u64,
    next: u64,
}

impl Offsets {
    /// Offsets over `range_bytes` in whole blocks of `block_size` bytes. A range shorter than a block has none.
    pub fn new(range_bytes: u64, block_size: u32, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let keys = std::array::from_fn(|_| rng.next_u64());
        let block_size = u64::from(block_size.max(1));
        let blocks = range_bytes / block_size;
        let bits = u64::BITS - blocks.saturating_sub(1).leading_zeros();
        Self { keys, half_bits: bits.div_ceil(2).max(1), blocks, block_size, next: 0 }
    }

    /// Blocks in the range.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The image of `index` under the permutation of `[0, 4^half_bits)`.
    fn permute(&self, index: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (index >> self.half_bits, index & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

impl Iterator for Offsets {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.next >= self.blocks {
            return None;
        }
        // The permuted domain is at most four times the range, so a walk takes few steps and always comes back in.
        let mut block = self.permute(self.next);
        while block >= self.blocks {
            block = self.permute(block);
        }
        self.next += 1;
        Some(block * self.block_size)
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): every input bit reaches every output bit.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_block_is_visited_exactly_once(blocks in 0u64..5000, seed: u64, tail in 0u64..4096) {
            let seen: Vec<u64> = Offsets::new(blocks * 4096 + tail, 4096, seed).collect();
            let distinct: HashSet<u64> = seen.iter().copied().collect();
            prop_assert_eq!(seen.len() as u64, blocks);
            prop_assert_eq!(distinct.len() as u64, blocks);
            prop_assert!(seen.iter().all(|o| o % 4096 == 0 && o / 4096 < blocks));
        }

        #[test]
        fn a_probe_of_a_large_disk_reaches_every_part_of_it(
            gib in 8u64..20_000, seed: u64, shift in 12u32..=16,
        ) {
            let range = gib << 30;
            let n = 4000;
            let mut sixteenths = [0u32; 16];
            for offset in Offsets::new(range, 1 << shift, seed).take(n) {
                prop_assert!(offset + (1 << shift) <= range);
                sixteenths[usize::try_from(offset / range.div_ceil(16)).unwrap()] += 1;
            }
            // Expected 250 in each; six standard deviations is 93.
            prop_assert!(sixteenths.iter().all(|&c| (150..=350).contains(&c)), "{sixteenths:?}");
        }
    }

    #[test]
    fn another_seed_is_another_order() {
        let a: Vec<u64> = Offsets::new(1 << 30, 4096, 1).take(100).collect();
        let b: Vec<u64> = Offsets::new(1 << 30, 4096, 2).take(100).collect();
        assert_ne!(a, b);
        assert_eq!(a, Offsets::new(1 << 30, 4096, 1).take(100).collect::<Vec<_>>());
    }
}
