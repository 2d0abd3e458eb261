//! The [`Host`] calls, each one step.

use std::io;
use std::path::{Path, PathBuf};

use bedplate_core::extent::PhysicalMap;
use bedplate_core::wipe::is_zero;
use nix::errno::Errno;

use super::device::{FakeDevice, FakeLock};
use super::disk::Ino;
use super::effect::Effect;
use super::machine::{Loop, Machine};
use super::rng::Rng;
use super::script::{Done, os_error};
use super::{FakeHost, MkfsRun};
use crate::{
    Attachment, BackingFacts, Detached, Device, Dir, FileIdentity, Host, HostError, Lock, LoopDevice, Mkfs, PoolFacts,
    User,
};

const MAGIC: &[u8; 16] = b"FAKE-FILESYSTEM\0";

fn failed(op: &'static str, object: &str, errno: Errno) -> HostError {
    HostError::failed(op, object, os_error(errno))
}

fn cut(bytes: &[u8], done: Done) -> Vec<u8> {
    match done {
        Done::Part(seed) => bytes[..Rng::new(seed).pick(bytes.len().max(1))].to_vec(),
        Done::Nothing | Done::Whole => bytes.to_vec(),
    }
}

pub(super) fn loop_device(number: u32) -> LoopDevice {
    LoopDevice { number, path: PathBuf::from(format!("/dev/loop{number}")) }
}

impl Machine {
    fn existing(&self, op: &'static str, dir: &Dir, name: &str) -> Result<Ino, HostError> {
        self.live.lookup(dir.handle, name).ok_or_else(|| failed(op, name, Errno::ENOENT))
    }

    fn writable(&self, op: &'static str, dir: &Dir, name: &str) -> Result<(), HostError> {
        match self.dirs.get(super::disk::index(dir.handle)) {
            None => Err(failed(op, name, Errno::EBADF)),
            Some(d) if d.read_only => Err(failed(op, name, Errno::EROFS)),
            Some(_) if name.contains('/') || name.is_empty() || name == "." || name == ".." => {
                Err(failed(op, name, Errno::EINVAL))
            }
            Some(_) => Ok(()),
        }
    }

    fn opened_or_made(&mut self, dir: &Dir, name: &str) -> Ino {
        self.live.lookup(dir.handle, name).unwrap_or_else(|| {
            let ino = self.new_inode();
            self.perform(Effect::Link { dir: dir.handle, name: name.to_owned(), ino });
            ino
        })
    }

    fn last_block(&self, ino: Ino) -> u64 {
        let size = self.live.inodes.get(&ino).map_or(0, |i| i.size);
        size.saturating_sub(self.config.block as u64)
    }

    fn probe_signature(&self, ino: Ino) -> io::Result<Option<String>> {
        let mut first = vec![0; self.config.block];
        let mut last = first.clone();
        self.read_blocks(ino, 0, &mut first)?;
        self.read_blocks(ino, self.last_block(ino), &mut last)?;
        if first.starts_with(MAGIC) && first == last {
            let text: Vec<u8> = first[MAGIC.len()..].iter().copied().take_while(|b| *b != 0).collect();
            return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
        }
        let blank = is_zero(&first) && is_zero(&last);
        Ok((!blank).then(|| "unrecognised data".to_owned()))
    }

    fn make_filesystem(&mut self, ino: Ino, mkfs: &Mkfs, done: Done) -> io::Result<()> {
        let mut head = vec![0; self.config.block];
        let text = format!("{} {}", mkfs.fs_type, mkfs.uuid);
        head[..MAGIC.len()].copy_from_slice(MAGIC);
        head[MAGIC.len()..MAGIC.len() + text.len()].copy_from_slice(text.as_bytes());
        let last = self.last_block(ino);
        if let Done::Part(seed) = done {
            // Killed before the end: either superblock may be there, or half of one.
            match seed % 4 {
                0 => self.write_blocks(ino, 0, &head, Done::Whole)?,
                1 => self.write_blocks(ino, last, &head, Done::Whole)?,
                2 => {
                    head[MAGIC.len() / 2..].fill(0);
                    self.write_blocks(ino, 0, &head, Done::Whole)?;
                }
                _ => {}
            }
            return Ok(());
        }
        self.write_blocks(ino, 0, &head, Done::Whole)?;
        self.write_blocks(ino, last, &head, Done::Whole)?;
        self.sync_inode(ino);
        Ok(())
    }
}

