//! What the demo writes so as to find it again: blocks and rows that nobody else's data can look like.
//!
//! Everything derives from a seed that lives in the memory of this process and of those in the pods alone: it is never
//! written, logged or reported, so what a search finds on the disk can only have come through the volumes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of one marker block.
pub const BLOCK: usize = 4096;
/// Bytes of the smallest piece that a disk writes, and that is recognised alone.
pub const SECTOR: usize = 512;
/// Pieces of a marker block.
pub const SECTORS: usize = BLOCK / SECTOR;
/// Characters of a row's token: the first half is the same in all rows, the second tells which.
pub const TOKEN: usize = 32;

/// The markers of one run. Written as bytes only to the demo's own processes, through a socket.
#[derive(Clone, Serialize, Deserialize)]
pub struct Markers {
    seed: [u8; 32],
    /// Volumes that carry markers.
    pub volumes: u32,
    /// Marker blocks a volume.
    pub blocks: u32,
    /// Rows with a token a volume.
    pub rows: u32,
}

impl Markers {
    /// Markers from a seed.
    pub fn new(seed: [u8; 32], volumes: u32, blocks: u32, rows: u32) -> Self {
        Self { seed, volumes, blocks, rows }
    }

    /// Blocks and rows of one volume together.
    pub fn of_a_volume(&self) -> u64 {
        u64::from(self.blocks) + u64::from(self.rows)
    }

    /// Blocks and rows of all volumes together.
    pub fn all(&self) -> u64 {
        u64::from(self.volumes) * self.of_a_volume()
    }

    fn derive(&self, kind: &[u8], words: [u32; 3]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(kind);
        for word in words {
            hash.update(word.to_le_bytes());
        }
        hash.finalize().into()
    }

    /// The 4 KiB of one marker block; each of its sectors is unlike every other.
    pub fn block(&self, volume: u32, block: u32) -> Vec<u8> {
        (0..).flat_map(|piece| self.derive(b"block", [volume, block, piece])).take(BLOCK).collect()
    }

    /// What the tokens of all rows begin with.
    pub fn prefix(&self) -> String {
        hex(&self.derive(b"rows", [0; 3])[..TOKEN / 4])
    }

    /// The token of one row, in hexadecimal.
    pub fn token(&self, volume: u32, row: u32) -> String {
        self.prefix() + &hex(&self.derive(b"row", [volume, row, 0])[..TOKEN / 4])
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
