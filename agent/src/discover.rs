//! Finding out which disks this machine has, what they are, and whose.
//!
//! Reads sysfs, proc and, where there, udev's database; roots are parameters, so other machines' recorded trees can be
//! read too. Facts go to core, which forms identity, verdict and class. Reads only: the one thing that touches a device
//! is [`Eyes`], which opens it read-only. A disk that vanishes during the scan is left out; one that changes is foreign.

mod attributes;
mod disk;
mod eyes;
mod layers;
mod machine;
mod transport;
mod udev;
mod usage;
mod vpd;
pub mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bedplate_core::disk::{DiskFacts, Exclusive, Kind};
use bedplate_core::identity::{DiskId, Identity, clashes};
use bedplate_core::media::{Classification, Evidence, MachineIdentity, MeasuredLatency, Media, classify, inherit};
use bedplate_core::verdict::{Verdict, judge};
use serde::Serialize;

pub use eyes::{Eyes, Opened};
pub use machine::HostFacts;

/// Where the kernel's and udev's views are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// sysfs.
    pub sys: PathBuf,
    /// procfs of the host's process namespace.
    pub proc: PathBuf,
    /// Device nodes.
    pub dev: PathBuf,
    /// udev's database; need not exist.
    pub run_udev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into(), run_udev: "/run/udev".into() }
    }
}

/// A claim of one of our pools on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The pool owns the whole disk.
    Disk {
        /// The pool's name.
        pool: String,
        /// The disk's id in the pool's records.
        id: DiskId,
    },
    /// The pool keeps backing files in this folder; loop devices on them are its own.
    Folder {
        /// The pool's name.
        pool: String,
        /// The folder.
        path: PathBuf,
    },
}

/// What a scan is told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where to look.
    pub roots: Roots,
    /// The operator's word about media, by disk id, by-id name, serial number or WWN; never by `/dev` name.
    pub overrides: BTreeMap<String, Media>,
    /// Our pools' claims.
    pub claims: Vec<Claim>,
}

/// Why a machine's disks could not be listed at all.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// sysfs is not there.
    #[error(
        "cannot list block devices in {path}: mount the host's sysfs there (in a pod: a hostPath volume for /sys) or name its place with --sys-root"
    )]
    NoSysfs {
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// One whole disk: facts and what follows from them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Who it is.
    pub identity: Identity,
    /// Whose it is.
    pub verdict: Verdict,
    /// What it is made of.
    pub classification: Classification,
    /// The measurement that the class rests on, where there is one.
    pub latency: Option<MeasuredLatency>,
    /// Everything known.
    pub facts: DiskFacts,
    /// The operator's word about its medium.
    #[serde(skip)]
    operator: Option<Media>,
}

/// A machine's disks.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The machine.
    pub host: HostFacts,
    /// What the machine says it is.
    pub machine: MachineIdentity,
    /// Its disks, by kernel name.
    pub disks: Vec<Disk>,
    /// What the scan could not see, and what would help; whole sentences.
    pub blind_spots: Vec<String>,
}

impl Report {
    /// Take measured latencies, by kernel name, into the classification of this very scan's disks.
    pub fn measured(&mut self, latencies: &BTreeMap<String, MeasuredLatency>) {
        for disk in &mut self.disks {
            if let Some(latency) = latencies.get(&disk.facts.name) {
                disk.latency = Some(*latency);
            }
        }
        classify_all(&mut self.disks, &self.machine);
    }
}

