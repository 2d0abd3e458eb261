//! Measures a machine's disks one after the other and tells each result in a form for people and for files.
//!
//! Takes what discovery found, measures what the caller chose, and hands the latencies back to the classification.
//! A disk that may not be opened can be measured through a folder on it that the operator named.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bedplate_blockdev::probe_io::ProbeIoError;
use bedplate_blockdev::scratch::{ScratchBudget, ScratchError};
use bedplate_core::chain::chain;
use bedplate_core::disk::{DeviceNumber, DiskFacts, Kind, Layer, Rotation};
use bedplate_core::probe::{Confidence, DepthFigure, Figures, ReadHealth, ReadPlan, ScratchFigures};
use nix::sys::stat::{major, minor};
use serde::Serialize;

use super::{Busy, Disk, OnProgress, Outcome, PoolOutcome, Prober};
use crate::discover::{Report, Roots};

/// What is to be measured.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Kernel names; empty means every real disk (loop devices, device-mapper and md only by name).
    pub disks: Vec<String>,
    /// Folders on these disks in which a scratch file may be written.
    pub folders: Vec<PathBuf>,
    /// What a scratch file may cost.
    pub budget: ScratchBudget,
}

/// A disk's or folder's result.
#[derive(Debug)]
pub enum Measured {
    /// The disk itself, read-only.
    Disk {
        /// Kernel name.
        disk: String,
        /// How it went.
        outcome: Outcome,
    },
    /// A folder, in a scratch file.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Kernel name of the disk beneath, where it is one that discovery found.
        disk: Option<String>,
        /// How it went.
        result: Result<PoolOutcome, ScratchError>,
    },
}

/// Everything a survey did, in its order.
#[derive(Debug, Default)]
pub struct Survey {
    /// The results.
    pub results: Vec<Measured>,
}

/// A result for a file: `-o json`, StorageNode.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Kernel name of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// The folder, where a scratch file was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// `measured`, `unhealthy`, `busy`, `stopped`, `too-little` or `failed`.
    pub result: &'static str,
    /// The result as a sentence.
    pub why: String,
    /// Reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// Writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<ScratchFigures>,
    /// Read errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<ReadHealth>,
}

/// Measures what `choice` names among the disks of `report`, and classifies the disks again with what was seen.
pub fn survey(
    report: &mut Report,
    roots: &Roots,
    prober: &Prober,
    choice: &Choice,
    seed: u64,
    on_progress: OnProgress<'_>,
) -> Survey {
    let mut results = Vec::new();
    for facts in report.disks.iter().map(|d| &d.facts).filter(|facts| chosen(facts, &choice.disks)) {
        let disk = Disk::of(facts, roots);
        let outcome = prober.probe(&disk, ReadPlan::new(disk.logical_block), seed, on_progress);
        results.push(Measured::Disk { disk: disk.name, outcome });
    }
    for folder in &choice.folders {
        let disk = beneath(report, folder);
        let result = prober.probe_pool(folder, disk.as_deref(), &choice.budget, seed, on_progress);
        results.push(Measured::Folder { folder: folder.clone(), disk, result });
    }
    let survey = Survey { results };
    report.measured(&survey.latencies());
    survey
}

impl Disk {
    /// The disk that discovery found.
    pub fn of(facts: &DiskFacts, roots: &Roots) -> Self {
        Self {
            name: facts.name.clone(),
            node: roots.dev.join(&facts.name),
            logical_block: facts.logical_sector.unwrap_or(512),
            mechanical: facts.rotation.is_some_and(|r| matches!(r.rotation, Rotation::Rpm(_))),
        }
    }
}

fn chosen(facts: &DiskFacts, names: &[String]) -> bool {
    if names.is_empty() { facts.device == Kind::Disk } else { names.contains(&facts.name) }
}

/// The disk that a folder's filesystem stands on. Nothing for filesystems with device numbers of their own (btrfs).
fn beneath(report: &Report, folder: &Path) -> Option<String> {
    fn layers(number: DeviceNumber, holders: &[Layer]) -> bool {
        holders.iter().any(|l| l.number == Some(number) || layers(number, &l.holders))
    }
    let device = folder.metadata().ok()?.dev();
    let number = DeviceNumber { major: u32::try_from(major(device)).ok()?, minor: u32::try_from(minor(device)).ok()? };
    let holds = |facts: &DiskFacts| {
        facts.number == number
            || layers(number, &facts.holders)
            || facts.partitions.iter().any(|p| p.number == Some(number) || layers(number, &p.holders))
    };
    report.disks.iter().map(|d| &d.facts).find(|f| holds(f)).map(|f| f.name.clone())
}

impl Survey {
    /// Latencies by kernel name: the whole disk's where there is one, else what a scratch file on it showed.
    fn latencies(&self) -> BTreeMap<String, bedplate_core::media::MeasuredLatency> {
        let mut latencies = BTreeMap::new();
        for result in self.results.iter().rev() {
            let (name, outcome) = match result {
                Measured::Disk { disk, outcome } => (Some(disk), Some(outcome)),
                Measured::Folder { disk, result: Ok(PoolOutcome::Measured(figures)), .. } => {
                    (disk.as_ref(), figures.read.as_ref())
                }
                Measured::Folder { .. } => continue,
            };
            if let (Some(name), Some(Outcome::Measured(figures))) = (name, outcome)
                && let Some(latency) = figures.measured_latency()
            {
                latencies.insert(name.clone(), latency);
            }
        }
        latencies
    }

