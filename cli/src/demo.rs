//! `bedplate demo`: the whole story on this machine: real disks, a cluster, placement, data, a wipe, the search after it,
//! receipts.
//!
//! Starts Bedplate's real programs around an embedded cluster, in a folder of its own, and plays user and auditor. Writes
//! only in that folder and takes everything away again. Exit code 0 means that every pod went where it should, every
//! marker was found on the disks before the wipe and none after it; 1 that something is wrong; 2 that it could not be
//! tried.

mod cluster;
mod ground;
mod interrupt;
mod load;
mod look;
mod manifests;
mod markers;
mod nodes;
mod own_disk;
mod placements;
mod programs;
mod recognise;
mod report;
mod run;
mod search;
mod shop;
mod staff;
mod story;
mod tidy;
mod tools;
mod verdict;
mod volumes;
mod wiping;
mod workload;
mod workshop;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bedplate_core::bytes::{Bytes, MIB};
use clap::Args;
use nix::unistd::Uid;

use interrupt::{Interrupt, Interrupted};
use nodes::Sizes;
use programs::Programs;
use report::{DiskEntry, Report};
use run::Run;
use story::Story;
use verdict::Verdict;
use workshop::Workshop;

use crate::{disks, probe_progress};

/// Where a demo works and reports unless told otherwise.
const DIR: &str = "target/demo";
/// The report's file name.
const REPORT: &str = "report.json";
/// The smallest volume that every filesystem takes.
const SMALLEST: u64 = 320 * MIB;

pub use workload::WorkloadArgs;

/// What `bedplate demo` is told.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where to work, and where report.json is written [default: target/demo, or a folder on a disk if that is on none]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Size of each of the four volumes
    #[arg(long, default_value = "512Mi")]
    size: Bytes,
    /// Where bedplate-agent, bedplate-provisioner and bedplate-extender lie [default: beside this program]
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Do not measure the disks
    #[arg(long)]
    no_probe: bool,
    /// Marker blocks a volume
    #[arg(long, default_value_t = 512, hide = true, value_parser = clap::value_parser!(u32).range(8..=4096))]
    markers: u32,
    /// Rows with a token a volume
    #[arg(long, default_value_t = 250, hide = true, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rows: u32,
    /// Do not delete the claims before the second search: the demo must fail then
    #[arg(long, hide = true)]
    skip_wipe: bool,
}

/// The demo could not be tried: nothing was shown, nothing was disproven.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotDone(String);

impl DemoArgs {
    /// Tell the story.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut story = Story::begin();
        let mut report = Report::default();
        let verdict = match self.tell(&mut story, &mut report).await {
            Ok(verdict) => verdict,
            Err(error) if error.is::<Interrupted>() => Verdict::NotDone(Interrupted.to_string()),
            Err(error) if error.is::<NotDone>() => Verdict::NotDone(format!("{error:#}")),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        verdict.word().clone_into(&mut report.verdict);
        report.why = verdict.to_string();
        report.seconds = (story.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let path = self.dir.unwrap_or_else(|| DIR.into()).join(REPORT);
        let written = report.write(&path);
        story.end(&format!("Verdict after {:.1} s: {verdict}", report.seconds));
        match written {
            Ok(()) => story.end(&format!("Report: {}", path.display())),
            // Without root the folder may be somebody else's; the verdict counts.
            Err(error) => story.end(&format!("{error:#}")),
        }
        Ok(verdict.exit())
    }

    async fn tell(&self, story: &mut Story, report: &mut Report) -> anyhow::Result<Verdict> {
        let interrupt = Interrupt::listen()?;
        let root = Uid::effective().is_root();
        let seen = self.disks(root, story, report, &interrupt).await?;
        if !root {
            bail!(NotDone(
                "without root, disks cannot be measured and no volume can be made (loop devices, mounts); run \
                 `sudo bedplate demo`, or `make demo` as root, on a machine or virtual machine of your own"
                    .to_owned()
            ));
        }
        if self.size.get() < SMALLEST {
            bail!(NotDone(format!("--size {} is too small for xfs; use at least {}", self.size, Bytes(SMALLEST))));
        }
        let programs = Programs::find(self.programs.as_deref())?;

        story.step("A place to work");
        let dir = self.dir.clone().unwrap_or_else(|| DIR.into());
        let mut workshop = Workshop::open(&dir, self.dir.is_none(), Sizes::of(self.size).need())?;
        describe(story, &workshop);
        let machine = nodes::found(&seen, workshop.ground());
        let mut run = Run { demo: self, interrupt: interrupt.clone(), report, programs };
        let told = run.tell(story, &mut workshop, machine).await;

        story.step("Everything made here is taken away again");
        let hurry = interrupt.check().is_err();
        // Not on the runtime's own thread: connections to the agents are closed there, and they wait for that.
        let left = tokio::task::spawn_blocking(move || workshop.tidy(hurry)).await.context("tidying broke off")?;
        if left.is_empty() {
            story.say("Mounts, loop devices, files and processes are gone.");
        }
        match (told, left.is_empty()) {
            (told, true) => told,
            (Ok(Verdict::Clean { .. }), false) => Ok(Verdict::Failed(format!("left behind: {}", left.join("; ")))),
            (told, false) => {
                story.say(&format!("Left behind: {}", left.join("; ")));
                told
            }
        }
    }

    async fn disks(
        &self,
        root: bool,
        story: &mut Story,
        report: &mut Report,
        interrupt: &Interrupt,
    ) -> anyhow::Result<bedplate_agent::discover::Report> {
        story.step("What disks are here, and what do they really do?");
        let measure = root && !self.no_probe;
        let dir = self.dir.clone().unwrap_or_else(|| DIR.into());
        let looked = look::look(measure.then_some(&*dir), interrupt).await?;
        story.table(&disks::table(&looked.report));
        if measure {
            story.table("");
            story.table(probe_progress::sentences(&looked.survey).trim_matches('\n'));
        }
        if measure && looked.unmeasured > 0 {
            story.say(&format!("{} more not measured here; `bedplate disks --probe` does.", looked.unmeasured));
        }
        report.disks = looked.report.disks.iter().map(|disk| DiskEntry::of(disk, &looked.survey)).collect();
        Ok(looked.report)
    }
}

fn describe(story: &Story, workshop: &Workshop) {
    let ground = workshop.ground();
    if let Some(why) = workshop.why_not_here() {
        story.say(&format!(
            "No pool directly here: {why}.\nSo this machine's pool gets an ext4 filesystem of its own, in a file."
        ));
    }
    let (place, free) = (workshop.path().display(), Bytes(ground.available));
    story.say(&format!("{place}: {} on {}, {free} free.", ground.fs_type, ground.source));
}
