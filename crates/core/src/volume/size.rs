//! How large a volume is made: the one rule that whoever places a volume and whoever makes it must share.
//!
//! A volume takes exactly this many bytes of its pool, and nothing beside: what the host's filesystem needs to keep track
//! of the file comes out of the host's reserve.

use super::Mode;
use crate::bytes::Bytes;

/// Volumes are whole MiB.
pub const GRAIN: u64 = 1 << 20;
/// The size of a volume nobody gave a size for.
pub const DEFAULT_SIZE: u64 = 1 << 30;

/// Why no volume can have the size asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum BadSize {
    #[error("{required} bytes are required, above the limit of {limit}")]
    Contradiction { required: u64, limit: u64 },
    #[error("the smallest possible is {smallest} ({why}), above the limit of {limit}")]
    LimitTooSmall { smallest: Bytes, limit: u64, why: String },
    #[error("{required} bytes are more than can be counted")]
    TooLarge { required: u64 },
}

impl Mode {
    /// The smallest volume of this mode, in bytes.
    #[must_use]
    pub const fn smallest(self) -> u64 {
        match self {
            Self::Filesystem(fs) => fs.smallest(),
            Self::Block => GRAIN,
        }
    }

    /// The size to make, in whole MiB and large enough for the filesystem: at least `required` bytes (0 for any), at most
    /// `limit` (0 for no limit).
    ///
    /// # Errors
    /// Where no such size exists.
    pub fn size(self, required: u64, limit: u64) -> Result<u64, BadSize> {
        if limit > 0 && required > limit {
            return Err(BadSize::Contradiction { required, limit });
        }
        let smallest = self.smallest();
        let asked = if required > 0 {
            required
        } else if limit > 0 {
            limit.min(DEFAULT_SIZE)
        } else {
            DEFAULT_SIZE
        };
        let too_large = || BadSize::TooLarge { required };
        let bytes = Bytes(asked.max(smallest)).align_up(GRAIN).ok_or_else(too_large)?.get();
        let bytes =
            if required == 0 && limit > 0 && bytes > limit { Bytes(limit).align_down(GRAIN).get() } else { bytes };
        if limit > 0 && (bytes > limit || bytes < smallest) {
            let why = format!("{self} needs {}, and volumes are whole MiB", Bytes(smallest));
            let smallest = Bytes(smallest).align_up(GRAIN).ok_or_else(too_large)?.max(Bytes(bytes));
            return Err(BadSize::LimitTooSmall { smallest, limit, why });
        }
        // Files cannot be larger than a signed 64-bit offset.
        if i64::try_from(bytes).is_err() { Err(too_large()) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filesystem::FsType;

    #[test]
    fn sizes_are_whole_mebibytes_and_large_enough_for_the_filesystem() {
        assert_eq!(Mode::Block.size(1, 0), Ok(GRAIN));
        assert_eq!(Mode::Block.size(GRAIN + 1, 0), Ok(2 * GRAIN));
        assert_eq!(Mode::Filesystem(FsType::Xfs).size(1, 0), Ok(300 << 20));
        assert_eq!(Mode::Filesystem(FsType::Btrfs).size(1, 0), Ok(109 << 20));
        assert_eq!(Mode::Block.size(0, 0), Ok(DEFAULT_SIZE));
        assert!(matches!(Mode::Block.size(u64::MAX, 0), Err(BadSize::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn a_size_holds_what_is_required_and_keeps_the_limit(required in any::<u64>(), limit in any::<u64>()) {
            for mode in [Mode::Block, Mode::Filesystem(FsType::Ext4), Mode::Filesystem(FsType::F2fs)] {
                if let Ok(bytes) = mode.size(required, limit) {
                    prop_assert!(bytes >= required && bytes >= mode.smallest() && bytes.is_multiple_of(GRAIN));
                    prop_assert!(limit == 0 || bytes <= limit);
                }
            }
        }
    }
}
