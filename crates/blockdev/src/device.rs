//! One exclusively opened range of bytes on a disk, and the aligned memory that direct I/O needs.

use std::ops::{Deref, DerefMut};

pub use bedplate_core::wipe::ZeroMethod;

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
pub struct Aligned {
    store: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Alignment in bytes: covers 512-byte and 4Kn disks.
    pub const ALIGN: usize = 4096;

    /// `length` zero bytes.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        let store = vec![0u8; length + Self::ALIGN];
        let start = store.as_ptr().align_offset(Self::ALIGN);
        Self { store, start, length }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.store[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.store[self.start..self.start + self.length]
    }
}
