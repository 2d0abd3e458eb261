//! Who uses a backing file or its loop device: mounts, descriptors, mappings, other loops, holders, and the unseen.
//!
//! Looks into every process that this one can see, and asks the kernel for what no process shows: an exclusive open of
//! the device (fails for a filesystem mounted anywhere, also lazily unmounted or in a mount namespace without a process)
//! and, on a detached file, a write lease (fails for any other open file, also one held only by a mapping or in flight
//! over a socket). What can be seen only for a moment (a probe, a process between fork and exec) is looked at again
//! before it counts. Never opens the file or the device for writing.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use bedplate_core::disk::DeviceNumber;
use bedplate_core::volume::FileIdentity;
use nix::fcntl::OFlag;
use nix::libc;

use super::backing::{GLANCE, Proven, alone, proven};
use super::dirs::object;
use super::glimpse::is_glimpse;
use super::loops::Loops;
use super::sys::{self, Facts};
use super::{Roots, pool, wait};
use crate::{Dir, HostError, LoopDevice, User, signature};

/// What is being looked for.
struct Sought<'a> {
    roots: &'a Roots,
    file: Facts,
    /// The volume's loop device: number, device number, node.
    device: Option<(u32, (u32, u32), PathBuf)>,
}

pub(super) fn users(
    roots: &Roots,
    fd: &OwnedFd,
    dir: &Dir,
    name: &str,
    identity: &FileIdentity,
    device: Option<&LoopDevice>,
) -> Result<Vec<User>, HostError> {
    let op = "look for users of";
    let failed = |e: io::Error| HostError::failed(op, object(dir, name), e);
    // A path descriptor opens nothing: it disturbs no lease and is no user itself.
    let Proven { facts: file, .. } = proven(op, fd, dir, name, identity, OFlag::O_PATH)?;
    let loops = Loops::new(roots);
    let device = match device {
        // A device that is gone or on another file by now has no users of this volume.
        Some(device) => match loops.status(device.number).map_err(failed)? {
            Some(info) if info.is_on(&file) => {
                let number = loops.number_of(device.number).map_err(failed)?;
                Some((device.number, number, device.path.clone()))
            }
            Some(_) | None => None,
        },
        None => None,
    };
    let sought = Sought { roots, file, device };
    let seen = sought.settled().map_err(failed)?;
    if seen.is_empty() && sought.device.is_none() {
        // Nobody to be seen: now the file may be opened to ask for the unseen.
        let Proven { file, .. } = proven(op, fd, dir, name, identity, OFlag::O_RDONLY)?;
        if !alone(&file).map_err(failed)? {
            let why = "the kernel grants no lease on the file: it is open somewhere".to_owned();
            return Ok(vec![User::Unseen { why }]);
        }
    }
    Ok(seen)
}

