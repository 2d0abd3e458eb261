//! Backing files: made, allocated, mapped, opened alone, removed; each time proven to be the recorded file first.
//!
//! A file is known by inode and birth time, read through the very descriptor that is then acted on. Only `unlinkat`
//! works by name: the name is checked immediately before, and what remains of a window is closed by the pool's lock and
//! the folder's mode (only root may put another file there).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bedplate_core::extent::PhysicalMap;
use bedplate_core::volume::FileIdentity;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, OFlag, fallocate};
use nix::libc;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::device::FileDevice;
use super::dirs::{component, object, open_in};
use super::sys::{self, Facts};
use super::wait;
use crate::{BackingFacts, Device, Dir, HostError};

/// How long somebody who is just looking (a probe, a process between fork and exec) may hold a file before it counts as
/// use.
pub(super) const GLANCE: Duration = Duration::from_millis(300);

/// A backing file that is open and proven to be the one meant.
pub(super) struct Proven {
    pub file: File,
    pub facts: Facts,
}

/// Opens `name` with `flags` and proves that it is the recorded file.
pub(super) fn proven(
    op: &'static str,
    fd: &OwnedFd,
    dir: &Dir,
    name: &str,
    identity: &FileIdentity,
    flags: OFlag,
) -> Result<Proven, HostError> {
    component(op, dir, name)?;
    let failed = |e: io::Error| HostError::failed(op, object(dir, name), e);
    // A pipe of that name must not be waited for; a path descriptor waits for nothing and takes no such flag.
    let flags = if flags.contains(OFlag::O_PATH) { flags } else { flags | OFlag::O_NONBLOCK };
    // EAGAIN: somebody is just asking whether they are alone with it (see `alone`).
    let file = wait::until(GLANCE, || match open_in(fd, name, flags) {
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
        other => other.map(Some),
    });
    let file = file.and_then(|f| f.ok_or_else(|| Errno::EAGAIN.into())).map_err(failed)?;
    let facts = sys::facts(&file).map_err(failed)?;
    let folder = sys::facts(fd).map_err(failed)?;
    let way_out = "find out who replaced it, and put the recorded file back under its name";
    let refuse = |reason: String| Err(HostError::refused(op, object(dir, name), reason, way_out));
    if !facts.is(libc::S_IFREG) {
        return refuse("it is not a regular file".to_owned());
    }
    if facts.dev != folder.dev {
        return refuse("it lies on another filesystem than its folder".to_owned());
    }
    if facts.identity() != Some(*identity) {
        let born = facts.born.map_or_else(|| "at an unknown time".to_owned(), |b| b.to_string());
        return refuse(format!(
            "it is another file: inode {} born {born}, recorded were inode {} born {}",
            facts.inode, identity.inode, identity.born
        ));
    }
    Ok(Proven { file, facts })
}

/// Makes an empty file. On btrfs it is set to be overwritten in place, while it is still empty.
pub(super) fn create(fd: &OwnedFd, dir: &Dir, name: &str) -> Result<FileIdentity, HostError> {
    component("create", dir, name)?;
    let failed = |e: io::Error| HostError::failed("create", object(dir, name), e);
    let file = open_in(fd, name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL).map_err(failed)?;
    prepare(&file, dir, name).inspect_err(|_| {
        // Empty and made a moment ago by us: nothing of anybody's is in it.
        if let Err(error) = unlinkat(fd, name, UnlinkatFlags::NoRemoveDir) {
            tracing::warn!(file = object(dir, name), %error, "an empty backing file could not be removed again");
        }
    })
}

fn prepare(file: &File, dir: &Dir, name: &str) -> Result<FileIdentity, HostError> {
    let failed = |e: io::Error| HostError::failed("create", object(dir, name), e);
    let on = fstatfs(file).map_err(|e| failed(e.into()))?.filesystem_type();
    if on == EXT4_SUPER_MAGIC && sys::inode_flags(file).map_err(failed)? & sys::FLAG_JOURNAL_DATA != 0 {
        return Err(HostError::refused(
            "create",
            object(dir, name),
            "ext4 would keep copies of its data in the host's journal, where no wipe reaches",
            "run `chattr -j` on the pool's folder",
        ));
    }
    if on == BTRFS_SUPER_MAGIC {
        let flags = sys::inode_flags(file).map_err(failed)?;
        sys::set_inode_flags(file, (flags | sys::FLAG_NO_COW) & !sys::FLAG_COMPRESSED).map_err(failed)?;
        let flags = sys::inode_flags(file).map_err(failed)?;
        if flags & sys::FLAG_NO_COW == 0 || flags & sys::FLAG_COMPRESSED != 0 {
            return Err(HostError::refused(
                "create",
                object(dir, name),
                "btrfs would write it by copying, so that old blocks stay behind",
                "run `chattr +C` on the empty folder and mount without compression",
            ));
        }
    }
    let facts = sys::facts(file).map_err(failed)?;
    facts.identity().ok_or_else(|| {
        HostError::refused(
            "create",
            object(dir, name),
            "this filesystem keeps no birth times, so a replaced file could not be told from ours",
            "use a filesystem that does (ext4 with inodes of 256 bytes, xfs version 5, btrfs)",
        )
    })
}