    /// The results for a file.
    pub fn records(&self) -> Vec<Record> {
        self.results.iter().map(Measured::record).collect()
    }
}

impl Measured {
    fn record(&self) -> Record {
        let why = self.to_string();
        let of = |outcome: &Outcome| Record {
            disk: None,
            folder: None,
            result: outcome.word(),
            why: why.clone(),
            figures: if let Outcome::Measured(figures) = outcome { Some(figures.clone()) } else { None },
            write: None,
            health: if let Outcome::Unhealthy(health) = outcome { Some(health.clone()) } else { None },
        };
        match self {
            Self::Disk { disk, outcome } => Record { disk: Some(disk.clone()), ..of(outcome) },
            Self::Folder { folder, disk, result } => {
                let record = match result {
                    Ok(PoolOutcome::Measured(figures)) => Record {
                        result: "measured",
                        write: Some(figures.write.clone()),
                        ..of(figures.read.as_ref().unwrap_or(&Outcome::TooLittle))
                    },
                    Ok(PoolOutcome::NotNow(outcome)) => of(outcome),
                    Err(ScratchError::Stopped { .. }) => of(&Outcome::Stopped),
                    Err(_) => Record { result: "failed", ..of(&Outcome::TooLittle) },
                };
                Record { disk: disk.clone(), folder: Some(folder.clone()), ..record }
            }
        }
    }
}

impl Outcome {
    /// One word for files.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Unhealthy(_) => "unhealthy",
            Self::Busy(_) => "busy",
            Self::Stopped => "stopped",
            Self::TooLittle => "too-little",
            Self::Failed(_) | Self::Unwatched { .. } => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Measured(figures) => f.write_str(&reads(figures).join("; ")),
            Self::Unhealthy(h) => write!(
                f,
                "{} read errors, the first at byte {} (error {}) after {} good reads; the disk was left alone",
                h.errors, h.first_offset, h.errno, h.good_reads
            ),
            Self::Busy(busy) => write!(f, "not measured: {busy}; the last good figures stay"),
            Self::Stopped => write!(f, "not measured: stopped"),
            Self::TooLittle => write!(f, "not measured: it holds too little, or answers too slowly, to say anything"),
            Self::Failed(error) => {
                write!(f, "not measured: {}", chain(error))?;
                match error {
                    ProbeIoError::Open { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                        write!(f, "; a folder on it can be measured instead")
                    }
                    _ => Ok(()),
                }
            }
            Self::Unwatched { path, source } => {
                write!(f, "not touched: {} does not show whether it is busy: {source}", path.display())
            }
        }
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { inflight, utilisation } => {
                write!(f, "it is busy for others ({:.0} % of the time, {inflight} in flight)", utilisation * 100.0)
            }
            Self::Pressure { share } => {
                write!(f, "the machine is short of I/O (someone waits {:.0} % of the time)", share * 100.0)
            }
            Self::Slowed { p99 } => write!(f, "reads became slow ({} ms), others need it", p99.as_millis()),
        }
    }
}

impl Measured {
    /// What was measured: the disk, the folder, or the disk through the folder.
    pub fn subject(&self) -> String {
        match self {
            Self::Disk { disk, .. } => disk.clone(),
            Self::Folder { folder, disk: Some(disk), .. } => format!("{disk} through {}", folder.display()),
            Self::Folder { folder, disk: None, .. } => folder.display().to_string(),
        }
    }

    /// The result for people, a line for each thing to say.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Disk { outcome: Outcome::Measured(figures), .. } => reads(figures),
            Self::Disk { outcome, .. } | Self::Folder { result: Ok(PoolOutcome::NotNow(outcome)), .. } => {
                vec![outcome.to_string()]
            }
            Self::Folder { result: Err(error), .. } => vec![format!("not measured: {}", chain(error))],
            Self::Folder { result: Ok(PoolOutcome::Measured(figures)), .. } => {
                let writes = figures.write.usable();
                let mut lines = vec![format!(
                    "writes: fdatasync p50 {} µs, p99 {} µs; {} random/s; {:.0} MiB/s sequential; the worse of first write and overwrite",
                    writes.fsync_p50_us, writes.fsync_p99_us, writes.random_write_iops, writes.sequential_mib_s
                )];
                match &figures.read {
                    Some(Outcome::Measured(figures)) => lines.extend(reads(figures)),
                    Some(outcome) => lines.push(format!("reads: {outcome}")),
                    None => {}
                }
                lines
            }
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("; "))
    }
}

fn reads(figures: &Figures) -> Vec<String> {
    let depth = |figure: &DepthFigure| {
        let DepthFigure { depth, iops, p50_us, p99_us, .. } = figure;
        format!("{iops}/s at depth {depth} (p50 {p50_us} µs, p99 {p99_us} µs)")
    };
    let depths: Vec<String> = figures.read.iter().map(depth).collect();
    let mut lines = vec![format!("reads: {}", depths.join(", "))];
    if let Confidence::Low(doubts) = &figures.confidence {
        let words: Vec<&str> = doubts.iter().map(|d| d.words()).collect();
        lines.push(format!("low confidence: {}", words.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests;
