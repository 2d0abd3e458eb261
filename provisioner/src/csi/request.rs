//! Arguments, checked: each refusal names the field, what is wrong with it and the way out.

use bedplate_core::filesystem::FsType;
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::Mode;
use bedplate_csi::v1::volume_capability::AccessType;
use bedplate_csi::v1::volume_capability::access_mode::Mode as AccessMode;
use bedplate_csi::v1::{CapacityRange, VolumeCapability};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// A string field's limit, in bytes (specification, "Size Limits").
const MAX_STRING: usize = 128;
/// A map field's limit, in bytes (the same).
const MAX_MAP: usize = 4096;
/// The longest path, in bytes (PATH_MAX, limits.h, without the closing NUL).
const MAX_PATH: usize = 4095;
/// A field that is missing, malformed or not supported: INVALID_ARGUMENT.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {why}")]
pub struct BadField {
    /// As the specification calls it.
    pub field: &'static str,
    /// What is wrong, and the way out.
    pub why: String,
}

/// Shorthand for a refusal.
pub fn bad<T>(field: &'static str, why: impl Into<String>) -> Result<T, BadField> {
    Err(BadField { field, why: why.into() })
}

/// A name to create a volume under. Any text but the control characters that the specification bans.
pub fn name(text: &str) -> Result<&str, BadField> {
    const FIELD: &str = "name";
    if text.is_empty() {
        return bad(FIELD, "is missing; give the volume a name that stays the same when the call is repeated");
    }
    if text.len() > MAX_STRING {
        return bad(FIELD, format!("is {} bytes long; use at most {MAX_STRING}", text.len()));
    }
    let banned = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}');
    if let Some(c) = text.chars().find(|c| banned(*c)) {
        return bad(FIELD, format!("holds the control character {c:?}; leave it out"));
    }
    Ok(text)
}

/// A volume's id.
pub fn volume_id(text: &str) -> Result<VolumeId, BadField> {
    const FIELD: &str = "volume_id";
    if text.is_empty() {
        return bad(FIELD, "is missing; use the id that CreateVolume returned");
    }
    text.parse().or_else(|error| bad(FIELD, format!("{error}; use the id that CreateVolume returned")))
}

/// An absolute path without detours.
pub fn path(field: &'static str, text: &str) -> Result<PathBuf, BadField> {
    if text.is_empty() {
        return bad(field, "is missing; give an absolute path");
    }
    if text.len() > MAX_PATH {
        return bad(field, format!("is {} bytes long; use at most {MAX_PATH}", text.len()));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return bad(field, format!("{text:?} holds the control character {c:?}; leave it out"));
    }
    let path = Path::new(text);
    if !path.is_absolute() {
        return bad(field, format!("{text:?} is not an absolute path; begin it with /"));
    }
    // Path drops "." on its own, but not "..".
    if path.components().any(|part| part == Component::ParentDir) || text.split('/').any(|part| part == ".") {
        return bad(field, format!("{text:?} has . or .. in it; write the path out"));
    }
    if path.file_name().is_none() {
        return bad(field, format!("{text:?} is the root; nothing can be mounted there"));
    }
    Ok(path.components().collect())
}

/// A parameter map within its limit.
pub fn map<'a>(
    field: &'static str,
    given: &'a HashMap<String, String>,
) -> Result<&'a HashMap<String, String>, BadField> {
    let size: usize = given.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_MAP {
        return bad(field, format!("holds {size} bytes; use at most {MAX_MAP}"));
    }
    Ok(given)
}

/// One capability, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// How the workload sees the volume.
    pub access: Access,
    /// Who may use it at once.
    pub sharing: Sharing,
}

/// How a workload sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As a device node.
    Block,
    /// As a directory.
    Mount {
        /// The filesystem, where one is named.
        fs_type: Option<FsType>,
        /// Mount options as given; checked where the filesystem is known.
        flags: Vec<String>,
    },
}

/// Who may use a volume at once. Always within one node: its bytes are on that node's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// SINGLE_NODE_WRITER, SINGLE_NODE_SINGLE_WRITER: one publication.
    One,
    /// SINGLE_NODE_READER_ONLY: one publication, read-only.
    OneReader,
    /// SINGLE_NODE_MULTI_WRITER: any number.
    Many,
}

/// What is wrong with a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CapabilityError {
    /// It is malformed.
    Malformed(BadField),
    /// It is well-formed, but no volume here can have it.
    Unsupported(BadField),
}

impl CapabilityError {
    /// The field, whichever way it is wrong.
    pub fn into_field(self) -> BadField {
        match self {
            Self::Malformed(bad) | Self::Unsupported(bad) => bad,
        }
    }
}

