//! Mounts a volume where an orchestrator wants it, and takes it away again.
//!
//! Every step is idempotent by looking, not by remembering: what is mounted where is read from the kernel's table and
//! compared by device. A path that is a symlink, holds files or carries somebody else's mount is left untouched and
//! named. Never does: a lazy unmount (it hides users of a volume), a recursive removal, or a mount the table does not
//! show afterwards.

mod options;
mod place;
mod table;

pub use options::{BadFlag, Options};
pub use place::Kind;
pub use table::{Mount, Table};

use bedplate_core::filesystem::FsType;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{major, minor};
use place::Place;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a path was not mounted or unmounted. Nothing foreign was changed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The last component is a symlink; following it could lead anywhere.
    #[error("{} is a symlink: remove it, a volume is only mounted at a path of its own", .0.display())]
    Symlink(PathBuf),
    /// It exists and is something else than it must be.
    #[error("{} is not {expected}: remove it, or choose another path", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it would have to be.
        expected: Kind,
    },
    /// The folder that must hold it does not exist.
    #[error("the folder of {} does not exist: make it first", .0.display())]
    NoFolder(PathBuf),
    /// Mounting would hide what is there.
    #[error("{} is not empty: its files would be hidden; move them away first", .0.display())]
    NotEmpty(PathBuf),
    /// Something that is not this volume is mounted there.
    #[error("{} carries another mount ({what}): unmount that first", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// Type and source of that mount.
        what: String,
    },
    /// This volume is mounted there with the other read-only flag.
    #[error("{} already carries this volume {}: unpublish it first", path.display(), if *.read_only { "read-only" } else { "writable" })]
    OtherMode {
        /// The path.
        path: PathBuf,
        /// What it is now.
        read_only: bool,
    },
    /// The staging path does not carry this volume.
    #[error("the volume is not staged at {}: call NodeStageVolume first", .0.display())]
    NotStaged(PathBuf),
    /// Somebody has files open beneath it, or stands in it.
    #[error("{} is in use: stop what has files open there", .0.display())]
    Busy(PathBuf),
    /// A system call failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl MountError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    fn sys(doing: &'static str, path: &Path) -> impl FnOnce(nix::Error) -> Self + use<> {
        let path = path.to_owned();
        move |errno| Self::Io { doing, path, source: errno.into() }
    }
}

/// The block device of an attached volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its node, as the mount table will name it.
    pub path: PathBuf,
    /// Major and minor number.
    pub number: (u64, u64),
}

impl Device {
    /// Looks at a device node without opening it.
    ///
    /// # Errors
    /// It is not there, or not a block device.
    pub fn at(path: &Path) -> Result<Self, MountError> {
        let found = std::fs::metadata(path).map_err(MountError::io("look at the device", path))?;
        if !found.file_type().is_block_device() {
            return Err(MountError::WrongKind { path: path.to_owned(), expected: Kind::Device });
        }
        Ok(Self { path: path.to_owned(), number: (major(found.rdev()), minor(found.rdev())) })
    }

    /// The loop device on a backing file of this name, wherever that lies; sysfs only, nothing is opened.
    pub fn backed_by(file: &str) -> Option<Self> {
        std::fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
            let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let backing = backing.trim_end();
            let named = Path::new(backing.strip_suffix(" (deleted)").unwrap_or(backing)).file_name();
            let ours = named.is_some_and(|name| name == file);
            ours.then(|| Self::at(&Path::new("/dev").join(entry.file_name())).ok()).flatten()
        })
    }

    /// Whether the device itself refuses writes.
    ///
    /// # Errors
    /// sysfs does not say.
    pub fn is_read_only(&self) -> Result<bool, MountError> {
        let path = PathBuf::from(format!("/sys/dev/block/{}:{}/ro", self.number.0, self.number.1));
        let text = std::fs::read_to_string(&path).map_err(MountError::io("read", &path))?;
        match text.trim() {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(MountError::io("understand", &path)(io::Error::other(format!("{other:?}")))),
        }
    }
}

