//! What a StorageNode's status says: one portrait of the ledger, the disks and the figures, in the API's words. Pure.

use std::collections::BTreeMap;

use bedplate_api::local_volume::{FsType, Phase};
use bedplate_api::storage_node::{DiskStatus, Figures, PoolStatus, StorageNodeStatus, VolumeRecord};
use bedplate_provisioner::engine::{Outline, PoolView, Portrait};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::convert::{claim, demand, fs_type, mode, signed, wipe_level};
use super::status::{condition, phase};

/// What a status is made of.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// Pools and volumes of one moment.
    pub portrait: &'a Portrait,
    /// Disks, with their figures.
    pub disks: Vec<DiskStatus>,
    /// Stable id of the disk beneath each pool.
    pub beneath: BTreeMap<String, String>,
    /// Figures by pool.
    pub figures: BTreeMap<String, Figures>,
    /// Filesystems that can be made.
    pub filesystems: Vec<bedplate_core::filesystem::FsType>,
    /// Uid of the Node object, where there is one.
    pub node_uid: Option<String>,
    /// What the kubelet said of our registration: `None` before it said anything.
    pub registered: Option<Result<(), String>>,
}

/// The status; times of conditions are still to be set.
pub fn status(parts: Parts<'_>) -> StorageNodeStatus {
    let portrait = parts.portrait;
    let mut filesystems: Vec<FsType> = parts.filesystems.iter().copied().map(fs_type).collect();
    filesystems.sort_by_key(|fs| format!("{fs:?}"));
    let pools = portrait.pools.iter().map(|view| {
        let figures = parts.figures.get(view.name.as_str()).cloned();
        let disk = parts.beneath.get(view.name.as_str()).cloned();
        pool(view, portrait, disk, figures)
    });
    let mut volumes: Vec<VolumeRecord> = portrait.volumes.iter().filter_map(record).collect();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    StorageNodeStatus {
        agent_version: crate::VERSION.to_owned(),
        ledger_id: portrait.ledger.to_string(),
        node_uid: parts.node_uid.clone().unwrap_or_default(),
        filesystems,
        pools: pools.collect(),
        volumes,
        conditions: conditions(portrait, parts.registered.as_ref()),
        disks: parts.disks,
    }
}

fn conditions(portrait: &Portrait, registered: Option<&Result<(), String>>) -> Vec<Condition> {
    let absent: Vec<String> =
        portrait.pools.iter().filter_map(|pool| Some(format!("{}: {}", pool.name, pool.absent.as_ref()?))).collect();
    let kubelet = match registered {
        None => condition("KubeletRegistered", false, "Waiting", "no kubelet has asked yet"),
        Some(Ok(())) => condition("KubeletRegistered", true, "Registered", ""),
        Some(Err(why)) => condition("KubeletRegistered", false, "Refused", why),
    };
    vec![
        condition("Ready", true, "Serving", ""),
        kubelet,
        if absent.is_empty() {
            condition("PoolsPresent", true, "Present", "")
        } else {
            condition("PoolsPresent", false, "Absent", &absent.join("; "))
        },
    ]
}

fn pool(view: &PoolView, portrait: &Portrait, disk: Option<String>, figures: Option<Figures>) -> PoolStatus {
    let here = portrait.volumes.iter().filter(|volume| volume.pool == view.name);
    let owed = |volume: &&Outline| {
        matches!(volume.phase, "Released" | "Quarantined" | "Wiping" | "Flushed" | "Verifying" | "Verified")
    };
    let quarantined: u64 = here.filter(owed).fold(0, |sum, volume| sum.saturating_add(volume.bytes));
    let free = if view.draining { 0 } else { view.free };
    let capacity = view.free.saturating_add(view.allocated).saturating_add(view.withheld);
    let promised = portrait.promised.get(&view.name).copied().unwrap_or_default();
    PoolStatus {
        name: view.name.to_string(),
        backend: view.backend.clone(),
        media: view.media.clone().unwrap_or_else(|| "unknown".to_owned()),
        disk,
        level: view.level.map(wipe_level),
        filesystem: view.fs_uuid.clone(),
        absent: view.absent.clone(),
        capacity: signed(capacity),
        allocated: signed(view.allocated),
        quarantined: signed(quarantined),
        dirty: signed(view.withheld.saturating_sub(quarantined)),
        free: signed(free),
        largest_volume: signed(free),
        iops_left: view.iops.map(|budget| signed(budget.saturating_sub(promised))),
        figures,
    }
}

/// A volume that an API object asked for; others (adopted files) have no object to rebuild.
fn record(volume: &Outline) -> Option<VolumeRecord> {
    let origin = volume.origin.as_ref()?;
    let (mode, fs_type) = mode(volume.mode);
    Some(VolumeRecord {
        name: volume.name.clone(),
        volume_handle: volume.id.to_string(),
        pool: volume.pool.to_string(),
        bytes: signed(volume.bytes),
        mode,
        fs_type,
        class_name: origin.class_name.clone(),
        parameters: volume.parameters.clone(),
        demand: demand(volume),
        wipe: volume.demand.map(wipe_level),
        claim_uid: volume.claim.uid.clone(),
        claim: claim(&volume.claim),
        attempt: i64::from(origin.attempt),
        phase: phase(volume),
    })
}

/// Keep a pool's room as it was told before where only the host's own files moved it a little: the provisioner is served
/// by one steady figure better than by many exact ones, and the node is the last judge.
pub fn steady(mut new: StorageNodeStatus, told: Option<&StorageNodeStatus>) -> StorageNodeStatus {
    let Some(told) = told else { return new };
    let volumes = |status: &StorageNodeStatus, pool: &str| -> Vec<(String, i64, Phase)> {
        let here = status.volumes.iter().filter(|volume| volume.pool == pool);
        here.map(|volume| (volume.name.clone(), volume.bytes, volume.phase)).collect()
    };
    let unchanged: Vec<bool> =
        new.pools.iter().map(|pool| volumes(&new, &pool.name) == volumes(told, &pool.name)).collect();
    for (pool, unchanged) in new.pools.iter_mut().zip(unchanged) {
        let Some(before) = told.pools.iter().find(|before| before.name == pool.name) else { continue };
        let ledger = |pool: &PoolStatus| (pool.allocated, pool.quarantined, pool.dirty, pool.absent.clone());
        let little = (before.capacity / 128).max(16 << 20);
        let near = pool.free > 0 && (pool.free - before.free).abs() < little;
        if unchanged && near && ledger(pool) == ledger(before) {
            pool.capacity = before.capacity;
            pool.free = before.free;
            pool.largest_volume = before.largest_volume;
        }
    }
    new
}

#[cfg(test)]
mod tests;
