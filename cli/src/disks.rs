//! `bedplate disks`: the machine's disks in a table that a person likes to read, or all facts as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use bedplate_agent::discover::{Disk, Opened, Report, Roots, Settings, discover};
use bedplate_agent::probe::Survey;
use bedplate_core::disk::{Kind, Layer, Mount};
use bedplate_core::media::Media;
use bedplate_core::signature::{Look, Usage};
use clap::Args;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::output::{Output, plain, print};
use crate::probe_progress::{self, ProbeArgs};

/// What `bedplate disks` is told.
#[derive(Debug, Args)]
pub struct DisksArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Say what a disk is made of, by disk id, by-id name, serial number or WWN: `--media S5GXNG0R1=ssd`
    #[arg(long = "media", value_name = "DISK=MEDIA", value_parser = parse_override)]
    overrides: Vec<(String, Media)>,
    #[command(flatten)]
    probe: ProbeArgs,
    #[command(flatten)]
    roots: RootArgs,
}

/// Where the kernel's views are mounted, for use in a container and for looking at recorded machines.
#[derive(Debug, Args)]
#[command(next_help_heading = "Roots")]
pub struct RootArgs {
    /// sysfs
    #[arg(long = "sys-root", value_name = "PATH", env = "BEDPLATE_SYS_ROOT", default_value = "/sys")]
    sys: PathBuf,
    /// procfs
    #[arg(long = "proc-root", value_name = "PATH", env = "BEDPLATE_PROC_ROOT", default_value = "/proc")]
    proc: PathBuf,
    /// Device nodes
    #[arg(long = "dev-root", value_name = "PATH", env = "BEDPLATE_DEV_ROOT", default_value = "/dev")]
    dev: PathBuf,
    /// udev's database; need not exist
    #[arg(long = "run-udev-root", value_name = "PATH", env = "BEDPLATE_RUN_UDEV_ROOT", default_value = "/run/udev")]
    run_udev: PathBuf,
}

impl From<RootArgs> for Roots {
    fn from(args: RootArgs) -> Self {
        let RootArgs { sys, proc, dev, run_udev } = args;
        Self { sys, proc, dev, run_udev }
    }
}

fn parse_override(text: &str) -> Result<(String, Media), String> {
    let (disk, media) = text.rsplit_once('=').ok_or("write DISK=MEDIA, such as S5GXNG0R1=ssd")?;
    if disk.is_empty() || disk.starts_with("/dev/") {
        return Err("name the disk by its id, by-id name, serial number or WWN: /dev names change".to_owned());
    }
    Ok((disk.to_owned(), media.parse::<Media>().map_err(|e| e.to_string())?))
}

impl DisksArgs {
    /// Look, measure if asked to, and print.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { output, overrides, probe, roots } = self;
        let overrides: BTreeMap<String, Media> = overrides.into_iter().collect();
        let settings = Settings { roots: roots.into(), overrides, claims: Vec::new() };
        let report = discover(&settings, &Opened)?;
        let (report, survey) = probe.measure(report, settings.roots).await?;
        let text = match output {
            Output::Table => table(&report) + &survey.as_ref().map(probe_progress::sentences).unwrap_or_default(),
            Output::Json => json(&report, survey.as_ref()).context("cannot write the report as JSON")?,
        };
        print(&text).context("cannot print the disks")
    }
}

/// The report for programs; with `probes`, where there was measuring.
fn json(report: &Report, survey: Option<&Survey>) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(report)?;
    if let (Some(object), Some(survey)) = (value.as_object_mut(), survey) {
        object.insert("probes".to_owned(), serde_json::to_value(survey.records())?);
    }
    serde_json::to_string_pretty(&value)
}

/// The report for people: the machine, one row a disk and partition, then a sentence for every judgement.
pub fn table(report: &Report) -> String {
    let mut text = head(report);
    if report.disks.is_empty() {
        text.push_str("\nNo disks found.\n");
    } else {
        text.push('\n');
        text.push_str(&rows(report));
        text.push_str("\n\n");
        text.push_str(&sentences(report));
    }
    if !report.blind_spots.is_empty() {
        text.push_str("\nNot everything could be seen:\n");
        for spot in &report.blind_spots {
            let _ = writeln!(text, "  - {}", plain(spot));
        }
    }
    text.trim_end().to_owned()
}

fn head(report: &Report) -> String {
    let host = &report.host;
    let mut facts: Vec<String> = Vec::new();
    facts.extend(host.kernel.as_ref().map(|k| format!("Linux {k}")));
    facts.push(host.architecture.clone());
    facts.push(format!("{} processors", host.processors));
    facts.extend(host.memory.map(|m| format!("{m} memory")));
    let machine = [&report.machine.vendor, &report.machine.product];
    let machine: Vec<&str> = machine.into_iter().flatten().map(String::as_str).collect();
    facts.extend((!machine.is_empty()).then(|| machine.join(" ")));
    let name = host.name.as_deref().unwrap_or("this machine");
    format!("Disks of {} ({})\n", plain(name), plain(&facts.join(", ")))
}

