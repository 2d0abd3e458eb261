//! Canaries: random blocks planted before the wipe and searched for after it.
//!
//! They catch what a read-back of zeroes cannot: a wipe that went to the wrong device, writes that were dropped, a
//! device that answers zero without having written. Content and place derive from the seed, so nothing but the seed
//! need be journalled.

use std::ops::Range;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

use super::{Seed, WipePlan};

/// One planted block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Where, in bytes.
    pub offset: u64,
    /// What: one block of random bytes, never all zero.
    pub content: Vec<u8>,
}

impl WipePlan {
    /// The canaries of one chunk, sorted by offset: its first and last block and some between.
    #[must_use]
    pub fn canaries(&self, chunk: &Range<u64>) -> Vec<Canary> {
        let block = u64::from(self.geometry.block);
        let blocks = (chunk.end - chunk.start) / block;
        let mut rng = rng(&self.seed, b"canary-place", chunk.start);
        let mut places = vec![0, blocks - 1];
        places.extend((0..self.geometry.canaries).map(|_| rng.next_u64() % blocks));
        places.sort_unstable();
        places.dedup();
        places
            .into_iter()
            .map(|place| {
                let offset = chunk.start + place * block;
                Canary { offset, content: self.token(offset) }
            })
            .collect()
    }

    /// What the canary at `offset` holds.
    fn token(&self, offset: u64) -> Vec<u8> {
        let mut content = vec![0; self.geometry.block as usize];
        rng(&self.seed, b"canary-token", offset).fill_bytes(&mut content);
        content
    }
}

/// A generator for one purpose and place, independent of all others of the same seed.
pub(super) fn rng(seed: &Seed, purpose: &[u8], place: u64) -> ChaCha20Rng {
    let digest = Sha256::new().chain_update(seed.0).chain_update(purpose).chain_update(place.to_le_bytes()).finalize();
    ChaCha20Rng::from_seed(digest.into())
}
