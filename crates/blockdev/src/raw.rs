//! Reading a disk as it is, past every filesystem: the oracle that leak searches use.
//!
//! Read-only and never exclusive: it disturbs nobody and proves nothing about ownership. Offsets are the device's own.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{Aligned, HostError};

/// A block device open for direct reads.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    path: PathBuf,
}

impl RawDisk {
    /// Open the block device (major, minor); `sys` and `dev` are the roots of sysfs and device nodes.
    ///
    /// # Errors
    /// Where there is no such device, or it may not be read.
    pub fn open(sys: &Path, dev: &Path, (major, minor): (u32, u32)) -> Result<Self, HostError> {
        let entry = sys.join(format!("dev/block/{major}:{minor}/uevent"));
        let failed = |path: &Path| {
            let object = path.display().to_string();
            move |source| HostError::failed("open", object, source)
        };
        let uevent = std::fs::read_to_string(&entry).map_err(failed(&entry))?;
        let name = uevent.lines().find_map(|line| line.strip_prefix("DEVNAME=")).ok_or_else(|| {
            HostError::failed(
                "find the device node in",
                entry.display().to_string(),
                std::io::ErrorKind::NotFound.into(),
            )
        })?;
        Self::open_path(&dev.join(name))
    }

    /// Open a device node or a file.
    ///
    /// # Errors
    /// Where it may not be read directly.
    pub fn open_path(path: &Path) -> Result<Self, HostError> {
        let file = File::options()
            .read(true)
            .custom_flags(nix::libc::O_DIRECT | nix::libc::O_CLOEXEC)
            .open(path)
            .map_err(|source| HostError::failed("open", path.display().to_string(), source))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Its node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fill the buffer from `offset` (a multiple of the sector size).
    ///
    /// # Errors
    /// Where the disk answers with an error or ends before.
    pub fn read_at(&self, offset: u64, buffer: &mut Aligned) -> Result<(), HostError> {
        let length = buffer.len();
        self.file.read_exact_at(buffer, offset).map_err(|source| {
            HostError::failed("read", format!("{} at {offset} ({length} bytes)", self.path.display()), source)
        })
    }
}