fn rows(report: &Report) -> String {
    let measured = report.disks.iter().any(|d| d.latency.is_some());
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let mut header = vec!["DISK", "SIZE", "MEDIA", "VIA", "MODEL", "SERIAL", "ON IT", "VERDICT"];
    if measured {
        header.insert(3, "READ");
    }
    table.set_header(header);
    for disk in &report.disks {
        let facts = &disk.facts;
        let mut row = vec![
            Cell::new(plain(&facts.name)),
            Cell::new(facts.size.map_or("?".to_owned(), |s| s.to_string())).set_alignment(CellAlignment::Right),
            Cell::new(media(disk)),
            Cell::new(via(disk)),
            Cell::new(or_dash(facts.model.as_deref())),
            Cell::new(or_dash(facts.serial.as_deref())),
            Cell::new(plain(&on_disk(disk))),
            Cell::new(disk.verdict.to_string()),
        ];
        if measured {
            row.insert(3, Cell::new(disk.latency.map_or("-".to_owned(), |l| format!("{} µs", l.p50_us))));
        }
        table.add_row(row);
        let last = facts.partitions.len().saturating_sub(1);
        for (i, partition) in facts.partitions.iter().enumerate() {
            let branch = if i == last { "└ " } else { "├ " };
            let mut row = vec![
                Cell::new(format!("{branch}{}", plain(&partition.name))),
                Cell::new(partition.size.map_or("?".to_owned(), |s| s.to_string())).set_alignment(CellAlignment::Right),
            ];
            row.extend(std::iter::repeat_n(Cell::new(""), if measured { 5 } else { 4 }));
            row.push(Cell::new(plain(&use_of(&partition.look, &partition.mounts, partition.swap, &partition.holders))));
            row.push(Cell::new(""));
            table.add_row(row);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn or_dash(text: Option<&str>) -> String {
    text.map(str::trim).filter(|t| !t.is_empty()).map_or("-".to_owned(), |t| plain(t).into_owned())
}

/// `ssd`, or `ssd?` where it is only a hint.
fn media(disk: &Disk) -> String {
    let found = &disk.classification;
    let doubt = found.media != Media::Unknown && found.confidence == bedplate_core::media::Confidence::Low;
    format!("{}{}", found.media, if doubt { "?" } else { "" })
}

fn via(disk: &Disk) -> String {
    match disk.facts.logical_sector {
        Some(4096) => format!("{}, 4Kn", disk.facts.transport),
        _ => disk.facts.transport.to_string(),
    }
}

fn on_disk(disk: &Disk) -> String {
    let facts = &disk.facts;
    if !facts.partitions.is_empty() {
        let table = facts.look.contents().and_then(|c| c.signatures.iter().find(|s| s.usage == Usage::PartitionTable));
        return table.map_or_else(|| "partitions".to_owned(), |t| format!("{} partitions", t.format));
    }
    if let Kind::Loop { backing: Some(backing), .. } = &facts.device {
        return format!("{} (file {backing})", use_of(&facts.look, &facts.mounts, facts.swap, &facts.holders));
    }
    use_of(&facts.look, &facts.mounts, facts.swap, &facts.holders)
}

/// What a device carries, and where that is mounted.
fn use_of(look: &Look, mounts: &[Mount], swap: bool, holders: &[Layer]) -> String {
    let mut text = match look {
        Look::Done(contents) => match contents.main() {
            Some(main) => match &main.label {
                Some(label) => format!("{} {label:?}", main.format),
                None => main.format.clone(),
            },
            None if contents.data_at.is_some() => "unknown data".to_owned(),
            None => "blank".to_owned(),
        },
        Look::Failed(_) => "unreadable".to_owned(),
        Look::NotDone => "not looked at".to_owned(),
    };
    if let Some(first) = mounts.iter().min_by_key(|m| (m.target.len(), &m.target)) {
        if matches!(look, Look::Failed(_) | Look::NotDone) {
            text.clone_from(&first.fs_type);
        }
        let _ = write!(text, " at {}", first.target);
        if mounts.len() > 1 {
            let _ = write!(text, " (+{})", mounts.len() - 1);
        }
    }
    if swap {
        text.push_str(" in use as swap");
    }
    for layer in holders {
        let name = match &layer.device {
            Kind::DeviceMapper { name: Some(name), .. } => name.clone(),
            _ => layer.name.clone(),
        };
        let _ = write!(text, " > {name}");
        if let Some(mount) = layer.mounts.first() {
            let _ = write!(text, " at {}", mount.target);
        }
    }
    text
}

/// Two sentences a disk: whose it is and why, what it is made of and why.
fn sentences(report: &Report) -> String {
    let widest = report.disks.iter().map(|d| d.facts.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for disk in &report.disks {
        let whose = match &disk.verdict {
            bedplate_core::verdict::Verdict::Foreign { reasons } => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                format!("foreign: {}", reasons.join("; "))
            }
            bedplate_core::verdict::Verdict::Free { proof } => format!("free: {proof}"),
            bedplate_core::verdict::Verdict::Ours { pool } => format!("ours: pool {pool}"),
        };
        let found = &disk.classification;
        let what = match found.media {
            Media::Unknown => format!("medium unknown: {}", found.why),
            media => format!("{media} ({} confidence, by {}): {}", found.confidence, found.source, found.why),
        };
        let _ = writeln!(text, "{:widest$}  {}", plain(&disk.facts.name), plain(&whose));
        let _ = writeln!(text, "{:widest$}  {}", "", plain(&what));
    }
    text
}
