//! Which DiskPools this node can meet, and why not the others. Pure: what directories are is an argument.
//!
//! What stands here goes before what is new, so that no wish drains a pool that serves; among the new ones the earlier wins,
//! by creation time, then by name. Pools of the configuration file come before all. What only opening
//! the directory can tell (its filesystem, its marker) is left to the engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bedplate_api::DiskPool;
use bedplate_api::disk_pool::{Backend, Encryption, Labels, Media, Verify, WipeMethod};
use bedplate_api::placement::bytes_of;
use bedplate_core::bytes::Bytes;
use bedplate_core::class::MediaDemand;
use bedplate_core::ids::PoolName;
use bedplate_core::wipe::VerifyDemand;
use bedplate_provisioner::config::PoolConfig;

/// What a directory is on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Without symlinks and dots, where it exists.
    pub real: Option<PathBuf>,
    /// Whether it lies on the filesystem that the machine runs from.
    pub on_system: bool,
}

/// What becomes of a DiskPool here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be a pool.
    Wanted(Box<PoolConfig>),
    /// It cannot be met, in words.
    Refused(String),
    /// It is not for this node.
    Elsewhere,
}

/// How a pool stands on this node before its DiskPool is judged. In this order they go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It serves.
    Serving,
    /// It holds volumes, and takes no new ones.
    Draining,
    /// There is none of this name.
    #[default]
    New,
}

/// Judge all of them. `labels` are the Node's; `taken` are pools that stay whatever is asked: name and directory. Of those
/// that are not in `standing` there is no pool yet.
pub fn judge(
    pools: &[DiskPool],
    labels: &Labels,
    taken: &[(PoolName, PathBuf)],
    standing: &BTreeMap<String, Standing>,
    places: &BTreeMap<PathBuf, Place>,
) -> BTreeMap<String, Verdict> {
    let mut order: Vec<&DiskPool> = pools.iter().collect();
    order.sort_by_key(|pool| {
        let name = pool.metadata.name.clone().unwrap_or_default();
        // Times of creation are whole seconds: two of one second would be told apart by their names.
        let born = pool.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (standing.get(&name).copied().unwrap_or_default(), born, name)
    });
    let mut held: Vec<(PoolName, PathBuf, &str)> =
        taken.iter().map(|(name, directory)| (name.clone(), directory.clone(), "this node's pool")).collect();
    let mut verdicts = BTreeMap::new();
    for pool in order {
        let name = pool.metadata.name.clone().unwrap_or_default();
        let verdict = match pool.spec.selects(labels) {
            Err(error) => Verdict::Refused(error.to_string()),
            Ok(false) => Verdict::Elsewhere,
            Ok(true) => match wanted(pool, &name, &held, places) {
                Ok(config) => {
                    held.push((config.name.clone(), config.directory.clone(), "DiskPool"));
                    Verdict::Wanted(Box::new(config))
                }
                Err(why) => Verdict::Refused(why),
            },
        };
        verdicts.insert(name, verdict);
    }
    verdicts
}

fn wanted(
    pool: &DiskPool,
    name: &str,
    held: &[(PoolName, PathBuf, &str)],
    places: &BTreeMap<PathBuf, Place>,
) -> Result<PoolConfig, String> {
    let spec = &pool.spec;
    match spec.backend {
        Backend::Image => {}
        Backend::Lvm => return Err("spec.backend lvm is not supported yet: use image with spec.directory".to_owned()),
        Backend::Disk => return Err("spec.backend disk is not supported yet: use image with spec.directory".to_owned()),
    }
    if spec.devices.is_some() {
        return Err("spec.devices is not supported yet: use backend image with spec.directory".to_owned());
    }
    if spec.encryption.is_some_and(|encryption| encryption != Encryption::None) {
        return Err("spec.encryption volume-key is not supported yet: leave it out".to_owned());
    }
    let pool_name: PoolName = name.parse().map_err(|error| format!("metadata.name: {error}"))?;
    let directory =
        spec.directory.as_deref().ok_or("spec.directory is missing: name a folder on ext4, xfs or btrfs")?;
    let directory = lexical(Path::new(directory))
        .ok_or_else(|| format!("spec.directory {directory:?} must be an absolute path without .., and not / itself"))?;
    let place = places.get(&directory).cloned().unwrap_or_default();
    let real = place.real.clone().unwrap_or_else(|| directory.clone());
    for (other, theirs, whose) in held {
        if *other == pool_name {
            return Err(format!("{whose} {other} has this name already: rename one of the two"));
        }
        let theirs = places.get(theirs).and_then(|place| place.real.clone()).unwrap_or_else(|| theirs.clone());
        if real == theirs || real.starts_with(&theirs) || theirs.starts_with(&real) {
            return Err(format!(
                "spec.directory {} and {} of {whose} {other} lie in one another: give each pool a folder of its own",
                directory.display(),
                theirs.display()
            ));
        }
    }
    let defaults = PoolConfig::new(pool_name, directory.clone());
    let capacity = spec.capacity.as_deref().map(|text| quantity("spec.capacity", text)).transpose()?;
    if capacity.is_some_and(|capacity| capacity.get() < 1 << 20) {
        return Err("spec.capacity is smaller than the smallest volume: use at least 1Mi".to_owned());
    }
    let reserve = spec.reserve.as_deref().map(|text| quantity("spec.reserve", text)).transpose()?;
    let reserve = reserve.unwrap_or(defaults.reserve);
    if place.on_system && reserve.get() == 0 {
        return Err(format!(
            "spec.directory {} is on the filesystem that the machine runs from: a full pool would stop the machine; \
             set spec.reserve to what the host needs, such as 10Gi, or use another disk",
            directory.display()
        ));
    }
    let wipe = spec.wipe.clone().unwrap_or_default();
    if wipe.method == Some(WipeMethod::ZeroOut) {
        return Err("spec.wipe.method zero-out changes only the map of an image pool's files, not the medium: use \
                    direct-writes, or leave it out"
            .to_owned());
    }
    let media = spec.media.map(|media| match media {
        Media::Nvme => MediaDemand::Nvme,
        Media::Ssd => MediaDemand::Ssd,
        Media::Hdd => MediaDemand::Hdd,
    });
    let verify = match wipe.verify {
        None => defaults.verify,
        Some(Verify::Auto) => VerifyDemand::Auto,
        Some(Verify::Full) => VerifyDemand::Full,
        Some(Verify::Sample) => VerifyDemand::Sample,
    };
    Ok(PoolConfig { capacity, reserve, verify, media, ..defaults })
}

/// An absolute path without `.`, `..` and doubled slashes; `None` for anything else, and for the root.
pub fn lexical(path: &Path) -> Option<PathBuf> {
    use std::path::Component;
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (path.is_absolute() && clean != Path::new("/")).then_some(clean)
}

fn quantity(field: &str, text: &str) -> Result<Bytes, String> {
    bytes_of(text).map(Bytes).map_err(|error| format!("{field}: {error}"))
}

#[cfg(test)]
mod tests;
