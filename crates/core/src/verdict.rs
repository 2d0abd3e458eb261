//! Whose a disk is: foreign by default, free only with proof, ours only where a pool owns it.
//!
//! [`Verdict::Free`] cannot be made outside this file: its proof is a private type that [`judge`] alone hands out when
//! two independent looks (the kernel's and udev's view; our own read of the medium) agree that there is nothing and every
//! other fact speaks for it too. Anything unread, failed, changed or doubtful is a reason against. A verdict is a
//! picture of one moment: whoever writes re-checks through the descriptor it writes to.

mod reason;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use reason::Reason;

use crate::bytes::{Bytes, GIB};
use crate::disk::{DiskFacts, Exclusive, Kind, Layer, Mount, Sight, Transport, UdevView};
use crate::identity::Clash;
use crate::signature::Look;

/// Disks below this many bytes are not worth owning and are often somebody's special device.
pub const SMALLEST: Bytes = Bytes(GIB);

/// Why a disk may be called free. Only [`judge`] makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The first look: who says that nothing stands on the disk.
    first_look: &'static str,
    /// The second look: bytes read from the disk itself, all of them zero.
    zeroes_read: Bytes,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} it unused, and {} read from both ends and between are zero", self.first_look, self.zeroes_read)
    }
}

/// Whose a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "is")]
pub enum Verdict {
    /// Not Bedplate's to touch.
    Foreign {
        /// Why, most telling first; never empty.
        reasons: Vec<Reason>,
    },
    /// Nobody's, proven.
    Free {
        /// How.
        proof: Proof,
    },
    /// Bedplate's.
    Ours {
        /// The pool that owns it.
        pool: String,
    },
}

impl Default for Verdict {
    fn default() -> Self {
        Self::Foreign { reasons: vec![Reason::NotExamined] }
    }
}

impl Verdict {
    /// Reasons why the disk cannot be used; empty where it can.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Foreign { reasons } => reasons,
            Self::Free { .. } | Self::Ours { .. } => &[],
        }
    }

    /// Whether it is free.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        matches!(self, Self::Free { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { .. } => f.write_str("foreign"),
            Self::Free { .. } => f.write_str("free"),
            Self::Ours { pool } => write!(f, "ours (pool {pool})"),
        }
    }
}

/// Judge a disk. `clashes` are what [`crate::identity::clashes`] found for it, `owner` the pool whose records claim it.
///
/// A clash outweighs an owner: with two disks of one identity nobody knows which of them the records mean.
#[must_use]
pub fn judge(facts: &DiskFacts, clashes: &[Clash], owner: Option<&str>) -> Verdict {
    let clashing: Vec<Reason> = clashes.iter().map(Reason::from_clash).collect();
    if let (Some(pool), true) = (owner, clashing.is_empty()) {
        return Verdict::Ours { pool: pool.to_owned() };
    }
    let mut reasons = clashing;
    reasons.extend(against(facts));
    match (reasons.is_empty(), &facts.look) {
        (true, Look::Done(contents)) => {
            let first_look = match facts.udev {
                UdevView::Blank => "kernel and udev call",
                _ => "the kernel calls",
            };
            Verdict::Free { proof: Proof { first_look, zeroes_read: contents.read } }
        }
        (true, _) => Verdict::default(),
        (false, _) => Verdict::Foreign { reasons },
    }
}

/// Every reason against calling the disk free. The facts are taken apart without a rest pattern, so that a new fact
/// cannot be forgotten here.
fn against(facts: &DiskFacts) -> Vec<Reason> {
    let DiskFacts {
        device,
        transport,
        size,
        logical_sector,
        removable,
        read_only,
        queue,
        partitions,
        holders,
        slaves,
        mounts,
        swap,
        udev,
        look,
        exclusive,
        sight,
        contradictions,
        // What follows says who and how fast the disk is, not whose.
        name: _,
        number: _,
        diskseq: _,
        driver: _,
        by_id: _,
        by_path: _,
        model: _,
        vendor: _,
        serial: _,
        wwn: _,
        firmware: _,
        physical_sector: _,
        rotational: _,
        rotation: _,
        table_uuid: _,
    } = facts;

    let mut reasons = Vec::new();
    reasons.extend(mounted(None, mounts));
    for partition in partitions {
        reasons.extend(mounted(Some(&partition.name), &partition.mounts));
        reasons.extend(partition.swap.then(|| Reason::Swap { device: Some(partition.name.clone()) }));
        stacked(&partition.holders, Some(&partition.name), &mut reasons);
    }
    reasons.extend(swap.then_some(Reason::Swap { device: None }));
    stacked(holders, None, &mut reasons);
    if !partitions.is_empty() {
        reasons.push(Reason::Partitions { count: partitions.len() });
    }
    reasons.extend(kind(device, *transport, slaves));
    reasons.extend(content(look, partitions.is_empty()));
    reasons.extend(first_look(udev));
    reasons.extend(flag(*read_only, "read-only flag", Reason::ReadOnly));
    reasons.extend(flag(*removable, "removable flag", Reason::Removable));
    reasons.extend(match size {
        None => Some(Reason::Unread { what: "size" }),
        Some(size) if *size < SMALLEST => Some(Reason::TooSmall { size: *size }),
        Some(_) => None,
    });
    if logical_sector.is_none_or(|s| s == 0) {
        reasons.push(Reason::Unread { what: "sector size" });
    }
    if queue.zoned.as_deref().is_some_and(|zoned| zoned == "host-managed") {
        reasons.push(Reason::Zoned);
    }
    reasons.extend(match sight {
        Sight::Whole => None,
        Sight::None => Some(Reason::Unseen { why: "mounts and swap were not looked at".to_owned() }),
        Sight::Partial(why) => Some(Reason::Unseen { why: why.join("; ") }),
    });
    reasons.extend(contradictions.iter().map(|what| Reason::Contradiction { what: what.clone() }));
    // Holding a disk is tried only where nothing else speaks against it; elsewhere "not tried" says nothing new.
    if *exclusive != Exclusive::NotTried || reasons.is_empty() {
        reasons.extend(exclusively(exclusive));
    }
    reasons
}

