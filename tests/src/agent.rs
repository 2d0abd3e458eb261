//! The agent's own program, as a service manager runs it: started on a configuration, killed, started again.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::wait;
use crate::programs::program;

/// How long an agent may take to answer on both sockets, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// An agent's files: configuration, sockets, log, in one folder.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
    state: PathBuf,
}

impl Place {
    /// In `folder`, with its ledger in `state`.
    pub fn new(folder: &Path, state: &Path) -> Self {
        Self { folder: folder.to_owned(), state: state.to_owned() }
    }

    /// Where CSI is served.
    pub fn csi(&self) -> PathBuf {
        self.folder.join("csi.sock")
    }

    /// Where the command line asks.
    pub fn admin(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// Where its ledger and receipts lie.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What all its lives have logged.
    pub fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// A configuration with one pool: no reserve, wipes in chunks of 1 MiB that pause for nobody. `more` is added to it.
    pub fn config(&self, directory: &Path, more: &str) -> String {
        format!(
            "node = \"node-1\"\nstate_dir = \"{}\"\ncsi_socket = \"{}\"\nadmin_socket = \"{}\"\n\n[wipe]\n\
             chunk = \"1Mi\"\npause_above_io_pressure_percent = 100\n\n[[pool]]\nname = \"local\"\n\
             directory = \"{}\"\nreserve = \"0\"\n{more}",
            self.state.display(),
            self.csi().display(),
            self.admin().display(),
            directory.display()
        )
    }

    /// Writes a configuration and says where.
    pub fn write(&self, config: &str) -> Result<PathBuf> {
        let path = self.folder.join("agent.toml");
        std::fs::write(&path, config)?;
        Ok(path)
    }
}

/// A running agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    place: Place,
}

impl Agent {
    /// Starts one and waits until both sockets answer.
    pub fn start(place: &Place, config: &Path) -> Result<Self> {
        Self::launch(place, &["--standalone".as_ref(), "--config".as_ref(), config.as_os_str()])
    }

    /// Starts one with these arguments and waits until it serves.
    pub fn launch(place: &Place, arguments: &[&OsStr]) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(place.log())?;
        let mut command = Command::new(program("bedplate-agent")?);
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut agent = Self { child: command.spawn().context("cannot start the agent")?, place: place.clone() };
        let mut ended = None;
        let ready = wait(PATIENCE, || {
            ended = agent.child.try_wait().ok().flatten();
            (ended.is_some() || is_ready(&place.admin())).then_some(())
        });
        if ended.is_some() || ready.is_none() {
            bail!("the agent did not get ready (ended: {ended:?}); its log ends with\n{}", agent.last_words());
        }
        Ok(agent)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as nobody can prevent, and waits until it is gone.
    pub fn kill_nine(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let ended = wait(PATIENCE, || self.child.try_wait().ok().flatten());
        ended.with_context(|| format!("the agent does not end; its log ends with\n{}", self.last_words()))
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.place.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the agent behind an admin socket says that it serves.
fn is_ready(socket: &Path) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// Starts an agent that is expected to refuse, waits until it has ended, and gives what it said on both channels.
pub fn refusal(arguments: &[&str]) -> Result<(ExitStatus, String)> {
    let mut said = tempfile::tempfile()?;
    let mut child = Command::new(program("bedplate-agent")?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .spawn()?;
    let status = wait(PATIENCE, || child.try_wait().ok().flatten());
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let mut text = String::new();
    std::io::Seek::rewind(&mut said)?;
    File::read_to_string(&mut said, &mut text)?;
    let status = status.with_context(|| format!("the agent did not refuse, it serves; it said\n{text}"))?;
    Ok((status, text))
}

/// Runs the command line's program to its end.
pub fn bedplate<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Result<Output> {
    Command::new(program("bedplate")?).args(arguments).stdin(Stdio::null()).output().context("cannot start bedplate")
}

/// The same, where it must succeed; its output.
pub fn bedplate_ok<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Result<String> {
    let out = bedplate(arguments)?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.success(), "bedplate: {}\n{said}{}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(said)
}
