//! What is known about a disk: facts only, read from the kernel and from udev, never opinions.
//!
//! Every fact that could not be read is `None` or says so: a missing file is not a "no". Opinions about these facts are
//! formed in [`crate::identity`], [`crate::media`] and [`crate::verdict`]. Filled in by the agent's discovery.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::bytes::Bytes;
use crate::signature::Look;

/// A device number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// Which driver.
    pub major: u32,
    /// Which device of it.
    pub minor: u32,
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Why a text is not a device number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a device number such as 8:0")]
pub struct NotADeviceNumber(String);

impl FromStr for DeviceNumber {
    type Err = NotADeviceNumber;

    fn from_str(text: &str) -> Result<Self, NotADeviceNumber> {
        let parse = || {
            let (major, minor) = text.trim().split_once(':')?;
            Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        parse().ok_or_else(|| NotADeviceNumber(text.to_owned()))
    }
}

impl Serialize for DeviceNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How the disk is attached, as far as its place in the device tree and its driver tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// NVMe over PCI Express.
    Nvme,
    /// NVMe over a network.
    NvmeFabrics,
    /// ATA through the kernel's own ATA driver.
    Sata,
    /// A SAS or SATA disk behind a SAS host adapter, seen as itself.
    Sas,
    /// A logical drive that a RAID controller makes out of hidden disks, or a disk seen through one.
    Raid,
    /// Any other SCSI host.
    Scsi,
    /// A USB bridge or stick.
    Usb,
    /// SD card or eMMC.
    Mmc,
    /// virtio-blk or virtio-scsi.
    Virtio,
    /// Xen's blkfront.
    Xen,
    /// Hyper-V's virtual SCSI.
    HyperV,
    /// VMware's paravirtual SCSI, or an LSI or SATA controller that VMware emulates.
    Vmware,
    /// iSCSI.
    Iscsi,
    /// Fibre Channel.
    FibreChannel,
    /// A network block device: nbd, rbd, drbd.
    NetworkBlock,
    /// A file or device behind a loop device.
    Loop,
    /// Device-mapper.
    DeviceMapper,
    /// Linux software RAID.
    Md,
    /// Persistent memory.
    Pmem,
    /// Not recognised.
    #[default]
    Unknown,
}

impl Transport {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nvme => "nvme",
            Self::NvmeFabrics => "nvme-of",
            Self::Sata => "sata",
            Self::Sas => "sas",
            Self::Raid => "raid",
            Self::Scsi => "scsi",
            Self::Usb => "usb",
            Self::Mmc => "mmc",
            Self::Virtio => "virtio",
            Self::Xen => "xen",
            Self::HyperV => "hyper-v",
            Self::Vmware => "vmware",
            Self::Iscsi => "iscsi",
            Self::FibreChannel => "fc",
            Self::NetworkBlock => "network",
            Self::Loop => "loop",
            Self::DeviceMapper => "dm",
            Self::Md => "md",
            Self::Pmem => "pmem",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What kind of block device the entry is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Kind {
    /// A disk of its own, real or virtual.
    #[default]
    Disk,
    /// An optical or floppy drive.
    Drive,
    /// A device that the kernel makes up out of something else: a zvol, a cache, a replica, a test device.
    Virtual,
    /// An attached loop device.
    Loop {
        /// What lies behind it, as the kernel names it.
        backing: Option<String>,
        /// Whether it bypasses the page cache.
        direct_io: Option<bool>,
    },
    /// A device-mapper device.
    DeviceMapper {
        /// The mapping's name.
        name: Option<String>,
        /// The mapping's UUID; its prefix tells who made it (`LVM-`, `CRYPT-`, `mpath-`).
        uuid: Option<String>,
    },
    /// A software RAID array.
    Md {
        /// `raid1`, `raid5`, …
        level: Option<String>,
        /// The array's UUID.
        uuid: Option<String>,
    },
}

impl Kind {
    /// Whether it is a device-mapper multipath map: one disk seen along several paths.
    #[must_use]
    pub fn is_multipath(&self) -> bool {
        matches!(self, Self::DeviceMapper { uuid: Some(uuid), .. } if uuid.starts_with("mpath-"))
    }
}

/// What a device says about turning parts, in answer to the question made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// It says that it does not say.
    NotReported,
    /// Nothing turns.
    Solid,
    /// Revolutions a minute.
    Rpm(u16),
}

