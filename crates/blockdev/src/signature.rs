//! Looking at what lies on a device, read-only: the second of the two looks that a "free" verdict needs.
//!
//! Opens the node it is told, makes sure through the descriptor that it is the device that was meant, and reads past the
//! page cache: both ends, the places of superblock copies, and, where all of that is zero, samples in between. What the
//! bytes mean is decided by [`bedplate_core::signature`]. Never opens for writing; any unreadable byte is an error, not
//! an empty answer.

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bedplate_core::disk::DeviceNumber;
use bedplate_core::signature::{Contents, ENDS, Look, Window, Windows, detect};
use nix::libc;

use crate::Aligned;

/// Where copies of superblocks outlive a wipe of the first megabyte (btrfs keeps them at 64 MiB and 256 GiB).
const COPIES: [u64; 2] = [64 << 20, 256 << 30];
/// Bytes read at each such place and at each sample.
const PIECE: u64 = 4096;
/// Samples spread evenly over a device whose ends are zero.
const SAMPLES: u64 = 64;

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is no such node, or it cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The node is no block device.
    #[error("{path} is not a block device")]
    NotADevice {
        /// Which.
        path: PathBuf,
    },
    /// The node is another device than the one meant: it was replaced or renamed meanwhile.
    #[error("{path} is device {found}, not {expected}: it changed while being looked at")]
    Other {
        /// Which.
        path: PathBuf,
        /// The one meant.
        expected: DeviceNumber,
        /// The one found.
        found: DeviceNumber,
    },
    /// Bytes could not be read.
    #[error("cannot read {path} at byte {offset}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Look at the device behind `path`, which must be `expected`; `sector` is its logical sector in bytes.
pub fn look(path: &Path, expected: DeviceNumber, sector: u32) -> Result<Contents, LookError> {
    let mut file = open(path, expected, libc::O_DIRECT)
        .or_else(|error| if refuses_direct(&error) { open(path, expected, 0) } else { Err(error) })?;
    contents(&mut file, path, sector)
}

/// Whether the device behind `path` can be opened exclusively: `false` means that somebody (a mount, a volume group, an
/// array, another exclusive opener) holds it. Lets go at once, so the answer is true of one moment only.
pub fn can_hold(path: &Path, expected: DeviceNumber) -> Result<bool, LookError> {
    match open(path, expected, libc::O_EXCL) {
        Ok(_) => Ok(true),
        Err(LookError::Open { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

fn refuses_direct(error: &LookError) -> bool {
    matches!(error, LookError::Open { source, .. } if source.raw_os_error() == Some(libc::EINVAL))
}

/// The node is checked before it is opened (opening a tape or a FIFO has effects) and again through the descriptor.
fn open(path: &Path, expected: DeviceNumber, flags: i32) -> Result<File, LookError> {
    let failed = |source| LookError::Open { path: path.to_owned(), source };
    check(path, &std::fs::metadata(path).map_err(failed)?, expected)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(failed)?;
    check(path, &file.metadata().map_err(failed)?, expected)?;
    Ok(file)
}

fn check(path: &Path, metadata: &std::fs::Metadata, expected: DeviceNumber) -> Result<(), LookError> {
    if !metadata.file_type().is_block_device() {
        return Err(LookError::NotADevice { path: path.to_owned() });
    }
    let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) if (DeviceNumber { major, minor }) == expected => Ok(()),
        (Ok(major), Ok(minor)) => {
            let found = DeviceNumber { major, minor };
            Err(LookError::Other { path: path.to_owned(), expected, found })
        }
        _ => Err(LookError::NotADevice { path: path.to_owned() }),
    }
}

fn contents(file: &mut File, path: &Path, sector: u32) -> Result<Contents, LookError> {
    let size =
        file.seek(SeekFrom::End(0)).map_err(|source| LookError::Read { path: path.to_owned(), offset: 0, source })?;
    let read = |offset, length| read(file, path, offset, length);

    let mut pieces = vec![read(0, ENDS.min(size))?];
    if size > ENDS {
        // Sectors are never smaller than 512 bytes, so the end stays aligned whatever the size.
        let from = ENDS.max(size.saturating_sub(ENDS));
        pieces.push(read(from, size - from)?);
        // The window must reach ENDS back from the end even where the two ends overlap.
        if size - from < ENDS {
            pieces.push(read(size - ENDS, ENDS)?);
        }
    }
    for copy in COPIES {
        if copy + PIECE <= size {
            pieces.push(read(copy, PIECE)?);
        }
    }
    let found = detect(&Windows::new(size, pieces.clone()), sector);
    if found.data_at.is_some() || !found.signatures.is_empty() {
        return Ok(found);
    }
    let stride = (size / (SAMPLES + 1)) & !(PIECE - 1);
    if stride >= PIECE {
        for sample in 1..=SAMPLES {
            pieces.push(read(sample * stride, PIECE)?);
        }
    }
    Ok(detect(&Windows::new(size, pieces), sector))
}

fn read(file: &File, path: &Path, offset: u64, length: u64) -> Result<Window, LookError> {
    let failed = |source| LookError::Read { path: path.to_owned(), offset, source };
    let length = usize::try_from(length).map_err(|e| failed(io::Error::other(e)))?;
    let mut buffer = Aligned::zeroed(length);
    file.read_exact_at(&mut buffer, offset).map_err(failed)?;
    Ok(Window { offset, bytes: buffer.to_vec() })
}

/// A look's result as a fact: a failure becomes [`Look::Failed`] with the whole chain of causes.
#[must_use]
pub fn as_fact(result: Result<Contents, LookError>) -> Look {
    match result {
        Ok(contents) => Look::Done(contents),
        Err(error) => Look::Failed(sentence(&error)),
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