/// Mounts the filesystem on `device` at `target`, made if only the last component is missing. OK if it is there already.
/// Always `nodev` and `nosuid`: a volume's bytes come from tenants.
///
/// # Errors
/// See [`MountError`].
pub fn stage(device: &Device, fs_type: FsType, target: &Path, options: &Options) -> Result<(), MountError> {
    let place = Place::ensure(target, Kind::Directory)?;
    if let Some(top) = Table::read()?.top(place.path()) {
        return if top.carries(device) { Ok(()) } else { Err(top.foreign()) };
    }
    place.must_be_empty()?;
    let flags = options.flags | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let data = Some(options.data.as_str()).filter(|data| !data.is_empty());
    mount(Some(&device.path), &place.handle(), Some(fs_type.name()), flags, data)
        .map_err(MountError::sys("mount the volume at", target))?;
    confirm(&place, |top| top.carries(device))
}

/// Makes the filesystem staged at `staging` also appear at `target`, which is made. With `read_only` it never is
/// writable there, not even for a moment: the flag is set on a mount in `scratch`, an own empty folder, and inherited.
///
/// # Errors
/// See [`MountError`].
pub fn publish_directory(
    device: &Device,
    staging: &Path,
    target: &Path,
    read_only: bool,
    scratch: &Path,
) -> Result<(), MountError> {
    let staged = Place::find(staging)?.ok_or_else(|| MountError::NotStaged(staging.to_owned()))?;
    let table = Table::read()?;
    if !table.top(staged.path()).is_some_and(|top| top.carries(device)) {
        return Err(MountError::NotStaged(staging.to_owned()));
    }
    let place = Place::ensure(target, Kind::Directory)?;
    if let Some(top) = table.top(place.path()) {
        return already(top, device, read_only);
    }
    place.must_be_empty()?;
    // Opened again: the handle from before the mount would lead beneath it.
    let source = Place::find(staging)?.ok_or_else(|| MountError::NotStaged(staging.to_owned()))?;
    if read_only {
        let shelf = Shelf::mount(&source, scratch)?;
        bind(&shelf.source()?.handle(), &place)?;
    } else {
        bind(&source.handle(), &place)?;
    }
    confirm(&place, |top| top.carries(device) && top.read_only == read_only)
}

/// Makes the device node itself appear at `target`, which is made as a file. The node's own read-only setting decides
/// who may write: a mount flag does not reach through a device node.
///
/// # Errors
/// See [`MountError`].
pub fn publish_node(device: &Device, target: &Path) -> Result<(), MountError> {
    let place = Place::ensure(target, Kind::File)?;
    if let Some(top) = Table::read()?.top(place.path()) {
        return if top.is_node_of(device) { Ok(()) } else { Err(top.foreign()) };
    }
    place.must_be_empty()?;
    bind(&device.path, &place)?;
    confirm(&place, |top| top.is_node_of(device))
}

