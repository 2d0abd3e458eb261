//! Where the demo may work: on a filesystem whose blocks have an address on a disk, with enough room.
//!
//! Looks only. ext4 and xfs say where a file's bytes lie on the device beneath, so that a search past the filesystem is
//! possible; on others the demo makes an ext4 filesystem of its own in a file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bedplate_blockdev::raw::RawDisk;
use bedplate_core::bytes::Bytes;

/// What a folder stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The filesystem's kernel name.
    pub fs_type: String,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// What it is mounted from, as the mount table says.
    pub source: String,
    /// Device number, as `major:minor`.
    pub device: String,
    /// Whether blocks that are freed are discarded.
    pub discard: bool,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Bytes that may be used.
    pub available: u64,
}

/// What a folder is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// A pool can lie there.
    Pool,
    /// A file with a filesystem for the pool can lie there; why not the pool itself.
    File(String),
    /// Neither; why.
    No(String),
}

/// Filesystems that keep their files on a disk of this machine, but not where a pool's blocks keep their addresses.
const INDIRECT: [&str; 8] = ["btrfs", "overlay", "f2fs", "zfs", "bcachefs", "ext3", "ext2", "jfs"];

impl Ground {
    /// Look what an existing folder stands on.
    pub fn beneath(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("{} cannot be found", folder.display()))?;
        let table = procfs::process::Process::myself().and_then(|p| p.mountinfo()).context("cannot read the mounts")?;
        // The last of those with the longest path hides the others.
        let mount = table
            .into_iter()
            .filter(|m| folder.starts_with(&m.mount_point))
            .max_by_key(|m| m.mount_point.components().count())
            .with_context(|| format!("{} is on no mount", folder.display()))?;
        let stat = nix::sys::statvfs::statvfs(&folder)
            .with_context(|| format!("cannot ask how much room there is in {}", folder.display()))?;
        Ok(Self {
            discard: mount.super_options.contains_key("discard"),
            read_only: mount.mount_options.contains_key("ro") || mount.super_options.contains_key("ro"),
            fs_type: mount.fs_type,
            source: mount.mount_source.unwrap_or_default(),
            device: mount.majmin,
            mount_point: mount.mount_point,
            available: stat.blocks_available().saturating_mul(stat.fragment_size()),
        })
    }

    /// The device beneath, open for reading.
    fn disk(&self) -> anyhow::Result<RawDisk> {
        let number = self.device.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let number = number.with_context(|| format!("{} is no device number", self.device))?;
        Ok(RawDisk::open(Path::new("/sys"), Path::new("/dev"), number)?)
    }

    /// Whether a file's blocks stay where they are on the device for as long as the file lives.
    pub fn keeps_places(&self) -> bool {
        matches!(self.fs_type.as_str(), "ext4" | "xfs")
    }

    /// What it is good for, if `need` bytes are wanted.
    pub fn fitness(&self, need: Bytes) -> Fitness {
        let Self { fs_type, .. } = self;
        let at = self.mount_point.display();
        if self.read_only {
            return Fitness::No(format!("the filesystem at {at} is read-only"));
        }
        if self.available < need.get() {
            let free = Bytes(self.available);
            return Fitness::No(format!("the filesystem at {at} has {free} free, {need} are needed"));
        }
        match fs_type.as_str() {
            "ext4" | "xfs" => match self.disk() {
                Ok(_) => Fitness::Pool,
                Err(error) => Fitness::File(format!("the disk beneath {at} cannot be read: {error:#}")),
            },
            other if INDIRECT.contains(&other) => {
                Fitness::File(format!("{other} at {at} does not keep a file's blocks at one address on the disk"))
            }
            other => Fitness::No(format!("{other} at {at} is no filesystem on a disk of this machine")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground(fs_type: &str) -> Ground {
        Ground {
            fs_type: fs_type.to_owned(),
            mount_point: "/x".into(),
            source: "/dev/x".into(),
            device: "0:0".into(),
            discard: false,
            read_only: false,
            available: 1 << 30,
        }
    }

    #[test]
    fn a_filesystem_in_memory_a_full_one_and_a_read_only_one_are_refused_with_the_reason() {
        let need = Bytes(1 << 20);
        let why = |fitness| if let Fitness::No(why) = fitness { why } else { panic!("{fitness:?}") };
        assert!(why(ground("tmpfs").fitness(need)).contains("tmpfs"));
        assert!(why(Ground { available: 7, ..ground("btrfs") }.fitness(need)).contains("1 MiB are needed"));
        assert!(why(Ground { read_only: true, ..ground("ext4") }.fitness(need)).contains("read-only"));
    }

    #[test]
    fn a_filesystem_whose_blocks_move_or_whose_disk_is_not_seen_gets_a_file() {
        for fs in ["btrfs", "overlay", "ext4", "xfs"] {
            assert!(matches!(ground(fs).fitness(Bytes(1)), Fitness::File(_)), "{fs}");
        }
    }

    #[test]
    fn the_root_is_on_something() {
        let root = Ground::beneath(Path::new("/")).unwrap();
        assert_eq!(root.mount_point, Path::new("/"));
        assert!(!root.fs_type.is_empty());
    }
}
