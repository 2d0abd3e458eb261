//! The first step: which disks are here, and what each of them does when it is asked for data. Disks are
//! only read from; writes go to a scratch file in the folder that the demo works in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bedplate_agent::discover::{Opened, Report, Roots, Settings, discover};
use bedplate_agent::probe::{Choice, Prober, Survey, survey};
use bedplate_blockdev::probe_io::EngineChoice;
use bedplate_blockdev::scratch::ScratchBudget;
use bedplate_core::bytes::Bytes;
use bedplate_core::disk::Kind;

use super::ground::{Fitness, Ground};
use super::interrupt::Interrupt;
use crate::probe_progress::{bar, show};

/// A demo measures no more than this many disks...
const DISKS: usize = 4;
/// ...and no longer than this; `bedplate disks --probe` has patience for all.
const TIME: Duration = Duration::from_secs(20);

/// Time for writing in a scratch file.
const SCRATCH: Duration = Duration::from_secs(3);

/// What was seen.
pub struct Looked {
    /// The disks.
    pub report: Report,
    /// What was measured; nothing without permission to.
    pub survey: Survey,
    /// Real disks that were left out.
    pub unmeasured: usize,
}

/// Find the disks and, given a folder to work in, read from them; and write in a scratch file in that folder.
pub async fn look(folder: Option<&Path>, interrupt: &Interrupt) -> anyhow::Result<Looked> {
    let roots = Roots::default();
    let settings = Settings { roots: roots.clone(), overrides: std::collections::BTreeMap::new(), claims: Vec::new() };
    let mut report = tokio::task::spawn_blocking(move || discover(&settings, &Opened))
        .await
        .context("the look at the disks broke off")??;
    // A drive without a medium is no disk to measure.
    let real = |d: &&bedplate_agent::discover::Disk| {
        d.facts.device == Kind::Disk && d.facts.size.is_some_and(|size| size.get() > 0)
    };
    let mut disks: Vec<String> = report.disks.iter().filter(real).map(|d| d.facts.name.clone()).collect();
    let Some(folder) = folder else { return Ok(Looked { report, survey: Survey::default(), unmeasured: disks.len() }) };
    let unmeasured = disks.len().saturating_sub(DISKS);
    disks.truncate(DISKS);
    let folders = scratch(folder)?;
    if disks.is_empty() && folders.is_empty() {
        return Ok(Looked { report, survey: Survey::default(), unmeasured });
    }
    let prober = Arc::new(Prober::new(roots.clone(), EngineChoice::Auto));
    let measuring = prober.clone();
    let choice = Choice { disks, folders, budget: ScratchBudget { time: SCRATCH, ..ScratchBudget::default() } };
    let mut work = tokio::task::spawn_blocking(move || {
        let bar = bar();
        let survey = survey(&mut report, &roots, &measuring, &choice, rand::random(), &mut |p| show(&bar, p));
        bar.finish_and_clear();
        (report, survey)
    });
    let done = tokio::select! {
        done = &mut work => done,
        () = async { tokio::select! { _ = interrupt.wait() => (), () = tokio::time::sleep(TIME) => () } } => {
            prober.halt().stop();
            work.await
        }
    };
    let (report, survey) = done.context("measuring broke off")?;
    interrupt.check()?;
    Ok(Looked { report, survey, unmeasured })
}

/// The folder, if a scratch file in it would say something about a disk.
fn scratch(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let on_a_disk = !matches!(Ground::beneath(folder)?.fitness(Bytes(0)), Fitness::No(_));
    Ok(if on_a_disk { vec![folder.canonicalize()?] } else { Vec::new() })
}