impl Host for FakeHost {
    fn open_dir(&self, path: &Path) -> Result<Dir, HostError> {
        let object = path.display().to_string();
        self.step("open_dir", &object, |m, _| {
            let handle = m.paths.get(path).copied().ok_or_else(|| {
                HostError::refused("open", &object, "there is no such directory", "make it or mount it")
            })?;
            Ok(Dir { handle, path: path.to_owned() })
        })
    }

    fn lock(&self, dir: &Dir, name: &str) -> Result<Box<dyn Lock>, HostError> {
        self.step("lock", name, |m, _| {
            m.writable("lock", dir, name)?;
            m.opened_or_made(dir, name);
            let key = (dir.handle, name.to_owned());
            if let Some(holder) = m.locks.get(&key) {
                let reason = format!("process {holder} holds it");
                return Err(HostError::refused("lock", name, reason, "stop the other process"));
            }
            m.locks.insert(key.clone(), self.process);
            Ok(())
        })?;
        Ok(Box::new(FakeLock { host: self.clone(), key: (dir.handle, name.to_owned()) }))
    }

    fn list(&self, dir: &Dir) -> Result<Vec<String>, HostError> {
        self.step("list", &dir.path.display().to_string(), |m, _| {
            Ok(m.live.names.keys().filter(|(d, _)| *d == dir.handle).map(|(_, name)| name.clone()).collect())
        })
    }

    fn read_from(&self, dir: &Dir, name: &str, offset: u64, most: usize) -> Result<Option<Vec<u8>>, HostError> {
        self.step("read_from", name, |m, _| {
            let inode = m.live.lookup(dir.handle, name).and_then(|ino| m.live.inodes.get(&ino));
            let piece = |content: &Vec<u8>| {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                let end = start.saturating_add(most).min(content.len());
                content.get(start..end).unwrap_or_default().to_vec()
            };
            Ok(inode.map(|i| piece(&i.content)))
        })
    }

    fn read(&self, dir: &Dir, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.step("read", name, |m, _| {
            let inode = m.live.lookup(dir.handle, name).and_then(|ino| m.live.inodes.get(&ino));
            Ok(inode.map(|i| i.content.clone()))
        })
    }

    fn write(&self, dir: &Dir, name: &str, content: &[u8]) -> Result<(), HostError> {
        self.step("write", name, |m, done| {
            m.writable("write", dir, name)?;
            let ino = m.opened_or_made(dir, name);
            m.perform(Effect::Replace { ino, content: cut(content, done) });
            Ok(())
        })
    }

    fn append(&self, dir: &Dir, name: &str, content: &[u8]) -> Result<(), HostError> {
        self.step("append", name, |m, done| {
            m.writable("append", dir, name)?;
            let ino = m.opened_or_made(dir, name);
            let at = m.live.inodes.get(&ino).map_or(0, |i| i.content.len());
            m.perform(Effect::Append { ino, at, bytes: cut(content, done) });
            Ok(())
        })
    }

    fn truncate(&self, dir: &Dir, name: &str, length: u64) -> Result<(), HostError> {
        self.step("truncate", name, |m, _| {
            m.writable("truncate", dir, name)?;
            let ino = m.existing("truncate", dir, name)?;
            m.perform(Effect::Cut { ino, length: super::disk::index(length) });
            Ok(())
        })
    }

    fn sync_file(&self, dir: &Dir, name: &str) -> Result<(), HostError> {
        self.step("sync_file", name, |m, done| {
            let ino = m.existing("sync", dir, name)?;
            match done {
                Done::Part(_) => m.forget(ino),
                Done::Nothing | Done::Whole => m.sync_inode(ino),
            }
            Ok(())
        })
    }

