//! What tenants and other programs on the host do. None of it is a step.

use std::io;
use std::path::Path;

use nix::errno::Errno;

use super::FakeHost;
use super::disk::{Block, Ino, index};
use super::effect::{Effect, Fate};
use super::machine::{FakeDir, Machine};
use super::script::{Done, os_error};
use crate::User;

impl FakeHost {
    /// A tenant writes through its loop device: direct I/O, durable only after [`FakeHost::tenant_flush`].
    pub fn tenant_write(&self, device: u32, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut m = self.powered()?;
        let (ino, size) = m.behind(device)?;
        let block = m.config.block as u64;
        let end = offset + bytes.len() as u64;
        if end > size {
            return Err(os_error(Errno::ENOSPC));
        }
        let start = offset / block * block;
        let mut whole = vec![0; index(end.next_multiple_of(block) - start)];
        m.read_blocks(ino, start, &mut whole)?;
        whole[index(offset - start)..][..bytes.len()].copy_from_slice(bytes);
        m.write_blocks(ino, start, &whole, Done::Whole)
    }

    /// A tenant reads through its loop device; `offset` and `length` are whole blocks.
    pub fn tenant_read(&self, device: u32, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let m = self.powered()?;
        let (ino, _) = m.behind(device)?;
        let mut out = vec![0; length];
        m.read_blocks(ino, offset, &mut out)?;
        Ok(out)
    }

    /// A tenant's fsync.
    pub fn tenant_flush(&self, device: u32) -> io::Result<()> {
        let mut m = self.powered()?;
        let (ino, _) = m.behind(device)?;
        m.sync_inode(ino);
        Ok(())
    }

    /// A tenant's discard: refused where discard is off, otherwise it punches whole blocks out of the backing file.
    pub fn tenant_discard(&self, device: u32, offset: u64, length: u64) -> io::Result<()> {
        let mut m = self.powered()?;
        let (ino, _) = m.behind(device)?;
        if m.loops.get(&device).is_some_and(|l| l.discard_off) {
            return Err(os_error(Errno::EOPNOTSUPP));
        }
        m.punch(ino, offset, length);
        Ok(())
    }

    /// Somebody begins to use a loop device.
    pub fn hold(&self, device: u32, user: User) {
        if let Some(l) = self.machine().loops.get_mut(&device) {
            l.holders.push(user);
        }
    }

    /// Somebody whom no listing shows begins to use a loop device.
    pub fn hold_unseen(&self, device: u32) {
        if let Some(l) = self.machine().loops.get_mut(&device) {
            l.unseen += 1;
        }
    }

    /// Everybody stops using a loop device; it goes if it was asked to.
    pub fn release(&self, device: u32) {
        let mut m = self.machine();
        if let Some(l) = m.loops.get_mut(&device) {
            l.holders.clear();
            l.unseen = 0;
            if l.clearing {
                m.let_go(device);
            }
        }
    }

    /// Somebody begins to use a backing file itself.
    pub fn hold_file(&self, dir: &Path, name: &str, user: User) {
        let mut m = self.machine();
        if let Some(ino) = m.find_file(dir, name) {
            m.file_holders.push((ino, user));
        }
    }

    /// Everybody stops using a backing file.
    pub fn release_file(&self, dir: &Path, name: &str) {
        let mut m = self.machine();
        if let Some(ino) = m.find_file(dir, name) {
            m.file_holders.retain(|(i, _)| *i != ino);
            m.collect();
        }
    }

    /// Switch a loop device's discard on, as a careless administrator does.
    pub fn host_enable_discard(&self, device: u32) {
        if let Some(l) = self.machine().loops.get_mut(&device) {
            l.discard_off = false;
        }
    }

    /// `cp --reflink`, or a snapshot: a second file on the same blocks. Durable at once, like all that follow.
    pub fn host_reflink(&self, dir: &Path, name: &str, copy: &str) {
        let mut m = self.machine();
        let (Some(ino), Some(handle)) = (m.find_file(dir, name), m.paths.get(dir).copied()) else { return };
        m.sync_inode(ino);
        let twin = m.new_inode();
        m.durably(|disk| {
            if let Some(inode) = disk.inodes.get(&ino).cloned()
                && let Some(to) = disk.inodes.get_mut(&twin)
            {
                to.size = inode.size;
                to.blocks = inode.blocks;
            }
            disk.names.insert((handle, copy.to_owned()), twin);
            disk.had_clones = true;
        });
    }

    /// `ln`.
    pub fn host_link(&self, dir: &Path, name: &str, other: &str) {
        let mut m = self.machine();
        if let (Some(ino), Some(handle)) = (m.find_file(dir, name), m.paths.get(dir).copied()) {
            m.durably(|disk| {
                disk.names.insert((handle, other.to_owned()), ino);
            });
        }
    }

    /// `rm`.
    pub fn host_remove(&self, dir: &Path, name: &str) {
        let mut m = self.machine();
        if let Some(handle) = m.paths.get(dir).copied() {
            m.sync_names(|d| d == handle);
            m.durably(|disk| {
                disk.names.remove(&(handle, name.to_owned()));
            });
            m.collect();
        }
    }

