//! Where a file's bytes lie on the disk beneath it.
//!
//! The normalised map is the ledger's witness: taken when a volume is made, compared at attach, at quarantine and after
//! the wipe. Any difference (reflink, host snapshot, defragmentation, balance) means that old blocks were left behind
//! somewhere, and lowers the level a receipt may state.

use serde::{Deserialize, Serialize};

/// A run of bytes that is contiguous both in the file and on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// Offset in the file, in bytes.
    pub logical: u64,
    /// Offset in the filesystem's address space, in bytes (on ext4 and xfs that of the block device; on btrfs its own).
    pub physical: u64,
    /// Length in bytes.
    pub length: u64,
}

/// What the filesystem says beside an extent's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "these are the kernel's own independent FIEMAP flags")]
pub struct ExtentFlags {
    /// Allocated but never written: reads give zeroes, the medium still holds what was there before.
    pub unwritten: bool,
    /// Shared with another file or snapshot.
    pub shared: bool,
    /// Compressed or encrypted by the filesystem.
    pub encoded: bool,
    /// Place not known (delayed allocation, inline data, tail packing).
    pub unplaced: bool,
}

/// One extent as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawExtent {
    /// Where it lies.
    pub extent: Extent,
    /// What is said of it.
    pub flags: ExtentFlags,
}

/// A file's whole map, normalised: sorted, neighbours merged, flags summed into byte counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalMap {
    /// Runs in file order, merged where both sides continue.
    pub extents: Vec<Extent>,
    /// Bytes in extents never written.
    #[serde(default)]
    pub unwritten: u64,
    /// Bytes shared with another file or snapshot.
    #[serde(default)]
    pub shared: u64,
    /// Bytes that the filesystem compressed or encrypted.
    #[serde(default)]
    pub encoded: u64,
    /// Bytes without a known place.
    #[serde(default)]
    pub unplaced: u64,
}

impl PhysicalMap {
    /// Normalise what the kernel listed, cut to the first `size` bytes of the file (filesystems may allocate past it).
    #[must_use]
    pub fn normalise(raw: impl IntoIterator<Item = RawExtent>, size: u64) -> Self {
        let mut list: Vec<RawExtent> = raw.into_iter().filter(|r| r.extent.logical < size).collect();
        list.sort_by_key(|r| r.extent.logical);
        let mut map = Self::default();
        for RawExtent { mut extent, flags } in list {
            extent.length = extent.length.min(size - extent.logical);
            let add = |is: bool, sum: &mut u64| {
                if is {
                    *sum += extent.length;
                }
            };
            add(flags.unwritten, &mut map.unwritten);
            add(flags.shared, &mut map.shared);
            add(flags.encoded, &mut map.encoded);
            add(flags.unplaced, &mut map.unplaced);
            match map.extents.last_mut() {
                Some(last)
                    if last.logical + last.length == extent.logical
                        && last.physical + last.length == extent.physical =>
                {
                    last.length += extent.length;
                }
                _ => map.extents.push(extent),
            }
        }
        map
    }

    /// Bytes that have a place on the disk.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.extents.iter().map(|e| e.length).sum()
    }

    /// Bytes of a file of `size` that have no blocks at all.
    #[must_use]
    pub fn holes(&self, size: u64) -> u64 {
        size.saturating_sub(self.covered())
    }

    /// Whether every byte lies where it lay in `other`, whatever the flags say.
    #[must_use]
    pub fn same_places(&self, other: &Self) -> bool {
        self.extents == other.extents
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(logical: u64, physical: u64, length: u64, unwritten: bool) -> RawExtent {
        RawExtent {
            extent: Extent { logical, physical, length },
            flags: ExtentFlags { unwritten, ..ExtentFlags::default() },
        }
    }

    #[test]
    fn writing_into_an_unwritten_extent_does_not_look_like_a_move() {
        let before = PhysicalMap::normalise([raw(0, 100, 64, true)], 64);
        let after =
            PhysicalMap::normalise([raw(0, 100, 16, true), raw(16, 116, 16, false), raw(32, 132, 32, true)], 64);
        assert!(before.same_places(&after));
        assert_eq!((before.unwritten, after.unwritten), (64, 48));
    }

    #[test]
    fn a_moved_block_is_seen() {
        let before = PhysicalMap::normalise([raw(0, 100, 64, false)], 64);
        let after = PhysicalMap::normalise([raw(0, 100, 32, false), raw(32, 900, 32, false)], 64);
        assert!(!before.same_places(&after));
    }

    proptest! {
        #[test]
        fn splitting_an_extent_anywhere_changes_nothing(length in 2u64..1000, cut in 1u64..1000, size in 1u64..1200) {
            let cut = cut.min(length - 1);
            let whole = PhysicalMap::normalise([raw(0, 5000, length, false)], size);
            let split = PhysicalMap::normalise([raw(cut, 5000 + cut, length - cut, false), raw(0, 5000, cut, false)], size);
            prop_assert_eq!(&whole, &split);
            prop_assert_eq!(whole.covered() + whole.holes(size), size);
        }
    }
}
