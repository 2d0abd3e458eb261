//! The folder that one run works in, and everything made beneath it: taken away at the end, however the end comes.
//!
//! A run's folder is locked while it lives; one that is there without a lock was left by a run that was killed, and is
//! tidied first. Only what lies beneath such a folder is ever unmounted, detached or removed.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bedplate_core::bytes::{Bytes, MIB};
use bedplate_sim::ApiServer;
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use super::ground::{Fitness, Ground};
use super::own_disk::OwnDisk;
use super::programs::{Program, end_orphans};
use super::{NotDone, tidy};

/// Where else a run may work if the chosen folder is not on a disk.
const ELSEWHERE: [&str; 2] = ["/var/tmp", "/var/lib"];
/// Runs' folders begin with this.
const RUN: &str = "run-";
/// Held while a run lives.
const LOCK: &str = "lock";
/// What a filesystem keeps for itself.
pub(super) const OVERHEAD: u64 = 320 * MIB;
/// Bytes of the longest path that a Unix socket may have (`sun_path`, unix(7)), less those of the longest name that a
/// kubelet's folder or an agent gives to one.
const LONGEST_RUN: usize = 107 - "/node-0/kubelet/plugins_registry/bedplate.dev-reg.sock".len();

/// A run's folder.
pub struct Workshop {
    run: PathBuf,
    _lock: Flock<File>,
    /// A short way to the folder, where its own path is too long for sockets.
    short: Option<TempDir>,
    ground: Ground,
    why_not_here: Option<String>,
    /// The cluster's API server: it outlives the programs that talk to it.
    pub server: Option<ApiServer>,
    /// What runs beside this process.
    pub programs: Vec<Program>,
    tidied: bool,
}

impl Workshop {
    /// Make one for `need` bytes in all: in `chosen`, or where that is no place, elsewhere. What a killed run left
    /// behind goes first.
    pub fn open(chosen: &Path, may_move: bool, need: Bytes) -> anyhow::Result<Self> {
        std::fs::create_dir_all(chosen).with_context(|| format!("{} cannot be made", chosen.display()))?;
        let mut places = vec![chosen.canonicalize()?];
        if may_move {
            places.extend(ELSEWHERE.iter().filter_map(|place| Path::new(place).canonicalize().ok()));
        }
        let (mut direct, mut indirect, mut refused) = (None, None, Vec::new());
        for (index, place) in places.into_iter().enumerate().filter(|(_, place)| place.is_dir()) {
            let ground = Ground::beneath(&place)?;
            let place = if index == 0 { place } else { place.join("bedplate-demo") };
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
        private(&place)?;
        clear(&place)?;
        let run = place.join(format!("{RUN}{}", std::process::id()));
        private(&run)?;
        let Some(lock) = lock(&run)? else { bail!("{} belongs to another run", run.display()) };
        let mut workshop = Self {
            run,
            _lock: lock,
            short: None,
            ground,
            why_not_here: why,
            server: None,
            programs: Vec::new(),
            tidied: false,
        };
        if workshop.run.as_os_str().len() > LONGEST_RUN {
            let short = tempfile::Builder::new().prefix("bedplate-demo-").tempdir()?;
            std::os::unix::fs::symlink(&workshop.run, short.path().join("run"))?;
            workshop.short = Some(short);
        }
        Ok(workshop)
    }

    /// A folder for a node.
    pub fn node(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.run.join(name);
        private(&folder)?;
        Ok(folder)
    }

    /// A disk of the demo's own for a node.
    pub fn disk(&self, node: &str, fs_type: &str, room: Bytes) -> anyhow::Result<OwnDisk> {
        let disk = OwnDisk::make(&self.node(node)?, fs_type, Bytes(room.get() + OVERHEAD)).map_err(|error| {
            NotDone(format!("a filesystem of the demo's own cannot be made: {error:#}; use --dir on ext4 or xfs"))
        })?;
        Ok(disk)
    }

    /// The run's folder.
    pub fn path(&self) -> &Path {
        &self.run
    }

    /// The run's folder by a path that is short enough for the sockets beneath.
    pub fn short_path(&self) -> PathBuf {
        self.short.as_ref().map_or_else(|| self.run.clone(), |short| short.path().join("run"))
    }

    /// What it stands on.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Why this machine's pool cannot lie directly on that, if it cannot.
    pub fn why_not_here(&self) -> Option<&str> {
        self.why_not_here.as_deref()
    }

    /// Take everything away. What could not be, in sentences.
    pub fn tidy(&mut self, hurry: bool) -> Vec<String> {
        self.tidied = true;
        let mut left = tidy::unmount_beneath(&self.run);
        // All at once first: each takes a moment.
        let mut errors: Vec<anyhow::Error> = self.programs.iter_mut().filter_map(|p| p.ask_to_end().err()).collect();
        errors.extend(self.programs.drain(..).filter_map(|mut program| program.stop(hurry).err()));
        left.extend(errors.into_iter().map(|error| format!("{error:#}")));
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
            end_orphans(&entry.path());
            if let Some(what) = tidy::tidy(&entry.path()).first() {
                bail!("{} was left by a run that was killed and cannot be taken away: {what}", entry.path().display());
            }
        }
    }
    Ok(())
}
