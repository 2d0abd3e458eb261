//! Loop devices of our own: numbers from 7000 on, added for one attachment and removed after it.
//!
//! Discard stays off for a device's whole life, because everything below it is a file: what looks like a discard inside
//! would give blocks of the backing file back to the host un-wiped. The setting is sticky per number and written after
//! every configure; nothing is trusted that was not read back.
//!
//! `LOOP_CLR_FD` on a device that others have open only marks it: the kernel lets go at the last close (autoclear), and
//! there is no way to take that back. While our own descriptor is open the file beneath cannot be exchanged, so what was
//! checked before the request still holds when it is made.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bedplate_core::volume::FileIdentity;
use nix::fcntl::OFlag;
use nix::libc;

use super::backing::{Proven, proven};
use super::dirs::object;
use super::glimpse::Glimpse;
use super::sys::{self, Facts, LoopInfo};
use super::{Roots, pool, wait};
use crate::{Attachment, Detached, Dir, HostError, LoopDevice};

/// First number of our own: far above what `losetup --find` hands out.
const FIRST: u32 = 7000;
/// Numbers tried before giving up.
const NUMBERS: u32 = 10_000;
/// Bytes of a volume's logical sector, for its whole life and on every host. Not what the file's direct I/O would allow
/// now: that changes (xfs raises it from 512 to 4096 once a file was reflinked), and a filesystem made with smaller
/// blocks could not be mounted any more.
const SECTOR: u32 = 4096;
/// Device nodes may come late.
const NODE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a device may take to let go, or somebody who looks at it to close it.
const RELEASE_DEADLINE: Duration = Duration::from_secs(2);

/// Loop devices, below one set of roots.
#[derive(Clone, Copy)]
pub(super) struct Loops<'a> {
    roots: &'a Roots,
}

fn errno(error: &io::Error, any: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|e| any.contains(&e))
}

/// The node is not there (any more), or not attached to anything.
fn is_absent(error: &io::Error) -> bool {
    errno(error, &[libc::ENXIO, libc::ENOENT, libc::ENODEV])
}

impl<'a> Loops<'a> {
    pub(super) fn new(roots: &'a Roots) -> Self {
        Self { roots }
    }

    pub(super) fn device(self, number: u32) -> LoopDevice {
        LoopDevice { number, path: self.roots.dev.join(format!("loop{number}")) }
    }

    fn entry(self, number: u32) -> PathBuf {
        self.roots.sys.join(format!("block/loop{number}"))
    }

    fn control(self) -> io::Result<File> {
        let flags = libc::O_CLOEXEC;
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(self.roots.dev.join("loop-control"))
    }

    /// Opens a node that must be the loop device of that number.
    fn open(self, device: &LoopDevice, write: bool) -> io::Result<File> {
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(&device.path)?;
        self.check(device, &file)?;
        Ok(file)
    }

