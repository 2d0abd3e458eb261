//! Between the API's words and core's. Pure; what does not fit is refused in words, never guessed.

use std::collections::BTreeMap;

use bedplate_api::LocalVolumeSpec;
use bedplate_api::local_volume::{ClaimReference, FsType, ResolvedDemand, VolumeMode, WipeLevel};
use bedplate_core::class::Class;
use bedplate_core::filesystem as core_fs;
use bedplate_core::names;
use bedplate_core::volume::{Claim, Mode, Origin, Promise};
use bedplate_core::wipe::Level;
use bedplate_provisioner::engine::{CreateVolume, Outline};

/// Parameters that choose a place. By the time a LocalVolume exists they have done their work.
const PLACEMENT: [&str; 3] = [names::PARAMETER_PROFILE, names::PARAMETER_SPREAD, names::PARAMETER_EXCLUSIVE_DISK];

/// A count of bytes as the API writes it.
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A filesystem, as the API has it.
pub const fn fs_type(fs: core_fs::FsType) -> FsType {
    match fs {
        core_fs::FsType::Ext4 => FsType::Ext4,
        core_fs::FsType::Xfs => FsType::Xfs,
        core_fs::FsType::Btrfs => FsType::Btrfs,
        core_fs::FsType::F2fs => FsType::F2fs,
    }
}

const fn core_fs_type(fs: FsType) -> core_fs::FsType {
    match fs {
        FsType::Ext4 => core_fs::FsType::Ext4,
        FsType::Xfs => core_fs::FsType::Xfs,
        FsType::Btrfs => core_fs::FsType::Btrfs,
        FsType::F2fs => core_fs::FsType::F2fs,
    }
}

/// A level, as the API has it.
pub const fn wipe_level(level: Level) -> WipeLevel {
    match level {
        Level::Isolation => WipeLevel::Isolation,
        Level::Clear => WipeLevel::Clear,
        Level::CryptoErase => WipeLevel::CryptoErase,
    }
}

const fn level(level: WipeLevel) -> Level {
    match level {
        WipeLevel::Isolation => Level::Isolation,
        WipeLevel::Clear => Level::Clear,
        WipeLevel::CryptoErase => Level::CryptoErase,
    }
}

/// How a volume is offered, as the API has it.
pub const fn mode(mode: Mode) -> (VolumeMode, Option<FsType>) {
    match mode {
        Mode::Filesystem(fs) => (VolumeMode::Filesystem, Some(fs_type(fs))),
        Mode::Block => (VolumeMode::Block, None),
    }
}

/// A claim, as the API has it.
pub fn claim(claim: &Claim) -> ClaimReference {
    ClaimReference { namespace: claim.namespace.clone(), name: claim.name.clone(), labels: claim.labels.clone() }
}

/// What was promised, as the API has it.
pub fn demand(outline: &Outline) -> Option<ResolvedDemand> {
    let promise = outline.origin.as_ref()?.promise.as_ref()?;
    Some(ResolvedDemand {
        iops: promise.iops.map(signed),
        bytes_per_second: promise.bytes_per_second.map(signed),
        policy_hash: promise.policy_hash.clone(),
    })
}

/// The order that a LocalVolume is, for the engine. `name` is the object's.
///
/// # Errors
/// Where the spec contradicts itself: a sentence for its status.
pub fn wish(name: &str, spec: &LocalVolumeSpec) -> Result<CreateVolume, String> {
    let mode = match (spec.mode, spec.fs_type) {
        (VolumeMode::Block, None) => Mode::Block,
        (VolumeMode::Block, Some(_)) => return Err("spec.fsType is for mode Filesystem; leave it out".to_owned()),
        (VolumeMode::Filesystem, fs) => Mode::Filesystem(core_fs_type(fs.unwrap_or(FsType::Ext4))),
    };
    let required = u64::try_from(spec.bytes).ok().filter(|bytes| *bytes > 0);
    let required = required.ok_or_else(|| format!("spec.bytes is {}; it must be positive", spec.bytes))?;
    let attempt = u32::try_from(spec.attempt).map_err(|_| format!("spec.attempt is {}", spec.attempt))?;
    // The filesystem comes from the spec; what the class says of it is how mkfs options are read.
    let mut read: BTreeMap<String, String> = spec.parameters.clone();
    read.retain(|name, _| !PLACEMENT.contains(&name.as_str()));
    if let Mode::Filesystem(fs) = mode {
        read.insert(names::PARAMETER_FSTYPE.to_owned(), fs.name().to_owned());
    } else {
        read.remove(names::PARAMETER_MKFS_OPTIONS);
    }
    let class = Class::parse(&read).map_err(|error| format!("spec.parameters: {error}"))?;
    let pool = spec.pool.parse().map_err(|error| format!("spec.pool: {error}"))?;
    let claim = Claim {
        namespace: spec.claim.namespace.clone(),
        name: spec.claim.name.clone(),
        uid: spec.claim_uid.clone(),
        labels: spec.claim.labels.clone(),
    };
    let promise = spec.demand.as_ref().map(|demand| Promise {
        iops: demand.iops.map(unsigned),
        bytes_per_second: demand.bytes_per_second.map(unsigned),
        policy_hash: demand.policy_hash.clone(),
    });
    Ok(CreateVolume {
        name: name.to_owned(),
        required,
        limit: 0,
        mode,
        class: Class { pool: Some(pool), wipe: spec.wipe.map(level).or(class.wipe), claim, ..class },
        parameters: spec.parameters.clone(),
        origin: Some(Origin { class_name: spec.class_name.clone(), attempt, promise }),
    })
}
