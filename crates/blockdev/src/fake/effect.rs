//! What a call does to the disk, and what a power cut may leave of it.
//!
//! Effects wait in order until a sync covers them. At a power cut each waiting effect meets its own [`Fate`]; an
//! [`Outcome`] is one allowed combination.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::disk::Ino;
use super::rng::Rng;

/// One thing that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Link { dir: u64, name: String, ino: Ino },
    Unlink { dir: u64, name: String, ino: Ino },
    Rename { dir: u64, from: String, to: String, ino: Ino },
    Replace { ino: Ino, content: Vec<u8> },
    Append { ino: Ino, at: usize, bytes: Vec<u8> },
    Cut { ino: Ino, length: usize },
    Allocate { ino: Ino, blocks: Vec<(u64, u64)>, size: u64 },
    Data { ino: Ino, logical: u64, physical: u64, bytes: Arc<[u8]>, maps: bool },
    Unwrite { ino: Ino, logical: u64 },
}

impl Effect {
    /// The directory whose names it changes.
    pub(super) fn dir(&self) -> Option<u64> {
        match self {
            Self::Link { dir, .. } | Self::Unlink { dir, .. } | Self::Rename { dir, .. } => Some(*dir),
            Self::Replace { .. }
            | Self::Append { .. }
            | Self::Cut { .. }
            | Self::Allocate { .. }
            | Self::Data { .. }
            | Self::Unwrite { .. } => None,
        }
    }

    /// The file it is about.
    pub(super) fn ino(&self) -> Ino {
        match self {
            Self::Link { ino, .. }
            | Self::Unlink { ino, .. }
            | Self::Rename { ino, .. }
            | Self::Replace { ino, .. }
            | Self::Append { ino, .. }
            | Self::Cut { ino, .. }
            | Self::Allocate { ino, .. }
            | Self::Data { ino, .. }
            | Self::Unwrite { ino, .. } => *ino,
        }
    }

    /// Bytes that may be cut anywhere.
    fn stream(&self) -> Option<usize> {
        match self {
            Self::Replace { content: bytes, .. } | Self::Append { bytes, .. } => Some(bytes.len()),
            Self::Data { .. }
            | Self::Link { .. }
            | Self::Unlink { .. }
            | Self::Rename { .. }
            | Self::Cut { .. }
            | Self::Allocate { .. }
            | Self::Unwrite { .. } => None,
        }
    }

    fn has_parts(&self) -> bool {
        matches!(self, Self::Data { maps: true, .. })
    }
}

/// What became of one effect at a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It never happened.
    Lost,
    /// It happened.
    Kept,
    /// The data reached the medium, the filesystem's record of it did not.
    DataOnly,
    /// Only the first so many bytes of the file's new content.
    Torn(usize),
    /// The new length, but only the first so many bytes; zeroes after them.
    Zeroed(usize),
}

impl Fate {
    pub(super) fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Lost => Vec::new(),
            Self::Kept | Self::DataOnly => bytes.to_vec(),
            Self::Torn(keep) => bytes[..keep.min(bytes.len())].to_vec(),
            Self::Zeroed(keep) => {
                let mut out = bytes.to_vec();
                let keep = keep.min(out.len());
                out[keep..].fill(0);
                out
            }
        }
    }
}

/// One allowed state of the disk after a power cut: a fate for each waiting effect, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    name: String,
    fates: Vec<Fate>,
}

impl Outcome {
    /// Nothing unsynced survives.
    #[must_use]
    pub fn nothing() -> Self {
        Self { name: "nothing unsynced survives".to_owned(), fates: Vec::new() }
    }

    /// A fate for each waiting effect; those beyond the list are lost.
    #[must_use]
    pub fn of(fates: Vec<Fate>) -> Self {
        Self { name: format!("{fates:?}"), fates }
    }

    pub(super) fn fate(&self, index: usize) -> Fate {
        self.fates.get(index).copied().unwrap_or(Fate::Lost)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How many outcomes of each family to list: a family with more members is sampled evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breadth {
    /// "All but one", "only one" and "the first n" each.
    pub each: usize,
    /// Places where one file's unsynced bytes are cut.
    pub cuts: usize,
    /// Random subsets.
    pub random: usize,
    /// Where the random ones start.
    pub seed: u64,
}

impl Breadth {
    /// Every member of every family, and so many random subsets.
    #[must_use]
    pub fn full(random: usize, seed: u64) -> Self {
        Self { each: usize::MAX, cuts: usize::MAX, random, seed }
    }
}

/// Up to `most` numbers of `0..count`, evenly spread, always with both ends.
fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    match most {
        0 => Vec::new(),
        1 => vec![count - 1],
        _ => (0..most).map(|i| i * (count - 1) / (most - 1)).collect(),
    }
}

/// Every outcome that `breadth` asks for, each once.
pub(super) fn outcomes(effects: &[&Effect], breadth: Breadth) -> Vec<Outcome> {
    let count = effects.len();
    let mut seen = BTreeSet::new();
    let mut list = Vec::new();
    let mut add = |name: String, fates: Vec<Fate>| {
        if seen.insert(fates.clone()) {
            list.push(Outcome { name, fates });
        }
    };
    add("nothing unsynced survives".to_owned(), vec![Fate::Lost; count]);
    add("everything survives".to_owned(), vec![Fate::Kept; count]);
    for i in spread(count, breadth.each) {
        let mut fates = vec![Fate::Kept; count];
        fates[i] = Fate::Lost;
        add(format!("all but effect {i}"), fates);
        let mut fates = vec![Fate::Lost; count];
        fates[i] = Fate::Kept;
        add(format!("only effect {i}"), fates);
        add(format!("the first {i}"), (0..count).map(|n| if n < i { Fate::Kept } else { Fate::Lost }).collect());
    }
    for (i, effect) in effects.iter().enumerate() {
        if effect.has_parts() && breadth.each > 0 && (i == 0 || i + 1 == count || breadth.each >= count) {
            let mut fates = vec![Fate::Kept; count];
            fates[i] = Fate::DataOnly;
            add(format!("effect {i} reached the medium but not the map"), fates);
        }
        let Some(length) = effect.stream() else { continue };
        for keep in spread(length, breadth.cuts) {
            for (what, fate) in [("cut", Fate::Torn(keep)), ("zero", Fate::Zeroed(keep))] {
                let mut fates = vec![Fate::Kept; count];
                fates[i] = fate;
                add(format!("effect {i} {what} from byte {keep} of {length} on"), fates);
            }
        }
    }
    for n in 0..breadth.random {
        let mut rng = Rng::new(breadth.seed.wrapping_add(n as u64).wrapping_mul(0x9E37_79B9));
        // Some outcomes lose nearly everything, some nearly nothing.
        let odds = 1 + rng.below(7);
        let fates = effects.iter().map(|effect| random_fate(effect, odds, &mut rng)).collect();
        add(format!("random subset {n} of seed {}", breadth.seed), fates);
    }
    list
}

fn random_fate(effect: &Effect, odds: u64, rng: &mut Rng) -> Fate {
    if rng.below(8) >= odds {
        return Fate::Lost;
    }
    match effect.stream() {
        Some(length) if rng.below(3) == 0 => {
            let keep = rng.pick(length.max(1));
            if rng.below(2) == 0 { Fate::Torn(keep) } else { Fate::Zeroed(keep) }
        }
        None if effect.has_parts() && rng.below(3) == 0 => Fate::DataOnly,
        _ => Fate::Kept,
    }
}