impl Rotation {
    /// The code shared by SCSI VPD page B1 (bytes 4 and 5) and ATA IDENTIFY word 217; `None` for reserved values.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0 => Some(Self::NotReported),
            1 => Some(Self::Solid),
            0x0401..=0xfffe => Some(Self::Rpm(code)),
            _ => None,
        }
    }
}

/// Where a [`Rotation`] was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotationSource {
    /// SCSI vital product data, page B1 (block device characteristics).
    ScsiVpdB1,
    /// ATA IDENTIFY DEVICE, word 217.
    AtaWord217,
    /// The udev database, which asked the ATA device.
    UdevAta,
}

impl fmt::Display for RotationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ScsiVpdB1 => "SCSI VPD page B1",
            Self::AtaWord217 => "ATA IDENTIFY word 217",
            Self::UdevAta => "udev's ATA identify",
        })
    }
}

/// A device's own statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationReport {
    /// What it says.
    pub rotation: Rotation,
    /// Where it says so.
    pub source: RotationSource,
}

/// The request queue's limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueFacts {
    /// Active scheduler.
    pub scheduler: Option<String>,
    /// Depth, in requests.
    pub requests: Option<u32>,
    /// `write back` or `write through`.
    pub write_cache: Option<String>,
    /// `none`, `host-aware` or `host-managed`.
    pub zoned: Option<String>,
    /// Largest discard in bytes; zero where there is none.
    pub discard_max: Option<Bytes>,
    /// Smallest unit of discard in bytes.
    pub discard_granularity: Option<Bytes>,
    /// Largest write-zeroes in bytes; zero where there is none.
    pub write_zeroes_max: Option<Bytes>,
    /// Preferred smallest transfer in bytes.
    pub minimum_io: Option<Bytes>,
    /// Preferred transfer in bytes; zero where not reported.
    pub optimal_io: Option<Bytes>,
}

/// A mount of a filesystem on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where, as its mount namespace names it.
    pub target: String,
    /// Filesystem.
    pub fs_type: String,
    /// Mounted read-only.
    pub read_only: bool,
    /// A process that sees it.
    pub seen_by: u32,
}

/// Something in the kernel that stands on a device: device-mapper, md, bcache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Kernel name.
    pub name: String,
    /// Device number.
    pub number: Option<DeviceNumber>,
    /// What it is.
    pub device: Kind,
    /// Size in bytes.
    pub size: Option<Bytes>,
    /// What is mounted from it.
    pub mounts: Vec<Mount>,
    /// Whether it is active swap.
    pub swap: bool,
    /// What stands on it in turn.
    pub holders: Vec<Layer>,
}

/// A partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Kernel name.
    pub name: String,
    /// Device number.
    pub number: Option<DeviceNumber>,
    /// First byte on the disk.
    pub start: Option<Bytes>,
    /// Size in bytes.
    pub size: Option<Bytes>,
    /// UUID in the partition table.
    pub uuid: Option<String>,
    /// Name in the partition table.
    pub label: Option<String>,
    /// What lies on it.
    pub look: Look,
    /// What is mounted from it.
    pub mounts: Vec<Mount>,
    /// Whether it is active swap.
    pub swap: bool,
    /// What stands on it.
    pub holders: Vec<Layer>,
}

