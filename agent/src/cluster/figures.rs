//! What was measured of disks and pools: kept over restarts beside the ledger, told in the API's words.
//!
//! Keyed by a disk's stable id and a pool's name. A file that cannot be read is begun anew: figures are measured again.

use std::collections::BTreeMap;
use std::path::Path;

use bedplate_api::storage_node::{DiskStatus, Figures as Told};
use bedplate_core::probe::{Conditions, Confidence, Figures, PoolWrites, ReadHealth, Settled, settle};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::convert::signed;
use super::status::whole_seconds;

/// Name of the file in the state directory.
const FILE: &str = "figures.json";
const NEXT: &str = "figures.next";

/// Everything measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    disks: BTreeMap<String, Settled>,
    writes: BTreeMap<String, Settled<PoolWrites>>,
    /// Which disk a pool was on when it was measured.
    beneath: BTreeMap<String, String>,
    health: BTreeMap<String, ReadHealth>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Stored {
    disks: BTreeMap<String, Figures>,
    writes: BTreeMap<String, PoolWrites>,
    beneath: BTreeMap<String, String>,
}

impl Book {
    /// What was kept; empty where nothing can be read.
    pub fn load(state_dir: &Path) -> Self {
        let stored: Stored = std::fs::read(state_dir.join(FILE))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let settled = |(name, figures)| (name, Settled { published: Some(figures), pending: None });
        let written = |(name, writes)| (name, Settled { published: Some(writes), pending: None });
        Self {
            disks: stored.disks.into_iter().map(settled).collect(),
            writes: stored.writes.into_iter().map(written).collect(),
            beneath: stored.beneath,
            health: BTreeMap::new(),
        }
    }

    /// Keep what is published.
    ///
    /// # Errors
    /// Where the file cannot be written; the figures are then measured again after a restart.
    pub fn save(&self, state_dir: &Path) -> std::io::Result<()> {
        let published = |(name, settled): (&String, &Settled)| Some((name.clone(), settled.published.clone()?));
        let writes = self.writes.iter().filter_map(|(name, settled)| Some((name.clone(), settled.published.clone()?)));
        let stored = Stored {
            disks: self.disks.iter().filter_map(published).collect(),
            writes: writes.collect(),
            beneath: self.beneath.clone(),
        };
        std::fs::write(state_dir.join(NEXT), serde_json::to_vec(&stored)?)?;
        std::fs::rename(state_dir.join(NEXT), state_dir.join(FILE))
    }

    /// Take in reads of a disk.
    pub fn read(&mut self, disk: &str, figures: Figures) {
        self.health.remove(disk);
        let before = self.disks.remove(disk).unwrap_or_default();
        self.disks.insert(disk.to_owned(), settle(before, figures));
    }

    /// Take in writes in a pool that stands on `disk`. Another disk than before begins anew.
    pub fn wrote(&mut self, pool: &str, disk: &str, writes: PoolWrites) {
        let moved = self.beneath.insert(pool.to_owned(), disk.to_owned()).is_some_and(|before| before != disk);
        let before = if moved { None } else { self.writes.remove(pool) };
        self.writes.insert(pool.to_owned(), settle(before.unwrap_or_default(), writes));
    }

    /// Take in a read error.
    pub fn unhealthy(&mut self, disk: &str, health: ReadHealth) {
        self.health.insert(disk.to_owned(), health);
    }

    /// When a disk was measured last.
    pub fn disk_time(&self, disk: &str) -> Option<jiff::Timestamp> {
        self.disks.get(disk)?.published.as_ref().map(|figures| figures.when)
    }

    /// When a pool was measured last, if on this disk.
    pub fn pool_time(&self, pool: &str, disk: &str) -> Option<jiff::Timestamp> {
        let here = self.beneath.get(pool).is_some_and(|before| before == disk);
        self.writes.get(pool)?.published.as_ref().filter(|_| here).map(|writes| writes.figures.when)
    }

    /// Operations a second that may be promised in a pool: the lesser of reads and writes, both measured on an idle disk.
    pub fn budget(&self, pool: &str) -> Option<u64> {
        let writes = self.writes.get(pool)?.published.as_ref()?;
        let reads = self.disks.get(self.beneath.get(pool)?)?.published.as_ref()?;
        let idle = writes.conditions == Conditions::Idle && reads.conditions == Conditions::Idle;
        idle.then(|| writes.figures.usable().random_write_iops.min(reads.best_iops().unwrap_or_default()))
    }

    /// A disk's figures, as they are told.
    pub fn of_disk(&self, disk: &DiskStatus) -> Option<Told> {
        Some(reads(self.disks.get(disk.id.as_ref()?)?.published.as_ref()?))
    }

    /// A disk's health, as it is told.
    pub fn health_of(&self, disk: &DiskStatus) -> String {
        match disk.id.as_ref().and_then(|id| self.health.get(id)) {
            Some(ReadHealth { errors, first_offset, errno, .. }) => {
                format!("{errors} read error(s), the first at byte {first_offset} (errno {errno})")
            }
            None => String::new(),
        }
    }

    /// Figures of pools, as they are told: writes of their own, reads of the disk beneath.
    pub fn pools(&self) -> BTreeMap<String, Told> {
        let told = |(pool, settled): (&String, &Settled<PoolWrites>)| {
            let writes = settled.published.as_ref()?;
            let read = self.beneath.get(pool).and_then(|disk| self.disks.get(disk)?.published.as_ref());
            let usable = writes.figures.usable();
            Some((
                pool.clone(),
                Told {
                    write_iops: Some(signed(usable.random_write_iops)),
                    fsync_p50_us: Some(signed(usable.fsync_p50_us)),
                    fsync_p99_us: Some(signed(usable.fsync_p99_us)),
                    write_bytes_per_second: Some(mib(usable.sequential_mib_s)),
                    method: format!("{} B records, depth {}", writes.figures.record_bytes, writes.figures.random_depth),
                    time: Some(Time(whole_seconds(writes.figures.when))),
                    confidence: worth(writes.conditions, &Confidence::High),
                    ..read.map(reads).unwrap_or_default()
                },
            ))
        };
        self.writes.iter().filter_map(told).collect()
    }
}

fn reads(figures: &Figures) -> Told {
    Told {
        read_iops: figures.best_iops().map(signed),
        read_p50_us: figures.latency().map(|f| signed(f.p50_us)),
        read_p99_us: figures.latency().map(|f| signed(f.p99_us)),
        method: format!(
            "{} B reads, {}, depth up to {}",
            figures.block_size,
            figures.method.engine.name(),
            depth(figures)
        ),
        confidence: worth(figures.conditions, &figures.confidence),
        time: Some(Time(whole_seconds(figures.when))),
        ..Told::default()
    }
}

fn depth(figures: &Figures) -> u16 {
    figures.read.iter().map(|figure| figure.depth).max().unwrap_or_default()
}

fn worth(conditions: Conditions, confidence: &Confidence) -> String {
    let mut doubts: Vec<&str> = match confidence {
        Confidence::High => Vec::new(),
        Confidence::Low(doubts) => doubts.iter().map(|doubt| doubt.words()).collect(),
    };
    if conditions == Conditions::Disturbed {
        doubts.insert(0, "the disk was in use");
    }
    if doubts.is_empty() { "high".to_owned() } else { format!("low: {}", doubts.join(", ")) }
}

/// MiB a second in bytes a second.
#[expect(clippy::cast_possible_truncation, reason = "rates are positive and far below 2^53")]
fn mib(rate: f64) -> i64 {
    (rate * f64::from(1 << 20)).round() as i64
}

#[cfg(test)]
mod tests;
