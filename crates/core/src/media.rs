//! What a disk is made of, decided by evidence in order of how hard it is to be wrong.
//!
//! Operator's word, then who the device says it is (cloud and hypervisor models), then what the device was made to
//! answer about turning parts, then how fast it answers one read at a time, and the kernel's `rotational` flag last and
//! only where the kernel asked the device for it: the flag is wrong in both directions on virtio, RAID, vSAN, Xen and
//! EBS. Every result carries its source, its confidence and a sentence; `unknown` beats a guess. Pure.

mod models;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::disk::{DiskFacts, Kind, Rotation, Transport};
use models::Known;

/// A median below this many microseconds for one random read at a time is flash's: SATA flash answers in 60-200 µs,
/// NVMe in 50-120 µs, and no arm moves that fast.
pub const FLASH_BELOW_US: u64 = 500;
/// Whatever a device or the kernel says, nothing that answers faster than this is called a hard disk.
pub const NEVER_HDD_BELOW_US: u64 = 1_000;
/// A median within this range is what seek and half a turn cost.
pub const HDD_RANGE_US: std::ops::RangeInclusive<u64> = 4_000..=15_000;
/// Fewer reads than this decide nothing.
pub const ENOUGH_SAMPLES: u32 = 30;
/// A share of all-zero blocks above this means: mostly trimmed or never written space was read, which flash and thin
/// volumes answer without touching the medium.
pub const MOSTLY_ZERO: f64 = 0.5;

/// What a disk is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    /// Local flash behind NVMe.
    Nvme,
    /// Flash.
    Ssd,
    /// Turning platters.
    Hdd,
    /// Nobody can tell.
    #[default]
    Unknown,
}

impl Media {
    /// The word, as labels and parameters write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nvme => "nvme",
            Self::Ssd => "ssd",
            Self::Hdd => "hdd",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a medium.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a medium: write nvme, ssd, hdd or unknown")]
pub struct NotAMedium(String);

impl FromStr for Media {
    type Err = NotAMedium;

    fn from_str(text: &str) -> Result<Self, NotAMedium> {
        [Self::Nvme, Self::Ssd, Self::Hdd, Self::Unknown]
            .into_iter()
            .find(|media| media.as_str() == text)
            .ok_or_else(|| NotAMedium(text.to_owned()))
    }
}

/// Which kind of evidence decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The operator said so.
    Operator,
    /// Model and cloud.
    Identity,
    /// The device's own answer: VPD page B1, ATA word 217, NVMe.
    DeviceData,
    /// Measured latency.
    Latency,
    /// The kernel's flag.
    Rotational,
    /// The disks beneath.
    Inherited,
    /// None did.
    #[default]
    None,
}

impl Source {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Identity => "identity",
            Self::DeviceData => "device-data",
            Self::Latency => "latency",
            Self::Rotational => "rotational",
            Self::Inherited => "inherited",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How sure it is. Always `low` for [`Media::Unknown`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A hint.
    #[default]
    Low,
    /// Good evidence with a known way to be wrong.
    Medium,
    /// The device or a person said so, and nothing speaks against it.
    High,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        })
    }
}

/// Where the medium is, seen from this machine's operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Locality {
    /// In this machine.
    Local,
    /// Behind a network.
    Network,
    /// Behind a hypervisor or a RAID controller that hides it.
    Hidden,
    /// Not recognised.
    #[default]
    Unknown,
}

/// What the machine says about itself (DMI, hypervisor); used to read model names aright.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineIdentity {
    /// DMI system vendor.
    pub vendor: Option<String>,
    /// DMI product name; on EC2 the instance type.
    pub product: Option<String>,
    /// `/sys/hypervisor/type`, where there is one.
    pub hypervisor: Option<String>,
}

/// Latency of random reads, one at a time, past the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredLatency {
    /// Median in microseconds.
    pub p50_us: u64,
    /// Reads behind it.
    pub samples: u32,
    /// Share of blocks read that were all zero, 0 to 1.
    pub zero_fraction: f64,
}

/// What was decided, by what, how surely, and the sentence why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Classification {
    /// What it is made of.
    pub media: Media,
    /// Which evidence decided.
    pub source: Source,
    /// How sure that is.
    pub confidence: Confidence,
    /// Where the medium is.
    pub locality: Locality,
    /// Why, for people.
    pub why: String,
}

/// Everything that may speak about a disk's medium.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The disk.
    pub facts: &'a DiskFacts,
    /// The machine.
    pub machine: &'a MachineIdentity,
    /// The operator's word.
    pub operator: Option<Media>,
    /// A measurement, where there is one.
    pub latency: Option<MeasuredLatency>,
}

