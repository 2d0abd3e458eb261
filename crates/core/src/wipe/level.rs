//! What a receipt may honestly claim (G4): never more than the evidence carries.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ZeroMethod;
use crate::extent::PhysicalMap;

/// How thoroughly a volume's bytes are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Later volumes cannot read them; the medium may still hold them.
    Isolation,
    /// Every block of the range was overwritten (NIST SP 800-88 Clear, for this range of addresses).
    Clear,
    /// The volume's own key was destroyed.
    CryptoErase,
}

impl Level {
    /// Every one, in its own order.
    pub const ALL: [Self; 3] = [Self::Isolation, Self::Clear, Self::CryptoErase];

    /// Whether a volume wiped to this level satisfies a class that demands `demand`. Overwriting and key destruction are
    /// different evidence: neither stands for the other, both stand for isolation.
    #[must_use]
    pub fn satisfies(self, demand: Self) -> bool {
        self == demand || demand == Self::Isolation
    }

    /// The word in classes, receipts and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Isolation => "isolation",
            Self::Clear => "clear",
            Self::CryptoErase => "crypto-erase",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the level is only `isolation`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum LevelLoss {
    /// The zeroing did not write: the method only changed the map.
    NotOverwritten {
        /// Which.
        method: ZeroMethod,
    },
    /// Blocks allocated but never written remain: what the medium holds there is unknown.
    Unwritten {
        /// How many bytes.
        bytes: u64,
    },
    /// Parts of the file have no blocks.
    Hole {
        /// How many bytes.
        bytes: u64,
    },
    /// Blocks are shared with another file or a snapshot.
    Shared {
        /// How many bytes.
        bytes: u64,
    },
    /// The host filesystem compresses or encrypts.
    Encoded {
        /// How many bytes.
        bytes: u64,
    },
    /// The host filesystem does not say where blocks lie.
    Unplaced {
        /// How many bytes.
        bytes: u64,
    },
    /// The backing file has other names, by which somebody else could have reached it.
    Linked {
        /// How many names.
        links: u64,
    },
    /// The file was taken on as it was found: where its blocks lay before is not known.
    HistoryUnknown,
    /// Blocks moved since the volume was made: the old ones were not overwritten.
    Moved {
        /// Extents recorded when the volume was made.
        recorded: usize,
        /// Extents now.
        now: usize,
    },
}

impl fmt::Display for LevelLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOverwritten { .. } => f.write_str("the wipe method changes the file's map, not the medium"),
            Self::Unwritten { bytes } => {
                write!(f, "{bytes} bytes were never written, so the medium beneath them is unknown")
            }
            Self::Hole { bytes } => write!(f, "{bytes} bytes of the backing file have no blocks"),
            Self::Shared { bytes } => write!(f, "{bytes} bytes are shared with another file or a host snapshot"),
            Self::Encoded { bytes } => write!(f, "{bytes} bytes are compressed or encrypted by the host filesystem"),
            Self::Unplaced { bytes } => write!(f, "the host filesystem does not say where {bytes} bytes lie"),
            Self::Linked { links } => write!(f, "the backing file has {links} names; others could reach it by them"),
            Self::HistoryUnknown => f.write_str("the file was adopted; where its blocks lay before is not known"),
            Self::Moved { recorded, now } => {
                write!(f, "blocks moved since the volume was made ({recorded} extents then, {now} now)")
            }
        }
    }
}

/// What is wrong with a backing file's map while the volume lives: bytes that a wipe of the file could not reach.
#[must_use]
pub fn losses_in_life(recorded: &PhysicalMap, now: &PhysicalMap, size: u64) -> Vec<LevelLoss> {
    let mut losses = Vec::new();
    let mut found = |bytes: u64, loss: fn(u64) -> LevelLoss| {
        if bytes > 0 {
            losses.push(loss(bytes));
        }
    };
    found(now.holes(size), |bytes| LevelLoss::Hole { bytes });
    found(now.shared, |bytes| LevelLoss::Shared { bytes });
    found(now.encoded, |bytes| LevelLoss::Encoded { bytes });
    found(now.unplaced, |bytes| LevelLoss::Unplaced { bytes });
    if !now.same_places(recorded) {
        losses.push(LevelLoss::Moved { recorded: recorded.extents.len(), now: now.extents.len() });
    }
    losses
}

/// The level a finished wipe of a backing file earned, and why not more.
#[must_use]
pub fn level_after_wipe(
    method: ZeroMethod,
    recorded: &PhysicalMap,
    after: &PhysicalMap,
    size: u64,
    earlier: &[LevelLoss],
) -> (Level, Vec<LevelLoss>) {
    let mut losses = earlier.to_vec();
    if method != ZeroMethod::DirectWrites {
        losses.push(LevelLoss::NotOverwritten { method });
    }
    if after.unwritten > 0 {
        losses.push(LevelLoss::Unwritten { bytes: after.unwritten });
    }
    losses.extend(losses_in_life(recorded, after, size));
    dedup(&mut losses);
    (if losses.is_empty() { Level::Clear } else { Level::Isolation }, losses)
}

fn dedup(losses: &mut Vec<LevelLoss>) {
    let mut seen = Vec::with_capacity(losses.len());
    losses.retain(|loss| {
        let new = !seen.contains(loss);
        if new {
            seen.push(loss.clone());
        }
        new
    });
}
