//! Runs containers as plain processes of this machine, each the leader of a process group of its own.
//!
//! It outlives kubelets. Whatever still runs when it is dropped is killed. Only groups it started are ever signalled.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::watch;

/// What a container is to run.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// How a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// With this code; 128 + the signal where one ended it, as container runtimes say it.
    Exited(i32),
}

#[derive(Debug)]
struct Container {
    group: Pid,
    state: watch::Receiver<State>,
    starts: i32,
}

/// The containers of one or more kubelets, by pod uid.
#[derive(Debug, Default)]
pub struct Runtime {
    containers: Arc<Mutex<HashMap<String, Container>>>,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for container in self.containers.lock().values() {
            container.signal(Signal::SIGKILL);
        }
    }
}

impl Container {
    /// Nothing is signalled after its leader has been waited for: the number may be somebody else's.
    fn signal(&self, signal: Signal) {
        if *self.state.borrow() == State::Running {
            killpg(self.group, signal).ok();
        }
    }
}

impl Runtime {
    /// The process of a pod's container, while it runs.
    pub fn pid(&self, uid: &str) -> Option<i32> {
        let containers = self.containers.lock();
        let container = containers.get(uid).filter(|container| *container.state.borrow() == State::Running);
        container.map(|container| container.group.as_raw())
    }

    /// How a pod's container is, and how often it was started again; None where it never ran.
    pub(super) fn state(&self, uid: &str) -> Option<(State, i32)> {
        self.containers.lock().get(uid).map(|container| (*container.state.borrow(), container.starts - 1))
    }

    /// Pods that have a container, running or not.
    pub(super) fn pods(&self) -> Vec<String> {
        self.containers.lock().keys().cloned().collect()
    }

    /// Starts a pod's container; its output goes to `log`.
    pub(super) fn run(&self, uid: &str, program: &Program, log: &Path) -> io::Result<()> {
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let output = File::options().create(true).append(true).open(log)?;
        let (name, arguments) = program.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(name)
            .args(arguments)
            .envs(program.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).ok_or(io::ErrorKind::NotFound)?;
        let (tell, state) = watch::channel(State::Running);
        let mut containers = self.containers.lock();
        let starts = containers.get(uid).map_or(1, |container| container.starts + 1);
        containers.insert(uid.to_owned(), Container { group: Pid::from_raw(id), state, starts });
        tokio::spawn(async move {
            let status = child.wait().await;
            let code = status.map_or(-1, |status| {
                use std::os::unix::process::ExitStatusExt;
                status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
            });
            tell.send_replace(State::Exited(code));
        });
        Ok(())
    }

    /// Ends a pod's container: asks, and after `grace` kills. It has ended, and is forgotten, on return.
    pub(super) async fn stop(&self, uid: &str, grace: Duration) {
        let state = self.containers.lock().get(uid).map(|container| container.state.clone());
        if let Some(mut state) = state {
            for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_mins(1))] {
                if let Some(container) = self.containers.lock().get(uid) {
                    container.signal(signal);
                }
                let ended = state.wait_for(|state| *state != State::Running);
                if tokio::time::timeout(patience, ended).await.is_ok() {
                    break;
                }
            }
        }
        self.containers.lock().remove(uid);
    }
}