/// Decide what a disk is made of.
#[must_use]
pub fn classify(evidence: &Evidence) -> Classification {
    let Evidence { facts, machine, operator, latency } = *evidence;
    let known = models::known(facts, machine);
    let locality = locality(facts, known.as_ref());
    let decided = |media, source, confidence, why: String| Classification {
        media,
        source,
        confidence: if media == Media::Unknown { Confidence::Low } else { confidence },
        locality,
        why,
    };

    if let Some(media) = operator {
        return decided(media, Source::Operator, Confidence::High, "the operator says so".to_owned());
    }
    match &known {
        Some(Known::LocalFlash { media, name }) => {
            return decided(*media, Source::Identity, Confidence::High, format!("it says it is {name}"));
        }
        Some(Known::Network { name }) => {
            let why = format!("it is {name}, which hides whether flash or platters lie behind the network");
            return decided(Media::Unknown, Source::Identity, Confidence::Low, why);
        }
        Some(Known::Virtual { .. }) | None => {}
    }
    let no_medium = match facts.device {
        Kind::Loop { .. } => Some("a loop device has no medium of its own"),
        // Optical drives call themselves not rotational on newer kernels.
        Kind::Drive => Some("a drive's medium is whatever is put into it"),
        Kind::Virtual => Some("the kernel makes it up out of something else"),
        Kind::Disk | Kind::DeviceMapper { .. } | Kind::Md { .. } => None,
    };
    if let Some(why) = no_medium {
        return decided(Media::Unknown, Source::None, Confidence::Low, why.to_owned());
    }
    let hidden = locality != Locality::Local;
    if let Some((media, confidence, why)) = from_device(facts, hidden, latency) {
        return decided(media, Source::DeviceData, confidence, why);
    }
    if let Some((media, confidence, why)) = from_latency(facts, locality, latency) {
        return decided(media, Source::Latency, confidence, why);
    }
    if let Some((media, confidence, why)) = from_flag(facts, locality, latency) {
        return decided(media, Source::Rotational, confidence, why);
    }
    decided(Media::Unknown, Source::None, Confidence::Low, why_nothing_decided(facts, known.as_ref(), latency))
}

/// What a device stacked on others is made of: what they are made of, if they agree.
#[must_use]
pub fn inherit(beneath: &[&Classification]) -> Classification {
    let agreed = beneath.split_first().filter(|(first, rest)| rest.iter().all(|c| c.media == first.media));
    match agreed {
        Some((first, _)) if first.media != Media::Unknown => Classification {
            media: first.media,
            source: Source::Inherited,
            confidence: beneath.iter().map(|c| c.confidence).min().unwrap_or_default(),
            locality: first.locality,
            why: format!("every disk beneath it is {}", first.media),
        },
        Some(_) => Classification { why: "nobody can tell what is beneath it".to_owned(), ..Classification::default() },
        None if beneath.is_empty() => {
            Classification { why: "the disks beneath it are not visible".to_owned(), ..Classification::default() }
        }
        None => Classification { why: "the disks beneath it differ".to_owned(), ..Classification::default() },
    }
}

fn locality(facts: &DiskFacts, known: Option<&Known>) -> Locality {
    match known {
        Some(Known::LocalFlash { .. }) => return Locality::Local,
        Some(Known::Network { .. }) => return Locality::Network,
        Some(Known::Virtual { .. }) => return Locality::Hidden,
        None => {}
    }
    match facts.transport {
        Transport::Nvme | Transport::Sata | Transport::Sas | Transport::Usb | Transport::Mmc | Transport::Pmem => {
            Locality::Local
        }
        Transport::NvmeFabrics | Transport::Iscsi | Transport::FibreChannel | Transport::NetworkBlock => {
            Locality::Network
        }
        Transport::Raid | Transport::Virtio | Transport::Xen | Transport::HyperV | Transport::Vmware => {
            Locality::Hidden
        }
        Transport::Scsi | Transport::Loop | Transport::DeviceMapper | Transport::Md | Transport::Unknown => {
            Locality::Unknown
        }
    }
}

type Finding = Option<(Media, Confidence, String)>;

