//! `bedplate`: what a person asks of a node. One file a subcommand; this one only picks.

mod client;
mod demo;
mod disks;
mod output;
mod probe_progress;
mod ready;
mod receipts;
mod volumes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Hardware-aware local storage: see what the disks are, make volumes, prove that they were wiped.
#[derive(Debug, Parser)]
#[command(name = "bedplate", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell the whole story on this machine: disks, volumes, data, a wipe, the search after it, receipts (needs root)
    Demo(demo::DemoArgs),
    /// What runs in the demo's pods
    #[command(hide = true)]
    DemoWorkload(demo::WorkloadArgs),
    /// List this machine's disks: what they are, what is on them, whether they are free; measure them with --probe
    Disks(disks::DisksArgs),
    /// List the agent's pools, or take on a file found in one
    Pools(volumes::PoolsArgs),
    /// Ask the agent whether it serves; the exit code is the answer
    Ready(ready::ReadyArgs),
    /// List the agent's receipts of finished wipes, or verify their chain
    Receipts(receipts::ReceiptsArgs),
    /// List the agent's volumes, or give an order that only a person may give
    Volumes(volumes::VolumesArgs),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let done = match Cli::parse().command {
        Command::Demo(args) => return args.run().await,
        Command::DemoWorkload(args) => args.run().await,
        Command::Disks(args) => args.run().await,
        Command::Pools(args) => args.run().await,
        Command::Ready(args) => args.run().await,
        Command::Receipts(args) => args.run(),
        Command::Volumes(args) => args.run().await,
    };
    done.map(|()| ExitCode::SUCCESS)
}
