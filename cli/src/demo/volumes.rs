//! The volumes behind the demo's claims: found through the API as anybody would, their places on the disk through the
//! agent that made them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use bedplate_api::LocalVolume;
use bedplate_provisioner::engine::{Ranges, VolumeView};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::nodes::Node;
use super::placements::title;
use super::report::{Times, VolumeEntry};
use super::search::searchable;
use crate::client::Agent;

/// One volume.
pub struct DemoVolume {
    /// What the report says of it.
    pub entry: VolumeEntry,
    /// The name of its PersistentVolume.
    pub persistent: String,
    /// The name of its LocalVolume.
    pub local: String,
    /// The agent that serves it.
    pub agent: Agent,
    /// The file that holds it.
    pub backing: PathBuf,
    /// Where its bytes lie.
    pub ranges: Ranges,
}

/// Milliseconds for the report.
pub fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

impl DemoVolume {
    /// The volume of a bound claim.
    pub async fn of(claim: &PersistentVolumeClaim, volume: &LocalVolume, node: &Node) -> anyhow::Result<Self> {
        let title = title(claim);
        let status = volume.status.clone().unwrap_or_default();
        let id = status.volume_handle.with_context(|| format!("the volume of {title} has no handle"))?;
        let bytes = u64::try_from(status.bytes.unwrap_or(volume.spec.bytes))?;
        let agent = node.agent();
        let ranges: Ranges = agent.get(&format!("/v1/volumes/{id}/ranges")).await?;
        searchable(&ranges, bytes).with_context(|| format!("volume {id} of {title}"))?;
        let backing = PathBuf::from(status.device.with_context(|| format!("the volume of {title} has no file"))?);
        ensure!(backing.starts_with(&node.directory), "{} is not in the pool of {title}", backing.display());
        let (major, minor) = ranges.device.unwrap_or_default();
        Ok(Self {
            entry: VolumeEntry {
                id,
                claim: title,
                node: node.name.clone(),
                pool: volume.spec.pool.clone(),
                media: node.media.to_string(),
                filesystem: volume.spec.fs_type.map(|fs| format!("{fs:?}").to_lowercase()).unwrap_or_default(),
                bytes,
                device: format!("{major}:{minor}"),
                extents: ranges.map.extents.len(),
                milliseconds: Times::default(),
                ..VolumeEntry::default()
            },
            persistent: claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default(),
            local: volume.name_any(),
            agent,
            backing,
            ranges,
        })
    }

    /// Whether its agent has it staged.
    pub async fn is_staged(&self) -> anyhow::Result<bool> {
        let views: Vec<VolumeView> = self.agent.get("/v1/volumes").await?;
        Ok(views.iter().any(|view| view.id.as_str() == self.entry.id && view.staged.is_some()))
    }

    /// Its claim and its place, as columns.
    pub fn place(&self) -> String {
        let VolumeEntry { claim, node, pool, .. } = &self.entry;
        format!("{claim:<18}  {node:<12}  {pool}")
    }
}
