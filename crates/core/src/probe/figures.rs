//! What a probe publishes: figures with their age, method, block size and the confidence they deserve.
//!
//! Input comes from finished measurements only; a disk that was busy, slow to answer or failing has no figures, it
//! keeps its last good ones.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::plan::StopReason;
use crate::media::MeasuredLatency;

/// How reads were issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// One thread, `io_uring`, registered buffers.
    IoUring,
    /// One thread per read in flight, `pread`: where `io_uring` is blocked or absent.
    Threads,
}

impl Engine {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
        }
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    /// The whole disk, read-only.
    WholeDisk,
    /// A file of Bedplate's own on a filesystem of that disk.
    ScratchFile,
}

/// How figures came about. Access is always `O_DIRECT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// How I/O was issued.
    pub engine: Engine,
    /// On what.
    pub medium: Medium,
}

/// One depth's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DepthFigure {
    /// Reads in flight.
    pub depth: u16,
    /// Reads per second.
    pub iops: u64,
    /// Median latency of a read, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
    /// 99.9th percentile, microseconds.
    pub p999_us: u64,
    /// MiB per second.
    pub mib_s: f64,
    /// Reads behind the figure.
    pub reads: u64,
}

/// Why figures are doubted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// More than half of the blocks were all zeroes: flash that holds nothing there answers faster than it can.
    MostlyZero,
    /// Too few reads for the spread to mean anything.
    FewReads,
    /// The five parts of a measurement differ by more than 20 % of their average.
    Unsteady,
    /// The five parts show a trend of more than 10 % of their average.
    Drifting,
    /// The range read is small enough for a cache of the disk or the host to hold it (less than 4 GiB).
    SmallSpan,
}

impl Doubt {
    /// In words, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::MostlyZero => "most blocks were all zeroes",
            Self::FewReads => "few reads",
            Self::Unsteady => "unsteady",
            Self::Drifting => "drifting",
            Self::SmallSpan => "a small range, a cache may have answered",
        }
    }
}

/// How far figures may be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// No reason for doubt was seen.
    High,
    /// Published, with the reasons to doubt it.
    Low(Vec<Doubt>),
}

impl Confidence {
    /// The same confidence with one more reason to doubt.
    #[must_use]
    pub fn doubted(self, doubt: Doubt) -> Self {
        match self {
            Self::High => Self::Low(vec![doubt]),
            Self::Low(mut doubts) => {
                if !doubts.contains(&doubt) {
                    doubts.push(doubt);
                }
                Self::Low(doubts)
            }
        }
    }
}

/// What else the disk was doing. Placement budgets come from idle measurements only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conditions {
    /// Nobody else was seen at work.
    Idle,
    /// Somebody else was: the disk can do at least this much.
    Disturbed,
}

/// The observed read capability of a disk. Not "steady-state IOPS".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// One entry per depth measured, shallow first.
    pub read: Vec<DepthFigure>,
    /// How.
    pub method: Method,
    /// Bytes of one read.
    pub block_size: u32,
    /// Bytes of the range that offsets were drawn from.
    pub span_bytes: u64,
    /// Reads made, all depths together.
    pub reads: u64,
    /// How many of those blocks were all zeroes.
    pub zero_blocks: u64,
    /// When it ended.
    pub when: Timestamp,
    /// How far to trust it.
    pub confidence: Confidence,
    /// What else went on.
    pub conditions: Conditions,
    /// Why it did not go deeper.
    pub stopped: StopReason,
}

impl Figures {
    /// The depth-1 figure: the latency that tells media apart.
    pub fn latency(&self) -> Option<&DepthFigure> {
        self.read.iter().find(|f| f.depth == 1)
    }

    /// The latency as evidence for what the disk is made of. `None` without a depth-1 figure.
    pub fn measured_latency(&self) -> Option<MeasuredLatency> {
        let latency = self.latency()?;
        let zero_fraction = if self.reads == 0 { 0.0 } else { self.zero_blocks as f64 / self.reads as f64 };
        let samples = u32::try_from(latency.reads).unwrap_or(u32::MAX);
        Some(MeasuredLatency { p50_us: latency.p50_us, samples, zero_fraction })
    }

    /// The most reads per second seen at any depth.
    pub fn best_iops(&self) -> Option<u64> {
        self.read.iter().map(|f| f.iops).max()
    }
}