impl Sought<'_> {
    /// Looks until nobody is seen, or those who are seen have been so for longer than a glance.
    fn settled(&self) -> io::Result<Vec<User>> {
        let mut last = Vec::new();
        let nobody = wait::until(GLANCE, || {
            last = self.look()?;
            // Mounts, holders and loops do not come and go by themselves.
            let lasting = |u: &User| !matches!(u, User::Descriptor { .. } | User::Unseen { .. });
            Ok((last.is_empty() || last.iter().any(lasting)).then_some(()))
        })?;
        if nobody.is_none() {
            tracing::debug!(users = last.len(), "users stayed for longer than a glance");
        }
        Ok(last)
    }

    fn look(&self) -> io::Result<Vec<User>> {
        let loops = Loops::new(self.roots);
        let mut users = Vec::new();
        for (number, info) in loops.attached()? {
            let own = self.device.as_ref().is_some_and(|(own, ..)| *own == number);
            let on_device = self.device.as_ref().is_some_and(|(_, dev, _)| info.rdevice == sys::huge_dev(*dev));
            if !own && (info.is_on(&self.file) || on_device) {
                users.push(User::Loop { number });
            }
        }
        if let Some((number, ..)) = &self.device {
            users.extend(loops.holders(*number)?.into_iter().map(|name| User::Holder { name }));
        }
        self.processes(&mut users)?;
        let explained = users.iter().any(|u| matches!(u, User::Mount { .. } | User::Holder { .. }));
        if let (Some((_, (major, minor), path)), false) = (&self.device, explained) {
            let expected = DeviceNumber { major: *major, minor: *minor };
            if !signature::can_hold(path, expected).map_err(|e| io::Error::other(signature::sentence(&e)))? {
                let why = "the kernel refuses an exclusive open of the device: it is mounted or held".to_owned();
                users.push(User::Unseen { why });
            }
        }
        Ok(users)
    }

    /// This process first, so that a mount it can see is reported as seen by it.
    fn processes(&self, users: &mut Vec<User>) -> io::Result<()> {
        let own = std::process::id();
        // By the number that this process has in there: it may be another one.
        let myself = std::fs::read_link(self.roots.proc.join("self")).ok();
        let myself = myself.as_deref().and_then(Path::to_str).and_then(|pid| pid.parse::<u32>().ok());
        let mut pids = vec![own];
        for entry in std::fs::read_dir(&self.roots.proc)? {
            let name = entry?.file_name();
            pids.extend(name.to_str().and_then(|n| n.parse::<u32>().ok()).filter(|pid| *pid != own));
        }
        let (mut namespaces, mut targets) = (HashSet::new(), HashSet::new());
        for pid in pids {
            let process = self.roots.proc.join(pid.to_string());
            let namespace = unless_gone(std::fs::read_link(process.join("ns/mnt")))?;
            if namespace.is_some_and(|n| namespaces.insert(n))
                && let Some(table) = unless_gone(std::fs::read(process.join("mountinfo")))?
            {
                for target in self.mounts(&table)? {
                    if targets.insert(target.clone()) {
                        users.push(User::Mount { pid, target });
                    }
                }
            }
            if self.is_used_by(&process, myself == Some(pid))? {
                let command = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
                users.push(User::Descriptor { pid, command: command.trim().to_owned() });
            }
        }
        Ok(())
    }

    /// Where the device, or its node, is mounted in one namespace.
    fn mounts(&self, table: &[u8]) -> io::Result<Vec<String>> {
        let Some((number, (major, minor), path)) = &self.device else { return Ok(Vec::new()) };
        let (devno, node) = (format!("{major}:{minor}"), format!("/loop{number}"));
        let of_device = |m: &procfs::process::MountInfo| {
            // btrfs shows a number of its own, but names the device; a published block volume is a bind mount of the node.
            m.majmin == devno
                || m.mount_source.as_deref().is_some_and(|s| Path::new(s) == path || s == format!("/dev{node}"))
                || (m.fs_type == "devtmpfs" && m.root == node)
        };
        let found = pool::parse(table)?.into_iter().filter(of_device);
        Ok(found.map(|m| m.mount_point.display().to_string()).collect())
    }

    /// Whether a file is the backing file, the loop device, or lies on the filesystem inside it.
    fn is_ours(&self, found: &Facts) -> bool {
        (found.dev == self.file.dev && found.inode == self.file.inode)
            || self
                .device
                .as_ref()
                .is_some_and(|(_, dev, _)| found.dev == *dev || (found.is(libc::S_IFBLK) && found.rdev == *dev))
    }

    /// Whether a process has one of those open, mapped, or as its directory.
    fn is_used_by(&self, process: &Path, is_own: bool) -> io::Result<bool> {
        for link in ["cwd", "root"] {
            if self.leads_to_ours(process.join(link))? {
                return Ok(true);
            }
        }
        if let Some(open) = unless_gone(std::fs::read_dir(process.join("fd")))? {
            for entry in open {
                let Some(entry) = unless_gone(entry)? else { break };
                if self.leads_to_ours(entry.path())? {
                    let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
                    if !(is_own && fd.is_some_and(is_glimpse)) {
                        return Ok(true);
                    }
                }
            }
        }
        let maps = unless_gone(std::fs::read(process.join("maps")))?.unwrap_or_default();
        Ok(maps.split(|b| *b == b'\n').any(|line| self.is_mapping_of_ours(line)))
    }

    fn leads_to_ours(&self, link: PathBuf) -> io::Result<bool> {
        let Ok(path) = CString::new(link.into_os_string().into_vec()) else { return Ok(false) };
        match sys::facts_at(&path) {
            Ok(found) => Ok(self.is_ours(&found)),
            Err(e) if is_gone(&e) => Ok(false),
            // A file on a server or behind a daemon that does not answer is none of ours.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTCONN | libc::ESTALE | libc::EIO)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// A line of `maps`: address, permissions, offset, device in hexadecimal, inode, path.
    fn is_mapping_of_ours(&self, line: &[u8]) -> bool {
        let mut words = line.split(|b| *b == b' ').filter(|w| !w.is_empty());
        let (Some(device), Some(inode)) = (words.nth(3), words.next()) else { return false };
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let device = text(device).and_then(|d| d.split_once(':')).and_then(|(major, minor)| {
            Some((u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
        });
        let (Some(device), Some(inode)) = (device, text(inode).and_then(|i| i.parse::<u64>().ok())) else {
            return false;
        };
        (device == self.file.dev && inode == self.file.inode)
            || self.device.as_ref().is_some_and(|(_, number, _)| device == *number)
    }
}

/// The process ended, or closed that descriptor, while it was being looked at; or it may not be looked into (it has
/// capabilities that we lack, or a security module hides it): then what it holds is only felt.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EINVAL | libc::EACCES | libc::EPERM))
}

/// `None` where the process cannot be looked into. Threads of the kernel have no namespaces or descriptors: the same.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e),
    }
}
