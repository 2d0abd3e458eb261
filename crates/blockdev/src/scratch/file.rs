//! The scratch file: made exclusively, marked as ours, locked while in use, and removed when dropped.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, Flock, FlockArg, OFlag, fallocate, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};
use uuid::Uuid;

use super::{SMALLEST, ScratchBudget, ScratchError, Watch, WriteReport, passes};
use crate::Aligned;
use crate::probe_io::ReadTarget;

/// What every scratch file's name begins with; 32 hexadecimal digits follow.
pub(super) const PREFIX: &str = ".bedplate-scratch-";
/// Bytes of the marker at the file's start.
pub(super) const MARKER_BYTES: usize = 4096;
/// Data begins here, so that 1 MiB writes are aligned.
pub(super) const DATA_START: u64 = 1 << 20;

/// The marker block of the file called `name`. It names the file, so that a copy under another name is not ours.
pub(super) fn marker(name: &str) -> Aligned {
    let text = format!("bedplate scratch file, version 1\n{name}\nleft by a measurement; holds nothing\n");
    let mut block = Aligned::zeroed(MARKER_BYTES);
    block[..text.len()].copy_from_slice(text.as_bytes());
    block
}

/// Opens a directory without following a symlink in its last component.
pub(super) fn open_dir(dir: &Path) -> Result<OwnedFd, ScratchError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, dir, flags, Mode::empty()).map_err(|e| failed("opening directory", dir, e.into()))
}

pub(super) fn failed(op: &'static str, path: &Path, source: io::Error) -> ScratchError {
    ScratchError::Io { op, path: path.to_owned(), source }
}

/// A scratch file. It is gone when this is dropped, also on the way out of an error or a panic.
#[derive(Debug)]
pub struct Scratch {
    dir: OwnedFd,
    name: String,
    path: PathBuf,
    /// Holds the lock that tells a live file from one left behind.
    file: Flock<File>,
    identity: (u64, u64),
    budget: ScratchBudget,
    /// Bytes of the sequential region that were written, from its start.
    written: u64,
}

impl Scratch {
    /// Makes a fully allocated file in `dir`.
    pub fn create(dir: &Path, budget: &ScratchBudget) -> Result<Self, ScratchError> {
        let handle = open_dir(dir)?;
        check_room(dir, &handle, budget)?;
        let name = format!("{PREFIX}{}", Uuid::new_v4().simple());
        let path = dir.join(&name);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&handle, name.as_str(), flags | OFlag::O_DIRECT, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|e| failed("creating scratch file", &path, e.into()))?;
        let file = Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
            let _ = unlinkat(&handle, name.as_str(), UnlinkatFlags::NoRemoveDir);
            failed("locking scratch file", &path, e.into())
        })?;
        let facts = file.metadata().map_err(|e| failed("reading the facts of", &path, e));
        let identity = facts.as_ref().map_or((0, 0), |m| (m.dev(), m.ino()));
        let scratch = Self { dir: handle, name, path, file, identity, budget: *budget, written: 0 };
        facts?; // from here on the file is removed by Drop
        scratch.prepare()?;
        Ok(scratch)
    }

    /// Marks the file as ours, durably, before it takes any space; then allocates it.
    fn prepare(&self) -> Result<(), ScratchError> {
        let fail = |op| move |e| failed(op, &self.path, e);
        self.file.write_all_at(&marker(&self.name), 0).map_err(fail("marking"))?;
        self.file.sync_all().map_err(fail("flushing the marker of"))?;
        let bytes = i64::try_from(self.budget.bytes).unwrap_or(i64::MAX);
        fallocate(&*self.file, FallocateFlags::empty(), 0, bytes).map_err(|e| fail("allocating")(e.into()))?;
        self.file.sync_all().map_err(fail("flushing the allocation of"))
    }

    /// The file's path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes both passes and tells what they cost.
    pub fn measure(&mut self, watch: Watch<'_>) -> Result<WriteReport, ScratchError> {
        let file = self.file.try_clone().map_err(|e| failed("opening again", &self.path, e))?;
        let (report, written) = passes::run(&Arc::new(file), &self.path, &self.budget, watch)?;
        self.written = written;
        Ok(report)
    }

    /// The part of the file that was written sequentially, for reading: read-only, and only blocks that hold data.
    /// `None` before [`Scratch::measure`] wrote any.
    pub fn reader(&self) -> Result<Option<ReadTarget>, ScratchError> {
        if self.written == 0 {
            return Ok(None);
        }
        let layout = passes::Layout::of(self.budget.bytes);
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_DIRECT;
        let file = openat(&self.dir, self.name.as_str(), flags, Mode::empty())
            .map_err(|e| failed("opening", &self.path, e.into()))?;
        let file = File::from(file);
        let found = file.metadata().map_err(|e| failed("reading the facts of", &self.path, e))?;
        if (found.dev(), found.ino()) != self.identity {
            return Err(failed("opening", &self.path, io::Error::other("another file has taken the name")));
        }
        Ok(Some(ReadTarget::part_of(file, self.path.clone(), layout.sequential, self.written)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only this very file: if the name means another one now, that one is not ours to remove.
        let found = fstatat(&self.dir, self.name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        if found.is_ok_and(|s| (s.st_dev, s.st_ino) == self.identity)
            && let Err(error) = unlinkat(&self.dir, self.name.as_str(), UnlinkatFlags::NoRemoveDir)
        {
            tracing::warn!(path = %self.path.display(), %error, "scratch file not removed, the next start will");
        }
    }
}

fn check_room(path: &Path, dir: &OwnedFd, budget: &ScratchBudget) -> Result<(), ScratchError> {
    let path = path.to_owned();
    if budget.bytes < SMALLEST {
        return Err(ScratchError::TooSmall { bytes: budget.bytes });
    }
    let facts = fstatfs(dir).map_err(|e| failed("reading the filesystem of", &path, e.into()))?;
    let kind = facts.filesystem_type();
    if ![EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC].contains(&kind) {
        return Err(ScratchError::Filesystem { path, magic: kind.0 });
    }
    let available = facts.blocks_available().saturating_mul(u64::try_from(facts.block_size()).unwrap_or(0));
    if available < budget.bytes.saturating_add(budget.keep_free) {
        let (bytes, keep_free) = (budget.bytes, budget.keep_free);
        return Err(ScratchError::NoRoom { path, available, bytes, keep_free });
    }
    Ok(())
}
