//! A path at which a volume is mounted, held by a descriptor of its last component, so that what was checked and what is
//! mounted upon are the same thing. Folders above may be symlinks (kubelet roots often are); the last component never.

use super::MountError;
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a target is, or must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For a filesystem.
    Directory,
    /// For a device node.
    File,
    /// A block device.
    Device,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::File => "a regular file",
            Self::Device => "a block device",
        })
    }
}

/// An existing path, held open without any right to its content.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    folder: File,
    name: OsString,
    held: OwnedFd,
    kind: Option<Kind>,
}

impl Place {
    /// The path with its folders resolved, as the mount table names it; the last component is taken literally.
    pub fn resolve(target: &Path) -> Result<PathBuf, MountError> {
        let none = || MountError::NoFolder(target.to_owned());
        let (folder, name) = (target.parent().ok_or_else(none)?, target.file_name().ok_or_else(none)?);
        match std::fs::canonicalize(folder) {
            Ok(folder) => Ok(folder.join(name)),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                Err(none())
            }
            Err(error) => Err(MountError::io("resolve the folder of", target)(error)),
        }
    }

    /// The place as it is; `None` where nothing is there.
    pub fn find(target: &Path) -> Result<Option<Self>, MountError> {
        let path = Self::resolve(target)?;
        let none = || MountError::NoFolder(target.to_owned());
        let (folder, name) = (path.parent().ok_or_else(none)?, path.file_name().ok_or_else(none)?.to_owned());
        let folder = File::open(folder).map_err(MountError::io("open the folder of", &path))?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let held = match openat(&folder, name.as_os_str(), flags, Mode::empty()) {
            Ok(held) => held,
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(errno) => return Err(MountError::sys("open", &path)(errno)),
        };
        let found = fstat(&held).map_err(MountError::sys("look at", &path))?;
        let kind = match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFLNK => return Err(MountError::Symlink(path)),
            SFlag::S_IFDIR => Some(Kind::Directory),
            SFlag::S_IFREG => Some(Kind::File),
            SFlag::S_IFBLK => Some(Kind::Device),
            _ => None,
        };
        Ok(Some(Self { path, folder, name, held, kind }))
    }

    /// The place, made if it is missing (its folder must exist), and of the right kind: a directory, or a file that may
    /// already have a device node bound to it.
    pub fn ensure(target: &Path, kind: Kind) -> Result<Self, MountError> {
        let place = match Self::find(target)? {
            Some(place) => place,
            None => Self::make(target, kind)?,
        };
        let fits = match kind {
            Kind::Directory | Kind::Device => place.kind == Some(kind),
            Kind::File => matches!(place.kind, Some(Kind::File | Kind::Device)),
        };
        if fits { Ok(place) } else { Err(MountError::WrongKind { path: place.path, expected: kind }) }
    }

    fn make(target: &Path, kind: Kind) -> Result<Self, MountError> {
        let path = Self::resolve(target)?;
        let none = || MountError::NoFolder(target.to_owned());
        let (folder, name) = (path.parent().ok_or_else(none)?, path.file_name().ok_or_else(none)?);
        let opened = File::open(folder).map_err(MountError::io("open the folder of", &path))?;
        let made = match kind {
            Kind::Directory => mkdirat(&opened, name, Mode::from_bits_truncate(0o750)),
            Kind::File | Kind::Device => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(&opened, name, flags, Mode::from_bits_truncate(0o640)).map(drop)
            }
        };
        match made {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(errno) => return Err(MountError::sys("make", &path)(errno)),
        }
        Self::find(target)?.ok_or_else(|| MountError::NoFolder(target.to_owned()))
    }

    /// As the mount table names it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads to the very thing held, for mount(2).
    pub fn handle(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.held.as_raw_fd()))
    }

    /// Refuses a place with content: it would be hidden, and could not be removed afterwards.
    pub fn must_be_empty(&self) -> Result<(), MountError> {
        let empty = match self.kind {
            Some(Kind::Directory) => {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let mut listed =
                    Dir::open(&self.handle(), flags, Mode::empty()).map_err(MountError::sys("list", &self.path))?;
                !listed
                    .iter()
                    .any(|entry| !entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b"..")))
            }
            Some(Kind::File) => fstat(&self.held).map_err(MountError::sys("look at", &self.path))?.st_size == 0,
            Some(Kind::Device) | None => false,
        };
        if empty { Ok(()) } else { Err(MountError::NotEmpty(self.path.clone())) }
    }

    /// Removes an empty directory or file; anything else stays.
    pub fn remove(self) -> Result<(), MountError> {
        let how = match self.kind {
            Some(Kind::Directory) => UnlinkatFlags::RemoveDir,
            Some(Kind::File) => {
                self.must_be_empty()?;
                UnlinkatFlags::NoRemoveDir
            }
            Some(Kind::Device) | None => {
                return Err(MountError::WrongKind { path: self.path, expected: Kind::Directory });
            }
        };
        // Nothing may have taken its place meanwhile.
        let held = fstat(&self.held).map_err(MountError::sys("look at", &self.path))?;
        match fstatat(&self.folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(now) if (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino) => {}
            Ok(_) => return Err(MountError::NotEmpty(self.path)),
            Err(nix::Error::ENOENT) => return Ok(()),
            Err(errno) => return Err(MountError::sys("look at", &self.path)(errno)),
        }
        match unlinkat(&self.folder, self.name.as_os_str(), how) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(nix::Error::ENOTEMPTY | nix::Error::EEXIST) => Err(MountError::NotEmpty(self.path)),
            Err(nix::Error::EBUSY) => Err(MountError::Busy(self.path)),
            Err(errno) => Err(MountError::sys("remove", &self.path)(errno)),
        }
    }
}
