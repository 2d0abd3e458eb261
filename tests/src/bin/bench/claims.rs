//! Claim → bound with the agent and the provisioner as their own processes, one node, an embedded API server.
//!
//! The bench plays the scheduler: claims and their pods are there, then every claim is told its node at once. A claim's time
//! ends when a client's watch shows it bound; the API server and the binder stand-in share the cores with what is measured.

mod burst;
mod ground;

use anyhow::{Result, ensure};

use crate::Settings;
use crate::report::{Report, median};
use ground::Ground;

/// Claims at once.
const CROWDS: [usize; 4] = [1, 10, 50, 100];
/// Rounds of a single claim in each round of all: alone it is quick, and its figure needs more of them.
const SINGLES: usize = 4;

/// What the rounds of one crowd gave.
#[derive(Default)]
struct Seen {
    /// Milliseconds of each claim, where one was alone, else each round's median.
    bound: Vec<f64>,
    /// Seconds until the last was bound, of each round.
    all: Vec<f64>,
}

/// Measure all crowds, in turn.
pub fn measure(settings: &Settings, report: &mut Report) -> Result<()> {
    println!("claims: selected-node to bound, {} MiB volumes on one node", ground::VOLUME_MIB);
    let crowds: Vec<usize> = CROWDS.into_iter().filter(|crowd| *crowd <= settings.claims_at_once).collect();
    ensure!(!crowds.is_empty(), "BEDPLATE_BENCH_CLAIMS must be 1 at least");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut ground = Ground::make().await?;
        let played = rounds(settings, &crowds, &ground, report).await;
        if played.is_err() {
            ground.last_words();
        }
        played?;
        ground.close().await
    })
}

async fn rounds(settings: &Settings, crowds: &[usize], ground: &Ground, report: &mut Report) -> Result<()> {
    let mut seen: Vec<Seen> = crowds.iter().map(|_| Seen::default()).collect();
    let (mut provisioner, mut agent) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        for (crowd, seen) in crowds.iter().zip(&mut seen) {
            for again in 0..if *crowd == 1 { SINGLES } else { 1 } {
                let times = burst::play(ground, &format!("c{crowd}-{round}-{again}"), *crowd).await?;
                seen.bound.push(median(&times.bound_ms));
                seen.all.push(times.all_s);
                if Some(crowd) == crowds.last() {
                    let (one, other) = ground.resident_mib()?;
                    provisioner.push(one);
                    agent.push(other);
                }
                burst::give_up(ground, *crowd).await?;
            }
        }
    }
    for (crowd, Seen { bound, all }) in crowds.iter().zip(seen) {
        let (each, last) = (format!("claim.bound_p50_ms.{crowd}"), format!("claim.all_bound_s.{crowd}"));
        match crowd {
            1 => report.add_with_reach(&each, "ms", bound, ("<", 100.0)),
            50 => report.add_with_reach(&last, "s", all, ("<", 2.0)),
            100 => {
                report.add(&each, "ms", bound);
                report.add_with_reach(&last, "s", all, ("<", 5.0));
            }
            _ => report.add(&each, "ms", bound),
        }
    }
    report.add("provisioner.rss_mib", "MiB", provisioner);
    report.add_with_reach("agent.cluster_rss_mib", "MiB", agent, ("<", 25.0));
    Ok(())
}
