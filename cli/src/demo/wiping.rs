//! Deleting the volumes while somebody watches: progress for people, and a hold on the freed blocks for the search.
//!
//! A wiped file is removed, and its blocks go back to the host filesystem, which may discard or reuse them at once. So
//! that the search afterwards sees what the wipe left and not what a discard did, the demo takes a path descriptor on
//! each file once its wipe has begun: the name goes, the blocks stay until the descriptor is closed. (Earlier the agent
//! would call the file in use, and rightly so.)

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bedplate_core::bytes::Bytes;
use bedplate_provisioner::engine::{Stage, VolumeView};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::orchestrator::Orchestrator;
use crate::client::Agent;

/// How often the agent is asked how far it is.
const LOOK: Duration = Duration::from_millis(10);

/// A volume that is being deleted.
pub struct Doomed {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// The file that holds it.
    pub backing: PathBuf,
}

/// A volume that was deleted.
pub struct Gone {
    /// From the call to the answer.
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

/// Delete all volumes at once. The order is kept.
pub async fn delete(orchestrator: &Orchestrator, admin: &Agent, doomed: &[Doomed]) -> anyhow::Result<Vec<Gone>> {
    let bars = Bars::new(doomed);
    let mut calls = JoinSet::new();
    for (index, volume) in doomed.iter().enumerate() {
        let (orchestrator, id) = (orchestrator.clone(), volume.id.clone());
        calls.spawn(async move { (index, orchestrator.delete(&id).await) });
    }
    let mut held: Vec<Option<File>> = doomed.iter().map(|_| None).collect();
    let mut took: Vec<Option<Duration>> = vec![None; doomed.len()];
    let mut tick = tokio::time::interval(LOOK);
    while !calls.is_empty() {
        tokio::select! {
            Some(done) = calls.join_next() => {
                let (index, result) = done.context("a deletion broke off")?;
                took[index] = Some(result?);
                bars.done(index);
            }
            _ = tick.tick() => {
                let views: Vec<VolumeView> = admin.get("/v1/volumes").await?;
                for (index, volume) in doomed.iter().enumerate() {
                    let Some(view) = views.iter().find(|view| view.id.as_str() == volume.id) else { continue };
                    bars.show(index, view);
                    if view.progress.is_some() && held[index].is_none() {
                        held[index] = hold(&volume.backing);
                    }
                }
            }
        }
    }
    took.into_iter()
        .zip(held)
        .map(|(took, held)| Ok(Gone { took: took.context("a deletion was lost")?, held }))
        .collect()
}

/// A descriptor that pins the file and opens nothing: it reads nothing, breaks no lease, and is gone with this process.
fn hold(path: &Path) -> Option<File> {
    File::options().read(true).custom_flags(nix::libc::O_PATH | nix::libc::O_CLOEXEC).open(path).ok()
}

/// A bar a volume, on a terminal only.
struct Bars(Vec<ProgressBar>);

impl Bars {
    fn new(doomed: &[Doomed]) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("   {prefix:<24} {bar:30} {percent:>3} %  {msg}");
        let bars = doomed.iter().map(|volume| {
            let bar = all.add(ProgressBar::new(100)).with_prefix(volume.title.clone());
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
