//! The machine as the volume engine sees it: directories held open, backing files, loop devices, who uses what.
//!
//! Every method is one step with one effect, named so that a crash test can stop at each. Nothing here decides: the
//! engine in `bedplate-provisioner` does. Implementations re-check identity through the descriptor they act on.

use std::fmt;
use std::path::{Path, PathBuf};

use bedplate_core::extent::PhysicalMap;
use bedplate_core::filesystem::FsType;
pub use bedplate_core::volume::FileIdentity;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Device, HostError};

/// A directory held open. Names below are single path components, resolved in this very directory whatever is mounted
/// over its path later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dir {
    /// The implementation's handle.
    pub handle: u64,
    /// The path it was opened by; for messages only.
    pub path: PathBuf,
}

/// A backing file as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackingFacts {
    /// Which file.
    pub identity: FileIdentity,
    /// Length in bytes.
    pub size: u64,
    /// Bytes of blocks it holds.
    pub allocated: u64,
    /// Hard links to it; more than one means somebody else can reach the data.
    pub links: u64,
}

/// The filesystem a directory stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolFacts {
    /// Kernel name of the filesystem: `ext4`, `xfs`, `btrfs`, `tmpfs`, `overlay`, …
    pub fs_type: String,
    /// The filesystem's UUID; `None` where it has none.
    pub fs_uuid: Option<Uuid>,
    /// Mount options and super options, as in mountinfo, split at commas.
    pub options: Vec<String>,
    /// Whether the mount is read-only.
    pub read_only: bool,
    /// Bytes an unprivileged writer could still use.
    pub available: u64,
    /// Size of the filesystem in bytes.
    pub total: u64,
    /// Block device beneath as (major, minor), where there is exactly one.
    pub device: Option<(u32, u32)>,
    /// On btrfs: whether the directory is the root of its own subvolume. `true` elsewhere.
    pub own_subvolume: bool,
    /// On btrfs: whether new files here get no-copy-on-write and no compression. `true` elsewhere.
    pub overwrites_in_place: bool,
}

/// A loop device that this process made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LoopDevice {
    /// Its number: the 7 of `/dev/loop7`.
    pub number: u32,
    /// Device node.
    pub path: PathBuf,
}

/// A loop device found on a backing file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The device.
    pub device: LoopDevice,
    /// Whether it bypasses the page cache.
    pub direct_io: bool,
    /// Whether discard is off (so that nothing inside can punch holes in the file).
    pub discard_off: bool,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// How a detach ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// The device has let go of the file and its number is free again.
    Gone,
    /// Somebody still holds the device: the kernel lets go only after the last close.
    StillHeld,
}

/// Somebody who uses a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum User {
    /// A mount, in some mount namespace.
    Mount {
        /// A process that sees it (0 where none is known).
        pid: u32,
        /// Where.
        target: String,
    },
    /// An open descriptor on the device or its backing file.
    Descriptor {
        /// Which process.
        pid: u32,
        /// Its name.
        command: String,
    },
    /// Another loop device on this device or file.
    Loop {
        /// Its number.
        number: u32,
    },
    /// A kernel holder (device-mapper, md, bcache).
    Holder {
        /// Kernel name.
        name: String,
    },
    /// The exclusive open or lease failed: somebody unseen holds it.
    Unseen {
        /// What the kernel answered.
        why: String,
    },
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { pid: 0, target } => write!(f, "mounted at {target}"),
            Self::Mount { pid, target } => write!(f, "mounted at {target} (seen by process {pid})"),
            Self::Descriptor { pid, command } => write!(f, "open in process {pid} ({command})"),
            Self::Loop { number } => write!(f, "loop device /dev/loop{number} is attached to it"),
            Self::Holder { name } => write!(f, "held by {name}"),
            Self::Unseen { why } => write!(f, "held by somebody unseen ({why})"),
        }
    }
}

/// A filesystem to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mkfs {
    /// Which.
    pub fs_type: FsType,
    /// Its UUID, recorded before it is made.
    pub uuid: Uuid,
    /// Extra arguments, already checked word by word.
    pub options: Vec<String>,
    /// A `mkfs` with this very UUID was begun before and may have left a part: it alone may be written over.
    pub repeat: bool,
}

/// Held until dropped.
pub trait Lock: Send + Sync {}

