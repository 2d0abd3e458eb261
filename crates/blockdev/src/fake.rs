//! A machine in memory that fails, lies or loses power at call n, always in the same way for the same script.
//!
//! [`FakeHost`] implements [`crate::Host`] on a medium of blocks with a small filesystem on it. Every trait call is one
//! numbered [`Step`]. What no sync has covered may or may not survive a power cut: [`FakeHost::outcomes`] lists what is
//! allowed, [`FakeHost::after_power_loss`] makes it so. Tenants, other programs on the host and the oracle that looks at
//! the raw medium act from outside and are no steps.

mod device;
mod disk;
mod effect;
mod host;
mod machine;
mod oracle;
mod outside;
mod power;
mod rng;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use effect::{Breadth, Fate, Outcome};
pub use script::{DeviceFault, Done, Script};
use uuid::Uuid;

use self::disk::Disk;
use self::machine::{FakeDir, Machine, Verdict};
use crate::HostError;

/// Geometry of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a block: alignment, grain of allocation and grain of tearing (512 or 4096).
    pub block: usize,
    /// Blocks of the medium.
    pub blocks: u64,
    /// Filesystem of every directory, as the kernel calls it.
    pub fs_type: String,
    /// Directories that exist from the start.
    pub dirs: Vec<PathBuf>,
}

impl Default for Config {
    /// 4 KiB × 128 on ext4, with `/state` and `/pool`.
    fn default() -> Self {
        Self { block: 4096, blocks: 128, fs_type: "ext4".to_owned(), dirs: vec!["/state".into(), "/pool".into()] }
    }
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number in this life of the process, from 1.
    pub number: u64,
    /// The trait method, for devices with `device.` before it.
    pub op: &'static str,
    /// On what.
    pub object: String,
}

/// One `mkfs` that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MkfsRun {
    /// Inode of the backing file.
    pub inode: u64,
    /// The filesystem's UUID.
    pub uuid: Uuid,
    /// What was on the device before.
    pub found: Option<String>,
}

/// A process's view of the machine; clones are the same process.
#[derive(Clone)]
pub struct FakeHost {
    shared: Arc<Mutex<Machine>>,
    process: u32,
}

fn share(machine: Machine) -> Arc<Mutex<Machine>> {
    Arc::new(Mutex::new(machine))
}

impl FakeHost {
    /// A new machine with a medium of zeroes.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let disk = Disk::blank(config.block, config.blocks);
        let mut machine = Machine {
            powered: true,
            alive: BTreeSet::new(),
            next_process: 100,
            live: disk.clone(),
            durable: disk,
            waiting: Vec::new(),
            dirs: Vec::new(),
            paths: BTreeMap::new(),
            loops: BTreeMap::new(),
            next_loop: 0,
            next_ino: 12,
            locks: BTreeMap::new(),
            handles: BTreeMap::new(),
            next_handle: 1,
            file_holders: Vec::new(),
            steps: 0,
            trace: Vec::new(),
            script: Script::new(),
            faults: Vec::new(),
            pretended: BTreeSet::new(),
            mkfs_runs: Vec::new(),
            config,
        };
        for path in machine.config.dirs.clone() {
            machine.add_dir(&path, 1);
        }
        let process = machine.spawn();
        Self { shared: share(machine), process }
    }

    /// What is to go wrong from the next call on. Counts steps from the start of this life.
    pub fn set_script(&self, script: Script) {
        self.machine().script = script;
    }

    /// The hardware begins to do this wrong.
    pub fn afflict(&self, fault: DeviceFault) {
        let mut machine = self.machine();
        let medium = machine.live.medium.clone();
        machine.faults.push((fault, medium));
    }

    /// The hardware works again.
    pub fn heal(&self) {
        self.machine().faults.clear();
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step: counted, recorded, cut short where the script says so.
    fn step<T>(
        &self,
        op: &'static str,
        object: &str,
        act: impl FnOnce(&mut Machine, Done) -> Result<T, HostError>,
    ) -> Result<T, HostError> {
        let mut machine = self.machine();
        match machine.next_step(self.process, op, object) {
            Verdict::Go => act(&mut machine, Done::Whole),
            Verdict::Fail(error) => Err(HostError::failed(op, object, error)),
            Verdict::FailAfter(done, error) => {
                // The caller hears only that the call failed, whatever came of it.
                drop(act(&mut machine, done));
                Err(HostError::failed(op, object, error))
            }
        }
    }
}

impl Machine {
    fn add_dir(&mut self, path: &Path, filesystem: u128) -> u64 {
        let handle = self.dirs.len() as u64;
        self.dirs.push(FakeDir {
            path: path.to_owned(),
            fs_type: self.config.fs_type.clone(),
            fs_uuid: Some(Uuid::from_u128(filesystem)),
            options: vec!["rw".to_owned(), "relatime".to_owned()],
            read_only: false,
        });
        self.paths.insert(path.to_owned(), handle);
        handle
    }
}

#[cfg(test)]
mod tests;
