//! A disk of the demo's own: a file, a loop device on it, a filesystem, a mount. What it is really made of is the disk
//! beneath; what it is called is an operator's word.
//!
//! The file has all its blocks from the beginning, and the loop device passes the host's page cache by, where the
//! filesystem beneath can do both; so a search on this disk is one on fixed places of the real one.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bedplate_core::bytes::Bytes;
use nix::fcntl::FallocateFlags;
use nix::mount::{MsFlags, mount};

use super::ground::Ground;
use super::tools;

/// The file's name in its node's folder.
pub(super) const FILE: &str = "disk.img";
/// Where it is mounted there.
pub(super) const MOUNT: &str = "disk";

/// A mounted one.
#[derive(Clone, Debug)]
pub struct OwnDisk {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What that is.
    pub ground: Ground,
    /// Whether reads and writes pass the host's page cache by.
    pub direct: bool,
}

impl OwnDisk {
    /// Make one with this filesystem in a folder.
    pub fn make(folder: &Path, fs_type: &str, size: Bytes) -> anyhow::Result<Self> {
        let (file, target) = (folder.join(FILE), folder.join(MOUNT));
        let disk = File::create_new(&file)?;
        // Blocks for all of it, where the filesystem can promise them; else as it goes.
        if nix::fcntl::fallocate(&disk, FallocateFlags::empty(), 0, i64::try_from(size.get())?).is_err() {
            disk.set_len(size.get())?;
        }
        std::fs::create_dir(&target)?;
        let arguments = |direct| ["--find", "--show", direct].map(PathBuf::from);
        let attach =
            |direct| tools::run("losetup", &[arguments(direct).as_slice(), std::slice::from_ref(&file)].concat());
        // Not every filesystem takes direct I/O beneath a loop device.
        let device = attach("--direct-io=on").or_else(|_| attach("--direct-io=off"))?;
        let dio = device.replacen("/dev", "/sys/block", 1) + "/loop/dio";
        let direct = std::fs::read_to_string(dio).is_ok_and(|dio| dio.trim() == "1");
        match fs_type {
            "xfs" => tools::run("mkfs.xfs", &["-q", "-f", "-K", &device])?,
            _ => tools::run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "nodiscard", &device])?,
        };
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        mount(Some(device.as_str()), &target, Some(fs_type), flags, None::<&str>)
            .with_context(|| format!("cannot mount {device}"))?;
        Ok(Self { ground: Ground::beneath(&target)?, mount: target, direct })
    }
}

/// The filesystem for a further disk: not everybody has xfsprogs.
pub fn xfs_or_ext4() -> &'static str {
    if tools::find("mkfs.xfs").is_some() { "xfs" } else { "ext4" }
}

/// Whether a path is the file of such a disk of this run.
pub(super) fn is_file_of(run: &Path, file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == FILE) && grandparent(file) == Some(run)
}

/// Whether a path is where such a disk of this run is mounted.
pub(super) fn is_mount_of(run: &Path, target: &Path) -> bool {
    target.file_name().is_some_and(|name| name == MOUNT) && grandparent(target) == Some(run)
}

fn grandparent(path: &Path) -> Option<&Path> {
    path.parent()?.parent()
}
