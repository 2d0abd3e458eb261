//! What runs in the demo's pods: a real process a container, that writes into its volume what the demo tells it to.
//!
//! The demo is the foreman: a process asks it over a Unix socket what to write, so that the markers' seed is in no object,
//! no file and no command line; it lives in these processes' memory alone. A process ends when it is told to or when the
//! foreman is gone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::interrupt::Interrupt;
use super::load::{self, Keeper};
use super::markers::Markers;

/// What a pod's process is told on its command line.
#[derive(Debug, Args)]
pub struct WorkloadArgs {
    /// Where the foreman listens
    #[arg(long)]
    foreman: PathBuf,
    /// The pod's name, which Kubernetes gives a container as its host's name
    #[arg(long, env = "HOSTNAME")]
    pod: String,
    /// Where its volume is mounted
    #[arg(long)]
    mount: PathBuf,
}

/// A process's first line.
#[derive(Serialize, Deserialize)]
struct Hello {
    pod: String,
}

/// The foreman's answer.
#[derive(Serialize, Deserialize)]
struct Order {
    volume: u32,
    markers: Markers,
}

/// A process's second and last line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Filled {
    /// Which pod.
    pub pod: String,
    /// Its process.
    pub process: u32,
    /// What kept the rows.
    pub keeper: Keeper,
    /// Why it could not, if it could not.
    pub error: Option<String>,
}

impl WorkloadArgs {
    /// Ask, write, say so, and stay until the end.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { foreman, pod, mount } = self;
        let interrupt = Interrupt::listen()?;
        let stream = UnixStream::connect(&foreman).await.context("there is no foreman")?;
        let mut stream = BufReader::new(stream);
        say(&mut stream, &Hello { pod: pod.clone() }).await?;
        let Order { volume, markers } = hear(&mut stream).await?;
        let (keeper, until) = (Keeper::here(), interrupt.clone());
        let filled = tokio::task::spawn_blocking(move || load::fill(&markers, volume, &mount, keeper, &until)).await?;
        let error = filled.err().map(|error| format!("{error:#}"));
        say(&mut stream, &Filled { pod, process: std::process::id(), keeper, error }).await?;
        // Nothing more is said: what comes is the foreman's end.
        let _ = interrupt.unless(hear::<Order>(&mut stream)).await;
        Ok(())
    }
}

/// Tells the pods' processes what to write. They end when it is dropped.
pub struct Foreman {
    filled: UnboundedReceiver<anyhow::Result<Filled>>,
    early: Vec<Filled>,
    _talks: JoinSet<()>,
}

impl Foreman {
    /// Listen; `volumes` says which volume is whose.
    pub fn listen(socket: &Path, markers: &Markers, volumes: HashMap<String, u32>) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
        let (tell, filled) = unbounded_channel();
        let (markers, mut talks) = (Arc::new(markers.clone()), JoinSet::new());
        talks.spawn(async move {
            // These end with this one.
            let mut calls = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                calls.spawn(talk(BufReader::new(stream), markers.clone(), volumes.clone(), tell.clone()));
            }
        });
        Ok(Self { filled, early: Vec::new(), _talks: talks })
    }

    /// Wait until a pod's process has written everything.
    pub async fn filled(&mut self, pod: &str, interrupt: &Interrupt) -> anyhow::Result<Filled> {
        loop {
            if let Some(index) = self.early.iter().position(|filled| filled.pod == pod) {
                return Ok(self.early.swap_remove(index));
            }
            let filled = interrupt.unless(self.filled.recv()).await?.context("the foreman has gone")??;
            if let Some(error) = &filled.error {
                bail!("pod {} could not write into its volume: {error}", filled.pod);
            }
            self.early.push(filled);
        }
    }
}

async fn talk(
    mut stream: BufReader<UnixStream>,
    markers: Arc<Markers>,
    volumes: HashMap<String, u32>,
    tell: UnboundedSender<anyhow::Result<Filled>>,
) {
    let told = async {
        let Hello { pod } = hear(&mut stream).await?;
        let volume = *volumes.get(&pod).with_context(|| format!("nobody expects pod {pod} to write"))?;
        say(&mut stream, &Order { volume, markers: (*markers).clone() }).await?;
        hear(&mut stream).await.with_context(|| format!("the process of pod {pod} ended while it wrote"))
    };
    let told = told.await;
    // The receiver is gone when the demo ends: then nobody asks.
    let _ = tell.send(told);
    // Until the process ends, or the demo.
    let _ = hear::<Hello>(&mut stream).await;
}

async fn say(stream: &mut BufReader<UnixStream>, what: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    Ok(stream.write_all(&line).await?)
}

async fn hear<T: DeserializeOwned>(stream: &mut BufReader<UnixStream>) -> anyhow::Result<T> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    serde_json::from_str(&line).context("the other side has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_writes_what_the_foreman_says_and_an_unexpected_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let interrupt = Interrupt::listen().unwrap();
        let markers = Markers::new([5; 32], 2, 16, 10);
        let volumes = HashMap::from([("one".to_owned(), 1)]);
        let mut foreman = Foreman::listen(&socket, &markers, volumes).unwrap();
        let mount = folder.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        let args = |pod: &str| WorkloadArgs { foreman: socket.clone(), pod: pod.to_owned(), mount: mount.clone() };
        let process = tokio::spawn(args("one").run());
        let filled = foreman.filled("one", &interrupt).await.unwrap();
        assert_eq!(filled.pod, "one");
        let first = std::fs::read(mount.join("shelf-0/blocks")).unwrap();
        assert!(first.starts_with(&markers.block(1, 0)));
        assert!(!process.is_finished());
        let other = tokio::spawn(args("other").run());
        let error = foreman.filled("other", &interrupt).await.unwrap_err();
        assert!(error.to_string().contains("nobody expects pod other"), "{error:#}");
        drop(foreman);
        process.await.unwrap().unwrap();
        assert!(other.await.unwrap().is_err(), "it was told nothing");
    }
}