fn flag(value: Option<bool>, what: &'static str, bad: Reason) -> Option<Reason> {
    match value {
        Some(false) => None,
        Some(true) => Some(bad),
        None => Some(Reason::Unread { what }),
    }
}

/// One reason for all mounts of one device: the shortest target speaks, the others are counted.
fn mounted(device: Option<&str>, mounts: &[Mount]) -> Option<Reason> {
    let first = mounts.iter().min_by_key(|m| (m.target.len(), &m.target))?;
    let mut targets: Vec<&str> = mounts.iter().map(|m| m.target.as_str()).collect();
    targets.sort_unstable();
    targets.dedup();
    Some(Reason::Mounted {
        fs_type: first.fs_type.clone(),
        target: first.target.clone(),
        more: targets.len() - 1,
        device: device.map(str::to_owned),
    })
}

fn stacked(layers: &[Layer], beneath: Option<&str>, reasons: &mut Vec<Reason>) {
    for layer in layers {
        let name = match &layer.device {
            Kind::DeviceMapper { name: Some(name), .. } => format!("{} ({name})", layer.name),
            _ => layer.name.clone(),
        };
        reasons.extend(mounted(Some(&name), &layer.mounts));
        reasons.extend(layer.swap.then(|| Reason::Swap { device: Some(name.clone()) }));
        reasons.push(Reason::Holder { holder: name.clone(), device: beneath.map(str::to_owned) });
        stacked(&layer.holders, Some(&name), reasons);
    }
}

fn kind(device: &Kind, transport: Transport, slaves: &[String]) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match device {
        Kind::Disk => {
            if !slaves.is_empty() {
                reasons.push(Reason::Stacked { on: slaves.to_vec() });
            }
        }
        Kind::Drive => reasons.push(Reason::Drive),
        Kind::Loop { backing, .. } => reasons.push(Reason::Loop { backing: backing.clone() }),
        Kind::DeviceMapper { .. } if device.is_multipath() => {}
        Kind::Virtual | Kind::DeviceMapper { .. } | Kind::Md { .. } => {
            reasons.push(Reason::Stacked { on: slaves.to_vec() });
        }
    }
    if transport == Transport::Usb {
        reasons.push(Reason::Usb);
    }
    reasons
}

fn content(look: &Look, no_partitions: bool) -> Vec<Reason> {
    let contents = match look {
        Look::NotDone => return vec![Reason::NotProbed],
        Look::Failed(why) => return vec![Reason::ProbeFailed { why: why.clone() }],
        Look::Done(contents) => contents,
    };
    let mut reasons: Vec<Reason> = Vec::new();
    for signature in &contents.signatures {
        let text = signature.to_string();
        // A disk with partitions has a table: said once is enough.
        let told = signature.usage == crate::signature::Usage::PartitionTable && !no_partitions;
        if !told && !reasons.iter().any(|r| matches!(r, Reason::Content { what } if *what == text)) {
            reasons.push(Reason::Content { what: text });
        }
    }
    if contents.signatures.is_empty() {
        if let Some(at) = contents.data_at {
            reasons.push(Reason::UnknownData { at });
        } else if !contents.covers_both_ends() {
            reasons.push(Reason::ProbeIncomplete);
        }
    }
    reasons
}

fn first_look(udev: &UdevView) -> Option<Reason> {
    match udev {
        UdevView::Absent | UdevView::Blank => None,
        UdevView::NotRecorded => Some(Reason::NotInUdev),
        UdevView::Content(what) => Some(Reason::UdevContent { what: what.clone() }),
        UdevView::Failed(why) => Some(Reason::UdevFailed { why: why.clone() }),
    }
}

fn exclusively(exclusive: &Exclusive) -> Option<Reason> {
    match exclusive {
        Exclusive::Opened => None,
        Exclusive::Busy => Some(Reason::Busy),
        Exclusive::NotTried => Some(Reason::NotOpened),
        Exclusive::Failed(why) => Some(Reason::OpenFailed { why: why.clone() }),
    }
}
