//! Filesystems a volume may carry, and those a pool may stand on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A filesystem that Bedplate can make on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsType {
    /// ext4, the default.
    Ext4,
    /// xfs.
    Xfs,
    /// btrfs.
    Btrfs,
    /// f2fs, where the kernel has it.
    F2fs,
}

impl FsType {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::F2fs];

    /// The name that the kernel, `mkfs` and StorageClasses use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::F2fs => "f2fs",
        }
    }

    /// The smallest device, in bytes, that its `mkfs` accepts with default settings (measured with e2fsprogs 1.47,
    /// xfsprogs 6.1, btrfs-progs 6.2; f2fs from its tools' documentation).
    #[must_use]
    pub const fn smallest(self) -> u64 {
        match self {
            Self::Ext4 => 1 << 20,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 114_294_784,
            Self::F2fs => 64 << 20,
        }
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A filesystem name nobody knows here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filesystem {0:?} is not supported: use ext4, xfs, btrfs or f2fs")]
pub struct UnknownFsType(pub String);

impl FromStr for FsType {
    type Err = UnknownFsType;

    fn from_str(text: &str) -> Result<Self, UnknownFsType> {
        Self::ALL.into_iter().find(|fs| fs.name() == text).ok_or_else(|| UnknownFsType(text.to_owned()))
    }
}
