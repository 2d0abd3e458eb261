//! An engine on a filesystem of the test's own: made, restarted, "rebooted", its volumes used as a tenant uses them.
//!
//! Everything that a volume needs (mounts, loop devices) is undone when the [`Node`] is dropped, also on panic, and only
//! where it lies on this test's own filesystem.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bedplate_blockdev::{Host, LinuxHost, LoopDevice};
use bedplate_core::bytes::{Bytes, MIB};
use bedplate_core::class::Class;
use bedplate_core::filesystem::FsType;
use bedplate_core::ids::VolumeId;
use bedplate_core::receipt::{DiskName, Receipt};
use bedplate_core::volume::{Mode, ReleaseKind};
use bedplate_core::wipe::{Geometry, Level};
use bedplate_provisioner::config::{EngineConfig, PoolConfig};
use bedplate_provisioner::engine::{CreateVolume, Driven, Engine, OpenError, Stop};
use bedplate_provisioner::pool::SUFFIX;
use bedplate_provisioner::queue::{Throttle, WipeQueue};
use bedplate_provisioner::receipts::{RECEIPTS, parse};
use bedplate_provisioner::surroundings::{RealSurroundings, Surroundings};
use jiff::Timestamp;
use tempfile::TempDir;

use crate::loopfs::{HostFs, Recipe, real_dir, run};
use crate::oracle::Oracle;

/// The name of the one pool.
pub const POOL: &str = "local";

/// The real surroundings in a boot of the test's choice.
struct Boot {
    real: RealSurroundings,
    boot: String,
}

impl Surroundings for Boot {
    fn now(&self) -> Timestamp {
        self.real.now()
    }

    fn random(&self) -> [u8; 32] {
        self.real.random()
    }

    fn boot(&self) -> String {
        self.boot.clone()
    }

    fn disk(&self, device: Option<(u32, u32)>) -> DiskName {
        self.real.disk(device)
    }
}

/// A node with one `image` pool on a filesystem of its own.
pub struct Node {
    /// What its engine is told; tests may change it before they open.
    pub config: EngineConfig,
    /// In which boot it is.
    pub boot: String,
    /// What it finds again on the raw disk.
    pub oracle: Oracle,
    /// The filesystem beneath.
    pub fs: HostFs,
    // Dropped after the filesystem is unmounted.
    place: TempDir,
}

impl Node {
    /// On `fs` of `mib` MiB.
    pub fn new(fs: &'static str, mib: u64) -> Result<Self> {
        Self::on(Recipe::new(fs, mib * MIB))
    }

    /// On a filesystem made as `recipe` says.
    pub fn on(recipe: Recipe) -> Result<Self> {
        let fs = HostFs::make(recipe)?;
        let directory = fs.pool("pool")?;
        let place = real_dir()?;
        let config = settings(&place.path().join("state"), &directory)?;
        Ok(Self { config, boot: "first boot".to_owned(), oracle: Oracle::new(), fs, place })
    }

    /// The pool's directory.
    pub fn directory(&self) -> &Path {
        &self.config.pools[0].directory
    }

    /// Where ledger and receipts lie.
    pub fn state(&self) -> &Path {
        &self.config.state_dir
    }

    /// A folder of this test, on the real disk.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// Opens the engine, as an agent does at its start.
    ///
    /// # Errors
    /// What the engine says.
    pub fn try_open(&self) -> Result<Arc<Engine>, OpenError> {
        open(&self.config, &self.boot)
    }

    /// Opens the engine, which must work.
    pub fn open(&self) -> Result<Arc<Engine>> {
        self.try_open().context("the engine does not open")
    }

    /// What a power cycle leaves: no mounts, no loop devices, another boot id. The engine must be gone.
    pub fn reboot(&mut self) -> Result<()> {
        self.forget_devices()?;
        self.boot = format!("boot after {}", self.boot);
        Ok(())
    }

