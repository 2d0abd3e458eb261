//! Pieces of a device's content, addressed by their place on the device.

/// Bytes read from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Byte on the device where they start.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// All that was read from a device. A question about bytes that were not read has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    size: u64,
    pieces: Vec<Window>,
}

impl Windows {
    /// Pieces of a device of `size` bytes.
    #[must_use]
    pub fn new(size: u64, mut pieces: Vec<Window>) -> Self {
        pieces.sort_by_key(|w| w.offset);
        Self { size, pieces }
    }

    /// The device's size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// `length` bytes at `offset`, if one piece holds them all.
    #[must_use]
    pub fn at(&self, offset: u64, length: usize) -> Option<&[u8]> {
        self.pieces.iter().find_map(|piece| {
            let start = usize::try_from(offset.checked_sub(piece.offset)?).ok()?;
            piece.bytes.get(start..start.checked_add(length)?)
        })
    }

    /// Whether the bytes at `offset` were read and are `magic`.
    #[must_use]
    pub fn has(&self, offset: u64, magic: &[u8]) -> bool {
        self.at(offset, magic.len()) == Some(magic)
    }

    /// A little-endian number of four bytes.
    pub(super) fn le32(&self, offset: u64) -> Option<u32> {
        self.at(offset, 4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// A little-endian number of eight bytes.
    pub(super) fn le64(&self, offset: u64) -> Option<u64> {
        self.at(offset, 8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// Place of the first byte that is not zero.
    #[must_use]
    pub fn first_data(&self) -> Option<u64> {
        self.pieces.iter().find_map(|piece| {
            let at = piece.bytes.iter().position(|b| *b != 0)?;
            Some(piece.offset.saturating_add(at as u64))
        })
    }

    /// Bytes read from the start without a gap.
    #[must_use]
    pub fn head(&self) -> u64 {
        let mut reached = 0;
        for piece in self.pieces.iter().filter(|p| !p.bytes.is_empty()) {
            if piece.offset > reached {
                break;
            }
            reached = reached.max(piece.offset.saturating_add(piece.bytes.len() as u64));
        }
        reached.min(self.size)
    }

    /// Bytes read up to the end without a gap.
    #[must_use]
    pub fn tail(&self) -> u64 {
        let mut from = self.size;
        for piece in self.pieces.iter().rev() {
            if piece.offset.saturating_add(piece.bytes.len() as u64) < from {
                continue;
            }
            from = from.min(piece.offset);
        }
        self.size.saturating_sub(from)
    }

    /// Bytes read in all.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.pieces.iter().map(|p| p.bytes.len() as u64).sum()
    }
}
