//! One volume's file in a pool on a filesystem of the test's own, and what tests do with it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bedplate_blockdev::{Detached, Dir, FileIdentity, Host, HostError, LinuxHost, LoopDevice, Mkfs, Roots, User};
use bedplate_core::extent::PhysicalMap;
use bedplate_core::filesystem::FsType;
use bedplate_tests::loopfs::{HostFs, Recipe, run};
use nix::poll::{PollTimeout, poll};
use tempfile::TempDir;
use uuid::Uuid;

pub const MIB: u64 = 1 << 20;
/// Large enough for the smallest xfs and btrfs.
pub const VOLUME: u64 = 320 * MIB;
pub const NAME: &str = "v.img";

pub struct Rig {
    // Before the filesystem it stands on: it holds the folder open.
    pub host: LinuxHost,
    pub dir: Dir,
    pub identity: FileIdentity,
    pub size: u64,
    pub fs: HostFs,
}

impl Rig {
    /// A fully allocated file of [`VOLUME`] bytes on a host filesystem twice as large.
    pub fn new(fs: &'static str) -> Self {
        Self::on(Recipe::new(fs, 704 * MIB), VOLUME)
    }

    pub fn on(recipe: Recipe, size: u64) -> Self {
        let fs = HostFs::make(recipe).unwrap();
        let pool = fs.pool("pool").unwrap();
        let host = LinuxHost::new(Roots::default());
        let dir = host.open_dir(&pool).unwrap();
        let identity = host.create_backing(&dir, NAME).unwrap();
        host.allocate_backing(&dir, NAME, &identity, size).unwrap();
        host.sync_dir(&dir).unwrap();
        Self { host, dir, identity, size, fs }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path.join(NAME)
    }

    pub fn attach(&self) -> LoopDevice {
        self.host.attach(&self.dir, NAME, &self.identity).unwrap()
    }

    pub fn detach(&self, device: &LoopDevice) -> Detached {
        self.host.detach(&self.dir, NAME, &self.identity, device).unwrap()
    }

    pub fn map(&self) -> PhysicalMap {
        self.host.map(&self.dir, NAME, &self.identity).unwrap()
    }

    pub fn users(&self, device: Option<&LoopDevice>) -> Vec<User> {
        self.host.users(&self.dir, NAME, &self.identity, device).unwrap()
    }

    pub fn open(&self) -> Result<Box<dyn bedplate_blockdev::Device>, HostError> {
        self.host.open_backing(&self.dir, NAME, &self.identity, self.size)
    }

    /// Every block is still there and where it was.
    pub fn assert_untouched(&self, before: &PhysicalMap, after: &str) {
        let now = self.map();
        let facts = self.host.backing(&self.dir, NAME).unwrap().unwrap();
        assert!(facts.allocated >= self.size, "{after}: only {} bytes are left allocated", facts.allocated);
        assert_eq!(now.holes(self.size), 0, "{after}: holes");
        assert!(now.same_places(before), "{after}: blocks moved\n{before:?}\n{now:?}");
    }

    pub fn format(&self, device: &LoopDevice, fs_type: FsType) {
        let mkfs = Mkfs { fs_type, uuid: Uuid::new_v4(), options: Vec::new(), repeat: false };
        self.host.mkfs(device, &mkfs).unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // After a failed test: let go of what is still attached, so that the filesystem beneath can be unmounted.
        if let Ok(left) = self.host.attachments(&self.dir, NAME, &self.identity) {
            for attachment in left {
                if let Err(error) = self.host.detach(&self.dir, NAME, &self.identity, &attachment.device) {
                    eprintln!("left behind: {error}");
                }
            }
        }
    }
}

/// A mount of the test's own, gone when dropped.
pub struct Mounted {
    folder: TempDir,
    mounted: bool,
}

impl Mounted {
    pub fn new(device: &Path, options: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("bedplate-mount-").tempdir_in("/var/tmp").unwrap();
        let (device, target) = (device.to_str().unwrap(), folder.path().to_str().unwrap().to_owned());
        run("mount", &["-o", options, device, &target]).unwrap();
        Self { folder, mounted: true }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Off the tree; what is open in it stays alive.
    pub fn detach_lazily(&mut self) {
        run("umount", &[Path::new("--lazy"), self.folder.path()]).unwrap();
        self.mounted = false;
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = run("umount", &[self.folder.path()])
        {
            eprintln!("{error:#}");
            let _ = run("umount", &[Path::new("--lazy"), self.folder.path()]);
        }
    }
}

/// The refusal's sentence; anything else fails the test.
pub fn refused<T>(result: Result<T, HostError>) -> String {
    match result {
        Err(HostError::Refused(refused)) => refused.to_string(),
        Err(other) => panic!("failed instead of refused: {other:?}"),
        Ok(_) => panic!("not refused"),
    }
}

/// Looks until `seen` or a deadline of 20 s.
pub fn eventually(what: &str, mut seen: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !seen() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        let _ = poll(&mut [], PollTimeout::from(10u16));
    }
}

/// A block that is unlike any other.
pub fn marker(text: &str) -> Vec<u8> {
    format!("<<{text} {}>>", Uuid::new_v4()).into_bytes()
}

/// Writes `marker` at each offset through a device or file, and makes it durable.
pub fn plant(path: &Path, marker: &[u8], offsets: &[u64]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    for offset in offsets {
        file.write_all_at(marker, *offset).unwrap();
    }
    file.sync_all().unwrap();
}

/// Drops the page cache of a device or file, so that the next read comes from below.
pub fn read_back(path: &Path, offset: u64, length: usize) -> Vec<u8> {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}
