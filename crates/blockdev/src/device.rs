//! One exclusively opened range of bytes on a disk, and the aligned memory that direct I/O needs.

use std::ops::{Deref, DerefMut};

pub use bedplate_core::wipe::ZeroMethod;
use memmap2::{Advice, MmapMut};

use crate::HostError;

/// An open, exclusively held range. Offsets and lengths are bytes and must be multiples of [`Device::block_size`].
pub trait Device: Send {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// The alignment that offsets, lengths and memory need, in bytes.
    fn block_size(&self) -> u32;
    /// Fill `buf` from `offset`, past every cache of this machine's memory.
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), HostError>;
    /// Write all of `buf` at `offset`. Durable only after [`Device::flush`].
    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), HostError>;
    /// Make `length` bytes at `offset` read as zero by `method`. Durable only after [`Device::flush`].
    fn zero(&mut self, offset: u64, length: u64, method: ZeroMethod) -> Result<(), HostError>;
    /// Push everything written so far through the device's own cache.
    fn flush(&mut self) -> Result<(), HostError>;
}

/// Memory aligned for direct I/O on any disk (4 KiB).
///
/// Large pieces are mapped and go back to the system when dropped; the heap would keep them, and a wipe's buffers are most
/// of what an agent ever holds. Untouched, they are the kernel's one page of zeroes, a huge one where it has that.
pub struct Aligned {
    store: Store,
    start: usize,
    length: usize,
}

enum Store {
    Map(MmapMut),
    Heap(Vec<u8>),
}

impl Aligned {
    /// Alignment in bytes: covers 512-byte and 4Kn disks.
    pub const ALIGN: usize = 4096;
    /// From how many bytes on memory is mapped.
    const LARGE: usize = 64 << 10;
    /// From how many bytes on huge pages are asked for.
    const HUGE: usize = 2 << 20;

    /// `length` zero bytes.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        if length >= Self::LARGE
            && let Ok(map) = MmapMut::map_anon(length)
        {
            if length >= Self::HUGE {
                // Fewer and longer segments for the disk. A kernel without huge pages refuses, and nothing is lost.
                let _ = map.advise(Advice::HugePage);
            }
            // A map begins at a page, and no page is smaller than `ALIGN`.
            return Self { store: Store::Map(map), start: 0, length };
        }
        let store = vec![0u8; length + Self::ALIGN];
        let start = store.as_ptr().align_offset(Self::ALIGN);
        Self { store: Store::Heap(store), start, length }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.store {
            Store::Map(map) => map,
            Store::Heap(heap) => heap,
        };
        &all[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        let all: &mut [u8] = match &mut self.store {
            Store::Map(map) => map,
            Store::Heap(heap) => heap,
        };
        &mut all[self.start..self.start + self.length]
    }
}