/// Unmounts the volume from `target` and removes the directory or file that was made for it. OK if nothing is there.
///
/// # Errors
/// See [`MountError`]; somebody else's mount stays.
pub fn unpublish(device: Option<&Device>, target: &Path) -> Result<(), MountError> {
    unmount(device, target)?;
    match Place::find(target) {
        Ok(Some(place)) => place.remove(),
        Ok(None) | Err(MountError::NoFolder(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Unmounts the volume from `target` as often as it is on top there; the directory stays. OK if nothing is mounted.
///
/// # Errors
/// See [`MountError`]; somebody else's mount stays.
pub fn unmount(device: Option<&Device>, target: &Path) -> Result<(), MountError> {
    let path = match Place::resolve(target) {
        Ok(path) => path,
        Err(MountError::NoFolder(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    loop {
        let table = Table::read()?;
        let Some(top) = table.top(&path) else { return Ok(()) };
        if !device.is_some_and(|device| top.carries(device) || top.is_node_of(device)) {
            return Err(top.foreign());
        }
        umount2(&path, MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| match errno {
            nix::Error::EBUSY => MountError::Busy(path.clone()),
            errno => MountError::sys("unmount", &path)(errno),
        })?;
    }
}

/// Where the volume appears now, whether as a filesystem or as a device node, in this process's mount namespace.
///
/// # Errors
/// The table cannot be read.
pub fn appearances(device: &Device) -> Result<Vec<Mount>, MountError> {
    let mut found = Table::read()?.0;
    found.retain(|mount| mount.carries(device) || mount.is_node_of(device));
    Ok(found)
}

/// Whether what is on top at `target` is this volume; `None` where nothing is mounted.
///
/// # Errors
/// The table cannot be read, or the path cannot be resolved.
pub fn look(device: &Device, target: &Path) -> Result<Option<bool>, MountError> {
    let path = match Place::resolve(target) {
        Ok(path) => path,
        Err(MountError::NoFolder(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Table::read()?.top(&path).map(|top| top.carries(device) || top.is_node_of(device)))
}

/// The path as the mount table names it: folders resolved, the last component literal.
///
/// # Errors
/// Its folder does not exist.
pub fn canonical(target: &Path) -> Result<PathBuf, MountError> {
    Place::resolve(target)
}

/// Takes away what a crash may have left mounted in the scratch folder. Call once before serving.
///
/// # Errors
/// Something there cannot be unmounted.
pub fn clear_scratch(scratch: &Path) -> Result<(), MountError> {
    let path = Place::resolve(scratch)?;
    while Table::read()?.top(&path).is_some() {
        umount2(&path, MntFlags::UMOUNT_NOFOLLOW).map_err(MountError::sys("unmount the scratch folder", &path))?;
    }
    Ok(())
}

/// The verdict on a target that already carries a mount.
fn already(top: &Mount, device: &Device, read_only: bool) -> Result<(), MountError> {
    if !top.carries(device) {
        return Err(top.foreign());
    }
    if top.read_only != read_only {
        return Err(MountError::OtherMode { path: top.point.clone(), read_only: top.read_only });
    }
    Ok(())
}

fn bind(source: &Path, place: &Place) -> Result<(), MountError> {
    mount(Some(source), &place.handle(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(MountError::sys("bind the volume to", place.path()))
}

/// Looks whether the mount just made is what it should be; if not, it is taken away again.
fn confirm(place: &Place, right: impl Fn(&Mount) -> bool) -> Result<(), MountError> {
    let table = Table::read()?;
    let wrong = match table.top(place.path()) {
        Some(top) if right(top) => return Ok(()),
        Some(top) => {
            let wrong = top.foreign();
            if let Err(errno) = umount2(place.path(), MntFlags::UMOUNT_NOFOLLOW) {
                tracing::error!(path = %place.path().display(), error = %errno, "wrong mount left behind");
            }
            wrong
        }
        None => MountError::Foreign { path: place.path().to_owned(), what: "the path was moved meanwhile".to_owned() },
    };
    Err(wrong)
}

/// A read-only mount in the scratch folder, from which a target inherits the flag. Gone when dropped.
struct Shelf {
    path: PathBuf,
}

impl Shelf {
    fn mount(source: &Place, scratch: &Path) -> Result<Self, MountError> {
        clear_scratch(scratch)?;
        let place = Place::ensure(scratch, Kind::Directory)?;
        bind(&source.handle(), &place)?;
        let shelf = Self { path: place.path().to_owned() };
        let table = Table::read()?;
        let kept = table.top(&shelf.path).map_or(MsFlags::empty(), Mount::kept_flags);
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept;
        mount(None::<&str>, &shelf.path, None::<&str>, flags, None::<&str>)
            .map_err(MountError::sys("make read-only", &shelf.path))?;
        Ok(shelf)
    }

    /// The mounted directory, to bind from.
    fn source(&self) -> Result<Place, MountError> {
        Place::find(&self.path)?.ok_or_else(|| MountError::NoFolder(self.path.clone()))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if let Err(errno) = umount2(&self.path, MntFlags::UMOUNT_NOFOLLOW) {
            tracing::error!(path = %self.path.display(), error = %errno, "read-only mount left in the scratch folder");
        }
    }
}

#[cfg(test)]
mod tests;