/// What udev's database says, where there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UdevView {
    /// No udev on this machine, or its database is not visible.
    #[default]
    Absent,
    /// There is a database, but udev has not (yet) recorded this device.
    NotRecorded,
    /// Recorded, and udev saw nothing on it.
    Blank,
    /// Recorded, and udev saw this on it.
    Content(String),
    /// The record could not be read.
    Failed(String),
}

/// Whether the device could be opened exclusively.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exclusive {
    /// Not tried.
    #[default]
    NotTried,
    /// It could.
    Opened,
    /// Somebody holds it.
    Busy,
    /// The attempt failed otherwise.
    Failed(String),
}

/// How much of the machine's use of its disks the scan could see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// Nothing was looked at.
    #[default]
    None,
    /// Every mount namespace of every process on the machine, and swap.
    Whole,
    /// Only part, for these reasons.
    Partial(Vec<String>),
}

/// Everything known about one whole disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskFacts {
    /// Kernel name, such as `sda`; good for this moment only, never an identity.
    pub name: String,
    /// Device number; good for this moment only.
    pub number: DeviceNumber,
    /// The kernel's sequence number, new for every appearance of a disk.
    pub diskseq: Option<u64>,
    /// What it is.
    pub device: Kind,
    /// How it is attached.
    pub transport: Transport,
    /// Kernel driver of the controller, where known.
    pub driver: Option<String>,
    /// Names under `/dev/disk/by-id`.
    pub by_id: Vec<String>,
    /// Name under `/dev/disk/by-path`, or the place in the device tree.
    pub by_path: Option<String>,
    /// Model as the device words it.
    pub model: Option<String>,
    /// Vendor as the device words it.
    pub vendor: Option<String>,
    /// Serial number as the device words it.
    pub serial: Option<String>,
    /// World-wide name as the kernel or udev words it.
    pub wwn: Option<String>,
    /// Firmware revision.
    pub firmware: Option<String>,
    /// Size in bytes; `None` where unreadable.
    pub size: Option<Bytes>,
    /// Logical sector in bytes.
    pub logical_sector: Option<u32>,
    /// Physical sector in bytes.
    pub physical_sector: Option<u32>,
    /// The kernel's `rotational` flag, which is wrong on many machines.
    pub rotational: Option<bool>,
    /// The device's own statement about turning parts.
    pub rotation: Option<RotationReport>,
    /// The kernel's removable flag.
    pub removable: Option<bool>,
    /// Read-only.
    pub read_only: Option<bool>,
    /// Queue limits.
    pub queue: QueueFacts,
    /// UUID of the partition table, where udev or the probe gave one.
    pub table_uuid: Option<String>,
    /// Partitions.
    pub partitions: Vec<Partition>,
    /// What stands on the whole disk.
    pub holders: Vec<Layer>,
    /// What it stands on, by kernel name.
    pub slaves: Vec<String>,
    /// What is mounted from the whole disk.
    pub mounts: Vec<Mount>,
    /// Whether the whole disk is active swap.
    pub swap: bool,
    /// First look: what udev saw.
    pub udev: UdevView,
    /// Second look: what our own read of the disk saw.
    pub look: Look,
    /// Whether it could be opened exclusively.
    pub exclusive: Exclusive,
    /// How much of mounts and swap the scan could see.
    pub sight: Sight,
    /// Anything that changed or disagreed while it was being looked at.
    pub contradictions: Vec<String>,
}

impl DiskFacts {
    /// Every mount from the disk, its partitions and all layers above.
    #[must_use]
    pub fn all_mounts(&self) -> Vec<&Mount> {
        fn collect<'a>(layers: &'a [Layer], into: &mut Vec<&'a Mount>) {
            for layer in layers {
                into.extend(&layer.mounts);
                collect(&layer.holders, into);
            }
        }
        let mut all: Vec<&Mount> = self.mounts.iter().collect();
        collect(&self.holders, &mut all);
        for partition in &self.partitions {
            all.extend(&partition.mounts);
            collect(&partition.holders, &mut all);
        }
        all
    }
}
