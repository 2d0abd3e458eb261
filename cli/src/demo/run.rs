//! The part of the story that needs a workshop: the cluster, its pods and volumes, both searches, the wipe between them,
//! receipts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bedplate_core::bytes::Bytes;
use bedplate_core::media::Media;
use bedplate_core::receipt::{Receipt, verify_chain};
use bedplate_core::wipe::Verification;
use bedplate_provisioner::receipts::{RECEIPTS, parse};

use super::cluster::Cluster;
use super::interrupt::Interrupt;
use super::load::Keeper;
use super::markers::Markers;
use super::nodes::{self, Node, Sizes};
use super::placements::Board;
use super::programs::Programs;
use super::recognise::{Findings, Recogniser};
use super::report::Report;
use super::shop::{Shop, writers};
use super::staff::Staff;
use super::story::{Story, millis, rate};
use super::verdict::{Evidence, Verdict};
use super::volumes::{DemoVolume, ms};
use super::workload::Foreman;
use super::workshop::Workshop;
use super::{DemoArgs, manifests, search, wiping};
use crate::volumes::columns;

/// How long published receipts may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// One run in its workshop.
pub struct Run<'a> {
    /// What was asked for.
    pub demo: &'a DemoArgs,
    /// Whether to stop.
    pub interrupt: Interrupt,
    /// Where to note what was seen.
    pub report: &'a mut Report,
    /// Bedplate's programs.
    pub programs: Programs,
}

