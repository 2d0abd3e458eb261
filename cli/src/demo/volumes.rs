//! The demo's volumes, from the claim to the mount and back, with what each call took.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bedplate_core::bytes::Bytes;
use bedplate_provisioner::engine::Ranges;
use nix::sys::stat::{major, minor};
use uuid::Uuid;

use super::orchestrator::{Orchestrator, Want};
use super::report::{Calls, VolumeEntry};
use super::search::searchable;
use super::story::{Story, millis};
use super::tools;
use super::wiping::Doomed;
use crate::client::Agent;

/// One volume.
pub struct DemoVolume {
    /// What was asked for.
    want: Want,
    /// What the report says of it.
    pub entry: VolumeEntry,
    /// Where the agent mounts it first.
    staging: PathBuf,
    /// Where a pod would see it.
    pub target: PathBuf,
    /// The file that holds it.
    backing: PathBuf,
    /// Where its bytes lie.
    pub ranges: Ranges,
}

impl DemoVolume {
    /// What its deletion needs to know.
    pub fn doomed(&self) -> Doomed {
        Doomed { id: self.entry.id.clone(), title: self.entry.claim.clone(), backing: self.backing.clone() }
    }
}

/// Milliseconds for the report.
pub fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Two claims, as a workload would make them.
fn wants(size: Bytes) -> Vec<Want> {
    // Not everybody has xfsprogs.
    let second = if tools::find("mkfs.xfs").is_some() { "xfs" } else { "ext4" };
    [("orders-db", "ext4"), ("metrics-tsdb", second)]
        .map(|(claim, fs_type)| Want {
            namespace: "shop",
            claim,
            uid: Uuid::new_v4().to_string(),
            fs_type,
            bytes: size.get(),
        })
        .to_vec()
}

/// Create, stage and publish the volumes.
pub async fn make(
    story: &mut Story,
    orchestrator: &Orchestrator,
    admin: &Agent,
    folder: &Path,
    size: Bytes,
) -> anyhow::Result<Vec<DemoVolume>> {
    story.step("Volumes, by the calls that Kubernetes makes");
    let mut volumes = Vec::new();
    for want in wants(size) {
        let pod = folder.join("pods").join(want.claim);
        let (staging, target) = (pod.join("staging"), pod.join("mount"));
        DirBuilder::new().recursive(true).mode(0o700).create(&staging)?;
        let (id, create) = orchestrator.create(&want).await?;
        let staged = orchestrator.stage(&id, &want, text(&staging)?).await?;
        let published = orchestrator.publish(&id, &want, text(&staging)?, text(&target)?).await?;
        let (device, backing) = beneath(&target)?;
        let ranges: Ranges = admin.get(&format!("/v1/volumes/{id}/ranges")).await?;
        searchable(&ranges, want.bytes)?;
        let claim = format!("{}/{}", want.namespace, want.claim);
        story.say(&format!(
            "{claim:<18} {:<4} {}   CreateVolume {}, NodeStage {} (with mkfs), NodePublish {}   {device}",
            want.fs_type,
            Bytes(want.bytes),
            millis(create),
            millis(staged),
            millis(published)
        ));
        let (major, minor) = ranges.device.unwrap_or_default();
        let entry = VolumeEntry {
            id,
            claim,
            filesystem: want.fs_type.to_owned(),
            bytes: want.bytes,
            device: format!("{major}:{minor}"),
            extents: ranges.map.extents.len(),
            milliseconds: Calls { create: ms(create), stage: ms(staged), publish: ms(published), ..Calls::default() },
            ..VolumeEntry::default()
        };
        volumes.push(DemoVolume { want, entry, staging, target, backing, ranges });
    }
    Ok(volumes)
}

/// Unpublish and unstage the volumes.
pub async fn unmount(story: &mut Story, orchestrator: &Orchestrator, volumes: &mut [DemoVolume]) -> anyhow::Result<()> {
    story.step("The pods are gone");
    for volume in volumes {
        let id = &volume.entry.id;
        let unpublished = orchestrator.unpublish(id, text(&volume.target)?).await?;
        let unstaged = orchestrator.unstage(id, text(&volume.staging)?).await?;
        volume.entry.milliseconds.unpublish = ms(unpublished);
        volume.entry.milliseconds.unstage = ms(unstaged);
        let Want { namespace, claim, .. } = &volume.want;
        let claim = format!("{namespace}/{claim}");
        story.say(&format!("{claim:<18} NodeUnpublish {}, NodeUnstage {}", millis(unpublished), millis(unstaged)));
    }
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not Unicode", path.display()))
}

/// The loop device that is mounted at a folder, and the file behind it.
fn beneath(mount: &Path) -> anyhow::Result<(String, PathBuf)> {
    let device = mount.metadata()?.dev();
    let entry = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    let file = entry.join("loop/backing_file");
    let backing = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let name = entry.canonicalize()?.file_name().map(|n| format!("/dev/{}", n.to_string_lossy())).unwrap_or_default();
    Ok((name, PathBuf::from(backing.trim_end_matches('\n'))))
}