/// Read errors met by a probe. It stops at the first and does not come back to the place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadHealth {
    /// Reads that failed, those in flight beside the first included.
    pub errors: u64,
    /// Byte offset of the first.
    pub first_offset: u64,
    /// The kernel's error number, or 0 for a read that came back short.
    pub errno: i32,
    /// Reads that succeeded before it.
    pub good_reads: u64,
}

/// Figures of writes into one kind of space.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteFigures {
    /// How many fdatasync calls the two latencies are drawn from. Below 100 the p99 is the longest seen.
    pub fsync_count: u64,
    /// Median of one 4 KiB write plus fdatasync at depth 1, microseconds.
    pub fsync_p50_us: u64,
    /// 99th percentile of the same, microseconds.
    pub fsync_p99_us: u64,
    /// 4 KiB writes per second at random places, the closing fdatasync counted in.
    pub random_write_iops: u64,
    /// Sequential 1 MiB writes, MiB per second, the closing fdatasync counted in.
    pub sequential_mib_s: f64,
}

impl WriteFigures {
    /// The worse of the two in every figure.
    #[must_use]
    pub fn worse(&self, other: &Self) -> Self {
        Self {
            fsync_count: self.fsync_count.min(other.fsync_count),
            fsync_p50_us: self.fsync_p50_us.max(other.fsync_p50_us),
            fsync_p99_us: self.fsync_p99_us.max(other.fsync_p99_us),
            random_write_iops: self.random_write_iops.min(other.random_write_iops),
            sequential_mib_s: self.sequential_mib_s.min(other.sequential_mib_s),
        }
    }
}

/// What a pool's scratch file showed about writes in that pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScratchFigures {
    /// First write into space that is allocated but was never written: the filesystem's map changes too.
    pub first_write: WriteFigures,
    /// Writes over what was written.
    pub overwrite: WriteFigures,
    /// Bytes of one record in the fdatasync test.
    pub record_bytes: u32,
    /// Writes in flight in the random-write test.
    pub random_depth: u16,
    /// How random writes were issued.
    pub engine: Engine,
    /// Size of the scratch file, bytes.
    pub file_bytes: u64,
    /// When it ended.
    pub when: Timestamp,
}

impl ScratchFigures {
    /// What a class may rely on: the worse of first write and overwrite.
    pub fn usable(&self) -> WriteFigures {
        self.first_write.worse(&self.overwrite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(fsync: u64, iops: u64, mib: f64) -> WriteFigures {
        WriteFigures {
            fsync_count: 500,
            fsync_p50_us: fsync,
            fsync_p99_us: fsync * 4,
            random_write_iops: iops,
            sequential_mib_s: mib,
        }
    }

    #[test]
    fn a_class_relies_on_the_worse_of_first_write_and_overwrite() {
        let figures = ScratchFigures {
            first_write: write(900, 9_000, 800.0),
            overwrite: write(300, 20_000, 700.0),
            record_bytes: 4096,
            random_depth: 16,
            engine: Engine::IoUring,
            file_bytes: 64 << 20,
            when: Timestamp::UNIX_EPOCH,
        };
        let usable = figures.usable();
        assert_eq!((usable.fsync_p99_us, usable.random_write_iops), (3600, 9_000));
        assert!((usable.sequential_mib_s - 700.0).abs() < f64::EPSILON);
    }

    #[test]
    fn figures_survive_a_round_trip_through_json() {
        let figures = Figures {
            read: vec![DepthFigure {
                depth: 1,
                iops: 14_500,
                p50_us: 45,
                p99_us: 155,
                p999_us: 988,
                mib_s: 56.6,
                reads: 2000,
            }],
            method: Method { engine: Engine::Threads, medium: Medium::WholeDisk },
            block_size: 4096,
            span_bytes: 275 << 30,
            reads: 2000,
            zero_blocks: 3,
            when: Timestamp::UNIX_EPOCH,
            confidence: Confidence::High.doubted(Doubt::Unsteady).doubted(Doubt::Unsteady),
            conditions: Conditions::Idle,
            stopped: StopReason::LatencyKnee,
        };
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["read"][0]["p999Us"], 988);
        assert_eq!(json["confidence"]["low"], serde_json::json!(["unsteady"]));
        assert_eq!(json["method"]["engine"], "threads");
        let latency = figures.measured_latency().unwrap();
        assert_eq!((latency.p50_us, latency.samples), (45, 2000));
        assert!((latency.zero_fraction - 0.0015).abs() < 1e-9);
        assert_eq!(serde_json::from_value::<Figures>(json).unwrap(), figures);
    }
}
