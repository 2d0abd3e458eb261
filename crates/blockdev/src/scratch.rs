//! What writes cost in a pool, measured in a scratch file of Bedplate's own and nowhere else.
//!
//! One file is made in the pool's directory, allocated in full, written twice in the same order (first write, then
//! overwrite), read for latency if asked, and removed. The caller decides directory and budget. Never writes outside
//! that file; what a killed process left behind is found by [`remove_stale_scratch`].

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bedplate_core::probe::{Engine, WriteFigures};

use crate::probe_io::{EngineChoice, Flow, ProbeIoError};

mod file;
mod passes;
mod stale;

pub use file::Scratch;
pub use stale::{Kept, Stale, remove_stale_scratch};

/// Bytes of one record of the fdatasync test. etcd's WAL records are about 2300 bytes (the size that its fio recipe
/// uses); direct I/O takes whole blocks, so one block of 4 KiB stands for one record.
pub const RECORD_BYTES: u32 = 4096;
/// Writes in flight in the random-write test.
pub const RANDOM_DEPTH: u16 = 16;
/// The smallest scratch file worth measuring in.
pub const SMALLEST: u64 = 8 << 20;

/// What measuring may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScratchBudget {
    /// Size of the file in bytes; each byte is written at most twice.
    pub bytes: u64,
    /// Time for all writing.
    pub time: Duration,
    /// Bytes that must stay available on the filesystem beside the file.
    pub keep_free: u64,
    /// How random writes are issued.
    pub engine: EngineChoice,
}

impl Default for ScratchBudget {
    /// 64 MiB, 8 s, 1 GiB left free.
    fn default() -> Self {
        Self { bytes: 64 << 20, time: Duration::from_secs(8), keep_free: 1 << 30, engine: EngineChoice::Auto }
    }
}

/// What both passes showed.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteReport {
    /// Into allocated space that was never written.
    pub first_write: WriteFigures,
    /// Over what the first pass wrote.
    pub overwrite: WriteFigures,
    /// How random writes were issued.
    pub engine: Engine,
    /// Size of the file, bytes.
    pub file_bytes: u64,
}

/// Asked between writes, with the share of the work done (0 to 1).
pub type Watch<'a> = &'a mut dyn FnMut(f64) -> Flow;

/// Why there are no write figures.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// A system call failed.
    #[error("{op} {path}")]
    Io {
        /// What was tried: "creating scratch file", "writing".
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Not enough room on the filesystem.
    #[error("{path} has {available} bytes available, a scratch file needs {bytes} and {keep_free} must stay free")]
    NoRoom {
        /// The pool's directory.
        path: PathBuf,
        /// Bytes available.
        available: u64,
        /// Bytes of the file.
        bytes: u64,
        /// Bytes to be left.
        keep_free: u64,
    },
    /// The filesystem is none that a pool may stand on.
    #[error("{path} is on a filesystem of type {magic:#x}; figures are taken on ext4, xfs and btrfs only")]
    Filesystem {
        /// The directory.
        path: PathBuf,
        /// The filesystem's magic number as statfs tells it.
        magic: i64,
    },
    /// A budget that cannot be measured in.
    #[error("a scratch file of {bytes} bytes is too small; {SMALLEST} is the least")]
    TooSmall {
        /// What was asked.
        bytes: u64,
    },
    /// Writes in flight failed.
    #[error("writing at byte {offset} of {path}")]
    Write {
        /// The scratch file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Not one operation of a phase was finished in its time.
    #[error("not one {phase} on {path} was finished within its time")]
    TooSlow {
        /// The scratch file.
        path: PathBuf,
        /// Which.
        phase: &'static str,
    },
    /// The caller said stop.
    #[error("measuring in {path} was stopped")]
    Stopped {
        /// The scratch file.
        path: PathBuf,
    },
    /// The I/O engine failed.
    #[error("random I/O on {path}")]
    Engine {
        /// The scratch file.
        path: PathBuf,
        /// Why.
        source: ProbeIoError,
    },
}

#[cfg(test)]
mod tests;
