//! Scratch files that a killed process left: proven to be ours before they are removed, left alone otherwise.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::ScratchError;
use super::file::{MARKER_BYTES, PREFIX, failed, marker, open_dir};

/// Why a file with a scratch file's name was not removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A live process holds its lock.
    InUse,
    /// It is not what Bedplate makes; the reason in words.
    Foreign(&'static str),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stale {
    /// Names removed.
    pub removed: Vec<String>,
    /// Names that begin like ours and were kept, with the reason.
    pub kept: Vec<(String, Kept)>,
}

/// Removes scratch files of dead processes from `dir`. A file goes only if its name has the full pattern, it is a
/// regular file with one name, owned by this user with mode 0600, nobody holds its lock, and its first block is the
/// marker with this very name in it (or it is still empty: killed before the marker was written).
///
/// # Errors
/// When the directory cannot be read. A single file that cannot be judged is kept.
pub fn remove_stale_scratch(dir: &Path) -> Result<Stale, ScratchError> {
    let handle = open_dir(dir)?;
    let mut names = Vec::new();
    let mut entries = handle
        .try_clone()
        .and_then(|copy| Dir::from_fd(copy).map_err(io::Error::from))
        .map_err(|e| failed("listing", dir, e))?;
    for entry in entries.iter() {
        let entry = entry.map_err(|e| failed("listing", dir, e.into()))?;
        let name = OsString::from(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()));
        if let Some(name) = name.to_str().filter(|n| n.starts_with(PREFIX)) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let mut found = Stale::default();
    for name in names {
        match remove(&handle, &name) {
            Ok(()) => found.removed.push(name),
            Err(why) => found.kept.push((name, why)),
        }
    }
    Ok(found)
}

/// Removes one file if it is proven to be stale and ours.
fn remove(dir: &OwnedFd, name: &str) -> Result<(), Kept> {
    let random = name.strip_prefix(PREFIX).unwrap_or_default();
    if random.len() != 32 || !random.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Kept::Foreign("the name does not end in 32 hexadecimal digits"));
    }
    // Looked at before opening: to open a FIFO or a device is to do something.
    let seen = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|_| Kept::Foreign("it cannot be looked at"))?;
    if SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(Kept::Foreign("it is not a regular file"));
    }
    if seen.st_nlink != 1 {
        return Err(Kept::Foreign("it has more than one name"));
    }
    if seen.st_uid != geteuid().as_raw() || seen.st_mode & 0o7777 != 0o600 {
        return Err(Kept::Foreign("owner or mode are not those of a scratch file"));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty()).map_err(|_| Kept::Foreign("it cannot be opened"))?;
    let file = Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock).map_err(|_| Kept::InUse)?;
    let facts = file.metadata().map_err(|_| Kept::Foreign("it cannot be looked at"))?;
    if (facts.dev(), facts.ino()) != (seen.st_dev, seen.st_ino) {
        return Err(Kept::Foreign("it was replaced while it was looked at"));
    }
    if facts.len() > 0 {
        let mut block = vec![0u8; MARKER_BYTES];
        let read = file.read_exact_at(&mut block, 0);
        if read.is_err() || block != *marker(name) {
            return Err(Kept::Foreign("it does not begin with the marker of a scratch file of that name"));
        }
    }
    unlinkat(dir, name, UnlinkatFlags::NoRemoveDir).map_err(|_| Kept::Foreign("it cannot be removed"))
}
