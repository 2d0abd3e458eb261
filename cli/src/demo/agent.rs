//! The agent as a child: its file, its start, its end.
//!
//! The real binary with the real file format, in a private folder. Its standard output is a pipe that it never writes
//! to: the pipe's end is how its end is noticed without waiting on the clock.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::NotDone;
use super::interrupt::Interrupt;
use super::workshop::Workshop;
use crate::client::Agent;

/// The configuration's file name.
pub(super) const CONFIG: &str = "agent.toml";
/// Where its process id is noted, for a later run to find should this one be killed.
pub(super) const PID: &str = "agent.pid";
/// How long it may take to answer.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end: it finishes calls under way.
const END: Duration = Duration::from_secs(25);

/// The same after Ctrl-C: nothing of this run is kept, so nothing is lost with a call that is cut off.
const HURRY: Duration = Duration::from_secs(2);

/// A running agent.
pub struct AgentProcess {
    child: Child,
    log: PathBuf,
    /// Where it answers people.
    pub admin: Agent,
    /// Where it serves CSI.
    pub csi: PathBuf,
    /// Where its ledger and receipts lie.
    pub state: PathBuf,
}

/// The agent's binary: as told, else beside this one.
pub fn binary(told: Option<&Path>) -> anyhow::Result<PathBuf> {
    let path = match told {
        Some(path) => path.to_owned(),
        None => {
            std::env::current_exe().context("cannot find out where this program lies")?.with_file_name("bedplate-agent")
        }
    };
    if !path.is_file() {
        let way_out = "build it (`cargo build --release -p bedplate-agent`) or name it with --agent";
        bail!(NotDone(format!("there is no agent at {}; {way_out}", path.display())));
    }
    Ok(path)
}

/// The agent's configuration file.
pub fn config(workshop: &Workshop) -> anyhow::Result<String> {
    let text =
        |path: PathBuf| path.to_str().map(str::to_owned).with_context(|| format!("{} is not Unicode", path.display()));
    let mut wipe = toml::Table::new();
    // A demonstration does not give way to its neighbours; an agent in service does.
    wipe.insert("pause_above_io_pressure_percent".into(), 100.into());
    let mut pool = toml::Table::new();
    pool.insert("name".into(), "demo".into());
    pool.insert("directory".into(), text(workshop.pool().to_owned())?.into());
    pool.insert("reserve".into(), "64Mi".into());
    let mut file = toml::Table::new();
    file.insert("node".into(), "this-machine".into());
    file.insert("state_dir".into(), text(workshop.path().join("state"))?.into());
    file.insert("csi_socket".into(), text(workshop.sockets().join("csi.sock"))?.into());
    file.insert("admin_socket".into(), text(workshop.sockets().join("admin.sock"))?.into());
    file.insert("wipe".into(), wipe.into());
    file.insert("pool".into(), toml::Value::Array(vec![pool.into()]));
    Ok(toml::to_string(&file)?)
}

impl AgentProcess {
    /// Start it in the workshop, without waiting for it.
    pub fn start(binary: &Path, workshop: &Workshop) -> anyhow::Result<Self> {
        let (file, log) = (workshop.path().join(CONFIG), workshop.path().join("agent.log"));
        std::fs::write(&file, config(workshop)?)?;
        let child = Command::new(binary)
            .arg("--standalone")
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            // Ctrl-C is ours to hear first: the agent must serve until its volumes are unmounted.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        let agent = Self {
            log,
            admin: Agent { socket: workshop.sockets().join("admin.sock") },
            csi: workshop.sockets().join("csi.sock"),
            state: workshop.path().join("state"),
            child,
        };
        std::fs::write(workshop.path().join(PID), agent.child.id().to_string())?;
        Ok(agent)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Wait until it says that it serves.
    pub async fn ready(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            interrupt.unless(tick.tick()).await?;
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended ({status}) before it served:\n{}", self.last_words());
            }
            match self.admin.ready().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let seconds = START.as_secs();
                    return Err(error)
                        .context(format!("the agent does not serve after {seconds} s:\n{}", self.last_words()));
                }
                Err(_) => {}
            }
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Ask it to end and wait for that. One that takes too long is killed, which is an error unless there is a hurry.
    pub fn stop(&mut self, hurry: bool) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let ended = match self.child.stdout.as_mut() {
            Some(pipe) => ends_within(pipe, if hurry { HURRY } else { END })?,
            None => true,
        };
        if !ended {
            self.child.kill()?;
            self.child.wait()?;
            if hurry {
                return Ok(());
            }
            bail!(
                "the agent did not end within {} s and was killed; its last words:\n{}",
                END.as_secs(),
                self.last_words()
            );
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the agent ended with {status}; its last words:\n{}", self.last_words());
        }
        Ok(())
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        if let Err(error) = self.stop(true) {
            eprintln!("{error:#}");
        }
    }
}

/// Whether the pipe's other end is closed before the time is over.
fn ends_within(pipe: &mut (impl Read + AsFd), time: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + time;
    let mut buffer = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        if pipe.read(&mut buffer)? == 0 {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_pipe_is_noticed_and_a_living_one_is_not_taken_for_ended() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut reader = reader;
        assert!(!ends_within(&mut reader, Duration::from_millis(20)).unwrap());
        drop(writer);
        assert!(ends_within(&mut reader, Duration::from_secs(20)).unwrap());
    }

    #[test]
    fn an_agent_that_is_not_there_is_a_demo_not_done() {
        let error = binary(Some(Path::new("/nonexistent/agent"))).unwrap_err();
        assert!(error.is::<NotDone>() && error.to_string().contains("--agent"), "{error}");
    }
}