/// A machine.
pub trait Host: Send + Sync {
    /// Open a directory and hold it. `Refused` where it is missing or not a directory.
    fn open_dir(&self, path: &Path) -> Result<Dir, HostError>;
    /// Lock `name` in `dir` (made if absent) for this process's life. `Refused`, naming the holder where it can, where
    /// another process has it.
    fn lock(&self, dir: &Dir, name: &str) -> Result<Box<dyn Lock>, HostError>;
    /// Names in a directory, sorted.
    fn list(&self, dir: &Dir) -> Result<Vec<String>, HostError>;

    /// A whole small file; `None` where there is none.
    fn read(&self, dir: &Dir, name: &str) -> Result<Option<Vec<u8>>, HostError>;
    /// At most `most` bytes of a file from `offset` on, fewer only at its end; `None` where there is no file.
    fn read_from(&self, dir: &Dir, name: &str, offset: u64, most: usize) -> Result<Option<Vec<u8>>, HostError>;
    /// Make or replace a small file's content; durable only after [`Host::sync_file`] and [`Host::sync_dir`].
    fn write(&self, dir: &Dir, name: &str, content: &[u8]) -> Result<(), HostError>;
    /// Add to the end of a file (made if absent); durable only after [`Host::sync_file`].
    fn append(&self, dir: &Dir, name: &str, content: &[u8]) -> Result<(), HostError>;
    /// Cut a file to `length` bytes.
    fn truncate(&self, dir: &Dir, name: &str, length: u64) -> Result<(), HostError>;
    /// Make a file's content and length durable.
    fn sync_file(&self, dir: &Dir, name: &str) -> Result<(), HostError>;
    /// Replace `to` by `from`, atomically; durable only after [`Host::sync_dir`].
    fn rename(&self, dir: &Dir, from: &str, to: &str) -> Result<(), HostError>;
    /// Make names in a directory durable.
    fn sync_dir(&self, dir: &Dir) -> Result<(), HostError>;

    /// What the directory stands on, read through its descriptor.
    fn pool_facts(&self, dir: &Dir) -> Result<PoolFacts, HostError>;
    /// Make an empty backing file that did not exist before (mode 0600; on btrfs no-copy-on-write before the first byte).
    fn create_backing(&self, dir: &Dir, name: &str) -> Result<FileIdentity, HostError>;
    /// Allocate all `size` bytes of it and set its length. ENOSPC is `Failed`.
    fn allocate_backing(&self, dir: &Dir, name: &str, identity: &FileIdentity, size: u64) -> Result<(), HostError>;
    /// The file as it is now; `None` where there is no such name.
    fn backing(&self, dir: &Dir, name: &str) -> Result<Option<BackingFacts>, HostError>;
    /// Where its bytes lie, after everything delayed has been placed.
    fn map(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<PhysicalMap, HostError>;
    /// Open it for direct I/O, alone: `Refused` where identity or size differ or anybody
    /// else has it open. The link count is the engine's business: it lowers the level and hinders no wipe.
    fn open_backing(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        size: u64,
    ) -> Result<Box<dyn Device>, HostError>;
    /// Remove the name if it still is that file. A missing name is fine. Durable only after [`Host::sync_dir`].
    fn remove_backing(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<(), HostError>;

    /// Attach a loop device of our own number: direct I/O, discard off, both read back; else detached again and refused.
    fn attach(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<LoopDevice, HostError>;
    /// Loop devices that are attached to this file now, by device and inode, not by path.
    fn attachments(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<Vec<Attachment>, HostError>;
    /// Ask the loop device to let go and wait a moment for it. `Refused` where it is not on this file any more.
    fn detach(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: &LoopDevice,
    ) -> Result<Detached, HostError>;
    /// Let the file's loop device refuse writes, or take them again, for all who use it. `Refused` where it is not on
    /// this file any more.
    fn set_read_only(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: &LoopDevice,
        read_only: bool,
    ) -> Result<(), HostError> {
        let _ = (dir, name, identity, read_only);
        Err(HostError::refused(
            "change the read-only flag of",
            device.path.display().to_string(),
            "this host cannot do that",
            "publish the volume writable",
        ))
    }
    /// Everybody who uses the file or its loop device, in any namespace this process can see, this process included.
    fn users(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: Option<&LoopDevice>,
    ) -> Result<Vec<User>, HostError>;

    /// Whether the device carries any signature: `None` is a positive proof of blankness, a failed look is an error.
    fn signature(&self, device: &LoopDevice) -> Result<Option<String>, HostError>;
    /// Make a filesystem. No discard, no lazy initialisation.
    fn mkfs(&self, device: &LoopDevice, mkfs: &Mkfs) -> Result<(), HostError>;
}