fn from_device(facts: &DiskFacts, hidden: bool, latency: Option<MeasuredLatency>) -> Finding {
    // USB bridges answer for the disk behind them, and not always truly.
    let second_hand = hidden || facts.transport == Transport::Usb;
    let sure = if second_hand { Confidence::Medium } else { Confidence::High };
    let too_fast = latency.filter(|l| l.samples > 0 && l.p50_us < NEVER_HDD_BELOW_US);
    let turning = |says: String| match too_fast {
        Some(l) => {
            let why = format!("{says}, yet it answers a random read in {}: one of the two is wrong", micros(l.p50_us));
            (Media::Unknown, Confidence::Low, why)
        }
        None => (Media::Hdd, sure, says),
    };
    if let Some(report) = facts.rotation {
        match report.rotation {
            Rotation::Solid => {
                return Some((Media::Ssd, sure, format!("{} says that nothing turns", report.source)));
            }
            Rotation::Rpm(rpm) => {
                return Some(turning(format!("{} says {rpm} revolutions a minute", report.source)));
            }
            Rotation::NotReported => {}
        }
    }
    match (facts.transport, facts.rotational) {
        // The kernel sets this flag on NVMe only when the controller reports rotational media (drivers/nvme/host/core.c).
        (Transport::Nvme, Some(true)) if !hidden => {
            Some(turning("the NVMe controller reports rotational media".into()))
        }
        (Transport::Nvme, Some(false)) if !hidden => {
            Some((Media::Nvme, Confidence::High, "an NVMe disk that does not report rotational media".to_owned()))
        }
        (Transport::Nvme, None) if !hidden => {
            Some((Media::Nvme, Confidence::Medium, "an NVMe disk; whether it turns could not be read".to_owned()))
        }
        (Transport::Mmc, _) => {
            let why = "SD cards and eMMC are flash, often slow: judge by the measured figures";
            Some((Media::Ssd, Confidence::Medium, why.to_owned()))
        }
        _ => None,
    }
}

fn from_latency(facts: &DiskFacts, locality: Locality, latency: Option<MeasuredLatency>) -> Finding {
    let latency = latency.filter(|l| l.samples >= ENOUGH_SAMPLES)?;
    if locality == Locality::Network {
        return None; // what answers is a cache or a queue somewhere else
    }
    let took = format!("it answers a random read in {} (median of {})", micros(latency.p50_us), latency.samples);
    if latency.p50_us < FLASH_BELOW_US {
        let media = match (facts.transport, locality) {
            (Transport::Nvme, Locality::Local) => Media::Nvme,
            _ => Media::Ssd,
        };
        return Some(if latency.zero_fraction > MOSTLY_ZERO {
            let percent = latency.zero_fraction.clamp(0.0, 1.0) * 100.0;
            let why =
                format!("{took}, as flash does; but {percent:.0} % of what it read were zeroes, which is quick anyway");
            (media, Confidence::Low, why)
        } else {
            (media, Confidence::Medium, format!("{took}, as only flash does"))
        });
    }
    if HDD_RANGE_US.contains(&latency.p50_us) {
        return Some(if locality == Locality::Local {
            (Media::Hdd, Confidence::Medium, format!("{took}, as long as a seek and half a turn take"))
        } else {
            (Media::Hdd, Confidence::Low, format!("{took}, like a hard disk; a throttled volume looks the same"))
        });
    }
    None
}

/// The flag is worth something only where the kernel asked a physical device; one is also its default for "no answer".
fn from_flag(facts: &DiskFacts, locality: Locality, latency: Option<MeasuredLatency>) -> Finding {
    if locality != Locality::Local || !matches!(facts.transport, Transport::Sata | Transport::Sas) {
        return None;
    }
    let asked_in_vain = facts.rotation.is_some_and(|r| r.rotation == Rotation::NotReported);
    let too_fast = latency.is_some_and(|l| l.samples > 0 && l.p50_us < NEVER_HDD_BELOW_US);
    match facts.rotational? {
        false => Some((Media::Ssd, Confidence::Medium, "the kernel was told that it does not turn".to_owned())),
        true if too_fast || asked_in_vain => None,
        true => {
            let sure = if facts.transport == Transport::Sata { Confidence::Medium } else { Confidence::Low };
            Some((
                Media::Hdd,
                sure,
                "the kernel takes it for turning, which is also what it takes silence for".to_owned(),
            ))
        }
    }
}

fn why_nothing_decided(facts: &DiskFacts, known: Option<&Known>, latency: Option<MeasuredLatency>) -> String {
    let flag = match facts.rotational {
        Some(true) => "rotational=1",
        Some(false) => "rotational=0",
        None => "no rotational flag",
    };
    let behind = match known {
        Some(Known::Virtual { name }) => name.clone(),
        _ => format!("{} disks", facts.transport),
    };
    match latency {
        Some(l) if l.samples < ENOUGH_SAMPLES => {
            format!("{flag} proves nothing on {behind}, and {} reads are too few to tell", l.samples)
        }
        Some(l) => {
            format!("{flag} proves nothing on {behind}, and {} fits flash as little as platters", micros(l.p50_us))
        }
        None => format!("{flag} proves nothing on {behind}; a read probe would tell more"),
    }
}

fn micros(us: u64) -> String {
    if us < 1000 { format!("{us} µs") } else { format!("{:.1} ms", us as f64 / 1000.0) }
}
