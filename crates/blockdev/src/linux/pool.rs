//! What a directory stands on, read through its descriptor: nothing here goes by path, so a later mount cannot mislead.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use bedplate_core::disk::DeviceNumber;
use nix::sys::statvfs::fstatvfs;
use procfs::process::MountInfo;
use uuid::Uuid;

use super::Roots;
use super::sys::{self, Facts};
use crate::{Dir, HostError, PoolFacts, signature};

/// Inode of the root directory of every btrfs subvolume.
const SUBVOLUME_ROOT: u64 = 256;

pub(super) fn facts(roots: &Roots, fd: &OwnedFd, dir: &Dir) -> Result<PoolFacts, HostError> {
    look(roots, fd).map_err(|e| HostError::failed("look at", dir.path.display().to_string(), e))
}

fn look(roots: &Roots, fd: &OwnedFd) -> io::Result<PoolFacts> {
    let found = sys::facts(fd)?;
    let mount = mount_of(roots, &found)?;
    let space = fstatvfs(fd)?;
    let unit = space.fragment_size();
    let on_btrfs = mount.fs_type == "btrfs";
    let (fs_uuid, device) = if on_btrfs {
        let (uuid, devices) = sys::btrfs_info(fd)?;
        let only = (devices == 1).then(|| mount.mount_source.as_deref().and_then(|s| node(roots, s))).flatten();
        (Some(uuid), only)
    } else {
        let device = (found.dev.0 != 0).then_some(found.dev);
        (uuid(roots, fd, &mount, device)?, device)
    };
    let options = options(&mount);
    let overwrites_in_place = !on_btrfs || {
        let flags = sys::inode_flags(fd)?;
        let no_cow = flags & sys::FLAG_NO_COW != 0 || options.iter().any(|o| o == "nodatacow");
        let compressed = flags & sys::FLAG_COMPRESSED != 0 || options.iter().any(|o| o.starts_with("compress"));
        no_cow && !compressed
    };
    Ok(PoolFacts {
        fs_uuid,
        read_only: options.iter().any(|o| o == "ro"),
        available: space.blocks_available().saturating_mul(unit),
        total: space.blocks().saturating_mul(unit),
        device,
        own_subvolume: !on_btrfs || found.inode == SUBVOLUME_ROOT,
        overwrites_in_place,
        options,
        fs_type: mount.fs_type,
    })
}

/// The mount that the descriptor was reached through.
fn mount_of(roots: &Roots, found: &Facts) -> io::Result<MountInfo> {
    let table = std::fs::read(roots.proc.join("self/mountinfo"))?;
    parse(&table)?
        .into_iter()
        .find(|m| u64::try_from(m.mnt_id) == Ok(found.mount))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("mount {} is not in mountinfo", found.mount)))
}

/// A mountinfo table.
pub(super) fn parse(table: &[u8]) -> io::Result<Vec<MountInfo>> {
    String::from_utf8_lossy(table)
        .lines()
        .map(|line| MountInfo::from_line(line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string())))
        .collect()
}

fn options(mount: &MountInfo) -> Vec<String> {
    let mut all: Vec<String> = mount
        .mount_options
        .iter()
        .chain(&mount.super_options)
        .map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// The device number of a node named in mountinfo.
fn node(roots: &Roots, source: &str) -> Option<(u32, u32)> {
    let path = roots.dev.join(source.strip_prefix("/dev/")?);
    let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).ok()?;
    let found = sys::facts_at(&path).ok()?;
    found.is(nix::libc::S_IFBLK).then_some(found.rdev)
}

/// Asked of the kernel; before 6.9, where it does not know the question, of the superblock on the device.
fn uuid(roots: &Roots, fd: &OwnedFd, mount: &MountInfo, device: Option<(u32, u32)>) -> io::Result<Option<Uuid>> {
    match sys::fs_uuid(fd) {
        Ok(uuid) => return Ok(uuid),
        Err(e) if matches!(e.raw_os_error(), Some(nix::libc::ENOTTY | nix::libc::EOPNOTSUPP)) => {}
        Err(e) => return Err(e),
    }
    device.map_or(Ok(None), |device| uuid_on_disk(roots, device, &mount.fs_type))
}

/// The UUID in the superblock that lies on a device.
pub(super) fn uuid_on_disk(roots: &Roots, (major, minor): (u32, u32), fs_type: &str) -> io::Result<Option<Uuid>> {
    let entry = roots.sys.join(format!("dev/block/{major}:{minor}"));
    let name = std::fs::read_link(&entry)?;
    let Some(name) = name.file_name() else { return Ok(None) };
    let seen = signature::look(&roots.dev.join(name), DeviceNumber { major, minor }, sector(&entry)?)
        .map_err(|e| io::Error::other(signature::sentence(&e)))?;
    let uuid = seen.signatures.iter().find(|s| s.format == fs_type).and_then(|s| s.uuid.as_deref());
    Ok(uuid.and_then(|u| u.parse().ok()))
}

/// The logical sector in bytes of the disk or partition at a sysfs entry.
fn sector(entry: &Path) -> io::Result<u32> {
    number(&entry.join("queue/logical_block_size"))
        .or_else(|_| number(&std::fs::canonicalize(entry)?.join("../queue/logical_block_size")))
        .and_then(|n| u32::try_from(n).map_err(io::Error::other))
}

/// A number in a sysfs file.
pub(super) fn number(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("not a number: {text:?}")))
}