/// Allocates every block. What was allocated before the space ran out stays, for the caller to remove.
pub(super) fn allocate(
    fd: &OwnedFd,
    dir: &Dir,
    name: &str,
    identity: &FileIdentity,
    size: u64,
) -> Result<(), HostError> {
    let Proven { file, .. } = proven("allocate", fd, dir, name, identity, OFlag::O_RDWR)?;
    let failed = |e: io::Error| HostError::failed("allocate", format!("{size} bytes for {}", object(dir, name)), e);
    let length = libc::off_t::try_from(size).map_err(|_| failed(Errno::EFBIG.into()))?;
    loop {
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            Ok(()) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    file.sync_all().map_err(failed)
}

/// The file as it is now.
pub(super) fn look(fd: &OwnedFd, dir: &Dir, name: &str) -> Result<Option<BackingFacts>, HostError> {
    component("look at", dir, name)?;
    let failed = |e: io::Error| HostError::failed("look at", object(dir, name), e);
    let facts = match open_in(fd, name, OFlag::O_PATH).and_then(|f| sys::facts(&f)) {
        Ok(facts) => facts,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    if !facts.is(libc::S_IFREG) {
        let way_out = "find out who put it there, and put the recorded file back under its name";
        return Err(HostError::refused("look at", object(dir, name), "it is not a regular file", way_out));
    }
    // Without a birth time it is not ours: we refuse to make files on such filesystems.
    let identity = FileIdentity { inode: facts.inode, born: facts.born.unwrap_or(i64::MIN) };
    Ok(Some(BackingFacts { identity, size: facts.size, allocated: facts.allocated, links: facts.links }))
}

/// Where its bytes lie.
pub(super) fn map(fd: &OwnedFd, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<PhysicalMap, HostError> {
    let Proven { file, facts } = proven("map", fd, dir, name, identity, OFlag::O_RDONLY)?;
    let failed = |e: io::Error| HostError::failed("map", object(dir, name), e);
    file.sync_all().map_err(failed)?;
    let extents = sys::extents(file.as_fd(), facts.size).map_err(failed)?;
    Ok(PhysicalMap::normalise(extents, facts.size))
}

/// Opens it for direct I/O, proven to be the recorded file and open nowhere else.
pub(super) fn open(
    fd: &OwnedFd,
    dir: &Dir,
    name: &str,
    identity: &FileIdentity,
    size: u64,
) -> Result<Box<dyn Device>, HostError> {
    let failed = |e: io::Error| HostError::failed("open", object(dir, name), e);
    let refuse = |reason: String, way_out: &str| Err(HostError::refused("open", object(dir, name), reason, way_out));
    let Proven { file, facts } = proven("open", fd, dir, name, identity, OFlag::O_RDWR | OFlag::O_DIRECT)?;
    if facts.size != size {
        let reason = format!("it is {} bytes long, recorded were {size}", facts.size);
        return refuse(reason, "find out who changed its length");
    }
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((_, Errno::EWOULDBLOCK)) => {
            return refuse("another opener has locked it".to_owned(), "wait until that one has finished");
        }
        Err((_, errno)) => return Err(failed(errno.into())),
    };
    if !alone(&*file).map_err(failed)? {
        return refuse(
            "somebody else has it open: a process, a memory mapping, or a loop device".to_owned(),
            "stop whoever uses it (`fuser`, `losetup --list`), then try again",
        );
    }
    Ok(Box::new(FileDevice::new(file, facts, object(dir, name))))
}

/// Whether `file` is open through no other descriptor; those who only glance at it are waited for.
pub(super) fn alone(file: impl AsFd) -> io::Result<bool> {
    let alone = wait::until(GLANCE, || Ok(sys::is_only_opener(&file)?.then_some(())))?;
    Ok(alone.is_some())
}

/// Removes the name if it still is that file.
pub(super) fn remove(fd: &OwnedFd, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<(), HostError> {
    match proven("remove", fd, dir, name, identity, OFlag::O_PATH) {
        Ok(_) => {}
        Err(e) if e.io().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => return Ok(()),
        Err(e) => return Err(e),
    }
    unlinkat(fd, name, UnlinkatFlags::NoRemoveDir)
        .map_err(|errno| HostError::failed("remove", object(dir, name), errno.into()))
}
