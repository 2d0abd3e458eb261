//! Reading a volume's bytes from the disk beneath, past the volume, its filesystem, the host's filesystem and all caches.
//!
//! Reads exactly the physical extents that the agent recorded when it made the volume, and nothing else of the disk.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bedplate_blockdev::Aligned;
use bedplate_blockdev::raw::RawDisk;
use bedplate_provisioner::engine::Ranges;

use super::interrupt::Interrupt;
use super::recognise::{Findings, Recogniser};

/// Bytes of one read.
const PIECE: usize = 8 << 20;

/// Search one volume's ranges for all markers.
pub fn search(known: &Recogniser, ranges: &Ranges, interrupt: &Interrupt) -> anyhow::Result<(Findings, Duration)> {
    let begun = Instant::now();
    let device = ranges.device.context("the disk beneath the pool is not known, so nothing can be searched")?;
    let disk = RawDisk::open(Path::new("/sys"), Path::new("/dev"), device)?;
    let mut scan = known.scan();
    let mut buffer = Aligned::zeroed(PIECE);
    for extent in &ranges.map.extents {
        let mut done = 0;
        while done < extent.length {
            interrupt.check()?;
            let length = usize::try_from((extent.length - done).min(PIECE as u64))?;
            if buffer.len() != length {
                buffer = Aligned::zeroed(length);
            }
            disk.read_at(extent.physical + done, &mut buffer)?;
            scan.feed(&buffer);
            done += length as u64;
        }
    }
    Ok((scan.findings(), begun.elapsed()))
}

/// Whether the recorded ranges can be searched at all: addresses of the device, and all of the volume.
pub fn searchable(ranges: &Ranges, bytes: u64) -> anyhow::Result<()> {
    let fs = &ranges.fs_type;
    ensure!(["ext4", "xfs"].contains(&fs.as_str()), "{fs} does not say where on the device a file's bytes lie");
    let covered = ranges.map.covered();
    ensure!(covered == bytes, "the recorded ranges cover {covered} of {bytes} bytes: not all can be searched");
    Ok(())
}
