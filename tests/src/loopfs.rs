//! A filesystem of the test's own: a file on the real disk, a loop device on it, mkfs, a mount. Gone when dropped.
//!
//! Everything is cleaned up in `Drop`, also when the test panics, and only what was made here: devices are detached by
//! the number that was given out, mounts by the folder that was made. Never touches a device it did not create. The
//! file lies in `BEDPLATE_TEST_DIR`, else `/var/tmp`, which must not be tmpfs: direct I/O is what is being tested.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bedplate_blockdev::Aligned;
use memchr::memmem;
use nix::libc;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;

/// Runs a tool and gives its output; anything but success is an error that holds what it said.
pub fn run<S: AsRef<std::ffi::OsStr>>(tool: &str, arguments: &[S]) -> Result<String> {
    let out = Command::new(tool).args(arguments).output().with_context(|| format!("cannot start {tool}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if !out.status.success() {
        let arguments: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
        bail!("{tool} {}: {}\n{said}", arguments.join(" "), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A fresh folder on the real disk, removed when dropped.
pub fn real_dir() -> Result<TempDir> {
    let root = std::env::var_os("BEDPLATE_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let on = statfs(&root).with_context(|| format!("cannot look at {}", root.display()))?.filesystem_type();
    ensure!(on != TMPFS_MAGIC, "{} is tmpfs: set BEDPLATE_TEST_DIR to a folder on a disk", root.display());
    tempfile::Builder::new().prefix("bedplate-test-").tempdir_in(&root).context("cannot make a folder")
}

/// A loop device of the test's own on a file; detached when dropped.
#[derive(Debug)]
pub struct TestLoop {
    path: PathBuf,
}

impl TestLoop {
    /// Attaches a free loop device to `file`, with direct I/O where the file allows it.
    pub fn attach(file: &Path, sector: u32) -> Result<Self> {
        let sector = sector.to_string();
        let arguments = ["--find", "--show", "--direct-io=on", "--sector-size", &sector];
        let out = Command::new("losetup").args(arguments).arg(file).output().context("cannot start losetup")?;
        ensure!(out.status.success(), "losetup: {}", String::from_utf8_lossy(&out.stderr));
        Ok(Self { path: PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()) })
    }

    /// The same, on a number that nobody has switched discard off on: that is sticky, and cannot be undone but by removing
    /// the number.
    pub fn ordinary(file: &Path, sector: u32) -> Result<Self> {
        let mut passed_over = Vec::new();
        loop {
            let device = Self::attach(file, sector)?;
            let name = device.path.file_name().context("losetup gave no node")?;
            let limit = Path::new("/sys/block").join(name).join("queue/discard_max_bytes");
            if std::fs::read_to_string(limit)?.trim() != "0" {
                return Ok(device);
            }
            // Kept attached for the moment, so that the next one is another.
            passed_over.push(device);
            ensure!(passed_over.len() < 64, "discard is off on 64 loop devices: remove some of their numbers");
        }
    }

    /// Its node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TestLoop {
    fn drop(&mut self) {
        if let Err(error) = run("losetup", &[Path::new("--detach"), &self.path]) {
            eprintln!("left behind: {error:#}");
        }
    }
}

/// What a [`HostFs`] is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// `ext4`, `xfs` or `btrfs`.
    pub fs: &'static str,
    /// Bytes of the file beneath.
    pub bytes: u64,
    /// Logical sector of the loop device in bytes: 512, or 4096 for a 4Kn disk.
    pub sector: u32,
    /// Mount options, as `mount -o` takes them.
    pub options: &'static str,
    /// Whether the file beneath is fully allocated and written once, so that every byte has its final place.
    pub written: bool,
}

impl Recipe {
    /// Such a filesystem with 512-byte sectors, default options, on a sparse file.
    #[must_use]
    pub const fn new(fs: &'static str, bytes: u64) -> Self {
        Self { fs, bytes, sector: 512, options: "defaults", written: false }
    }
}

/// A mounted filesystem on a loop device on a file on the real disk.
#[derive(Debug)]
pub struct HostFs {
    recipe: Recipe,
    mounted: bool,
    target: PathBuf,
    // Dropped in this order, after `Drop::drop` has unmounted: the loop, then the folder with the file.
    device: TestLoop,
    folder: TempDir,
}

impl HostFs {
    /// Makes and mounts one of `bytes`.
    pub fn new(fs: &'static str, bytes: u64) -> Result<Self> {
        Self::make(Recipe::new(fs, bytes))
    }

    /// Makes and mounts one.
    pub fn make(recipe: Recipe) -> Result<Self> {
        let folder = real_dir()?;
        let file = folder.path().join("disk");
        let disk = OpenOptions::new().write(true).create_new(true).open(&file)?;
        disk.set_len(recipe.bytes)?;
        if recipe.written {
            let zeroes = vec![0; 1 << 20];
            for piece in 0..recipe.bytes >> 20 {
                disk.write_all_at(&zeroes, piece << 20)?;
            }
            disk.sync_all()?;
        }
        drop(disk);
        let target = folder.path().join("mnt");
        std::fs::create_dir(&target)?;
        let device = TestLoop::attach(&file, recipe.sector)?;
        let mut host = Self { recipe, mounted: false, target, device, folder };
        let arguments: &[&str] = match host.recipe.fs {
            "ext4" => &["-q", "-F", "-E", "nodiscard"],
            "xfs" | "btrfs" => &["-q", "-f", "-K"],
            other => bail!("no recipe for a host on {other}"),
        };
        let node = host.device.path().to_string_lossy().into_owned();
        run(&format!("mkfs.{}", host.recipe.fs), &[arguments, &[node.as_str()]].concat())?;
        host.mount()?;
        Ok(host)
    }

    /// Mounts it (again).
    pub fn mount(&mut self) -> Result<()> {
        let source = self.device.path().to_string_lossy().into_owned();
        let target = self.target.to_string_lossy().into_owned();
        run("mount", &["-t", self.recipe.fs, "-o", self.recipe.options, &source, &target])?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts it, for tests of an absent pool; the folder stays, empty.
    pub fn unmount(&mut self) -> Result<()> {
        run("umount", &[&self.target])?;
        self.mounted = false;
        Ok(())
    }

    /// Kernel name of the filesystem.
    pub fn fs(&self) -> &'static str {
        self.recipe.fs
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// The loop device it stands on.
    pub fn device(&self) -> &Path {
        self.device.path()
    }

    /// The file on the real disk that the loop device stands on.
    pub fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// A folder inside that is fit for a pool: on btrfs a subvolume of its own with no copy-on-write.
    pub fn pool(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        if self.recipe.fs == "btrfs" {
            run("btrfs", &[Path::new("-q"), Path::new("subvolume"), Path::new("create"), &path])?;
            run("chattr", &[Path::new("+C"), &path])?;
        } else {
            std::fs::create_dir(&path)?;
        }
        Ok(path)
    }

    /// How often `needle` (at most 4 KiB) stands anywhere on the disk beneath the filesystem: past all caches, whatever
    /// the filesystem says of those blocks.
    pub fn count(&self, needle: &[u8]) -> Result<usize> {
        ensure!(self.recipe.bytes.is_multiple_of(1 << 20), "a disk of whole MiB is needed for a search");
        count(&self.disk(), needle)
    }
}

/// Bytes of one read of a search.
const PIECE: usize = 4 << 20;

/// How often `needle` (at most 4 KiB) stands in `file`, read past the page cache.
pub fn count(file: &Path, needle: &[u8]) -> Result<usize> {
    ensure!((1..=4096).contains(&needle.len()), "a needle has 1 to 4096 bytes");
    File::open(file)?.sync_all()?;
    let disk = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(file)?;
    let size = disk.metadata()?.len();
    let finder = memmem::Finder::new(needle);
    let mut piece = Aligned::zeroed(PIECE);
    let (mut carry, mut offset, mut found) = (Vec::new(), 0, 0);
    while offset < size {
        let wanted = usize::try_from((size - offset).min(PIECE as u64))?.next_multiple_of(4096);
        let got = disk.read_at(&mut piece[..wanted], offset)?;
        ensure!(got > 0, "{} ended at {offset} of {size}", file.display());
        carry.extend_from_slice(&piece[..got]);
        found += finder.find_iter(&carry).count();
        carry.drain(..carry.len().saturating_sub(needle.len() - 1));
        offset += got as u64;
    }
    Ok(found)
}

impl Drop for HostFs {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = run("umount", &[&self.target])
        {
            // Somebody still holds it; a lazy unmount at least lets the rest of the clean-up go on.
            eprintln!("{error:#}");
            let _ = run("umount", &[Path::new("--lazy"), &self.target]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_gone_when_dropped_also_on_panic() {
        if !crate::skip::need_root("a_host_is_gone_when_dropped_also_on_panic") {
            return;
        }
        for fs in ["ext4", "xfs", "btrfs"] {
            let seen = std::sync::Mutex::new(None);
            let result = std::panic::catch_unwind(|| {
                let host = HostFs::new(fs, 320 << 20).unwrap();
                *seen.lock().unwrap() = Some((host.device().to_owned(), host.disk()));
                assert!(host.pool("pool").unwrap().is_dir());
                panic!("on purpose");
            });
            assert!(result.is_err());
            let (device, disk) = seen.into_inner().unwrap().unwrap();
            assert!(!disk.exists());
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
            assert!(!mounts.contains(&*disk.parent().unwrap().to_string_lossy()), "{mounts}");
            let on = run("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]).unwrap();
            assert!(!on.contains(&*disk.to_string_lossy()), "{device:?} still on it");
        }
    }

    #[test]
    fn a_search_finds_what_lies_across_the_seam_of_two_reads() {
        let folder = real_dir().unwrap();
        let file = folder.path().join("file");
        let disk = OpenOptions::new().write(true).create_new(true).open(&file).unwrap();
        disk.set_len(9 << 20).unwrap();
        for at in [0, (4 << 20) - 3, (8 << 20) - 1, (9 << 20) - 7] {
            disk.write_all_at(b"needle!", at).unwrap();
        }
        assert_eq!(count(&file, b"needle!").unwrap(), 4);
        assert_eq!(count(&file, b"absent!").unwrap(), 0);
    }
}
