//! `bedplate-extender`: flags, logging, signals; everything else is in the library.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum_server::Handle;
use bedplate_extender::config::Args;
use bedplate_extender::fetch::Fetcher;
use bedplate_extender::{Config, Index, Judge, Metrics, feed, serve, wake};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bedplate-extender: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: &Args) -> anyhow::Result<()> {
    bedplate_edge::logging::begin(&args.log, args.log_json)?;
    let client = bedplate_edge::client::connect(args.kubeconfig.as_deref()).await?;
    let index = Index::new();
    let metrics = Arc::new(Metrics::new()?);
    let judge =
        Arc::new(Judge { index: index.clone(), fetcher: Fetcher::new(Some(client.clone())), metrics: metrics.clone() });
    let listener =
        TcpListener::bind(args.listen).with_context(|| format!("--listen {} cannot be bound", args.listen))?;
    tracing::info!(address = %listener.local_addr()?, tls = args.tls_cert.is_some(), "listening");
    let mut watches = feed::begin(&client, &index);
    let namespace = args.namespace.clone();
    watches.spawn(async move { wake::run(client, &namespace, index, metrics).await });
    let handle = Handle::new();
    let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?;
    let stop = handle.clone();
    watches.spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.graceful_shutdown(Some(Duration::from_secs(1)));
    });
    serve(listener, judge, Config::from(args), handle).await.context("serving ended")
}
