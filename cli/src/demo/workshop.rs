//! The folder that one run works in, and everything made beneath it: taken away at the end, however the end comes.
//!
//! A run's folder is locked while it lives; one that is there without a lock was left by a run that was killed, and is
//! tidied first. Only what lies beneath such a folder is ever unmounted, detached or removed.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bedplate_core::bytes::{Bytes, MIB};
use nix::fcntl::{FallocateFlags, Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use super::NotDone;
use super::agent::AgentProcess;
use super::ground::{Fitness, Ground};
use super::tidy;
use super::tools::run;

/// Where else a run may work if the chosen folder is not on a disk.
const ELSEWHERE: [&str; 2] = ["/var/tmp", "/var/lib"];
/// Runs' folders begin with this.
const RUN: &str = "run-";
/// Held while a run lives.
const LOCK: &str = "lock";
/// The file with the run's own filesystem.
pub(super) const HOST_FILE: &str = "host.img";
/// Where that is mounted.
pub(super) const HOST_MOUNT: &str = "host";
/// What a filesystem keeps for itself.
const OVERHEAD: u64 = 320 * MIB;
/// A Unix socket's path must be shorter than this (`sun_path`, unix(7)).
const LONGEST_SOCKET: usize = 100;

/// Why and on what a run made a filesystem of its own.
pub struct OwnHost {
    /// Why.
    pub why: String,
    /// On what.
    pub outer: Ground,
    /// Whether its loop device passes the host's page cache by.
    pub direct: bool,
}

/// A run's folder.
pub struct Workshop {
    run: PathBuf,
    _lock: Flock<File>,
    sockets: Option<TempDir>,
    pool: PathBuf,
    ground: Ground,
    own_host: Option<OwnHost>,
    /// The agent, while it runs.
    pub agent: Option<AgentProcess>,
    tidied: bool,
}

impl Workshop {
    /// Make one for `need` bytes in the pool: in `chosen`, or where that is no place, elsewhere. What a killed run left
    /// behind goes first.
    pub fn open(chosen: &Path, may_move: bool, need: Bytes) -> anyhow::Result<Self> {
        std::fs::create_dir_all(chosen).with_context(|| format!("{} cannot be made", chosen.display()))?;
        let mut places = vec![chosen.canonicalize()?];
        if may_move {
            places.extend(ELSEWHERE.map(PathBuf::from));
        }
        let need = Bytes(need.get() + OVERHEAD);
        let (mut direct, mut indirect, mut refused) = (None, None, Vec::new());
        for place in places.into_iter().filter(|p| p.is_dir()) {
            let ground = Ground::beneath(&place)?;
            match ground.fitness(need) {
                Fitness::Pool => direct = direct.or(Some((place, ground, None))),
                Fitness::File(why) => indirect = indirect.or(Some((place, ground, Some(why)))),
                Fitness::No(why) => refused.push(why),
            }
        }
        let Some((place, ground, why)) = direct.or(indirect) else {
            let why = refused.join("; ");
            let way_out = "name a folder on a disk with enough room: --dir, or a smaller --size";
            bail!(NotDone(format!("there is no place to work: {why}; {way_out}")));
        };
        let place = if may_move && place.starts_with("/var") { place.join("bedplate-demo") } else { place };
        let own_host = why.map(|why| OwnHost { why, outer: ground.clone(), direct: false });
        Self::make(&place, ground, own_host, need)
    }

    fn make(place: &Path, ground: Ground, own_host: Option<OwnHost>, need: Bytes) -> anyhow::Result<Self> {
        private(place)?;
        clear(place)?;
        let run = place.join(format!("{RUN}{}", std::process::id()));
        private(&run)?;
        let Some(lock) = lock(&run)? else { bail!("{} belongs to another run", run.display()) };
        let mut workshop = Self {
            pool: run.join("pool"),
            run,
            _lock: lock,
            sockets: None,
            ground,
            own_host,
            agent: None,
            tidied: false,
        };
        if workshop.own_host.is_some() {
            workshop.make_host(need).map_err(|error| {
                NotDone(format!("a filesystem of the demo's own cannot be made: {error:#}; use --dir on ext4 or xfs"))
            })?;
        }
        private(&workshop.pool)?;
        if workshop.run.join("admin.sock").as_os_str().len() > LONGEST_SOCKET {
            workshop.sockets = Some(tempfile::Builder::new().prefix("bedplate-demo-").tempdir()?);
        }
        Ok(workshop)
    }

    /// An ext4 filesystem in a file, on a loop device, for the pool.
    fn make_host(&mut self, need: Bytes) -> anyhow::Result<()> {
        let (file, target) = (self.run.join(HOST_FILE), self.run.join(HOST_MOUNT));
        let disk = File::create_new(&file)?;
        // Blocks for all of it, where the filesystem can promise them; else as it goes.
        let length = i64::try_from(need.get())?;
        if nix::fcntl::fallocate(&disk, FallocateFlags::empty(), 0, length).is_err() {
            disk.set_len(need.get())?;
        }
        std::fs::create_dir(&target)?;
        let arguments = |direct| ["--find", "--show", direct].map(PathBuf::from);
        let attach = |direct| run("losetup", &[arguments(direct).as_slice(), std::slice::from_ref(&file)].concat());
        // Not every filesystem takes direct I/O beneath a loop device.
        let device = attach("--direct-io=on").or_else(|_| attach("--direct-io=off"))?;
        let dio = device.replacen("/dev", "/sys/block", 1) + "/loop/dio";
        if let Some(own) = &mut self.own_host {
            own.direct = std::fs::read_to_string(dio).is_ok_and(|dio| dio.trim() == "1");
        }
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "nodiscard", &device])?;
        mount(Some(device.as_str()), &target, Some("ext4"), MsFlags::MS_NODEV | MsFlags::MS_NOSUID, None::<&str>)
            .with_context(|| format!("cannot mount {device}"))?;
        self.ground = Ground::beneath(&target)?;
        self.pool = target.join("pool");
        Ok(())
    }

    /// The run's folder.
    pub fn path(&self) -> &Path {
        &self.run
    }

    /// The pool's folder.
    pub fn pool(&self) -> &Path {
        &self.pool
    }

    /// What the pool stands on.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Why the run made a filesystem of its own, if it did.
    pub fn own_host(&self) -> Option<&OwnHost> {
        self.own_host.as_ref()
    }

    /// Where sockets lie.
    pub fn sockets(&self) -> &Path {
        self.sockets.as_ref().map_or(&self.run, |dir| dir.path())
    }

    /// Take everything away. What could not be, in sentences.
    pub fn tidy(&mut self, hurry: bool) -> Vec<String> {
        self.tidied = true;
        let mut left = tidy::unmount_beneath(&self.run);
        if let Some(mut agent) = self.agent.take()
            && let Err(error) = agent.stop(hurry)
        {
            left.push(format!("{error:#}"));
        }
        left.extend(tidy::tidy(&self.run));
        left
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if !self.tidied {
            for what in self.tidy(true) {
                eprintln!("left behind: {what}");
            }
        }
    }
}

fn private(folder: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("{} cannot be made", folder.display()))
}

/// The run's lock, or nothing where somebody has it.
fn lock(run: &Path) -> anyhow::Result<Option<Flock<File>>> {
    let file = File::options().create(true).truncate(false).write(true).open(run.join(LOCK))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).context("cannot lock the run's folder"),
    }
}

/// Tidy up after runs that were killed.
fn clear(place: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(place)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(RUN) || !entry.file_type()?.is_dir() {
            continue;
        }
        if let Some(_lock) = lock(&entry.path())? {
            tidy::stop_orphan(&entry.path());
            if let Some(what) = tidy::tidy(&entry.path()).first() {
                bail!("{} was left by a run that was killed and cannot be taken away: {what}", entry.path().display());
            }
        }
    }
    Ok(())
}