    /// Another file of the same size takes a file's name.
    pub fn host_replace(&self, dir: &Path, name: &str) {
        let mut m = self.machine();
        let (Some(old), Some(handle)) = (m.find_file(dir, name), m.paths.get(dir).copied()) else { return };
        let (size, count) = m.live.inodes.get(&old).map_or((0, 0), |i| (i.size, i.blocks.len()));
        m.sync_names(|d| d == handle);
        let blocks = (0..).zip(m.allocate(count)).collect();
        let new = m.new_inode();
        let allocate = Effect::Allocate { ino: new, blocks, size };
        m.durably(|disk| {
            disk.apply(&allocate, Fate::Kept);
            disk.names.insert((handle, name.to_owned()), new);
        });
        m.collect();
    }

    /// `truncate -s`: blocks behind the new end are given back with their content.
    pub fn host_truncate(&self, dir: &Path, name: &str, size: u64) {
        let mut m = self.machine();
        if let Some(ino) = m.find_file(dir, name) {
            let block = m.config.block as u64;
            m.durably(|disk| {
                if let Some(inode) = disk.inodes.get_mut(&ino) {
                    inode.size = size;
                    inode.blocks.retain(|logical, _| logical * block < size);
                }
            });
        }
    }

    /// `fallocate --punch-hole`, whole blocks.
    pub fn host_punch(&self, dir: &Path, name: &str, offset: u64, length: u64) {
        let mut m = self.machine();
        if let Some(ino) = m.find_file(dir, name) {
            m.punch(ino, offset, length);
        }
    }

    /// Defragmentation: the block at `offset` moves elsewhere and leaves its content behind.
    pub fn host_move_block(&self, dir: &Path, name: &str, offset: u64) {
        let mut m = self.machine();
        let logical = offset / m.config.block as u64;
        let Some(ino) = m.find_file(dir, name) else { return };
        m.sync_inode(ino);
        let Some(old) = m.live.inodes.get(&ino).and_then(|i| i.blocks.get(&logical)).copied() else { return };
        let Some(to) = m.allocate(1).first().copied() else { return };
        m.durably(|disk| {
            disk.medium[index(to)] = disk.medium[index(old.physical)].clone();
            if let Some(inode) = disk.inodes.get_mut(&ino) {
                inode.blocks.insert(logical, Block { physical: to, written: old.written });
            }
        });
    }

    /// A filesystem goes away: its path leads to the empty directory beneath, on another filesystem.
    pub fn host_unmount(&self, path: &Path) {
        self.machine().add_dir(path, 2);
    }

    /// The filesystem that was there first is mounted again.
    pub fn host_mount(&self, path: &Path) {
        let mut m = self.machine();
        if let Some(first) = m.dirs.iter().position(|d| d.path == path) {
            m.paths.insert(path.to_owned(), first as u64);
        }
    }

    /// What [`crate::Host::pool_facts`] says of a directory from now on.
    pub fn host_describe(&self, path: &Path, fs_type: &str, options: &[&str], read_only: bool) {
        let mut m = self.machine();
        let handle = m.paths.get(path).copied().unwrap_or(u64::MAX);
        if let Some(FakeDir { fs_type: kind, options: list, read_only: ro, .. }) = m.dirs.get_mut(index(handle)) {
            fs_type.clone_into(kind);
            *list = options.iter().map(|o| (*o).to_owned()).collect();
            *ro = read_only;
        }
    }

    /// Somebody writes a small file, durably: a damaged journal, a stray file in a pool.
    pub fn host_write(&self, dir: &Path, name: &str, content: &[u8]) {
        let mut m = self.machine();
        let Some(handle) = m.paths.get(dir).copied() else { return };
        if let Some(old) = m.live.lookup(handle, name) {
            m.sync_inode(old);
        }
        let ino = m.live.lookup(handle, name).unwrap_or_else(|| m.new_inode());
        m.durably(|disk| {
            disk.names.insert((handle, name.to_owned()), ino);
            disk.apply(&Effect::Replace { ino, content: content.to_vec() }, Fate::Kept);
        });
    }

    fn powered(&self) -> io::Result<std::sync::MutexGuard<'_, Machine>> {
        let machine = self.machine();
        if machine.powered { Ok(machine) } else { Err(os_error(Errno::EIO)) }
    }
}

impl Machine {
    fn behind(&self, device: u32) -> io::Result<(Ino, u64)> {
        let ino = self.loops.get(&device).map(|l| l.ino).ok_or_else(|| os_error(Errno::ENXIO))?;
        Ok((ino, self.live.inodes.get(&ino).map_or(0, |i| i.size)))
    }

    pub(super) fn find_file(&self, dir: &Path, name: &str) -> Option<Ino> {
        self.live.lookup(*self.paths.get(dir)?, name)
    }

    /// The same change to what is seen and to what is durable.
    fn durably(&mut self, change: impl Fn(&mut super::disk::Disk)) {
        change(&mut self.live);
        change(&mut self.durable);
    }

    fn punch(&mut self, ino: Ino, offset: u64, length: u64) {
        let block = self.config.block as u64;
        let hole = offset.div_ceil(block)..(offset + length) / block;
        self.sync_inode(ino);
        self.durably(|disk| {
            if let Some(inode) = disk.inodes.get_mut(&ino) {
                inode.blocks.retain(|logical, _| !hole.contains(logical));
            }
        });
    }
}
