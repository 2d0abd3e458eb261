//! The real machine: [`LinuxHost`] carries out each [`Host`] step with system calls.
//!
//! Nothing is decided here beyond the step itself. Everything goes by descriptor: directories are held open, files are
//! proven by inode and birth time through the descriptor that is acted on, loop devices by what they are attached to,
//! never by a path or a `/dev` name. Facts measured on real kernels are in `docs/image-pools.md`.

mod backing;
mod device;
mod dirs;
mod glimpse;
mod loops;
mod mkfs;
mod pool;
mod sys;
mod users;
mod wait;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use bedplate_core::extent::PhysicalMap;

use self::dirs::{Dirs, component, object};
use self::loops::Loops;
use crate::{
    Attachment, BackingFacts, Detached, Device, Dir, FileIdentity, Host, HostError, Lock, LoopDevice, Mkfs, PoolFacts,
    User,
};

/// Where the kernel's folders are: elsewhere in containers and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// sysfs.
    pub sys: PathBuf,
    /// Device nodes.
    pub dev: PathBuf,
    /// procfs of the process namespace that users are looked for in.
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: PathBuf::from("/sys"), dev: PathBuf::from("/dev"), proc: PathBuf::from("/proc") }
    }
}

/// This machine. Directories it has opened stay open for its life.
#[derive(Debug, Default)]
pub struct LinuxHost {
    roots: Roots,
    dirs: Dirs,
}

impl LinuxHost {
    /// A machine whose kernel shows itself at `roots`.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self { roots, dirs: Dirs::default() }
    }

    /// One step on a small file: a plain name in an open directory.
    fn small<T>(
        &self,
        op: &'static str,
        dir: &Dir,
        name: &str,
        step: impl FnOnce(&std::os::fd::OwnedFd) -> io::Result<T>,
    ) -> Result<T, HostError> {
        component(op, dir, name)?;
        step(&*self.dirs.get(dir)?).map_err(|e| HostError::failed(op, object(dir, name), e))
    }

    fn loops(&self) -> Loops<'_> {
        Loops::new(&self.roots)
    }

    /// What the file is now, proven to be the recorded one, without opening it.
    fn file(&self, op: &'static str, dir: &Dir, name: &str, id: &FileIdentity) -> Result<sys::Facts, HostError> {
        let proven = backing::proven(op, &*self.dirs.get(dir)?, dir, name, id, nix::fcntl::OFlag::O_PATH)?;
        Ok(proven.facts)
    }
}

impl Host for LinuxHost {
    fn open_dir(&self, path: &Path) -> Result<Dir, HostError> {
        self.dirs.open(path)
    }

    fn lock(&self, dir: &Dir, name: &str) -> Result<Box<dyn Lock>, HostError> {
        component("lock", dir, name)?;
        dirs::lock(&*self.dirs.get(dir)?, dir, name)
    }

    fn list(&self, dir: &Dir) -> Result<Vec<String>, HostError> {
        dirs::list(&*self.dirs.get(dir)?).map_err(|e| HostError::failed("list", dir.path.display().to_string(), e))
    }

    fn read(&self, dir: &Dir, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.small("read", dir, name, |fd| dirs::read(fd, name))
    }

    fn read_from(&self, dir: &Dir, name: &str, offset: u64, most: usize) -> Result<Option<Vec<u8>>, HostError> {
        self.small("read_from", dir, name, |fd| dirs::read_from(fd, name, offset, most))
    }

    fn write(&self, dir: &Dir, name: &str, content: &[u8]) -> Result<(), HostError> {
        self.small("write", dir, name, |fd| dirs::write(fd, name, content))
    }

    fn append(&self, dir: &Dir, name: &str, content: &[u8]) -> Result<(), HostError> {
        self.small("append to", dir, name, |fd| dirs::append(fd, name, content))
    }

    fn truncate(&self, dir: &Dir, name: &str, length: u64) -> Result<(), HostError> {
        self.small("truncate", dir, name, |fd| dirs::truncate(fd, name, length))
    }

    fn sync_file(&self, dir: &Dir, name: &str) -> Result<(), HostError> {
        self.small("sync", dir, name, |fd| dirs::sync_file(fd, name))
    }

    fn rename(&self, dir: &Dir, from: &str, to: &str) -> Result<(), HostError> {
        component("rename", dir, to)?;
        self.small("rename", dir, from, |fd| dirs::rename(fd, from, to))
    }

    fn sync_dir(&self, dir: &Dir) -> Result<(), HostError> {
        dirs::sync_dir(&*self.dirs.get(dir)?).map_err(|e| HostError::failed("sync", dir.path.display().to_string(), e))
    }

    fn pool_facts(&self, dir: &Dir) -> Result<PoolFacts, HostError> {
        pool::facts(&self.roots, &*self.dirs.get(dir)?, dir)
    }

    fn create_backing(&self, dir: &Dir, name: &str) -> Result<FileIdentity, HostError> {
        backing::create(&*self.dirs.get(dir)?, dir, name)
    }

    fn allocate_backing(&self, dir: &Dir, name: &str, identity: &FileIdentity, size: u64) -> Result<(), HostError> {
        backing::allocate(&*self.dirs.get(dir)?, dir, name, identity, size)
    }

    fn backing(&self, dir: &Dir, name: &str) -> Result<Option<BackingFacts>, HostError> {
        backing::look(&*self.dirs.get(dir)?, dir, name)
    }

    fn map(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<PhysicalMap, HostError> {
        backing::map(&*self.dirs.get(dir)?, dir, name, identity)
    }

    fn open_backing(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        size: u64,
    ) -> Result<Box<dyn Device>, HostError> {
        let attached = self.attachments(dir, name, identity)?;
        if let Some(first) = attached.first() {
            let reason = format!("{} is attached to it", first.device.path.display());
            return Err(HostError::refused("open", object(dir, name), reason, "detach it first"));
        }
        backing::open(&*self.dirs.get(dir)?, dir, name, identity, size)
    }

    fn remove_backing(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<(), HostError> {
        backing::remove(&*self.dirs.get(dir)?, dir, name, identity)
    }

    fn attach(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<LoopDevice, HostError> {
        self.loops().attach(&*self.dirs.get(dir)?, dir, name, identity)
    }

    fn attachments(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<Vec<Attachment>, HostError> {
        let op = "look for loop devices of";
        let file = self.file(op, dir, name, identity)?;
        self.loops().on(&file).map_err(|e| HostError::failed(op, object(dir, name), e))
    }

    fn detach(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: &LoopDevice,
    ) -> Result<Detached, HostError> {
        let file = self.file("detach", dir, name, identity)?;
        self.loops().detach(device, &file)
    }

    fn set_read_only(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: &LoopDevice,
        read_only: bool,
    ) -> Result<(), HostError> {
        let file = self.file("change the read-only flag of", dir, name, identity)?;
        self.loops().set_read_only(device, &file, read_only)
    }

    fn users(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: Option<&LoopDevice>,
    ) -> Result<Vec<User>, HostError> {
        users::users(&self.roots, &*self.dirs.get(dir)?, dir, name, identity, device)
    }

    fn signature(&self, device: &LoopDevice) -> Result<Option<String>, HostError> {
        mkfs::found(&self.roots, device)
    }

    fn mkfs(&self, device: &LoopDevice, mkfs: &Mkfs) -> Result<(), HostError> {
        mkfs::run(&self.roots, device, mkfs)
    }
}
