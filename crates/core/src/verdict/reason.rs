//! Why a disk is not Bedplate's to touch, in words that a person can act on.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::bytes::Bytes;
use crate::identity::Clash;

/// One reason. Its code is stable; its text is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody looked at the disk at all.
    NotExamined,
    /// Another disk claims the same identity.
    Duplicate {
        /// What they share.
        what: &'static str,
        /// Its value.
        value: String,
        /// Kernel name of the other.
        other: String,
    },
    /// It is one path of a multipath map.
    PathOf {
        /// Kernel name of the map.
        map: String,
    },
    /// A filesystem on it is mounted.
    Mounted {
        /// Which filesystem.
        fs_type: String,
        /// Where.
        target: String,
        /// In how many other places too.
        more: usize,
        /// On which partition or layer; `None` for the disk itself.
        device: Option<String>,
    },
    /// It is active swap.
    Swap {
        /// Which partition or layer; `None` for the disk itself.
        device: Option<String>,
    },
    /// Something in the kernel stands on it.
    Holder {
        /// What.
        holder: String,
        /// On which partition or layer; `None` for the disk itself.
        device: Option<String>,
    },
    /// It has partitions.
    Partitions {
        /// How many.
        count: usize,
    },
    /// Our own look recognised something.
    Content {
        /// What.
        what: String,
    },
    /// Our own look found bytes that no known format explains.
    UnknownData {
        /// Byte on the disk.
        at: u64,
    },
    /// Our own look was not done.
    NotProbed,
    /// Our own look failed.
    ProbeFailed {
        /// How.
        why: String,
    },
    /// Our own look did not reach both ends.
    ProbeIncomplete,
    /// udev saw something.
    UdevContent {
        /// What.
        what: String,
    },
    /// udev has not recorded the disk.
    NotInUdev,
    /// udev's record could not be read.
    UdevFailed {
        /// How.
        why: String,
    },
    /// It cannot be opened exclusively.
    Busy,
    /// Opening it exclusively was not tried.
    NotOpened,
    /// Opening it exclusively failed.
    OpenFailed {
        /// How.
        why: String,
    },
    /// Read-only.
    ReadOnly,
    /// Removable.
    Removable,
    /// On USB.
    Usb,
    /// Smaller than a pool's minimum.
    TooSmall {
        /// Its size.
        size: Bytes,
    },
    /// Needs sequential writes.
    Zoned,
    /// A loop device.
    Loop {
        /// What lies behind it.
        backing: Option<String>,
    },
    /// Made of other devices.
    Stacked {
        /// Their kernel names.
        on: Vec<String>,
    },
    /// Optical or floppy drive.
    Drive,
    /// A fact that must be known could not be read.
    Unread {
        /// Which.
        what: &'static str,
    },
    /// Some uses of the disk are out of sight.
    Unseen {
        /// Why.
        why: String,
    },
    /// Two sources disagree, or it changed meanwhile.
    Contradiction {
        /// What.
        what: String,
    },
}

impl Reason {
    pub(super) fn from_clash(clash: &Clash) -> Self {
        match clash {
            Clash::Duplicate { what, value, other } => {
                Self::Duplicate { what, value: value.clone(), other: other.clone() }
            }
            Clash::PathOf { map } => Self::PathOf { map: map.clone() },
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotExamined => "not-examined",
            Self::Duplicate { .. } => "duplicate-identity",
            Self::PathOf { .. } => "multipath-path",
            Self::Mounted { .. } => "mounted",
            Self::Swap { .. } => "swap",
            Self::Holder { .. } => "holder",
            Self::Partitions { .. } => "partitions",
            Self::Content { .. } => "content",
            Self::UnknownData { .. } => "unknown-data",
            Self::NotProbed => "not-probed",
            Self::ProbeFailed { .. } => "probe-failed",
            Self::ProbeIncomplete => "probe-incomplete",
            Self::UdevContent { .. } => "udev-content",
            Self::NotInUdev => "not-in-udev",
            Self::UdevFailed { .. } => "udev-failed",
            Self::Busy => "busy",
            Self::NotOpened => "not-opened",
            Self::OpenFailed { .. } => "open-failed",
            Self::ReadOnly => "read-only",
            Self::Removable => "removable",
            Self::Usb => "usb",
            Self::TooSmall { .. } => "too-small",
            Self::Zoned => "zoned",
            Self::Loop { .. } => "loop",
            Self::Stacked { .. } => "stacked",
            Self::Drive => "drive",
            Self::Unread { .. } => "unread",
            Self::Unseen { .. } => "unseen",
            Self::Contradiction { .. } => "contradiction",
        }
    }
}

