//! The probe's I/O: keeps a given number of direct reads in flight for a while and records each one's latency.
//!
//! Two engines give the same [`Report`]: `io_uring` where the kernel and the container's seccomp profile allow it, else
//! one thread per read in flight. A disk is opened read-only and shared: a [`ReadTarget`] has no way to write. How much
//! may be read is decided by `bedplate_core::probe`; nothing is issued beyond the [`Request`].

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedplate_core::probe::{Engine, Offsets};
use nix::libc;

mod record;
mod threads;
mod uring;

pub use record::{End, Fault, Latencies, Live, Report};

/// How long reads may stay out after the last one was issued before the disk is called hung.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How often the observer is asked.
const TICK: Duration = Duration::from_millis(20);
/// The most reads in flight that a request may ask for.
pub const MAX_DEPTH: u16 = 256;

/// Which engine to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// `io_uring`, or threads where it is blocked (EPERM), absent (ENOSYS) or too old.
    #[default]
    Auto,
    /// `io_uring` or an error.
    IoUring,
    /// Threads.
    Threads,
}

/// How much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Operations kept in flight, 1 to [`MAX_DEPTH`].
    pub depth: u16,
    /// Bytes of one operation; a multiple of the disk's logical block.
    pub block_size: u32,
    /// At most this many operations are issued.
    pub ops: u64,
    /// None is issued after this time.
    pub time: Duration,
    /// Which engine.
    pub engine: EngineChoice,
}

/// What the observer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Issue nothing more and return what there is.
    Stop,
}

/// Asked every 20 ms or so while a request runs.
pub type Observer<'a> = &'a mut dyn FnMut(&Live<'_>) -> Flow;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ProbeIoError {
    /// The path could not be opened for direct reads.
    #[error("opening {path} read-only for direct reads")]
    Open {
        /// What was opened.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The path is neither a block device nor a regular file.
    #[error("{path} is neither a block device nor a file; nothing was read")]
    NotADisk {
        /// What was named.
        path: PathBuf,
    },
    /// The request makes no sense.
    #[error(
        "a probe at depth {depth} with blocks of {block_size} bytes: depth must be 1 to 256, the block size a multiple of 512"
    )]
    BadRequest {
        /// Reads in flight.
        depth: u16,
        /// Bytes of a read.
        block_size: u32,
    },
    /// The engine could not be set up or broke.
    #[error("running {engine} for the probe")]
    Engine {
        /// Which: "io_uring", "probe threads".
        engine: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No histogram could be made.
    #[error("making the latency histogram")]
    Histogram {
        /// Why.
        source: hdrhistogram::CreationError,
    },
    /// I/O did not come back; its memory is given up, since the disk may still write to it.
    #[error("{outstanding} operations did not return within {waited:?}; the disk hangs")]
    Hung {
        /// How many are out.
        outstanding: u64,
        /// How long they were waited for.
        waited: Duration,
    },
}

/// A disk or file open for direct reads, and nothing else.
#[derive(Debug)]
pub struct ReadTarget {
    file: Arc<File>,
    path: PathBuf,
    /// Where the readable range begins in the file, and its length; bytes.
    base: u64,
    size: u64,
}

impl ReadTarget {
    /// Opens `path` with `O_RDONLY | O_DIRECT`, never exclusively: tenants keep what they have.
    pub fn open(path: &Path) -> Result<Self, ProbeIoError> {
        let failed = |source| ProbeIoError::Open { path: path.to_owned(), source };
        // Looked at before opening: to open some character devices is to do something.
        let kind = path.metadata().map_err(failed)?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(ProbeIoError::NotADisk { path: path.to_owned() });
        }
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).map_err(failed)?;
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { file: Arc::new(file), path: path.to_owned(), base: 0, size })
    }

    /// A part of a file that is already open for direct reads.
    pub(crate) fn part_of(file: File, path: PathBuf, base: u64, size: u64) -> Self {
        Self { file: Arc::new(file), path, base, size }
    }

    /// Size in bytes of what may be read, as it was when opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads at `offsets` as `request` says. A read error ends it and is in the report, not an `Err`.
    pub fn read(
        &self,
        request: &Request,
        offsets: &mut Offsets,
        observer: Observer<'_>,
    ) -> Result<Report, ProbeIoError> {
        run(&Job { file: Arc::clone(&self.file), op: Op::Read, base: self.base, request: *request }, offsets, observer)
    }
}

/// What each operation does. Writes exist for scratch files only, which `crate::scratch` alone can open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Read,
    Write,
}

/// One run of an engine.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) file: Arc<File>,
    pub(crate) op: Op,
    /// Added to every offset.
    pub(crate) base: u64,
    pub(crate) request: Request,
}

/// Chooses the engine and runs the job on it.
pub(crate) fn run(job: &Job, offsets: &mut Offsets, observer: Observer<'_>) -> Result<Report, ProbeIoError> {
    let Request { depth, block_size, engine, .. } = job.request;
    if depth == 0 || depth > MAX_DEPTH || block_size == 0 || block_size % 512 != 0 {
        return Err(ProbeIoError::BadRequest { depth, block_size });
    }
    if engine != EngineChoice::Threads {
        match uring::Ring::new(job) {
            Ok(ring) => return ring.run(job, offsets, observer),
            Err(source) if engine == EngineChoice::Auto && uring::unavailable(&source) => {
                tracing::debug!(error = %source, "io_uring is not to be had, probing with threads");
            }
            Err(source) => return Err(ProbeIoError::Engine { engine: Engine::IoUring.name(), source }),
        }
    }
    threads::run(job, offsets, observer)
}

/// Fills memory with bytes that neither a filesystem nor a disk can shrink or take for zeroes.
pub(crate) fn fill(block: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in block.chunks_mut(8) {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.to_ne_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests;
