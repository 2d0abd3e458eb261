//! Bedplate's own programs as children of a test: started, killed as nobody can prevent, started again with the same words.
//!
//! Each has one log for all its lives; what it said last is printed when a story fails. Ended by its own process id only.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::wait;
use crate::programs::program;

/// How long a program may take to answer, or to end when asked.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of a log that are shown.
const LAST_WORDS: usize = 80;

/// How a program says that it serves.
#[derive(Clone, Debug)]
pub enum Readiness {
    /// `GET /readyz` on its admin socket.
    Socket(PathBuf),
    /// `GET` of this path on its port.
    Port(SocketAddr, &'static str),
}

/// A program, running or not.
#[derive(Debug)]
pub struct Program {
    title: String,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    readiness: Readiness,
    child: Option<Child>,
}

impl Program {
    /// The workspace's program `binary`, not yet started; its log goes into `folder` under `title`.
    pub fn new(title: &str, binary: &str, folder: &Path, arguments: Vec<String>, readiness: Readiness) -> Result<Self> {
        let log = folder.join(format!("{title}.log"));
        Ok(Self { title: title.to_owned(), binary: program(binary)?, arguments, log, readiness, child: None })
    }

    /// Starts it, without waiting for it.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.title);
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        writeln!(log, "--- a life begins: {} {}", self.binary.display(), self.arguments.join(" "))?;
        let mut command = Command::new(&self.binary);
        // Nothing in the environment may point at another cluster.
        command.env_remove("KUBECONFIG").args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}", self.title))?);
        Ok(())
    }

    /// Waits until it says that it serves.
    pub async fn ready(&mut self) -> Result<()> {
        let readiness = self.readiness.clone();
        let pid = self.pid().with_context(|| format!("{} was not started", self.title))?;
        let ready = tokio::task::spawn_blocking(move || {
            wait(PATIENCE, || (!lives(pid) || answers(&readiness).is_ok_and(|ok| ok)).then_some(()))
        });
        let ready = ready.await?;
        let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if ended.is_some() || ready.is_none() {
            bail!("{} did not get ready (ended: {ended:?}); its log ends with\n{}", self.title, self.last_words());
        }
        Ok(())
    }

    /// Starts it and waits until it serves.
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        self.ready().await
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it as nobody can prevent, and waits until it is gone. Nothing to do for one that does not run.
    pub fn kill_nine(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it where it stands, with everything it believes, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.title))?;
        kill(Pid::from_raw(i32::try_from(pid)?), if frozen { Signal::SIGSTOP } else { Signal::SIGCONT })?;
        Ok(())
    }

    /// Asks it to end, and waits until it has, with success.
    pub async fn terminate(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let ended = tokio::task::spawn_blocking(move || {
            let ended = wait(PATIENCE, || child.try_wait().ok().flatten());
            if ended.is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
            ended
        });
        let title = &self.title;
        let ended = ended.await?.with_context(|| format!("{title} does not end:\n{}", self.last_words()))?;
        ensure!(ended.success(), "{title} ended with {ended}; its log ends with\n{}", self.last_words());
        Ok(())
    }

    /// What it is called in logs and failures.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Adds to what it is told at its next start.
    pub fn argue(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(|word| (*word).to_owned()));
    }

    /// What all its lives have logged.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.kill_nine() {
            eprintln!("left behind: {}: {error:#}", self.title);
        }
    }
}

/// Whether a child that nobody waited for yet still runs: neither gone nor a zombie.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// A loopback address that nobody has at the moment.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn answers(readiness: &Readiness) -> Result<bool> {
    let short = Some(Duration::from_secs(2));
    Ok(match readiness {
        Readiness::Socket(path) => {
            let stream = std::os::unix::net::UnixStream::connect(path)?;
            stream.set_read_timeout(short)?;
            get(stream, "/readyz")?
        }
        Readiness::Port(address, path) => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(short)?;
            get(stream, path)?
        }
    })
}

fn get(mut stream: impl Read + Write, path: &str) -> Result<bool> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