impl Run<'_> {
    /// Tell it, from the nodes' disks to the receipts.
    pub async fn tell(
        &mut self,
        story: &mut Story,
        workshop: &mut Workshop,
        machine: (Media, String),
    ) -> anyhow::Result<Verdict> {
        let sizes = Sizes::of(self.demo.size);
        let nodes = nodes::furnish(workshop, sizes, machine)?;
        story.say(&nodes::reach(&nodes, workshop.ground()));
        self.interrupt.check()?;
        let cluster = Cluster::start(workshop, self.interrupt.clone())?;
        // Ends, with the processes in the pods, before anything is unmounted.
        let staff = Staff::hire(story, &cluster, &self.programs, workshop, &nodes, sizes).await?;
        let mut board = Board::of(&staff.storage, &manifests::classes()?)?;

        let count = u32::try_from(writers().len())?;
        let markers = Markers::new(rand::random(), count, self.demo.markers, self.demo.rows);
        let known = Arc::new(Recogniser::new(markers));
        let socket = workshop.short_path().join("foreman.sock");
        let indices = (0..).zip(writers()).map(|(index, (pod, _))| (pod, index)).collect();
        let mut foreman = Foreman::listen(&socket, known.markers(), indices)?;
        let program = std::env::current_exe().context("cannot find out where this program lies")?;
        let shop = Shop { cluster: &cluster, nodes: &nodes, sizes, program: &program, foreman: &socket };

        let (mut volumes, placements) = shop.open(story, &mut board).await?;
        self.report.placements = placements;
        self.report.placements.push(shop.misfit(story, &mut board).await?);
        self.filled(story, known.markers(), &mut foreman).await?;
        shop.close(story, &volumes).await?;
        drop(foreman);
        self.search_before(story, &known, &mut volumes).await?;
        self.report.volumes = volumes.iter().map(|v| v.entry.clone()).collect();

        let gone = if self.demo.skip_wipe {
            story.step("The wipe is skipped, as was asked for: the search must find everything again");
            Vec::new()
        } else {
            self.give_up(story, &shop, &volumes).await?
        };
        let held = !gone.is_empty() && gone.iter().all(wiping::Gone::holds_blocks);
        let discards = nodes.iter().any(|node| node.ground.discard);
        self.search_after(story, &known, &volumes, held, discards).await?;
        drop(gone);
        self.receipts(story, &cluster, &nodes).await?;
        staff.dismiss().await;

        let volumes: Vec<_> = volumes.iter().map(|v| (v.entry.id.clone(), v.entry.claim.clone())).collect();
        Ok(Evidence {
            written: self.report.markers_written,
            before: self.report.markers_found_before_wipe,
            after: self.report.markers_found_after_wipe,
            not_zero: held.then_some(self.report.bytes_not_zero_after_wipe),
            volumes: &volumes,
            receipts: &self.report.receipts,
        }
        .verdict())
    }

    async fn filled(&mut self, story: &mut Story, markers: &Markers, foreman: &mut Foreman) -> anyhow::Result<()> {
        story.step("Data, written by the pods' own processes through their mounts");
        let (mut keeper, mut processes) = (Keeper::File, Vec::new());
        for (pod, _) in writers() {
            let filled = foreman.filled(&pod, &self.interrupt).await?;
            keeper = filled.keeper;
            processes.push(format!("{} of {}/{pod}", filled.process, manifests::NAMESPACE));
        }
        story.say(&format!("Processes {}.", processes.join(", ")));
        self.report.markers_written = markers.all();
        let rows = match keeper {
            Keeper::Sqlite => "orders in a sqlite3 database (synchronous=FULL)",
            Keeper::File => "lines in a text file (sqlite3 is not installed)",
        };
        story.say(&format!(
            "Each wrote {} {rows} and {} marker blocks of 4 KiB in 8 files, one of which it deleted again.\n\
             {} markers in all. They derive from a seed that only these processes have: on a disk they can be nothing else.",
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
        story.step("First search, on the disks themselves (the control: it must find everything)");
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
        discards: bool,
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
            let doubt = if discards {
                "and one is mounted with `discard`, so this alone could have emptied them"
            } else {
                "which may have given them to others since"
            };
            story.say(&format!(
                "Note: the blocks are the filesystem's again, {doubt}. The evidence is the agents' own full read-back, made \
                 before they removed the files: see the receipts."
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
            "{}: {} in {extents} extent{plural} of device {}, O_DIRECT, {}",
            volume.place(),
            Bytes(findings.bytes),
            volume.entry.device,
            rate(findings.bytes, took)
        );
        Ok((findings, line))
    }

    async fn give_up(
        &mut self,
        story: &mut Story,
        shop: &Shop<'_>,
        volumes: &[DemoVolume],
    ) -> anyhow::Result<Vec<wiping::Gone>> {
        story.step("The claims are deleted: release, quarantine, canaries, overwrite, flush, read back, receipt");
        shop.give_up_claims().await?;
        let gone = wiping::watch(shop.cluster, volumes).await?;
        for ((volume, gone), entry) in volumes.iter().zip(&gone).zip(&mut self.report.volumes) {
            entry.milliseconds.deleted = Some(ms(gone.took));
            story.say(&format!(
                "{}: PersistentVolume gone, which means verified, after {}",
                volume.place(),
                millis(gone.took)
            ));
        }
        Ok(gone)
    }

    async fn receipts(&mut self, story: &mut Story, cluster: &Cluster, nodes: &[Node]) -> anyhow::Result<()> {
        story.step("Receipts, by claim");
        let mut chains = Vec::new();
        for node in nodes {
            let list = log_of(&node.folder.join("state"))?;
            if let Some(first) = list.first() {
                let last = verify_chain(first.ledger, &list)
                    .with_context(|| format!("the chain of receipts of {} is broken", node.name))?;
                chains.push(format!("{} ends with {}", node.name, last.get(..12).unwrap_or(&last)));
            }
            self.report.receipts.extend(list);
        }
        if chains.is_empty() {
            story.say("None: nothing was wiped.");
            return Ok(());
        }
        story.table(&table(&self.report.receipts));
        story.say(&format!("Every node's chain is intact: {}.", chains.join(", ")));
        let hashes: Vec<&str> = self.report.receipts.iter().map(|receipt| receipt.hash.as_str()).collect();
        let published = cluster.until("every receipt is published as a WipeReceipt", PATIENCE, async || {
            let list = cluster.receipts().await?;
            let all = hashes.iter().all(|hash| list.iter().any(|receipt| receipt.spec.hash == *hash));
            Ok(all.then_some(list.len()))
        });
        let published = published.await?;
        ensure!(published == hashes.len(), "there are {published} WipeReceipts for {} receipts", hashes.len());
        story.say(&format!("The cluster has {published} WipeReceipts, with the same hashes."));
        Ok(())
    }
}

/// Receipts by claim.
fn table(receipts: &[Receipt]) -> String {
    let mut table = columns(&["CLAIM", "NODE", "SIZE", "DISK", "LEVEL", "VERIFIED", "CANARIES", "SECONDS", "HASH"]);
    for receipt in receipts {
        let Receipt { claim, disk, verification, .. } = receipt;
        let name = disk.serial.as_ref().or(disk.wwn.as_ref()).or(disk.device.as_ref());
        table.add_row([
            format!("{}/{}", claim.namespace, claim.name),
            receipt.node.to_string(),
            Bytes(receipt.bytes).to_string(),
            format!("{} ({} identity)", name.map_or("unknown", String::as_str), disk.identity),
            receipt.level.to_string(),
            match verification.kind {
                Verification::Full => "in full".to_owned(),
                Verification::Sample { samples } => format!("{samples} samples"),
            },
            format!("{} gone", verification.canaries),
            format!("{:.1}", receipt.ended.duration_since(receipt.started).as_secs_f64()),
            receipt.hash.chars().take(12).collect(),
        ]);
    }
    table.to_string()
}

/// The receipts in an agent's own log.
fn log_of(state: &Path) -> anyhow::Result<Vec<Receipt>> {
    match std::fs::read(state.join(RECEIPTS)) {
        Ok(bytes) => Ok(parse(&bytes).context("the receipts cannot be read")?.0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context("the receipts cannot be read"),
    }
}
