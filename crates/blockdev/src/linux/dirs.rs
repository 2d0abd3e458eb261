//! Directories held open, and the small files in them.
//!
//! Every name is one component and is resolved in the very directory that was opened: no symbolic link is followed, no
//! mount on a file's name is crossed (`openat2`). Files are made with mode 0600.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use nix::dir::Dir as Listing;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};

use super::sys::{self, Facts};
use crate::{Dir, HostError, Lock};

/// Larger than any marker or ledger this side of damage, in bytes.
const LARGEST_READ: u64 = 1 << 30;

/// The directories this host holds.
#[derive(Debug, Default)]
pub(super) struct Dirs {
    held: RwLock<Vec<(Facts, Arc<OwnedFd>)>>,
}

impl Dirs {
    /// Opens a directory; the same directory on the same mount gets the same handle again.
    pub(super) fn open(&self, path: &Path) -> Result<Dir, HostError> {
        let object = || path.display().to_string();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::ENOENT => HostError::refused(
                "open",
                object(),
                "there is no such directory",
                "make it, or mount the filesystem that holds it",
            ),
            Errno::ENOTDIR => HostError::refused("open", object(), "it is not a directory", "name a directory"),
            errno => HostError::failed("open", object(), errno.into()),
        })?;
        let facts = sys::facts(&fd).map_err(|e| HostError::failed("look at", object(), e))?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let same = |f: &Facts| (f.dev, f.inode, f.mount, f.born) == (facts.dev, facts.inode, facts.mount, facts.born);
        let index = held.iter().position(|(f, _)| same(f)).unwrap_or_else(|| {
            held.push((facts, Arc::new(fd)));
            held.len() - 1
        });
        Ok(Dir { handle: index as u64, path: path.to_owned() })
    }

    /// The descriptor behind a handle.
    pub(super) fn get(&self, dir: &Dir) -> Result<Arc<OwnedFd>, HostError> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let found = usize::try_from(dir.handle).ok().and_then(|index| held.get(index));
        found
            .map(|(_, fd)| Arc::clone(fd))
            .ok_or_else(|| HostError::failed("use", dir.path.display().to_string(), Errno::EBADF.into()))
    }
}

/// A name in a directory, for messages.
pub(super) fn object(dir: &Dir, name: &str) -> String {
    dir.path.join(name).display().to_string()
}

/// Refuses all but one plain path component.
pub(super) fn component(op: &'static str, dir: &Dir, name: &str) -> Result<(), HostError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let object = format!("{name:?} in {}", dir.path.display());
        return Err(HostError::refused(op, object, "it is not a plain file name", "use a name without slashes"));
    }
    Ok(())
}

/// Opens `name` in the directory itself, whatever is linked or mounted there. `O_NOFOLLOW | O_CLOEXEC` are added.
pub(super) fn open_in(dir: impl AsFd, name: &str, flags: OFlag) -> io::Result<File> {
    let mut how = OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    if flags.contains(OFlag::O_CREAT) {
        how = how.mode(Mode::S_IRUSR | Mode::S_IWUSR);
    }
    Ok(File::from(openat2(dir, name, how)?))
}

/// Opens a regular file; anything else of that name is an error and is not waited for.
fn open_regular(dir: impl AsFd, name: &str, flags: OFlag) -> io::Result<File> {
    let file = open_in(dir, name, flags | OFlag::O_NONBLOCK)?;
    if !sys::facts(&file)?.is(libc::S_IFREG) {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(file)
}

/// Names in a directory, sorted. A name that is not UTF-8 is shown with replacement characters.
pub(super) fn list(fd: &OwnedFd) -> io::Result<Vec<String>> {
    // A descriptor of its own: the position in a directory belongs to the open file.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut listing = Listing::openat(fd, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A whole small file.
pub(super) fn read(fd: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match open_regular(fd, name, OFlag::O_RDONLY) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut content = Vec::new();
    file.take(LARGEST_READ + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST_READ {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(Some(content))
}

/// A piece of a file.
pub(super) fn read_from(fd: &OwnedFd, name: &str, offset: u64, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut file = match open_regular(fd, name, OFlag::O_RDONLY) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    file.seek(io::SeekFrom::Start(offset))?;
    let mut content = Vec::new();
    file.take(most as u64).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// Makes or replaces a file's content.
pub(super) fn write(fd: &OwnedFd, name: &str, content: &[u8]) -> io::Result<()> {
    // Cut only after it is known to be a regular file.
    let mut file = open_regular(fd, name, OFlag::O_WRONLY | OFlag::O_CREAT)?;
    file.set_len(0)?;
    file.write_all(content)
}

/// Adds to the end of a file.
pub(super) fn append(fd: &OwnedFd, name: &str, content: &[u8]) -> io::Result<()> {
    open_regular(fd, name, OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT)?.write_all(content)
}

/// Cuts a file.
pub(super) fn truncate(fd: &OwnedFd, name: &str, length: u64) -> io::Result<()> {
    open_regular(fd, name, OFlag::O_WRONLY)?.set_len(length)
}

/// Makes a file's content durable.
pub(super) fn sync_file(fd: &OwnedFd, name: &str) -> io::Result<()> {
    open_regular(fd, name, OFlag::O_RDONLY)?.sync_all()
}

/// Replaces one name by another.
pub(super) fn rename(fd: &OwnedFd, from: &str, to: &str) -> io::Result<()> {
    Ok(renameat(fd, from, fd, to)?)
}

/// Makes names durable. On btrfs by a whole commit: blocks of a removed file count as used until then, for up to 30 s.
pub(super) fn sync_dir(fd: &OwnedFd) -> io::Result<()> {
    if fstatfs(fd)?.filesystem_type() == BTRFS_SUPER_MAGIC {
        return Ok(nix::unistd::syncfs(fd)?);
    }
    Ok(nix::unistd::fsync(fd)?)
}

/// A locked file; the kernel lets go when it is closed, also when the process is killed.
#[derive(Debug)]
struct FileLock {
    _file: Flock<File>,
}

impl Lock for FileLock {}

/// Locks a file, and writes this process's number into it for others to name.
pub(super) fn lock(fd: &OwnedFd, dir: &Dir, name: &str) -> Result<Box<dyn Lock>, HostError> {
    let failed = |e: io::Error| HostError::failed("lock", object(dir, name), e);
    let file = open_regular(fd, name, OFlag::O_RDWR | OFlag::O_CREAT).map_err(failed)?;
    let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, errno)| {
        if errno != Errno::EWOULDBLOCK {
            return failed(errno.into());
        }
        let mut text = String::new();
        let holder =
            Read::by_ref(&mut file).take(20).read_to_string(&mut text).ok().and(text.trim().parse::<u32>().ok());
        let reason = holder.map_or_else(|| "another process holds it".to_owned(), |p| format!("process {p} holds it"));
        let way_out = "stop that process, or give this one a directory of its own";
        HostError::refused("lock", object(dir, name), reason, way_out)
    })?;
    // Somebody may have removed or replaced the name while we waited for nothing: then it is not this lock any more.
    let now = open_regular(fd, name, OFlag::O_RDONLY).and_then(|f| sys::facts(&f)).map_err(failed)?;
    let ours = sys::facts(&*file).map_err(failed)?;
    if (now.inode, now.born) != (ours.inode, ours.born) {
        let way_out = "find out who removes lock files, then start again";
        return Err(HostError::refused(
            "lock",
            object(dir, name),
            "it was replaced while it was being locked",
            way_out,
        ));
    }
    file.set_len(0).map_err(failed)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(Box::new(FileLock { _file: file }))
}