/// List a machine's disks.
///
/// # Errors
/// Only where there is no sysfs to read; everything else that cannot be seen becomes a fact, a reason or a blind spot.
pub fn discover(settings: &Settings, eyes: &dyn Eyes) -> Result<Report, DiscoverError> {
    let Settings { roots, overrides, claims } = settings;
    let block = roots.sys.join("block");
    let no_sysfs = |source| DiscoverError::NoSysfs { path: block.clone(), source };
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&block).map_err(no_sysfs)? {
        names.push(entry.map_err(no_sysfs)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_by_key(|name| natural(name));

    let usage = usage::Usage::read(roots);
    let listed = usage::listed_sizes(&roots.proc);
    let mut facts: Vec<DiskFacts> =
        names.iter().filter_map(|name| disk::read(roots, &usage, listed.as_ref(), name)).collect();
    for disk in &mut facts {
        look(disk, roots, eyes);
    }

    let machine = machine::identity(&roots.sys);
    let clashing = clashes(&facts);
    let mut disks: Vec<Disk> = facts
        .into_iter()
        .zip(clashing)
        .map(|(mut facts, clashes)| {
            let identity = Identity::of(&facts);
            let owner = owner(&facts, &identity, claims);
            // Holding a disk, if only for a moment, is tried last and only where nothing else speaks against "free".
            facts.exclusive = Exclusive::Opened;
            let otherwise_free = judge(&facts, &clashes, owner).is_free();
            facts.exclusive = if otherwise_free {
                eyes.hold(&roots.dev.join(&facts.name), facts.number)
            } else {
                Exclusive::NotTried
            };
            let verdict = judge(&facts, &clashes, owner);
            let operator = said_about(&facts, &identity, overrides);
            Disk { identity, verdict, classification: Classification::default(), latency: None, facts, operator }
        })
        .collect();
    classify_all(&mut disks, &machine);

    let blind_spots = blind_spots(&usage, &disks);
    Ok(Report { host: machine::host(), machine, disks, blind_spots })
}

fn look(disk: &mut DiskFacts, roots: &Roots, eyes: &dyn Eyes) {
    let sector = disk.logical_sector.unwrap_or(512);
    disk.look = eyes.look(&roots.dev.join(&disk.name), disk.number, sector);
    let table = |s: &&bedplate_core::signature::Signature| s.format == "gpt" || s.format == "dos";
    if disk.table_uuid.is_none()
        && let Some(contents) = disk.look.contents()
    {
        disk.table_uuid = contents.signatures.iter().filter(table).find_map(|s| s.uuid.clone());
    }
    for partition in &mut disk.partitions {
        if let Some(number) = partition.number {
            partition.look = eyes.look(&roots.dev.join(&partition.name), number, sector);
        }
    }
}

fn owner<'a>(facts: &DiskFacts, identity: &Identity, claims: &'a [Claim]) -> Option<&'a str> {
    claims.iter().find_map(|claim| match (claim, &facts.device) {
        (Claim::Disk { pool, id }, _) if identity.id.as_ref() == Some(id) => Some(pool.as_str()),
        (Claim::Folder { pool, path }, Kind::Loop { backing: Some(backing), .. })
            if Path::new(backing).parent() == Some(path) =>
        {
            Some(pool.as_str())
        }
        _ => None,
    })
}

fn said_about(facts: &DiskFacts, identity: &Identity, overrides: &BTreeMap<String, Media>) -> Option<Media> {
    let names = identity
        .id
        .iter()
        .map(DiskId::as_str)
        .chain(facts.by_id.iter().map(String::as_str))
        .chain(facts.serial.as_deref().map(str::trim))
        .chain(facts.wwn.as_deref().map(str::trim));
    names.filter_map(|name| overrides.get(name)).copied().next()
}

/// Classes of all disks: those with a medium of their own first, then those that stand on them.
fn classify_all(disks: &mut [Disk], machine: &MachineIdentity) {
    for disk in disks.iter_mut() {
        let evidence = Evidence { facts: &disk.facts, machine, operator: disk.operator, latency: disk.latency };
        disk.classification = classify(&evidence);
    }
    let inherited: Vec<(usize, Classification)> = disks
        .iter()
        .enumerate()
        .filter(|(_, disk)| disk.operator.is_none())
        .filter(|(_, disk)| matches!(disk.facts.device, Kind::Md { .. } | Kind::DeviceMapper { .. }))
        .map(|(i, disk)| {
            let beneath: Vec<&Classification> =
                disk.facts.slaves.iter().filter_map(|slave| Some(&beneath(disks, slave)?.classification)).collect();
            (i, inherit(&beneath))
        })
        .collect();
    for (i, classification) in inherited {
        disks[i].classification = classification;
    }
}

/// The disk that `name` is, or is a partition of.
fn beneath<'a>(disks: &'a [Disk], name: &str) -> Option<&'a Disk> {
    disks.iter().find(|d| d.facts.name == name || d.facts.partitions.iter().any(|p| p.name == name))
}

fn blind_spots(usage: &usage::Usage, disks: &[Disk]) -> Vec<String> {
    let mut spots: Vec<String> = usage.partial().to_vec();
    let unread: Vec<&str> = disks
        .iter()
        .filter(|d| matches!(d.facts.look, bedplate_core::signature::Look::Failed(_)))
        .map(|d| d.facts.name.as_str())
        .collect();
    if !unread.is_empty() {
        spots.push(format!("the content of {} could not be read", unread.join(", ")));
    }
    if !spots.is_empty() {
        let who = if nix::unistd::geteuid().is_root() {
            "leave the container or device cgroup that refuses them to root"
        } else {
            "run as root"
        };
        spots.push(format!(
            "to see more, {who}; in a pod, give the DaemonSet `privileged: true`, `hostPID: true` and the host's /dev, /sys and /run/udev"
        ));
    }
    spots
}

/// Sort key that puts `sda2` before `sda10`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts: Vec<(String, u64)> = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(word);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(digits);
        parts.push((text.to_owned(), number.parse().unwrap_or(0)));
        rest = tail;
    }
    // Within one kind of disk, longer drive letters come later: sdaa after sdz.
    if let Some((word, _)) = parts.first_mut() {
        let kind: String = word.chars().take(2).collect();
        *word = format!("{kind}{:03}{word}", word.len());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_listed_as_people_count() {
        let mut names = ["sdaa", "vda", "sdb", "nvme10n1", "nvme2n1", "sda"];
        names.sort_by_key(|n| natural(n));
        assert_eq!(names, ["nvme2n1", "nvme10n1", "sda", "sdb", "sdaa", "vda"]);
    }
}
