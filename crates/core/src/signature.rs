//! Recognising what lies on a disk from its first and last bytes.
//!
//! Pure: [`detect`] is given [`Window`]s of bytes and says which known formats it sees and where the first byte is that
//! is not zero. It never says "blank" itself: [`Look::is_blank`] does, and only where enough was read, nothing was
//! recognised *and* nothing but zeroes was seen. Unknown data is data (peers' incidents: an empty probe answer was taken
//! for a blank disk and formatted). Reading is the work of `bedplate_blockdev::signature`.

mod containers;
mod filesystems;
mod tables;
mod window;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use window::{Window, Windows};

use crate::bytes::{Bytes, MIB};

/// Bytes at each end of a device that a look must cover before it may find nothing.
pub const ENDS: u64 = MIB;

/// What a format is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    /// Files.
    Filesystem,
    /// Encrypted or verified container.
    Crypto,
    /// Member of a volume group, an array or a cache.
    Member,
    /// Swap.
    Swap,
    /// Partition table.
    PartitionTable,
    /// Somebody's own format.
    Other,
}

/// One recognised format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// Its name, as `blkid` and the kernel call it where they know it: `ext4`, `xfs`, `LVM2_member`, `gpt`, …
    pub format: String,
    /// What it is for.
    pub usage: Usage,
    /// Its label, where it has one.
    pub label: Option<String>,
    /// Its UUID, where it has one, in the format's own spelling.
    pub uuid: Option<String>,
    /// Byte on the device where it was recognised.
    pub offset: u64,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.usage {
            Usage::Filesystem => " filesystem",
            Usage::Crypto => " container",
            Usage::PartitionTable => " partition table",
            Usage::Member | Usage::Swap | Usage::Other => "",
        };
        write!(f, "{}{what}", self.format)?;
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        Ok(())
    }
}

/// What a finished look saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Recognised formats, in order of offset.
    pub signatures: Vec<Signature>,
    /// First byte, of those read, that is not zero.
    pub data_at: Option<u64>,
    /// Bytes read from the start of the device without a gap.
    pub head: Bytes,
    /// Bytes read up to the end of the device without a gap.
    pub tail: Bytes,
    /// Bytes read in all.
    pub read: Bytes,
    /// The device's size in bytes, as the look itself found it.
    pub size: Bytes,
}

impl Contents {
    /// Whether both ends were read far enough to tell.
    #[must_use]
    pub fn covers_both_ends(&self) -> bool {
        let needed = ENDS.min(self.size.get());
        needed > 0 && self.head.get() >= needed && self.tail.get() >= needed
    }

    /// The first filesystem, else the first thing recognised.
    #[must_use]
    pub fn main(&self) -> Option<&Signature> {
        self.signatures.iter().find(|s| s.usage == Usage::Filesystem).or_else(|| self.signatures.first())
    }
}

/// A look at a device: not done, failed, or done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Look {
    /// Nobody looked.
    #[default]
    NotDone,
    /// It could not be read, and why.
    Failed(String),
    /// It was read.
    Done(Contents),
}

impl Look {
    /// What was seen, if anything was looked at.
    #[must_use]
    pub const fn contents(&self) -> Option<&Contents> {
        match self {
            Self::Done(contents) => Some(contents),
            Self::NotDone | Self::Failed(_) => None,
        }
    }

    /// Positive proof of blankness: both ends read, nothing recognised, nothing but zeroes.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.contents().is_some_and(|c| c.covers_both_ends() && c.signatures.is_empty() && c.data_at.is_none())
    }
}

/// Look through `windows` of a device of `size` bytes with logical sectors of `sector` bytes.
#[must_use]
pub fn detect(windows: &Windows, sector: u32) -> Contents {
    let mut signatures = Vec::new();
    filesystems::detect(windows, &mut signatures);
    containers::detect(windows, &mut signatures);
    tables::detect(windows, sector, &mut signatures);
    signatures.sort_by(|a, b| (a.offset, &a.format).cmp(&(b.offset, &b.format)));
    signatures.dedup_by(|a, b| a.format == b.format && a.offset == b.offset);
    Contents {
        signatures,
        data_at: windows.first_data(),
        head: Bytes(windows.head()),
        tail: Bytes(windows.tail()),
        read: Bytes(windows.read()),
        size: Bytes(windows.size()),
    }
}

/// A label as bytes up to the first zero, trimmed; `None` where empty.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text: String =
        String::from_utf8_lossy(&bytes[..end]).trim().chars().filter(|c| !c.is_control()).take(255).collect();
    (!text.is_empty()).then_some(text)
}

/// Sixteen bytes as a UUID; `None` where all zero.
fn uuid(bytes: &[u8]) -> Option<String> {
    let uuid = uuid::Uuid::from_slice(bytes).ok()?;
    (!uuid.is_nil()).then(|| uuid.to_string())
}