    fn rename(&self, dir: &Dir, from: &str, to: &str) -> Result<(), HostError> {
        self.step("rename", &format!("{from} to {to}"), |m, _| {
            m.writable("rename", dir, to)?;
            let ino = m.existing("rename", dir, from)?;
            m.perform(Effect::Rename { dir: dir.handle, from: from.to_owned(), to: to.to_owned(), ino });
            m.collect();
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Dir) -> Result<(), HostError> {
        self.step("sync_dir", &dir.path.display().to_string(), |m, done| {
            if !matches!(done, Done::Part(_)) {
                m.sync_names(|d| d == dir.handle);
            }
            Ok(())
        })
    }

    fn pool_facts(&self, dir: &Dir) -> Result<PoolFacts, HostError> {
        self.step("pool_facts", &dir.path.display().to_string(), |m, _| {
            let Some(d) = m.dirs.get(super::disk::index(dir.handle)) else {
                return Err(failed("look at", &dir.path.display().to_string(), Errno::EBADF));
            };
            let held: usize =
                m.live.inodes.iter().filter(|(ino, _)| m.is_reachable(**ino)).map(|(_, i)| i.blocks.len()).sum();
            let block = m.config.block as u64;
            Ok(PoolFacts {
                fs_type: d.fs_type.clone(),
                fs_uuid: d.fs_uuid,
                options: d.options.clone(),
                read_only: d.read_only,
                available: m.config.blocks.saturating_sub(held as u64) * block,
                total: m.config.blocks * block,
                device: Some((254, 0)),
                own_subvolume: true,
                overwrites_in_place: true,
            })
        })
    }

    fn create_backing(&self, dir: &Dir, name: &str) -> Result<FileIdentity, HostError> {
        self.step("create_backing", name, |m, _| {
            m.writable("create", dir, name)?;
            if m.live.lookup(dir.handle, name).is_some() {
                return Err(failed("create", name, Errno::EEXIST));
            }
            let ino = m.opened_or_made(dir, name);
            m.identity(ino).ok_or_else(|| failed("create", name, Errno::EIO))
        })
    }

    fn allocate_backing(&self, dir: &Dir, name: &str, identity: &FileIdentity, size: u64) -> Result<(), HostError> {
        self.step("allocate_backing", name, |m, done| {
            m.writable("allocate", dir, name)?;
            let ino = m.same_file("allocate", dir.handle, name, identity)?;
            let block = m.config.block as u64;
            let missing: Vec<u64> = {
                let has = m.live.inodes.get(&ino).map(|i| &i.blocks);
                (0..size.div_ceil(block)).filter(|l| has.is_none_or(|b| !b.contains_key(l))).collect()
            };
            let wanted = match done {
                Done::Part(seed) => Rng::new(seed).pick(missing.len().max(1)),
                Done::Nothing | Done::Whole => missing.len(),
            };
            let got = m.allocate(wanted);
            let full = got.len() == missing.len();
            // Like the kernel, what was allocated before the space ran out stays allocated.
            let blocks: Vec<(u64, u64)> = missing.into_iter().zip(got).collect();
            m.perform(Effect::Allocate { ino, blocks, size: if full { size } else { 0 } });
            if full { Ok(()) } else { Err(failed("allocate", name, Errno::ENOSPC)) }
        })
    }

    fn backing(&self, dir: &Dir, name: &str) -> Result<Option<BackingFacts>, HostError> {
        self.step("backing", name, |m, _| {
            let Some(ino) = m.live.lookup(dir.handle, name) else { return Ok(None) };
            Ok(m.live.inodes.get(&ino).map(|inode| BackingFacts {
                identity: FileIdentity { inode: ino, born: inode.born },
                size: inode.size.max(inode.content.len() as u64),
                allocated: inode.blocks.len() as u64 * m.config.block as u64,
                links: m.live.links(ino),
            }))
        })
    }

    fn map(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<PhysicalMap, HostError> {
        self.step("map", name, |m, _| {
            let ino = m.same_file("map", dir.handle, name, identity)?;
            Ok(m.live.inodes.get(&ino).map(|inode| m.live.map(inode)).unwrap_or_default())
        })
    }

    fn open_backing(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        size: u64,
    ) -> Result<Box<dyn Device>, HostError> {
        let handle = self.step("open_backing", name, |m, _| {
            let ino = m.same_file("open", dir.handle, name, identity)?;
            let refuse = |reason: String| Err(HostError::refused("open", name, reason, "find out who did that"));
            let now = m.live.inodes.get(&ino).map_or(0, |i| i.size);
            if now != size {
                return refuse(format!("it is {now} bytes long, not {size}"));
            }
            if let Some(user) = m.users_of(ino, None).first() {
                return refuse(user.to_string());
            }
            if m.loops.values().any(|l| l.ino == ino) {
                return refuse("held by somebody unseen".to_owned());
            }
            let handle = m.next_handle;
            m.next_handle += 1;
            m.handles.insert(handle, (self.process, ino));
            Ok(handle)
        })?;
        let block = self.machine().config.block;
        Ok(Box::new(FakeDevice { host: self.clone(), handle, name: name.to_owned(), size, block }))
    }

    fn remove_backing(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<(), HostError> {
        self.step("remove_backing", name, |m, _| {
            m.writable("remove", dir, name)?;
            if m.live.lookup(dir.handle, name).is_none() {
                return Ok(());
            }
            let ino = m.same_file("remove", dir.handle, name, identity)?;
            m.perform(Effect::Unlink { dir: dir.handle, name: name.to_owned(), ino });
            m.collect();
            Ok(())
        })
    }

    fn attach(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<LoopDevice, HostError> {
        self.step("attach", name, |m, done| {
            let ino = m.same_file("attach", dir.handle, name, identity)?;
            let number = m.next_loop;
            m.next_loop += 1;
            // Cut short, the device is there before its settings are.
            let configured = !matches!(done, Done::Part(_));
            let device = Loop {
                ino,
                direct_io: configured,
                discard_off: configured,
                clearing: false,
                holders: Vec::new(),
                unseen: 0,
            };
            m.loops.insert(number, device);
            Ok(loop_device(number))
        })
    }

    fn attachments(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<Vec<Attachment>, HostError> {
        self.step("attachments", name, |m, _| {
            let ino = m.same_file("look for loop devices of", dir.handle, name, identity)?;
            let ours = m.loops.iter().filter(|(_, l)| l.ino == ino);
            Ok(ours
                .map(|(number, l)| Attachment {
                    device: loop_device(*number),
                    direct_io: l.direct_io,
                    discard_off: l.discard_off,
                    read_only: false,
                })
                .collect())
        })
    }

    fn detach(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: &LoopDevice,
    ) -> Result<Detached, HostError> {
        self.step("detach", &format!("{} from {name}", device.path.display()), |m, _| {
            let object = device.path.display().to_string();
            let ino = m.same_file("detach", dir.handle, name, identity)?;
            match m.loops.get(&device.number).map(|l| l.ino) {
                None => Ok(Detached::Gone),
                Some(other) if other != ino => {
                    Err(HostError::refused("detach", object, "it is on another file now", "leave it alone"))
                }
                Some(_) if m.let_go(device.number) => Ok(Detached::Gone),
                Some(_) => Ok(Detached::StillHeld),
            }
        })
    }

    fn users(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: Option<&LoopDevice>,
    ) -> Result<Vec<User>, HostError> {
        self.step("users", name, |m, _| {
            let ino = m.same_file("look for users of", dir.handle, name, identity)?;
            Ok(m.users_of(ino, device.map(|d| d.number)))
        })
    }

    fn signature(&self, device: &LoopDevice) -> Result<Option<String>, HostError> {
        let object = device.path.display().to_string();
        self.step("signature", &object, |m, _| {
            let ino = m.loops.get(&device.number).map(|l| l.ino);
            let ino = ino.ok_or_else(|| failed("look for a signature on", &object, Errno::ENXIO))?;
            m.probe_signature(ino).map_err(|e| HostError::failed("look for a signature on", &object, e))
        })
    }

    fn mkfs(&self, device: &LoopDevice, mkfs: &Mkfs) -> Result<(), HostError> {
        let object = device.path.display().to_string();
        self.step("mkfs", &object, |m, done| {
            let device = m.loops.get(&device.number).ok_or_else(|| failed("format", &object, Errno::ENXIO))?;
            let (ino, busy) = (device.ino, !device.holders.is_empty() || device.unseen > 0);
            if busy {
                return Err(failed("format", &object, Errno::EBUSY));
            }
            let found = m.probe_signature(ino).map_err(|e| HostError::failed("format", &object, e))?;
            if let (Some(found), false) = (&found, mkfs.repeat) {
                let reason = format!("it carries {found}");
                return Err(HostError::refused("format", &object, reason, "look what it is"));
            }
            m.mkfs_runs.push(MkfsRun { inode: ino, uuid: mkfs.uuid, found });
            m.make_filesystem(ino, mkfs, done).map_err(|e| HostError::failed("format", &object, e))
        })
    }
}

impl Machine {
    /// Everybody who can be seen to use a file, or the one loop device of it.
    fn users_of(&self, ino: Ino, device: Option<u32>) -> Vec<User> {
        let mut users: Vec<User> = Vec::new();
        for (number, l) in self.loops.iter().filter(|(_, l)| l.ino == ino) {
            users.extend(l.holders.iter().cloned());
            if device != Some(*number) {
                users.push(User::Loop { number: *number });
            }
        }
        users.extend(self.file_holders.iter().filter(|(i, _)| *i == ino).map(|(_, user)| user.clone()));
        let opened = self.handles.values().filter(|(_, i)| *i == ino);
        users.extend(opened.map(|(pid, _)| User::Descriptor { pid: *pid, command: "bedplate-agent".to_owned() }));
        users
    }
}
