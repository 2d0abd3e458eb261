//! Markers, and the search for them on the raw disk: what a volume's owner wrote, and whether it still lies anywhere.
//!
//! All markers of one oracle share a random prefix, so one pass over a disk counts those of every volume at once. The
//! search reads the file beneath a test's loop device past the page cache, whatever filesystems lie between.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bedplate_blockdev::Aligned;
use memchr::memmem;
use nix::libc;
use nix::unistd::{Whence, lseek};

/// Bytes of a block that holds one marker.
pub const BLOCK: usize = 4096;
/// Hexadecimal digits of the prefix, of the volume's number, and of both with the mark between.
const PREFIX: usize = 32;
const NUMBER: usize = 8;
const LONG: usize = PREFIX + 1 + NUMBER;
/// Bytes of one read of a search.
const PIECE: usize = 4 << 20;

/// Knows its markers from all other bytes.
#[derive(Clone, Debug)]
pub struct Oracle {
    prefix: String,
}

impl Default for Oracle {
    fn default() -> Self {
        Self::new()
    }
}

impl Oracle {
    /// With a prefix that nobody else draws.
    pub fn new() -> Self {
        Self { prefix: uuid::Uuid::new_v4().simple().to_string() }
    }

    /// The marker of volume `number`: what a block of it begins with.
    pub fn marker(&self, number: u32) -> String {
        format!("{}:{number:08x}", self.prefix)
    }

    /// One block of volume `number`: its marker, then filler.
    pub fn block(&self, number: u32) -> [u8; BLOCK] {
        let mut block = [0xB7; BLOCK];
        let marker = self.marker(number);
        block[..LONG].copy_from_slice(marker.as_bytes());
        block
    }

    /// Writes `blocks` blocks of volume `number` into a new file and makes them durable.
    pub fn write_file(&self, path: &Path, number: u32, blocks: usize) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        file.write_all(&self.block(number).repeat(blocks))?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// Fills a device with blocks of volume `number`, from its first byte to its last; says how many.
    pub fn fill_device(&self, device: &Path, number: u32) -> Result<usize> {
        let file = OpenOptions::new().write(true).open(device)?;
        let size = usize::try_from(lseek(&file, 0, Whence::SeekEnd)?)?;
        let piece = self.block(number).repeat(256);
        for at in (0..size).step_by(piece.len()) {
            file.write_all_at(&piece[..piece.len().min(size - at)], at as u64)?;
        }
        file.sync_all()?;
        Ok(size / BLOCK)
    }

    /// How many blocks of each volume lie in `disk`, counted past the page cache. Ranges that the filesystem of `disk`
    /// says it never wrote are passed over: nothing can lie there.
    pub fn search(&self, disk: &Path) -> Result<BTreeMap<u32, usize>> {
        File::open(disk)?.sync_all()?;
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(disk)?;
        let size = file.metadata()?.len();
        let finder = memmem::Finder::new(self.prefix.as_bytes());
        let mut piece = Aligned::zeroed(PIECE);
        let mut found = BTreeMap::new();
        let mut at = 0;
        while let Some((start, end)) = next_data(&file, at, size)? {
            at = start;
            // What may continue in the next read of the same range.
            let mut carry: Vec<u8> = Vec::new();
            while at < end {
                let wanted = usize::try_from((end - at).min(PIECE as u64))?.next_multiple_of(BLOCK);
                let got = file.read_at(&mut piece[..wanted], at)?;
                ensure!(got > 0, "{} ended at {at} of {size}", disk.display());
                carry.extend_from_slice(&piece[..got]);
                let mut used = carry.len().saturating_sub(LONG - 1);
                for hit in finder.find_iter(&carry) {
                    let Some(marker) = carry.get(hit..hit + LONG) else { break };
                    let number = std::str::from_utf8(&marker[PREFIX + 1..]).ok();
                    if let Some(number) = number.and_then(|n| u32::from_str_radix(n, 16).ok()) {
                        *found.entry(number).or_default() += 1;
                    }
                    used = used.max(hit + LONG);
                }
                carry.drain(..used.min(carry.len()));
                at += got as u64;
            }
        }
        Ok(found)
    }
}

/// The next range of `file` from `at` on that was ever written.
fn next_data(file: &File, at: u64, size: u64) -> Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let start = match lseek(file, i64::try_from(at)?, Whence::SeekData) {
        Ok(start) => u64::try_from(start)?,
        Err(nix::errno::Errno::ENXIO) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let end = u64::try_from(lseek(file, i64::try_from(start)?, Whence::SeekHole)?)?;
    Ok(Some((start / BLOCK as u64 * BLOCK as u64, end.max(start + 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_marker_is_found_also_across_the_seam_of_two_reads_and_none_twice() {
        let folder = crate::loopfs::real_dir().unwrap();
        let disk = folder.path().join("disk");
        let (oracle, other) = (Oracle::new(), Oracle::new());
        let file = File::create(&disk).unwrap();
        file.set_len(64 << 20).unwrap();
        let seam = (20 << 20) + PIECE as u64;
        // A range of its own that begins at 20 MiB, so that its second read begins at the seam.
        for at in [20 << 20, seam - 7, seam - BLOCK as u64 * 9, (40 << 20) - BLOCK as u64] {
            file.write_all_at(&oracle.block(7), at).unwrap();
        }
        file.write_all_at(&oracle.block(8).repeat(100), 50 << 20).unwrap();
        file.write_all_at(&other.block(7).repeat(5), 60 << 20).unwrap();
        // Fill between, so that the seam lies inside one range.
        file.write_all_at(&vec![1; 8 * BLOCK], seam + BLOCK as u64).unwrap();
        let found = oracle.search(&disk).unwrap();
        assert_eq!(found, BTreeMap::from([(7, 4), (8, 100)]));
        assert_eq!(Oracle::new().search(&disk).unwrap(), BTreeMap::new());
    }
}