    /// Opens a device for writing, held exclusively: EBUSY where anybody has it mounted or held.
    pub(super) fn open_alone(self, device: &LoopDevice) -> io::Result<File> {
        let flags = libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&device.path)?;
        self.check(device, &file)?;
        Ok(file)
    }

    fn check(self, device: &LoopDevice, file: &File) -> io::Result<()> {
        let facts = sys::facts(file)?;
        if facts.is(libc::S_IFBLK) && facts.rdev == self.number_of(device.number)? {
            return Ok(());
        }
        Err(io::Error::other(format!("{} is not loop device {}", device.path.display(), device.number)))
    }

    /// The device number of loop device `number`, from sysfs.
    pub(super) fn number_of(self, number: u32) -> io::Result<(u32, u32)> {
        let text = std::fs::read_to_string(self.entry(number).join("dev"))?;
        let parsed = text.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not a device number: {text:?}")))
    }

    /// What a loop device is attached to; `None` where to nothing or where it is gone.
    pub(super) fn status(self, number: u32) -> io::Result<Option<LoopInfo>> {
        let device = self.device(number);
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&device.path);
        let asked = opened.and_then(|file| {
            let _glimpse = Glimpse::of(&file);
            self.check(&device, &file)?;
            sys::loop_status(&file)
        });
        match asked {
            Ok(info) => Ok(Some(info)),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every loop device that is attached to something, with what.
    pub(super) fn attached(self) -> io::Result<Vec<(u32, LoopInfo)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.roots.sys.join("block"))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|n| n.strip_prefix("loop")).and_then(|n| n.parse().ok()) else {
                continue;
            };
            // Free ones are not opened. The path in there is not looked at: names lie.
            if !entry.path().join("loop/backing_file").exists() {
                continue;
            }
            if let Some(info) = self.status(number)? {
                found.push((number, info));
            }
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found)
    }

    /// Attaches a device of our own number to the file.
    pub(super) fn attach(
        self,
        fd: &OwnedFd,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
    ) -> Result<LoopDevice, HostError> {
        let Proven { file, facts } = proven("attach", fd, dir, name, identity, OFlag::O_RDWR | OFlag::O_DIRECT)?;
        let failed = |e: io::Error| HostError::failed("attach", object(dir, name), e);
        let control = self.control().map_err(failed)?;
        for number in FIRST..FIRST + NUMBERS {
            match sys::loop_add(&control, number) {
                Ok(()) => {}
                // In use, or left free by somebody who was killed before using it: configuring it will tell.
                Err(e) if errno(&e, &[libc::EEXIST]) => {
                    if self.entry(number).join("loop/backing_file").exists() {
                        continue;
                    }
                }
                Err(e) => return Err(failed(e)),
            }
            let device = self.device(number);
            match self.configure(&device, &file) {
                Ok(()) => {}
                // Somebody else was quicker: it is theirs.
                Err(e) if errno(&e, &[libc::EBUSY]) => continue,
                Err(e) if is_absent(&e) => {
                    let _ = sys::loop_remove(&control, number);
                    continue;
                }
                Err(e) => {
                    let _ = sys::loop_remove(&control, number);
                    return Err(failed(e));
                }
            }
            return match self.harden(&device, &facts) {
                Ok(()) => Ok(device),
                Err(error) => {
                    if let Err(second) = self.detach(&device, &facts) {
                        tracing::warn!(device = %device.path.display(), error = %second, "loop device left behind");
                    }
                    Err(error)
                }
            };
        }
        Err(HostError::refused(
            "attach",
            object(dir, name),
            format!("all loop devices from {FIRST} to {} are taken", FIRST + NUMBERS - 1),
            "detach those that nobody uses (`losetup --list`)",
        ))
    }

    /// Configures a free device. The node may come late: it is waited for.
    fn configure(self, device: &LoopDevice, file: &File) -> io::Result<()> {
        let node = wait::until(NODE_DEADLINE, || match self.open(device, true) {
            Ok(node) => Ok(Some(node)),
            // A free number that another process is just removing never gets its node back.
            Err(e) if errno(&e, &[libc::ENOENT]) && self.entry(device.number).exists() => Ok(None),
            Err(e) => Err(e),
        })?;
        let node = node.ok_or_else(|| {
            let text = format!("{} did not appear within {} s", device.path.display(), NODE_DEADLINE.as_secs());
            io::Error::new(io::ErrorKind::TimedOut, text)
        })?;
        sys::loop_configure(&node, file, SECTOR)?;
        // The flag outlives an attachment; one left by a killed process must not meet the next volume.
        sys::set_read_only(&node, false)
    }

    /// Switches discard off, and reads back everything the promises rest on.
    fn harden(self, device: &LoopDevice, file: &Facts) -> Result<(), HostError> {
        let object = || device.path.display().to_string();
        let failed = |e: io::Error| HostError::failed("configure", object(), e);
        let refuse = |reason: &str, way_out: &str| Err(HostError::refused("attach", object(), reason, way_out));
        let discard = self.entry(device.number).join("queue/discard_max_bytes");
        // Opened for writing only: a missing attribute is an error, not a new file.
        let switch = OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(&discard).map_err(failed)?;
        (&switch).write_all(b"0").map_err(failed)?;
        drop(switch);
        if pool::number(&discard).map_err(failed)? != 0 {
            let way_out = "use another kernel: a volume's discards would give its blocks away un-wiped";
            return refuse("its discards cannot be switched off", way_out);
        }
        let direct = self.is_direct(device.number).map_err(failed)?;
        let info = self.status(device.number).map_err(failed)?;
        let Some(info) = info.filter(|i| i.is_on(file) && i.is_whole()) else {
            return refuse("it was exchanged while being attached", "find out who else handles loop devices here");
        };
        if !direct || info.flags & sys::LOOP_DIRECT_IO == 0 {
            let way_out =
                "use a filesystem that allows direct I/O (ext4, xfs, btrfs) with sectors of at most 4096 bytes";
            return refuse("the kernel does not read and write it past the page cache", way_out);
        }
        if info.flags & (sys::LOOP_READ_ONLY | sys::LOOP_AUTOCLEAR) != 0 {
            return refuse("it is read-only or about to let go", "find out who else handles loop devices here");
        }
        Ok(())
    }

    fn is_direct(self, number: u32) -> io::Result<bool> {
        Ok(pool::number(&self.entry(number).join("loop/dio"))? == 1)
    }

    /// The devices that are on this file now.
    pub(super) fn on(self, file: &Facts) -> io::Result<Vec<Attachment>> {
        let mut found = Vec::new();
        for (number, info) in self.attached()?.into_iter().filter(|(_, info)| info.is_on(file)) {
            let discard = pool::number(&self.entry(number).join("queue/discard_max_bytes"));
            match self.is_direct(number).and_then(|direct| Ok((direct, discard? == 0))) {
                Ok((direct, discard_off)) => found.push(Attachment {
                    device: self.device(number),
                    direct_io: direct && info.flags & sys::LOOP_DIRECT_IO != 0,
                    discard_off,
                    read_only: info.flags & sys::LOOP_READ_ONLY != 0,
                }),
                // It let go between the two looks.
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    /// Lets the device go if it is on the file; `Refused` where it is on another one.
    pub(super) fn detach(self, device: &LoopDevice, file: &Facts) -> Result<Detached, HostError> {
        let object = || device.path.display().to_string();
        let failed = |e: io::Error| HostError::failed("detach", object(), e);
        let foreign = || {
            let way_out = "leave it alone: it is somebody else's";
            Err(HostError::refused("detach", object(), "it is on another file", way_out))
        };
        match self.open(device, false) {
            Ok(node) => match sys::loop_status(&node) {
                Ok(info) if !info.is_on(file) => return foreign(),
                Ok(_) => match sys::loop_clear(&node) {
                    Ok(()) => {}
                    Err(e) if is_absent(&e) => {}
                    Err(e) => return Err(failed(e)),
                },
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(failed(e)),
            },
            Err(e) if is_absent(&e) => {}
            Err(e) => return Err(failed(e)),
        }
        let gone = wait::until(RELEASE_DEADLINE, || match self.status(device.number)? {
            Some(info) if info.is_on(file) => Ok(None),
            // Free, or taken by somebody else already.
            Some(_) | None => Ok(Some(())),
        });
        if gone.map_err(failed)?.is_none() {
            return Ok(Detached::StillHeld);
        }
        self.remove(device.number).map_err(failed)?;
        Ok(Detached::Gone)
    }

    /// Lets the device refuse writes, or take them again; `Refused` where it is not on the file.
    pub(super) fn set_read_only(self, device: &LoopDevice, file: &Facts, read_only: bool) -> Result<(), HostError> {
        const OP: &str = "change the read-only flag of";
        let object = || device.path.display().to_string();
        let failed = |e: io::Error| HostError::failed(OP, object(), e);
        let node = self.open(device, false).map_err(failed)?;
        if !sys::loop_status(&node).map_err(failed)?.is_on(file) {
            let way_out = "leave it alone: it is somebody else's";
            return Err(HostError::refused(OP, object(), "it is on another file", way_out));
        }
        sys::set_read_only(&node, read_only).map_err(failed)
    }

    /// Removes a number of our own. Whoever keeps looking at the free device, or has taken it, may keep it: the file is
    /// free, and a free number is used again.
    fn remove(self, number: u32) -> io::Result<()> {
        if number < FIRST {
            return Ok(());
        }
        let control = self.control()?;
        wait::until(RELEASE_DEADLINE, || match sys::loop_remove(&control, number) {
            Ok(()) => Ok(Some(())),
            Err(e) if is_absent(&e) => Ok(Some(())),
            Err(e) if errno(&e, &[libc::EBUSY]) => {
                Ok(self.entry(number).join("loop/backing_file").exists().then_some(()))
            }
            Err(e) => Err(e),
        })?;
        Ok(())
    }

    /// Pushes everything written to a device through to the disk beneath its file.
    pub(super) fn sync(self, device: &LoopDevice) -> io::Result<()> {
        self.open(device, false)?.sync_all()
    }

    /// Kernel holders of a device: device-mapper and the like.
    pub(super) fn holders(self, number: u32) -> io::Result<Vec<String>> {
        names(&self.entry(number).join("holders"))
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut found: Vec<String> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    found.sort();
    Ok(found)
}
