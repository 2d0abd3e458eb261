//! `report.json`: what a run saw and did, for programs. Counts, never markers.

use std::path::Path;

use anyhow::Context;
use bedplate_agent::discover::Disk;
use bedplate_agent::probe::{Record, Survey};
use bedplate_core::bytes::Bytes;
use bedplate_core::probe::{DepthFigure, ScratchFigures};
use bedplate_core::receipt::Receipt;
use serde::Serialize;

use super::placements::Placement;

/// The report.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// `clean`, `failed` or `not done`.
    pub verdict: String,
    /// The verdict as a sentence.
    pub why: String,
    /// Every disk seen.
    pub disks: Vec<DiskEntry>,
    /// Where each pod went, or that it went nowhere, and why.
    pub placements: Vec<Placement>,
    /// The volumes that were made.
    pub volumes: Vec<VolumeEntry>,
    /// Marker blocks and rows written through the mounts.
    pub markers_written: u64,
    /// How many of them the search found whole before the wipe.
    pub markers_found_before_wipe: u64,
    /// How many of them it found, whole or in part, after the wipe.
    pub markers_found_after_wipe: u64,
    /// Bytes that were not zero in the volumes' extents after the wipe.
    pub bytes_not_zero_after_wipe: u64,
    /// Whether the freed blocks were kept from the host filesystem until the search was over.
    pub blocks_held_until_searched: bool,
    /// The receipts.
    pub receipts: Vec<Receipt>,
    /// How long all of it took.
    pub seconds: f64,
}

/// A disk.
#[derive(Debug, Serialize)]
pub struct DiskEntry {
    /// Kernel name.
    pub name: String,
    /// Model.
    pub model: Option<String>,
    /// Size in bytes.
    pub bytes: Option<u64>,
    /// What it is made of.
    pub media: String,
    /// By which evidence.
    pub source: String,
    /// How sure that is.
    pub confidence: String,
    /// Whether it is free to be used.
    pub verdict: String,
    /// What reading from it showed, by depth; empty where it was not measured.
    pub read: Vec<DepthFigure>,
    /// What writing showed, where the demo's folder lies on it.
    pub write: Option<ScratchFigures>,
    /// How the measurements went, in sentences.
    pub measured: Vec<String>,
}

impl DiskEntry {
    /// Of a disk and the survey that may have measured it.
    pub fn of(disk: &Disk, survey: &Survey) -> Self {
        let name = &disk.facts.name;
        // The whole disk's figures before those of a scratch file on it.
        let records: Vec<Record> = survey.records().into_iter().filter(|r| r.disk.as_ref() == Some(name)).collect();
        Self {
            name: name.clone(),
            model: disk.facts.model.clone(),
            bytes: disk.facts.size.map(Bytes::get),
            media: disk.classification.media.to_string(),
            source: disk.classification.source.to_string(),
            confidence: disk.classification.confidence.to_string(),
            verdict: disk.verdict.to_string(),
            read: records.iter().find_map(|r| r.figures.as_ref()).map(|f| f.read.clone()).unwrap_or_default(),
            write: records.iter().find_map(|r| r.write.clone()),
            measured: records.into_iter().map(|r| r.why).collect(),
        }
    }
}

/// A volume.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VolumeEntry {
    /// Its id.
    pub id: String,
    /// Its claim, as namespace/name.
    pub claim: String,
    /// Its node.
    pub node: String,
    /// Its pool there.
    pub pool: String,
    /// What the disk beneath is called.
    pub media: String,
    /// Its filesystem.
    pub filesystem: String,
    /// Its size.
    pub bytes: u64,
    /// The device that its extents lie on, as major:minor.
    pub device: String,
    /// How many physical extents it has.
    pub extents: usize,
    /// Markers in it.
    pub markers_written: u64,
    /// Markers found before the wipe.
    pub markers_found_before_wipe: u64,
    /// How long what happened to it took, in milliseconds.
    pub milliseconds: Times,
}

/// How long what happens to a volume takes, in milliseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Times {
    /// From its claim to the claim's Bound.
    pub bound: f64,
    /// From its claim to its pod's process running, filesystem and mounts included.
    pub running: f64,
    /// From the claim's deletion to the PersistentVolume's end, wipe and verification included.
    pub deleted: Option<f64>,
}

impl Report {
    /// Write it, replacing an earlier one.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let failed = || format!("the report cannot be written to {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(failed)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n").with_context(failed)
    }
}
