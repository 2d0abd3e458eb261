//! The part of the story that needs a workshop: the agent, its volumes, both searches, the wipe between them, receipts.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use bedplate_core::bytes::Bytes;
use bedplate_core::receipt::{Receipt, verify_chain};
use bedplate_provisioner::receipts::{RECEIPTS, parse};

use super::agent::AgentProcess;
use super::interrupt::Interrupt;
use super::load::{self, Keeper};
use super::markers::Markers;
use super::orchestrator::Orchestrator;
use super::recognise::{Findings, Recogniser};
use super::report::Report;
use super::story::{Story, millis, rate};
use super::verdict::{Evidence, Verdict};
use super::volumes::{self, DemoVolume};
use super::workshop::Workshop;
use super::{DemoArgs, VOLUMES, search, wiping};
use crate::client::Agent;
use crate::receipts;

/// One run in its workshop.
pub struct Run<'a> {
    /// What was asked for.
    pub demo: &'a DemoArgs,
    /// Whether to stop.
    pub interrupt: Interrupt,
    /// Where to note what was seen.
    pub report: &'a mut Report,
}

impl Run<'_> {
    /// Tell it, from the agent's start to the receipts.
    pub async fn tell(&mut self, story: &mut Story, binary: &Path, workshop: &mut Workshop) -> anyhow::Result<Verdict> {
        story.step("The agent, serving CSI on a socket of its own");
        let begun = Instant::now();
        let agent = AgentProcess::start(binary, workshop)?;
        let agent = workshop.agent.insert(agent);
        agent.ready(&self.interrupt).await?;
        let (admin, state) = (agent.admin.clone(), agent.state.clone());
        let orchestrator = Orchestrator::connect(&agent.csi, self.interrupt.clone()).await?;
        let (name, version) = orchestrator.driver().await?;
        story.say(&format!("{name} {version}, process {}, ready after {}.", agent.pid(), millis(begun.elapsed())));

        let markers = Markers::new(rand::random(), VOLUMES, self.demo.markers, self.demo.rows);
        let known = Arc::new(Recogniser::new(markers));
        let mut volumes = volumes::make(story, &orchestrator, &admin, workshop.path(), self.demo.size).await?;
        self.fill(story, &known, &volumes).await?;
        volumes::unmount(story, &orchestrator, &mut volumes).await?;
        self.search_before(story, &known, &mut volumes).await?;
        self.report.volumes = volumes.iter().map(|v| v.entry.clone()).collect();

        let gone = if self.demo.skip_wipe {
            story.step("The wipe is skipped, as was asked for: the search must find everything again");
            Vec::new()
        } else {
            self.delete(story, &orchestrator, &admin, &volumes).await?
        };
        let held = !gone.is_empty() && gone.iter().all(wiping::Gone::holds_blocks);
        self.search_after(story, &known, &volumes, held, workshop.ground().discard).await?;
        drop(gone);
        self.receipts(story, &state)?;

        let ids: Vec<String> = volumes.iter().map(|v| v.entry.id.clone()).collect();
        Ok(Evidence {
            written: self.report.markers_written,
            before: self.report.markers_found_before_wipe,
            after: self.report.markers_found_after_wipe,
            not_zero: held.then_some(self.report.bytes_not_zero_after_wipe),
            volumes: &ids,
            receipts: &self.report.receipts,
        }
        .verdict())
    }

    async fn fill(&mut self, story: &mut Story, known: &Arc<Recogniser>, volumes: &[DemoVolume]) -> anyhow::Result<()> {
        story.step("Data, through the mounts");
        let keeper = Keeper::here();
        for (index, volume) in (0..).zip(volumes) {
            let (known, mount, interrupt) = (known.clone(), volume.target.clone(), self.interrupt.clone());
            let work = move || load::fill(known.markers(), index, &mount, keeper, &interrupt);
            tokio::task::spawn_blocking(work).await.context("writing broke off")??;
        }
        let markers = known.markers();
        self.report.markers_written = markers.all();
        let rows = match keeper {
            Keeper::Sqlite => "orders in a sqlite3 database (synchronous=FULL)",
            Keeper::File => "lines in a text file (sqlite3 is not installed)",
        };
        story.say(&format!(
            "In each volume {} {rows} and {} marker blocks of 4 KiB in 8 files, one of which was deleted again.\n\
             {} markers in all. They derive from a seed that only this process has: on the disk they can be nothing else.",
            markers.rows, markers.blocks, self.report.markers_written
        ));
        Ok(())
    }

    async fn search_before(
        &mut self,
        story: &mut Story,
        known: &Arc<Recogniser>,
        volumes: &mut [DemoVolume],
    ) -> anyhow::Result<()> {
        story.step("First search, on the disk itself (the control: it must find everything)");
        for (index, volume) in (0..).zip(volumes.iter_mut()) {
            let (findings, line) = self.search(known, volume).await?;
            let (found, written) = (known.whole(&findings, index), known.markers().of_a_volume());
            story.say(&format!("{line}: {found} of {written} markers"));
            volume.entry.markers_written = written;
            volume.entry.markers_found_before_wipe = found;
            self.report.markers_found_before_wipe += found;
        }
        Ok(())
    }

    async fn search_after(
        &mut self,
        story: &mut Story,
        known: &Arc<Recogniser>,
        volumes: &[DemoVolume],
        held: bool,
        discard: bool,
    ) -> anyhow::Result<()> {
        story.step("Second search, the same code in the same places");
        let mut all = Findings::default();
        for volume in volumes {
            let (findings, line) = self.search(known, volume).await?;
            let (found, not_zero) = (Recogniser::any(&findings), findings.not_zero);
            let rest =
                if not_zero == 0 { "every byte is zero".to_owned() } else { format!("{not_zero} bytes not zero") };
            story.say(&format!("{line}: {found} markers, {rest}"));
            all.add(&findings);
        }
        self.report.markers_found_after_wipe = Recogniser::any(&all);
        self.report.bytes_not_zero_after_wipe = all.not_zero;
        self.report.blocks_held_until_searched = held;
        if held {
            story.say(
                "The files have lost their names, but their blocks were kept from the filesystem until now: what was read \
                 is what the wipe wrote, not what a discard or another file left there.",
            );
        } else if !self.demo.skip_wipe {
            let doubt = if discard {
                "and it is mounted with `discard`, so this alone could have emptied them"
            } else {
                "which may have given them to others since"
            };
            story.say(&format!(
                "Note: the blocks are the filesystem's again, {doubt}. The evidence is the agent's own full read-back, made \
                 before it removed the files: see the receipts."
            ));
        }
        Ok(())
    }

    /// Search one volume's extents; what was met, and the beginning of a sentence about it.
    async fn search(&self, known: &Arc<Recogniser>, volume: &DemoVolume) -> anyhow::Result<(Findings, String)> {
        let (known, ranges, interrupt) = (known.clone(), volume.ranges.clone(), self.interrupt.clone());
        let work = tokio::task::spawn_blocking(move || search::search(&known, &ranges, &interrupt));
        let (findings, took) = work.await.context("the search broke off")??;
        let extents = volume.entry.extents;
        let plural = if extents == 1 { "" } else { "s" };
        let line = format!(
            "{:<18} {} in {extents} extent{plural} of device {}, O_DIRECT, {}",
            volume.entry.claim,
            Bytes(findings.bytes),
            volume.entry.device,
            rate(findings.bytes, took)
        );
        Ok((findings, line))
    }

    async fn delete(
        &mut self,
        story: &mut Story,
        orchestrator: &Orchestrator,
        admin: &Agent,
        volumes: &[DemoVolume],
    ) -> anyhow::Result<Vec<wiping::Gone>> {
        story.step("DeleteVolume: quarantine, canaries, overwrite, flush, read back, receipt");
        let doomed: Vec<wiping::Doomed> = volumes.iter().map(DemoVolume::doomed).collect();
        let gone = wiping::delete(orchestrator, admin, &doomed).await?;
        for ((volume, gone), entry) in volumes.iter().zip(&gone).zip(&mut self.report.volumes) {
            entry.milliseconds.delete = Some(volumes::ms(gone.took));
            let (claim, bytes) = (&volume.entry.claim, Bytes(volume.entry.bytes));
            story.say(&format!("{claim:<18} {bytes}: OK, which means verified, after {}", millis(gone.took)));
        }
        Ok(gone)
    }

    fn receipts(&mut self, story: &mut Story, state: &Path) -> anyhow::Result<()> {
        story.step("Receipts");
        let bytes = match std::fs::read(state.join(RECEIPTS)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).context("the receipts cannot be read"),
        };
        let (list, _) = parse(&bytes).context("the receipts cannot be read")?;
        let shown: Vec<&Receipt> = list.iter().collect();
        story.table(&receipts::table(&shown));
        if let Some(first) = list.first() {
            let last = verify_chain(first.ledger, &list).context("the chain of receipts is broken")?;
            let last: String = last.chars().take(12).collect();
            story.say(&format!("The chain of {} is intact; its last hash begins with {last}.", list.len()));
        }
        self.report.receipts = list;
        Ok(())
    }
}