fn on(device: Option<&String>) -> String {
    device.map(|device| format!(" ({device})")).unwrap_or_default()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotExamined => f.write_str("has not been examined"),
            Self::Duplicate { what, value, other } => write!(f, "has the same {what} {value} as {other}"),
            Self::PathOf { map } => write!(f, "is one path of the multipath map {map}: use the map"),
            Self::Mounted { fs_type, target, more: 0, device } => {
                write!(f, "carries a mounted {fs_type} at {target}{}", on(device.as_ref()))
            }
            Self::Mounted { fs_type, target, more, device } => {
                write!(f, "carries a mounted {fs_type} at {target} and {more} more{}", on(device.as_ref()))
            }
            Self::Swap { device } => write!(f, "is active swap{}", on(device.as_ref())),
            Self::Holder { holder, device } => write!(f, "is held by {holder}{}", on(device.as_ref())),
            Self::Partitions { count: 1 } => f.write_str("has a partition"),
            Self::Partitions { count } => write!(f, "has {count} partitions"),
            Self::Content { what } => write!(f, "carries {what}"),
            Self::UnknownData { at } => write!(
                f,
                "holds data that no known format explains (first at byte {at}): if nobody needs it, zero the disk"
            ),
            Self::NotProbed => f.write_str("its content was not looked at"),
            Self::ProbeFailed { why } => write!(f, "signature probe failed: {why}"),
            Self::ProbeIncomplete => f.write_str("the signature probe did not reach both ends of the disk"),
            Self::UdevContent { what } => write!(f, "udev sees {what} on it"),
            Self::NotInUdev => f.write_str("udev has not finished with it yet"),
            Self::UdevFailed { why } => write!(f, "udev's record of it cannot be read: {why}"),
            Self::Busy => f.write_str("somebody holds it open exclusively"),
            Self::NotOpened => f.write_str("whether somebody holds it was not tried"),
            Self::OpenFailed { why } => write!(f, "cannot be opened exclusively: {why}"),
            Self::ReadOnly => f.write_str("is read-only"),
            Self::Removable => f.write_str("is removable"),
            Self::Usb => f.write_str("is on USB and may be unplugged"),
            Self::TooSmall { size } => write!(f, "is too small: {size}, at least {} is needed", super::SMALLEST),
            Self::Zoned => f.write_str("is host-managed zoned storage, which takes sequential writes only"),
            Self::Loop { backing: Some(backing) } => write!(f, "is a loop device on {backing}"),
            Self::Loop { backing: None } => f.write_str("is a loop device"),
            Self::Stacked { on } if on.is_empty() => f.write_str("is made of other devices"),
            Self::Stacked { on } => write!(f, "is made of {}", on.join(", ")),
            Self::Drive => f.write_str("is a drive for exchangeable media"),
            Self::Unread { what } => write!(f, "its {what} could not be read"),
            Self::Unseen { why } => write!(f, "its users may be out of sight: {why}"),
            Self::Contradiction { what } => f.write_str(what),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Reason", 2)?;
        fields.serialize_field("code", self.code())?;
        fields.serialize_field("text", &self.to_string())?;
        fields.end()
    }
}