    /// Loop devices on files of this node's pool, whoever attached them.
    pub fn loops(&self) -> Vec<PathBuf> {
        loops_below(self.fs.path())
    }

    /// Names in the pool's directory that look like volumes.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.directory())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(SUFFIX) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Path of the one backing file in the pool.
    pub fn only_file(&self) -> Result<PathBuf> {
        let files = self.files()?;
        ensure!(files.len() == 1, "not one backing file but {files:?}");
        Ok(self.directory().join(&files[0]))
    }

    /// Every receipt in the log.
    pub fn receipts(&self) -> Result<Vec<Receipt>> {
        match std::fs::read(self.state().join(RECEIPTS)) {
            Ok(bytes) => Ok(parse(&bytes)?.0),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e.into()),
        }
    }

    /// How many blocks of volume `number` lie anywhere on the disk beneath the pool.
    pub fn on_disk(&self, number: u32) -> Result<usize> {
        Ok(self.oracle.search(&self.fs.disk())?.get(&number).copied().unwrap_or_default())
    }

    /// Stages the volume and mounts it, as a front end does.
    pub fn mount(&self, engine: &Engine, id: &VolumeId) -> Result<Mounted> {
        let target = self.place().join(format!("mnt-{id}"));
        std::fs::create_dir_all(&target)?;
        let device = engine.stage(id, &target.display().to_string())?;
        Mounted::new(device, target)
    }

    /// One tenancy: stages, mounts, writes `blocks` blocks of volume `number` into a file, unmounts, unstages.
    pub fn tenancy(&self, engine: &Engine, id: &VolumeId, number: u32, blocks: usize) -> Result<()> {
        let mounted = self.mount(engine, id)?;
        self.oracle.write_file(&mounted.path().join(format!("data-{number}")), number, blocks)?;
        mounted.unmount()?;
        Ok(engine.unstage(id)?)
    }

    fn forget_devices(&self) -> Result<()> {
        for device in self.loops() {
            for target in mounts_of(&device) {
                run("umount", &[target])?;
            }
            run("losetup", &[Path::new("--detach"), &device])?;
            ensure!(wait(Duration::from_secs(5), || (!self.loops().contains(&device)).then_some(())).is_some());
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Reached with devices only when a test has failed; what it mounted elsewhere is gone before, or goes lazily.
        if let Err(error) = self.forget_devices() {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// A mounted volume; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    device: LoopDevice,
    target: Option<PathBuf>,
}

impl Mounted {
    /// Mounts a staged device, whatever filesystem it carries.
    pub fn new(device: LoopDevice, target: PathBuf) -> Result<Self> {
        run("mount", &[&device.path, &target])?;
        Ok(Self { device, target: Some(target) })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        self.target.as_deref().unwrap_or(Path::new("/nonexistent"))
    }

    /// The device.
    pub fn device(&self) -> &Path {
        &self.device.path
    }

    /// Unmounts it.
    pub fn unmount(mut self) -> Result<()> {
        self.leave(&[])
    }

    /// Unmounts it lazily: who has a file open keeps it.
    pub fn unmount_lazily(mut self) -> Result<()> {
        self.leave(&["--lazy"])
    }

    fn leave(&mut self, flags: &[&str]) -> Result<()> {
        let Some(target) = self.target.take() else { return Ok(()) };
        let target = target.display().to_string();
        run("umount", &[flags, &[target.as_str()]].concat())?;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.leave(&["--lazy"]) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// Settings with one pool without a host reserve, and wipes in chunks of 1 MiB. Makes the state directory.
pub fn settings(state: &Path, directory: &Path) -> Result<EngineConfig> {
    std::fs::create_dir_all(state)?;
    let mut pool = PoolConfig::new(POOL.parse()?, directory.to_owned());
    pool.reserve = Bytes(0);
    Ok(EngineConfig {
        node: "node-1".parse()?,
        state_dir: state.to_owned(),
        pools: vec![pool],
        geometry: Geometry { chunk: MIB, ..Geometry::default() },
        agent_version: "test".to_owned(),
    })
}

/// Opens an engine on this machine.
///
/// # Errors
/// What the engine says.
pub fn open(config: &EngineConfig, boot: &str) -> Result<Arc<Engine>, OpenError> {
    open_on(Arc::new(LinuxHost::default()), config, boot)
}

/// Opens an engine on a machine of the test's choice.
///
/// # Errors
/// What the engine says.
pub fn open_on(host: Arc<dyn Host>, config: &EngineConfig, boot: &str) -> Result<Arc<Engine>, OpenError> {
    // A machine without /proc has no tests either.
    let real = RealSurroundings::new().unwrap_or_default();
    let boot = Boot { real, boot: boot.to_owned() };
    Engine::open(host, Arc::new(boot), config.clone()).map(Arc::new)
}

/// A wish for `mib` MiB under `name`.
pub fn want(name: &str, mib: u64, mode: Mode) -> CreateVolume {
    CreateVolume {
        name: name.to_owned(),
        required: mib * MIB,
        limit: 0,
        mode,
        class: Class::default(),
        parameters: BTreeMap::new(),
        origin: None,
    }
}

/// A wish for `mib` MiB of ext4.
pub fn want_ext4(name: &str, mib: u64) -> CreateVolume {
    want(name, mib, Mode::Filesystem(FsType::Ext4))
}

/// The same from a class that demands `level`.
pub fn demanding(level: Level, wish: CreateVolume) -> CreateVolume {
    CreateVolume { class: Class { wipe: Some(level), ..wish.class }, ..wish }
}

/// Releases a volume on the word of a test.
pub fn release(engine: &Engine, id: &VolumeId) -> Result<()> {
    Ok(engine.release(id, ReleaseKind::Deleted, "test")?)
}

/// Drives a wipe as far as it goes.
pub fn drive(engine: &Engine, id: &VolumeId) -> Result<Driven> {
    Ok(engine.drive(id, &Stop::default(), &|| ())?)
}

/// Releases a volume and drives it to its end, which must be Freed.
pub fn wipe(engine: &Engine, id: &VolumeId) -> Result<()> {
    release(engine, id)?;
    match drive(engine, id)? {
        Driven::Freed => Ok(()),
        other => bail!("the wipe of {id} did not end in Freed but in {other:?}"),
    }
}

/// A running wipe queue that nobody throttles.
pub fn queue(engine: &Arc<Engine>) -> Result<WipeQueue> {
    let throttle: Throttle = Arc::new(|_| ());
    Ok(WipeQueue::start(engine, &throttle)?)
}

/// The phase of a volume, as people see it.
pub fn phase(engine: &Engine, id: &VolumeId) -> String {
    engine.volume(id).map_or_else(|| "none".to_owned(), |v| v.phase)
}

/// Looks until `seen` finds something or `longest` has passed.
pub fn wait<T>(longest: Duration, mut seen: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + longest;
    loop {
        if let Some(found) = seen() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        // Nothing to be woken by: the kernel lets go of devices without a word.
        let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(5u16));
    }
}

/// Loop devices whose backing file lies below `folder`.
pub fn loops_below(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            Path::new(backing.trim_end()).starts_with(folder)
        })
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect();
    found.sort();
    found
}

/// Where a device is mounted in this mount namespace.
pub fn mounts_of(device: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let device = device.display().to_string();
    let mut words = mounts.lines().map(|line| line.split(' '));
    let mut found = Vec::new();
    for line in words.by_ref() {
        let fields: Vec<&str> = line.collect();
        if fields.first() == Some(&device.as_str()) {
            found.extend(fields.get(1).map(|target| (*target).to_owned()));
        }
    }
    found
}

/// What is mounted below a folder in this mount namespace.
pub fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    targets.filter(|target| Path::new(target).starts_with(folder)).map(str::to_owned).collect()
}
