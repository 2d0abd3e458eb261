//! The demo's child processes: Bedplate's own programs, each with a log and a note of its process id in a run's folder.
//!
//! Their standard output is a pipe that they never write to: its end is how their end is noticed without waiting on the
//! clock. A run that was killed leaves the notes behind, and the next one ends what they name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::NotDone;
use super::interrupt::Interrupt;
use super::tools;

/// Where process ids are noted ends with this.
const PID: &str = "pid";
/// How long a program may take to answer.
const START: Duration = Duration::from_secs(20);
/// How long it may take to end: it finishes calls under way.
const END: Duration = Duration::from_secs(25);
/// The same after Ctrl-C: nothing of this run is kept, so nothing is lost with a call that is cut off.
const HURRY: Duration = Duration::from_secs(2);

/// Bedplate's programs, by the folder they lie in.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// In the folder that was named, else beside this one.
    pub fn find(told: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot find out where this program lies")?;
        let folder = told.or(own.parent()).unwrap_or(Path::new("/")).to_owned();
        let names = ["bedplate-agent", "bedplate-provisioner", "bedplate-extender"];
        if let Some(missing) = names.iter().map(|name| folder.join(name)).find(|path| !path.is_file()) {
            let packages = names.map(|name| format!("-p {name}")).join(" ");
            let way_out = format!("build it (`cargo build --release {packages}`) or name its folder with --programs");
            bail!(NotDone(format!("there is no {}; {way_out}", missing.display())));
        }
        Ok(Self(folder))
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A running program.
pub struct Program {
    /// Its name for people.
    title: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Start it, with its log and process id in `folder`, without waiting for it.
    pub fn start<S: AsRef<OsStr>>(binary: &Path, title: &str, folder: &Path, arguments: &[S]) -> anyhow::Result<Self> {
        let name = binary.file_name().unwrap_or_default().to_string_lossy();
        let log = folder.join(format!("{name}.log"));
        // A clean environment: nothing there may point at another cluster.
        let child = tools::command(binary)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            // Ctrl-C is ours to hear first: agents must serve until their volumes are unmounted.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        let program = Self { title: title.to_owned(), child, log };
        std::fs::write(folder.join(format!("{name}.{PID}")), program.child.id().to_string())?;
        Ok(program)
    }

    /// Its name for people.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Wait until `serves` holds. What it last said is the reason if it never does.
    pub async fn ready(
        &mut self,
        interrupt: &Interrupt,
        mut serves: impl AsyncFnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            interrupt.unless(tick.tick()).await?;
            self.alive()?;
            match serves().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let (seconds, words) = (START.as_secs(), self.last_words());
                    return Err(error).context(format!("{} does not serve after {seconds} s:\n{words}", self.title));
                }
                Err(_) => {}
            }
        }
    }

    /// Whether it still runs; else its last words.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}):\n{}", self.title, self.last_words());
        }
        Ok(())
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Ask it to end, without waiting for that.
    pub fn ask_to_end(&mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        }
        Ok(())
    }

    /// Ask it to end and wait for that. One that takes too long is killed, which is an error unless there is a hurry.
    pub fn stop(&mut self, hurry: bool) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.ask_to_end()?;
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
            let (title, seconds) = (&self.title, END.as_secs());
            bail!("{title} did not end within {seconds} s and was killed; its last words:\n{}", self.last_words());
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}; its last words:\n{}", self.title, self.last_words());
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.stop(true) {
            eprintln!("{error:#}");
        }
    }
}

/// End the programs of a run that was killed, if the processes noted are still those.
pub fn end_orphans(run: &Path) {
    for (note, pid) in notes(run) {
        let Some(name) = note.file_stem() else { continue };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0);
        let is_it = words.next().is_some_and(|program| Path::new(OsStr::from_bytes(program)).file_name() == Some(name));
        let in_run = line.windows(run.as_os_str().len()).any(|part| part == run.as_os_str().as_bytes());
        if is_it && in_run {
            // It holds mounts and devices only through the kernel: ended at once, nothing of it stays in the way.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The notes of process ids in a run's folder and in those of its nodes.
fn notes(run: &Path) -> Vec<(PathBuf, i32)> {
    let list = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let (mut files, folders): (Vec<_>, Vec<_>) = list(run).into_iter().partition(|path| !path.is_dir());
    files.extend(folders.iter().flat_map(|folder| list(folder)));
    files.retain(|path| path.extension() == Some(OsStr::new(PID)));
    let read = |path: PathBuf| {
        let pid = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        Some((path, pid))
    };
    files.into_iter().filter_map(read).collect()
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
    fn programs_that_are_not_there_are_a_demo_not_done() {
        let error = Programs::find(Some(Path::new("/nonexistent"))).unwrap_err();
        assert!(error.is::<NotDone>() && error.to_string().contains("--programs"), "{error}");
    }

    #[test]
    fn only_a_noted_process_that_is_still_that_program_is_ended() {
        let run = tempfile::tempdir().unwrap();
        let node = run.path().join("node");
        std::fs::create_dir(&node).unwrap();
        let sleep = tools::find("sleep").unwrap();
        let mut ours = Program::start(&sleep, "it", &node, &["60", "--help"]).unwrap();
        ours.child.wait().unwrap();
        let mut child = tools::command(&sleep).arg("60").spawn().unwrap();
        std::fs::write(node.join("sleep.pid"), child.id().to_string()).unwrap();
        assert_eq!(notes(run.path()), [(node.join("sleep.pid"), i32::try_from(child.id()).unwrap())]);
        end_orphans(run.path());
        assert!(child.try_wait().unwrap().is_none(), "its command line does not name the run");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
