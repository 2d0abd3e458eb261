//! The wipe as data: what is overwritten, how, in what order, and what is read back.
//!
//! A [`WipePlan`] is computed once, journalled, and from then on only carried out: the engine asks it for canaries,
//! chunks and ranges to verify and does not think. The same seed gives the same plan after a restart.

mod canary;
mod level;
mod verify;

use std::ops::Range;

pub use canary::Canary;
pub use level::{Level, LevelLoss, level_after_wipe, losses_in_life};
use serde::{Deserialize, Serialize};
pub use verify::{Verification, VerifyDemand, is_zero};

use crate::bytes::MIB;

/// How a range is to be made zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroMethod {
    /// O_DIRECT writes of zero pages: the only one that reaches the medium beneath a file.
    #[default]
    DirectWrites,
    /// Ask the kernel (BLKZEROOUT, or FALLOC_FL_ZERO_RANGE on a file). On a file it changes the map, not the medium.
    ZeroRange,
}

/// 256 random bits, journalled before the first canary is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Seed(pub [u8; 32]);

impl From<Seed> for String {
    fn from(seed: Seed) -> Self {
        hex::encode(seed.0)
    }
}

impl TryFrom<String> for Seed {
    type Error = hex::FromHexError;

    fn try_from(text: String) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seed({}…)", hex::encode(&self.0[..4]))
    }
}

/// The grain of a wipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Geometry {
    /// Bytes between checkpoints; a multiple of `block`.
    pub chunk: u64,
    /// Bytes of a canary and of a sample; a multiple of the disk's sector size.
    pub block: u32,
    /// Canaries in each chunk, beside those in its first and last block.
    pub canaries: u32,
}

impl Default for Geometry {
    /// 256 MiB chunks (a checkpoint every 0.1 s to 1.5 s on disks of 200 MB/s to 2.5 GB/s), 4 KiB blocks.
    fn default() -> Self {
        Self { chunk: 256 * MIB, block: 4096, canaries: 2 }
    }
}

/// Why a plan cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot plan a wipe of {size} bytes in chunks of {chunk} and blocks of {block}: sizes must be multiples of the block and not zero"
)]
pub struct BadGeometry {
    size: u64,
    chunk: u64,
    block: u32,
}

/// What will be done to one range of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WipePlan {
    /// Bytes to wipe, from offset 0.
    pub size: u64,
    /// Grain.
    pub geometry: Geometry,
    /// How.
    pub method: ZeroMethod,
    /// What is read back.
    pub verification: Verification,
    /// Where canaries and samples lie, and what canaries hold.
    pub seed: Seed,
}

impl WipePlan {
    /// Plan a wipe of `size` bytes.
    ///
    /// # Errors
    /// Where size, chunk and block do not divide each other.
    pub fn new(
        size: u64,
        geometry: Geometry,
        method: ZeroMethod,
        demand: VerifyDemand,
        full_up_to: u64,
        seed: Seed,
    ) -> Result<Self, BadGeometry> {
        let Geometry { chunk, block, .. } = geometry;
        let divides = |n: u64| n != 0 && block != 0 && n.is_multiple_of(u64::from(block));
        if !divides(size) || !divides(chunk) {
            return Err(BadGeometry { size, chunk, block });
        }
        Ok(Self { size, geometry, method, verification: demand.resolve(size, full_up_to), seed })
    }

    /// The chunks from the one that holds `from` on, in order.
    pub fn chunks(&self, from: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let (chunk, size) = (self.geometry.chunk, self.size);
        (from / chunk..size.div_ceil(chunk)).map(move |i| i * chunk..size.min((i + 1) * chunk))
    }

    /// Where to go on after a restart, when everything before `checkpoint` was flushed: one chunk earlier, so that the
    /// seam is written again.
    #[must_use]
    pub fn resume_at(&self, checkpoint: u64) -> u64 {
        checkpoint.saturating_sub(self.geometry.chunk)
    }
}

#[cfg(test)]
mod tests;
