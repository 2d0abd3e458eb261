//! One depth for a given time and nothing else: for comparisons with other tools at equal parameters.
//!
//! No ramp, no budget and no look at neighbours, so nothing but benchmarks should call it on a disk in use.

use std::path::Path;
use std::time::Duration;

use bedplate_blockdev::probe_io::{EngineChoice, Flow, Live, ProbeIoError, ReadTarget, Request};
use bedplate_core::probe::{DepthFigure, Engine, Offsets, ReadHealth};

use super::figure;

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadParameters {
    /// Reads in flight.
    pub depth: u16,
    /// For how long.
    pub time: Duration,
    /// Bytes of one read.
    pub block_size: u32,
    /// Chooses the places.
    pub seed: u64,
    /// Which engine.
    pub engine: EngineChoice,
}

impl ReadParameters {
    /// 4 KiB reads at `depth` for `seconds`, by `io_uring` where it is to be had.
    pub fn new(depth: u16, seconds: u64) -> Self {
        Self { depth, time: Duration::from_secs(seconds), block_size: 4096, seed: 1, engine: EngineChoice::Auto }
    }
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct SingleRead {
    /// The figure.
    pub figure: DepthFigure,
    /// Which engine ran.
    pub engine: Engine,
    /// Time from the first read's issue to the last one's return. Shorter than asked when every block of the target
    /// was read once: no block is read twice.
    pub elapsed: Duration,
    /// Blocks that were all zeroes.
    pub zero_blocks: u64,
    /// Read errors, which end the run.
    pub health: Option<ReadHealth>,
}

/// Reads `path`, a device or a file, as `parameters` say.
///
/// # Errors
/// When it cannot be opened, the parameters make no sense, or the disk hangs. Read errors are in the result.
pub fn read_probe(path: &Path, parameters: &ReadParameters) -> Result<SingleRead, ProbeIoError> {
    let ReadParameters { depth, time, block_size, seed, engine } = *parameters;
    let target = ReadTarget::open(path)?;
    let mut offsets = Offsets::new(target.size(), block_size, seed);
    let request = Request { depth, block_size, ops: u64::MAX, time, engine };
    let report = target.read(&request, &mut offsets, &mut |_: &Live<'_>| Flow::Continue)?;
    Ok(SingleRead {
        figure: figure(depth, block_size, &report),
        engine: report.engine,
        elapsed: report.elapsed,
        zero_blocks: report.zero_blocks,
        health: report.faults.first().map(|first| ReadHealth {
            errors: report.fault_count,
            first_offset: first.offset,
            errno: first.errno,
            good_reads: report.completed,
        }),
    })
}
