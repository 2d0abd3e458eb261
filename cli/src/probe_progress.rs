//! `bedplate disks --probe`: measures while a bar on standard error shows how far, and puts the results into words.
//!
//! The bar is for terminals only; standard output stays the answer. Ctrl-C ends the measuring within a moment, leaves
//! no scratch file behind, and what was measured so far is printed.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bedplate_agent::discover::{Report, Roots};
use bedplate_agent::probe::{Choice, Phase, Prober, Progress, Survey, survey};
use bedplate_blockdev::probe_io::EngineChoice;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::plain;

/// Steps of the bar.
const STEPS: u64 = 1000;

/// What `bedplate disks` is told about measuring.
#[derive(Debug, Args)]
#[command(next_help_heading = "Measuring")]
pub struct ProbeArgs {
    /// Measure the disks: read-only, some seconds each, one at a time, busy ones are skipped
    #[arg(long)]
    probe: bool,
    /// Measure only this disk (kernel name such as nvme0n1; repeat for more)
    #[arg(long = "disk", value_name = "NAME", requires = "probe")]
    disks: Vec<String>,
    /// Measure writes, too, in a scratch file of 64 MiB in this folder (repeat for more); also the way to measure a disk
    /// that may not be opened
    #[arg(long = "scratch", value_name = "FOLDER", requires = "probe")]
    folders: Vec<PathBuf>,
}

impl ProbeArgs {
    /// Measure, if asked to. The report's disks are classified again with what was seen.
    pub async fn measure(self, mut report: Report, roots: Roots) -> anyhow::Result<(Report, Option<Survey>)> {
        let Self { probe, disks, folders } = self;
        if !probe {
            return Ok((report, None));
        }
        if let Some(unknown) = disks.iter().find(|name| !report.disks.iter().any(|d| &d.facts.name == *name)) {
            let known: Vec<&str> = report.disks.iter().map(|d| d.facts.name.as_str()).collect();
            anyhow::bail!("--disk {unknown}: there is no such disk; there are {}", known.join(", "));
        }
        let choice = Choice { disks, folders, ..Choice::default() };
        let prober = Arc::new(Prober::new(roots.clone(), EngineChoice::Auto));
        let measuring = Arc::clone(&prober);
        let mut work = tokio::task::spawn_blocking(move || {
            let bar = bar();
            let mut show = |progress: &Progress<'_>| show(&bar, progress);
            let survey = survey(&mut report, &roots, &measuring, &choice, rand::random(), &mut show);
            bar.finish_and_clear();
            (report, survey)
        });
        let done = tokio::select! {
            done = &mut work => done,
            signal = tokio::signal::ctrl_c() => {
                signal.context("cannot watch for Ctrl-C")?;
                prober.halt().stop();
                work.await
            }
        };
        let (report, survey) = done.context("measuring broke off")?;
        Ok((report, Some(survey)))
    }
}

/// An empty bar on standard error.
pub fn bar() -> ProgressBar {
    let bar = ProgressBar::new(STEPS);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>16} {bar:30} {percent:>3} %  {msg}") {
        bar.set_style(style.progress_chars("█▌ "));
    }
    bar
}

/// The share of the bar, in its steps.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and STEPS
fn steps(fraction: f64) -> u64 {
    (fraction.clamp(0.0, 1.0) * STEPS as f64).round() as u64
}

/// Bring the bar to where a probe is.
pub fn show(bar: &ProgressBar, progress: &Progress<'_>) {
    let message = match progress.phase {
        Phase::Watching => "looking whether others use it".to_owned(),
        Phase::Reading(depth) => format!("reading, {depth} at a time"),
        Phase::Writing => "writing in a scratch file".to_owned(),
    };
    bar.set_prefix(plain(progress.disk).into_owned());
    bar.set_message(message);
    bar.set_position(steps(progress.fraction));
}

/// The results for people.
pub fn sentences(survey: &Survey) -> String {
    let mut text = String::from("\n\nMeasured (an observed capability, not a steady state):\n");
    for result in &survey.results {
        let _ = writeln!(text, "  {}", plain(&result.subject()));
        for line in result.lines() {
            let _ = writeln!(text, "    {}", plain(&line));
        }
    }
    if survey.results.is_empty() {
        text.push_str("  nothing: no disk to measure; name one with --disk, or a folder with --scratch\n");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use bedplate_agent::probe::{Measured, Outcome};

    use super::*;

    #[test]
    fn every_result_is_told_and_no_result_is_told_too() {
        let survey = Survey {
            results: vec![
                Measured::Disk { disk: "sda".into(), outcome: Outcome::TooLittle },
                Measured::Disk { disk: "sdb\x1b[2J".into(), outcome: Outcome::Stopped },
            ],
        };
        let text = sentences(&survey);
        assert!(text.contains("  sda\n    not measured: it holds too little"), "{text}");
        assert!(text.contains("  sdb?[2J\n    not measured: stopped"), "{text}");
        assert!(sentences(&Survey::default()).contains("nothing: no disk to measure"));
    }

    #[test]
    fn the_bar_stays_within_its_ends() {
        assert_eq!([-1.0, 0.0, 0.5, 1.0, 7.0].map(steps), [0, 0, 500, 1000, 1000]);
    }
}
