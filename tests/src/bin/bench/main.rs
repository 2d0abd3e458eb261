//! `make bench`: what Bedplate claims, measured against a peer in the same run.
//!
//! Rounds are interleaved, medians reported, raw values kept. Only sectors that the disk beneath really received count as
//! written (`/proc/diskstats`). Everything happens in files and loop devices of its own; real disks are only read.

mod claims;
mod csi;
mod extender;
mod probe;
mod report;
mod wipe;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use report::Report;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Settings from the environment, so that a smoke test can run the whole in seconds.
struct Settings {
    /// Interleaved rounds.
    rounds: usize,
    /// Bytes of the wiped volume.
    wipe_bytes: u64,
    /// Seconds of one probe run.
    probe_seconds: u64,
    /// Nodes of the largest cluster that the extender is asked about.
    extender_nodes: usize,
    /// Volumes on each of its nodes where memory is measured.
    extender_volumes: usize,
    /// Questions of one client.
    extender_asks: usize,
    /// Seconds of many clients at once.
    extender_seconds: u64,
    /// The most claims at once.
    claims_at_once: usize,
    /// Only these parts, by name; all where empty.
    only: String,
    /// Where the report goes.
    out: PathBuf,
}

impl Settings {
    fn from_env() -> anyhow::Result<Self> {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text:?} is no whole number")),
            Err(_) => Ok(default),
        };
        Ok(Self {
            rounds: usize::try_from(number("BEDPLATE_BENCH_ROUNDS", 5)?)?,
            wipe_bytes: number("BEDPLATE_BENCH_WIPE_MIB", 4096)? << 20,
            probe_seconds: number("BEDPLATE_BENCH_PROBE_SECONDS", 3)?,
            extender_nodes: usize::try_from(number("BEDPLATE_BENCH_EXTENDER_NODES", 15_000)?)?,
            extender_volumes: usize::try_from(number("BEDPLATE_BENCH_EXTENDER_VOLUMES", 10)?)?,
            extender_asks: usize::try_from(number("BEDPLATE_BENCH_EXTENDER_ASKS", 2_000)?)?,
            extender_seconds: number("BEDPLATE_BENCH_EXTENDER_SECONDS", 5)?,
            claims_at_once: usize::try_from(number("BEDPLATE_BENCH_CLAIMS", 100)?)?,
            only: std::env::var("BEDPLATE_BENCH_ONLY").unwrap_or_default(),
            out: PathBuf::from(std::env::var("BEDPLATE_BENCH_OUT").unwrap_or_else(|_| "target/bench".to_owned())),
        })
    }
}

/// Measures one thing.
type Part = fn(&Settings, &mut Report) -> anyhow::Result<()>;

fn run() -> anyhow::Result<()> {
    ensure!(nix::unistd::Uid::effective().is_root(), "needs root: loop devices and mounts; run `sudo make bench`");
    let settings = Settings::from_env()?;
    let mut report = Report::default();
    let machine = report::machine();
    println!("{machine}\n");
    let parts: [(&str, Part); 5] = [
        ("wipe", wipe::measure),
        ("probe", probe::measure),
        ("csi", csi::measure),
        ("claims", claims::measure),
        ("extender", extender::measure),
    ];
    for (name, part) in parts {
        if settings.only.is_empty() || settings.only.split(',').any(|only| only == name) {
            part(&settings, &mut report).context(name)?;
        }
    }
    report.write(&settings.out, &machine)?;
    println!("\n{}", report.table());
    println!("report: {}", settings.out.join("report.json").display());
    Ok(())
}
