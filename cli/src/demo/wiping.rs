//! Deleting the volumes while somebody watches: progress for people, and a hold on the freed blocks for the search.
//!
//! A wiped file is removed, and its blocks go back to the host filesystem, which may discard or reuse them at once. So
//! that the search afterwards sees what the wipe left and not what a discard did, the demo takes a path descriptor on
//! each file once its wipe has begun: the name goes, the blocks stay until the descriptor is closed. (Earlier the agent
//! would call the file in use, and rightly so.)

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bedplate_core::bytes::Bytes;
use bedplate_provisioner::engine::{Stage, VolumeView};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::cluster::Cluster;
use super::volumes::DemoVolume;

/// How often the agent is asked how far it is.
const LOOK: Duration = Duration::from_millis(10);
/// How long a deletion may take in all.
const DELETE: Duration = Duration::from_mins(4);

/// A volume that was deleted.
pub struct Gone {
    /// From the claim's deletion to the end of its PersistentVolume.
    pub took: Duration,
    /// The removed file, if it could be held.
    held: Option<File>,
}

impl Gone {
    /// Whether the file has lost its name and the demo still holds its blocks back from the filesystem.
    pub fn holds_blocks(&self) -> bool {
        let facts = self.held.as_ref().and_then(|file| file.metadata().ok());
        facts.is_some_and(|facts| facts.nlink() == 0 && facts.blocks() > 0)
    }
}

/// Watch volumes whose claims are deleted until nothing is left of them but receipts. The order is kept.
pub async fn watch(cluster: &Cluster, doomed: &[DemoVolume]) -> anyhow::Result<Vec<Gone>> {
    let begun = Instant::now();
    let bars = Bars::new(doomed);
    let mut gone: Vec<(Option<Duration>, Option<File>)> = doomed.iter().map(|_| (None, None)).collect();
    let mut tick = tokio::time::interval(LOOK);
    while gone.iter().any(|(took, _)| took.is_none()) {
        cluster.interrupt.unless(tick.tick()).await?;
        for (index, (volume, (took, held))) in doomed.iter().zip(&mut gone).enumerate() {
            if took.is_some() {
                continue;
            }
            let views: Vec<VolumeView> = volume.agent.get("/v1/volumes").await?;
            if let Some(view) = views.iter().find(|view| view.id.as_str() == volume.entry.id) {
                bars.show(index, view);
                if view.progress.is_some() && held.is_none() {
                    *held = hold(&volume.backing);
                }
            } else if cluster.is_gone(volume).await? {
                *took = Some(begun.elapsed());
                bars.done(index);
            }
            if begun.elapsed() > DELETE {
                bail!(
                    "{} is not wiped after {} s: {}",
                    volume.entry.claim,
                    DELETE.as_secs(),
                    cluster.says(volume).await?
                );
            }
        }
    }
    gone.into_iter().map(|(took, held)| Ok(Gone { took: took.context("a deletion was lost")?, held })).collect()
}

/// A descriptor that pins the file and opens nothing: it reads nothing, breaks no lease, and is gone with this process.
fn hold(path: &Path) -> Option<File> {
    File::options().read(true).custom_flags(nix::libc::O_PATH | nix::libc::O_CLOEXEC).open(path).ok()
}

/// A bar a volume, on a terminal only.
struct Bars(Vec<ProgressBar>);

impl Bars {
    fn new(doomed: &[DemoVolume]) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("   {prefix:<24} {bar:30} {percent:>3} %  {msg}");
        let bars = doomed.iter().map(|volume| {
            let bar = all.add(ProgressBar::new(100)).with_prefix(volume.entry.claim.clone());
            if let Ok(style) = &style {
                bar.set_style(style.clone().progress_chars("█▌ "));
            }
            bar
        });
        Self(bars.collect())
    }

    fn show(&self, index: usize, view: &VolumeView) {
        let Some(bar) = self.0.get(index) else { return };
        let Some(progress) = view.progress else { return bar.set_message(view.phase.clone()) };
        let doing = match progress.stage {
            Stage::Canaries => "planting canaries",
            Stage::Wiping => "overwriting",
            Stage::Verifying => "reading back",
        };
        bar.set_length(progress.total.max(1));
        bar.set_position(progress.done);
        bar.set_message(format!("{doing} {} of {}", Bytes(progress.done), Bytes(progress.total)));
    }

    fn done(&self, index: usize) {
        if let Some(bar) = self.0.get(index) {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.0.iter().for_each(ProgressBar::finish_and_clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_file_keeps_its_blocks_after_its_name_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let gone = Gone { took: Duration::ZERO, held: hold(&path) };
        assert!(!gone.holds_blocks(), "it still has a name");
        std::fs::remove_file(&path).unwrap();
        assert!(gone.holds_blocks());
        assert!(!Gone { took: Duration::ZERO, held: hold(&path) }.holds_blocks());
    }
}