/// Reads one capability; `field` is what it is called in the request.
pub fn capability(field: &'static str, given: &VolumeCapability) -> Result<Capability, CapabilityError> {
    let malformed = |why: String| CapabilityError::Malformed(BadField { field, why });
    let unsupported = |why: String| CapabilityError::Unsupported(BadField { field, why });
    let access = match &given.access_type {
        None => return Err(malformed("has no access_type; set block or mount".to_owned())),
        Some(AccessType::Block(_)) => Access::Block,
        Some(AccessType::Mount(mount)) => {
            if !mount.volume_mount_group.is_empty() {
                return Err(unsupported(
                    "volume_mount_group is set, but VOLUME_MOUNT_GROUP is not offered; leave it empty".to_owned(),
                ));
            }
            let fs_type = match mount.fs_type.as_str() {
                "" => None,
                text => Some(text.parse::<FsType>().map_err(|error| unsupported(format!("fs_type: {error}")))?),
            };
            Access::Mount { fs_type, flags: mount.mount_flags.clone() }
        }
    };
    let Some(mode) = &given.access_mode else {
        return Err(malformed("has no access_mode; set SINGLE_NODE_WRITER or another SINGLE_NODE mode".to_owned()));
    };
    let sharing = match AccessMode::try_from(mode.mode) {
        Ok(AccessMode::SingleNodeWriter | AccessMode::SingleNodeSingleWriter) => Sharing::One,
        Ok(AccessMode::SingleNodeReaderOnly) => Sharing::OneReader,
        Ok(AccessMode::SingleNodeMultiWriter) => Sharing::Many,
        Ok(AccessMode::Unknown) => {
            return Err(malformed("has access_mode UNKNOWN; set a SINGLE_NODE mode".to_owned()));
        }
        Ok(
            mode @ (AccessMode::MultiNodeReaderOnly
            | AccessMode::MultiNodeSingleWriter
            | AccessMode::MultiNodeMultiWriter),
        ) => {
            return Err(unsupported(format!(
                "access_mode {} is not possible: the bytes are on one node's disk; use a SINGLE_NODE mode",
                mode.as_str_name()
            )));
        }
        Err(_) => return Err(malformed(format!("access_mode {} is unknown; use a SINGLE_NODE mode", mode.mode))),
    };
    Ok(Capability { access, sharing })
}

/// Reads the list of capabilities that one volume must have all of.
pub fn capabilities(given: &[VolumeCapability]) -> Result<Vec<Capability>, CapabilityError> {
    const FIELD: &str = "volume_capabilities";
    if given.is_empty() {
        let why = "is empty; name at least one capability".to_owned();
        return Err(CapabilityError::Malformed(BadField { field: FIELD, why }));
    }
    given.iter().map(|one| capability(FIELD, one)).collect()
}

/// How a volume with all of `wanted` must be offered; `fallback` is the filesystem that a class names.
pub fn mode(wanted: &[Capability], fallback: Option<FsType>) -> Result<Mode, BadField> {
    const FIELD: &str = "volume_capabilities";
    let mut named = None;
    let (mut mounts, mut blocks) = (false, false);
    for one in wanted {
        match &one.access {
            Access::Block => blocks = true,
            Access::Mount { fs_type, .. } => {
                mounts = true;
                match (named, *fs_type) {
                    (Some(a), Some(b)) if a != b => {
                        return bad(FIELD, format!("ask for {a} and {b} at once; a volume carries one filesystem"));
                    }
                    (None, found) => named = found,
                    (Some(_), _) => {}
                }
            }
        }
    }
    match (mounts, blocks, named, fallback) {
        (true, true, ..) => bad(FIELD, "ask for block and mount at once; a volume is offered one way"),
        (_, true, ..) => Ok(Mode::Block),
        (_, _, Some(a), Some(b)) if a != b => {
            bad(FIELD, format!("ask for {a}, the parameters for {b}; name the filesystem in one place"))
        }
        (_, _, named, fallback) => Ok(Mode::Filesystem(named.or(fallback).unwrap_or(FsType::Ext4))),
    }
}

/// The bounds of a size, in bytes, as (at least, at most); 0 is none.
pub fn bounds(given: Option<&CapacityRange>) -> Result<(u64, u64), BadField> {
    const FIELD: &str = "capacity_range";
    let Some(range) = given else { return Ok((0, 0)) };
    let positive = |field: &str, bytes: i64| {
        u64::try_from(bytes).or_else(|_| bad(FIELD, format!("{field} is {bytes}; a size cannot be negative")))
    };
    let (required, limit) =
        (positive("required_bytes", range.required_bytes)?, positive("limit_bytes", range.limit_bytes)?);
    if (required, limit) == (0, 0) {
        return bad(FIELD, "is zero; set required_bytes, limit_bytes or both, or leave the range out");
    }
    if limit != 0 && limit < required {
        return bad(FIELD, format!("limit_bytes {limit} is below required_bytes {required}; swap or widen them"));
    }
    Ok((required, limit))
}

#[cfg(test)]
mod tests;
