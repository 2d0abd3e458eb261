//! `bedplate volumes` and `bedplate pools`: what there is, and the orders that only a person may give.

use bedplate_agent::admin::Order;
use bedplate_core::bytes::Bytes;
use bedplate_core::ids::{PoolName, VolumeId};
use bedplate_provisioner::engine::{PoolView, Progress, Stage, VolumeView};
use clap::{Args, Subcommand};
use comfy_table::{Cell, ContentArrangement, Table, presets};

use crate::client::{Agent, orderer};
use crate::output::{Output, print};

/// Volumes on this node.
#[derive(Debug, Args)]
pub struct VolumesArgs {
    #[command(subcommand)]
    order: Option<VolumeOrder>,
    /// Freed ones too.
    #[arg(long)]
    all: bool,
    /// How to print.
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    agent: Agent,
}

#[derive(Debug, Subcommand)]
enum VolumeOrder {
    /// Wipe a stuck volume again, from the start.
    Retry { id: VolumeId },
    /// Accept that a volume stuck on its level gets a receipt that says `isolation`.
    Accept { id: VolumeId },
    /// Stop waiting for a wipe that is owed; its space stays withheld for ever.
    Forget { id: VolumeId },
    /// Keep a volume's bytes without an owner, until it is released.
    Retain { id: VolumeId },
    /// Release a retained (or unused) volume: it will be wiped.
    Release { id: VolumeId },
}

impl VolumesArgs {
    /// Do it.
    pub async fn run(self) -> anyhow::Result<()> {
        let Some(order) = self.order else {
            let query = if self.all { "/v1/volumes?all=true" } else { "/v1/volumes" };
            let volumes: Vec<VolumeView> = self.agent.get(query).await?;
            match self.output {
                Output::Table => print(&table(&volumes))?,
                Output::Json => print(&serde_json::to_string_pretty(&volumes)?)?,
            }
            return Ok(());
        };
        let (word, id) = match order {
            VolumeOrder::Retry { id } => ("retry", id),
            VolumeOrder::Accept { id } => ("accept", id),
            VolumeOrder::Forget { id } => ("forget", id),
            VolumeOrder::Retain { id } => ("retain", id),
            VolumeOrder::Release { id } => ("release", id),
        };
        let by = orderer();
        self.agent.order(&format!("/v1/volumes/{id}/{word}"), &Order { by: by.clone(), file: None }).await?;
        println!("{word} of volume {id} is recorded on the word of {by}");
        Ok(())
    }
}

/// The volumes as a table.
pub fn table(volumes: &[VolumeView]) -> String {
    if volumes.is_empty() {
        return "no volumes".to_owned();
    }
    let mut table = columns(&["VOLUME", "NAME", "POOL", "SIZE", "AS", "PHASE", "WIPE", "DETAIL"]);
    for v in volumes {
        table.add_row([
            v.id.to_string(),
            v.name.clone(),
            v.pool.to_string(),
            Bytes(v.bytes).to_string(),
            v.mode.to_string(),
            v.phase.clone(),
            v.progress.map(progress).unwrap_or_default(),
            match (&v.staged, v.receipt) {
                (Some(path), _) => format!("staged at {path}"),
                (None, Some(number)) => format!("receipt {number}"),
                (None, None) => v.detail.clone(),
            },
        ]);
    }
    table.to_string()
}

fn progress(progress: Progress) -> String {
    let verb = match progress.stage {
        Stage::Canaries => "canaries",
        Stage::Wiping => "wiping",
        Stage::Verifying => "verifying",
    };
    format!("{verb} {} %", progress.done.saturating_mul(100) / progress.total.max(1))
}

/// Pools on this node.
#[derive(Debug, Args)]
pub struct PoolsArgs {
    #[command(subcommand)]
    order: Option<PoolOrder>,
    /// How to print.
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    agent: Agent,
}

#[derive(Debug, Subcommand)]
enum PoolOrder {
    /// Take on a found file as a retained volume, bytes and all.
    Adopt {
        /// Which pool.
        pool: PoolName,
        /// Which file, as `bedplate pools` lists it.
        file: String,
    },
}

impl PoolsArgs {
    /// Do it.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.order {
            None => {
                let pools: Vec<PoolView> = self.agent.get("/v1/pools").await?;
                match self.output {
                    Output::Table => print(&pool_table(&pools))?,
                    Output::Json => print(&serde_json::to_string_pretty(&pools)?)?,
                }
            }
            Some(PoolOrder::Adopt { pool, file }) => {
                let by = orderer();
                let order = Order { by: by.clone(), file: Some(file.clone()) };
                let body = self.agent.order(&format!("/v1/pools/{pool}/adopt"), &order).await?;
                let id: VolumeId = serde_json::from_slice(&body)?;
                println!(
                    "{file} is now retained volume {id}, on the word of {by}; `bedplate volumes release {id}` wipes it"
                );
            }
        }
        Ok(())
    }
}

/// The pools as a table.
pub fn pool_table(pools: &[PoolView]) -> String {
    let mut table =
        columns(&["POOL", "ON", "DIRECTORY", "ALLOCATED", "WITHHELD", "FREE", "RESERVE", "WIPES TO", "STATE"]);
    for p in pools {
        let size = |bytes: u64| Cell::new(Bytes(bytes));
        table.add_row([
            Cell::new(&p.name),
            Cell::new(p.fs_type.as_deref().unwrap_or("-")),
            Cell::new(&p.directory),
            size(p.allocated),
            size(p.withheld),
            size(p.free),
            size(p.reserve),
            Cell::new(p.level.map_or("-", |level| level.name())),
            Cell::new(match (&p.absent, p.found.len()) {
                (Some(why), _) => format!("absent: {why}"),
                (None, 0) => "open".to_owned(),
                (None, n) => format!(
                    "open; {n} unknown file(s) withheld: {}",
                    p.found.iter().map(|f| f.file.as_str()).collect::<Vec<_>>().join(", ")
                ),
            }),
        ]);
    }
    table.to_string()
}

/// A table without lines, as wide as the terminal.
pub fn columns(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}
