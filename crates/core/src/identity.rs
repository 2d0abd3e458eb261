//! Which disk it is, and how sure that is.
//!
//! A `/dev` name is never an identity (peers: a renamed disk was wiped in place of another). A world-wide name or serial
//! number is a strong one; partition-table and filesystem UUIDs or the slot are weak; two disks that claim one strong
//! identity have none. Input: [`DiskFacts`]; used by [`crate::verdict`], by pools and by receipts.

#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

use crate::disk::DiskFacts;

/// A disk's id, stable across reboots and renames as far as its [`Strength`] goes. Safe in file names and labels' values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DiskId(String);

impl DiskId {
    fn new(kind: &str, parts: &[&str]) -> Self {
        let mut text = kind.to_owned();
        for part in parts {
            text.push('-');
            text.extend(part.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }));
        }
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much an identity proves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strength {
    /// Nothing tells this disk from another one.
    #[default]
    None,
    /// What is written on it, or where it is plugged in: enough for the `image` backend, for others only by explicit
    /// adoption; receipts say `identity: weak`.
    Weak,
    /// World-wide name or serial number.
    Strong,
}

/// Where an identity comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentitySource {
    /// Nowhere.
    #[default]
    None,
    /// World-wide name.
    Wwn,
    /// Model and serial number.
    Serial,
    /// Partition table's UUID and a filesystem's.
    Content,
    /// Slot.
    Path,
}

/// Who a disk says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its id; `None` where nothing tells it from another.
    pub id: Option<DiskId>,
    /// How much that proves.
    pub strength: Strength,
    /// Where it comes from.
    pub source: IdentitySource,
}

impl Identity {
    /// The strongest identity that the facts support.
    #[must_use]
    pub fn of(facts: &DiskFacts) -> Self {
        let strong = |id, source| Self { id: Some(id), strength: Strength::Strong, source };
        let weak = |id, source| Self { id: Some(id), strength: Strength::Weak, source };
        if let Some(wwn) = wwn(facts) {
            return strong(DiskId::new("wwn", &[&wwn]), IdentitySource::Wwn);
        }
        if let Some(serial) = serial(facts) {
            let model = facts.model.as_deref().map_or("", str::trim);
            let parts: Vec<&str> = [model, serial].into_iter().filter(|p| !p.is_empty()).collect();
            return strong(DiskId::new("serial", &parts), IdentitySource::Serial);
        }
        let filesystem = facts
            .look
            .contents()
            .into_iter()
            .chain(facts.partitions.iter().filter_map(|p| p.look.contents()))
            .find_map(|contents| contents.main()?.uuid.as_deref());
        match (facts.table_uuid.as_deref(), filesystem, facts.by_path.as_deref()) {
            (None, None, None) => Self::default(),
            (None, None, Some(path)) => weak(DiskId::new("path", &[path]), IdentitySource::Path),
            (table, filesystem, _) => {
                let parts: Vec<&str> = [table, filesystem].into_iter().flatten().collect();
                weak(DiskId::new("content", &parts), IdentitySource::Content)
            }
        }
    }
}

/// A world-wide name without its notation, lower case; `None` where it names nothing.
///
/// Takes what sysfs (`naa.…`, `eui.…`, `uuid.…`, `nvme.…`), udev (`0x…`) and multipath (`3…`) write. `t10.` designators
/// hold vendor text, not a world-wide name.
#[must_use]
pub fn normal_wwn(text: &str) -> Option<String> {
    let lower = text.trim().to_ascii_lowercase();
    if lower.starts_with("t10.") {
        return None;
    }
    let bare = ["naa.", "eui.", "uuid.", "0x"].iter().find_map(|p| lower.strip_prefix(p)).unwrap_or(&lower);
    let digits: Vec<char> = bare.chars().filter(char::is_ascii_alphanumeric).collect();
    let says_something = digits.len() >= 8 && digits.iter().any(|c| *c != '0') && digits.iter().any(|c| *c != 'f');
    says_something.then(|| bare.to_owned())
}

/// A serial number, trimmed; `None` for the placeholders that cheap bridges and firmware send.
#[must_use]
pub fn normal_serial(text: &str) -> Option<&str> {
    const PLACEHOLDERS: [&str; 9] = [
        "none",
        "unknown",
        "default string",
        "to be filled by o.e.m.",
        "not specified",
        "serial number",
        "n/a",
        "0123456789abcdef",
        "000000000001",
    ];
    let serial = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    let lower = serial.to_ascii_lowercase();
    let first = lower.chars().next()?;
    let one_character_only = lower.chars().all(|c| c == first);
    let counts_up = "0123456789".starts_with(&lower) || "1234567890".starts_with(&lower);
    (!one_character_only && !counts_up && !PLACEHOLDERS.contains(&lower.as_str())).then_some(serial)
}

fn wwn(facts: &DiskFacts) -> Option<String> {
    facts.wwn.as_deref().and_then(normal_wwn)
}

fn serial(facts: &DiskFacts) -> Option<&str> {
    facts.serial.as_deref().and_then(normal_serial)
}

/// Why a disk's identity cannot be relied on beside the others that are present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Clash {
    /// Another disk claims the same.
    Duplicate {
        /// `WWN`, `serial number` or `id`.
        what: &'static str,
        /// The value.
        value: String,
        /// The other disk's kernel name.
        other: String,
    },
    /// It is one path to the disk that this multipath map stands for.
    PathOf {
        /// The map's kernel name.
        map: String,
    },
}

/// For every disk in `disks`, in the same order, what clashes with it.
///
/// One WWN twice is a clash; one serial number twice is a clash unless both disks have world-wide names that differ
/// (namespaces of one NVMe controller share its serial number). Paths of one multipath map do not clash with each other
/// or with the map.
#[must_use]
pub fn clashes(disks: &[DiskFacts]) -> Vec<Vec<Clash>> {
    let map_of = |disk: &DiskFacts| {
        disks
            .iter()
            .find(|map| map.device.is_multipath() && map.slaves.contains(&disk.name))
            .map(|map| map.name.as_str())
    };
    disks
        .iter()
        .map(|disk| {
            let mut found = Vec::new();
            if let Some(map) = map_of(disk) {
                found.push(Clash::PathOf { map: map.to_owned() });
            }
            for other in disks.iter().filter(|other| other.name != disk.name || other.number != disk.number) {
                let same_map = map_of(disk).is_some() && map_of(disk) == map_of(other);
                let map_and_path =
                    map_of(disk) == Some(other.name.as_str()) || map_of(other) == Some(disk.name.as_str());
                if same_map || map_and_path {
                    continue;
                }
                if let Some((what, value)) = claims_the_same(disk, other) {
                    found.push(Clash::Duplicate { what, value, other: other.name.clone() });
                }
            }
            found
        })
        .collect()
}

fn claims_the_same(one: &DiskFacts, other: &DiskFacts) -> Option<(&'static str, String)> {
    match (wwn(one), wwn(other)) {
        (Some(a), Some(b)) if a == b => return Some(("WWN", a)),
        (Some(_), Some(_)) => return None,
        _ => {}
    }
    if let (Some(a), Some(b)) = (serial(one), serial(other))
        && a == b
    {
        return Some(("serial number", a.to_owned()));
    }
    let (a, b) = (Identity::of(one).id?, Identity::of(other).id?);
    (a == b).then(|| ("id", a.to_string()))
}
