//! This machine's disks, as the cluster hears of them: looked at when the kernel says that one came or went, and now and
//! then. What changes with every pod (mounts of volumes, counts of mounts) is left out, so that nothing is told anew
//! because of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedplate_api::storage_node::DiskStatus;
use bedplate_core::chain::chain;
use bedplate_core::disk::Kind;
use bedplate_core::identity::Strength;
use bedplate_core::media::Media;
use bedplate_core::verdict::{Reason, Verdict};

use super::Context;
use super::convert::signed;
use crate::discover::watch::Watch;
use crate::discover::{Claim, Disk, Opened, Settings, discover};
use crate::standalone::beneath;

/// How long to let a burst of kernel events go by before looking.
const BURST: Duration = Duration::from_millis(500);
/// Mount points told of one disk at most.
const MOUNTS: usize = 8;

/// What the last look saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every disk, as found.
    pub disks: Arc<Vec<Disk>>,
}

/// Look for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let rescan = Duration::from_secs(context.settings.rescan_seconds);
    let mut events = match Watch::open(rescan).and_then(Watch::into_async) {
        Ok(events) => Some(events),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "disks that come and go are noticed by rescans only");
            None
        }
    };
    let mut pools = context.board.pools_changed.subscribe();
    loop {
        look(&context).await;
        tokio::select! {
            news = async { match &mut events { Some(events) => events.next().await, None => std::future::pending().await } } => {
                if !matches!(news, Some(Ok(_))) {
                    tracing::warn!("the kernel's events ended, disks that come and go are noticed by rescans only");
                    events = None;
                }
            }
            // Pools say which disks are ours.
            _ = pools.changed() => {}
            () = tokio::time::sleep(rescan) => {}
        }
        tokio::time::sleep(BURST).await;
        if let Some(waiting) = &mut events {
            waiting.drain();
        }
    }
}

async fn look(context: &Arc<Context>) {
    let claims = context
        .engine
        .pools()
        .into_iter()
        .map(|pool| Claim::Folder { pool: pool.name.to_string(), path: PathBuf::from(pool.directory) });
    let settings = Settings { claims: claims.collect(), ..context.settings.discover.clone() };
    match tokio::task::spawn_blocking(move || discover(&settings, &Opened)).await {
        Ok(Ok(report)) => {
            context.board.disks.send_if_modified(|seen| {
                let known = seen.as_ref().is_some_and(|seen| same(&seen.disks, &report.disks));
                if !known {
                    *seen = Some(Seen { disks: Arc::new(report.disks) });
                }
                !known
            });
        }
        Ok(Err(error)) => tracing::warn!(error = %chain(&error), "disks could not be looked at"),
        Err(error) => tracing::warn!(error = %error, "disks could not be looked at"),
    }
}

/// Whether two looks saw the same, as far as it is told.
fn same(a: &[Disk], b: &[Disk]) -> bool {
    let told = |disks: &[Disk]| disks.iter().map(|disk| status(disk, Path::new("/"))).collect::<Vec<_>>();
    told(a) == told(b)
}

/// Disks worth telling of: whole disks, and whatever else a pool stands on.
pub fn told(disks: &[Disk], pools: &[PathBuf], kubelet: &Path) -> Vec<DiskStatus> {
    let beneath: Vec<&str> =
        pools.iter().filter_map(|directory| Some(beneath(disks, directory)?.facts.name.as_str())).collect();
    let worth = |disk: &&Disk| match disk.facts.device {
        Kind::Disk => disk.facts.size.is_some_and(|size| size.get() > 0),
        Kind::Md { .. } | Kind::DeviceMapper { .. } | Kind::Loop { .. } | Kind::Drive | Kind::Virtual => {
            beneath.contains(&disk.facts.name.as_str())
        }
    };
    disks.iter().filter(worth).map(|disk| status(disk, kubelet)).collect()
}

/// A disk in the API's words.
fn status(disk: &Disk, kubelet: &Path) -> DiskStatus {
    let facts = &disk.facts;
    let signature = facts.look.contents().and_then(|contents| contents.main()).map(|found| found.format.clone());
    DiskStatus {
        name: facts.name.clone(),
        id: disk.identity.id.as_ref().map(ToString::to_string),
        identity: match disk.identity.strength {
            Strength::Strong => "strong",
            Strength::Weak => "weak",
            Strength::None => "none",
        }
        .to_owned(),
        model: facts.model.as_deref().map(|text| text.trim().to_owned()),
        serial: facts.serial.as_deref().map(|text| text.trim().to_owned()),
        wwn: facts.wwn.as_deref().map(|text| text.trim().to_owned()),
        transport: facts.transport.as_str().to_owned(),
        bytes: facts.size.map_or(0, |size| signed(size.get())),
        logical_sector: facts.logical_sector.map(i64::from),
        physical_sector: facts.physical_sector.map(i64::from),
        rotational: facts.rotational,
        media: disk.classification.media.as_str().to_owned(),
        media_source: disk.classification.source.as_str().to_owned(),
        media_confidence: disk.classification.confidence.to_string(),
        filesystem: signature,
        mounts: mounts(facts, kubelet),
        verdict: match &disk.verdict {
            Verdict::Foreign { .. } => "foreign",
            Verdict::Free { .. } => "free",
            Verdict::Ours { .. } => "ours",
        }
        .to_owned(),
        reasons: disk.verdict.reasons().iter().map(said).collect(),
        health: String::new(),
        figures: None,
    }
}

/// Mount points that last: not those of pods and containers.
fn mounts(facts: &bedplate_core::disk::DiskFacts, kubelet: &Path) -> Vec<String> {
    let passing = ["/run", "/proc", "/var/lib/containerd", "/var/lib/docker", "/var/lib/containers", "/tmp"];
    let lasts = |target: &&str| {
        !Path::new(target).starts_with(kubelet) && !passing.iter().any(|folder| Path::new(target).starts_with(folder))
    };
    let mounts = facts.all_mounts();
    let mut targets: Vec<&str> = mounts.iter().map(|mount| mount.target.as_str()).filter(lasts).collect();
    targets.sort_unstable_by_key(|target| (target.len(), *target));
    targets.dedup();
    targets.into_iter().take(MOUNTS).map(str::to_owned).collect()
}

/// A reason without what changes by the minute.
fn said(reason: &Reason) -> String {
    match reason {
        Reason::Mounted { fs_type, target, device, .. } => {
            let (fs_type, target, device) = (fs_type.clone(), target.clone(), device.clone());
            Reason::Mounted { fs_type, target, more: 0, device }.to_string()
        }
        Reason::Unseen { .. } => "some of its users may be out of sight".to_owned(),
        other => other.to_string(),
    }
}

/// The medium beneath a directory, where discovery can tell.
pub fn medium(disks: &[Disk], directory: &Path) -> Media {
    beneath(disks, directory).map_or(Media::Unknown, |disk| disk.classification.media)
}
