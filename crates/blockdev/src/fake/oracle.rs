//! The truth about the machine, for judging what the engine did. None of it is a step.

use std::collections::BTreeSet;
use std::path::Path;

use bedplate_core::extent::PhysicalMap;
use memchr::memmem::Finder;

use super::disk::{Disk, index};
use super::effect::Effect;
use super::{FakeHost, MkfsRun, Step};

impl FakeHost {
    /// Every call of this life so far.
    pub fn trace(&self) -> Vec<Step> {
        self.machine().trace.clone()
    }

    /// How many calls this life had so far.
    pub fn steps(&self) -> u64 {
        self.machine().steps
    }

    /// Whether the script's kill or power cut has struck this process.
    pub fn is_dead(&self) -> bool {
        let machine = self.machine();
        !machine.powered || !machine.alive.contains(&self.process)
    }

    /// The raw medium as a reader past every file would see it now.
    pub fn medium(&self) -> Vec<u8> {
        flat(&self.machine().live)
    }

    /// Byte offsets on the medium where `token` lies now, those that overlap left out.
    pub fn find(&self, token: &[u8]) -> Vec<u64> {
        find(&flat(&self.machine().live), token)
    }

    /// Where `token` lies now or may lie after a power cut now: the first byte offset in each block of the medium.
    pub fn may_hold(&self, token: &[u8]) -> Vec<u64> {
        let machine = self.machine();
        let block = machine.config.block as u64;
        let finder = Finder::new(token);
        // Most blocks are the same memory in both states.
        let mut looked: BTreeSet<(u64, *const u8)> = BTreeSet::new();
        let mut found = BTreeSet::new();
        let on_medium = (0..).zip(machine.live.medium.iter().zip(&machine.durable.medium));
        let waiting = machine.waiting.iter().filter_map(|w| match &w.effect {
            Effect::Data { physical, bytes, .. } => Some((*physical, bytes)),
            _ => None,
        });
        for (physical, bytes) in on_medium.flat_map(|(n, (live, durable))| [(n, live), (n, durable)]).chain(waiting) {
            if looked.insert((physical, bytes.as_ptr()))
                && let Some(at) = finder.find(bytes)
            {
                found.insert(physical * block + at as u64);
            }
        }
        found.into_iter().collect()
    }

    /// Which file, as `name`, holds a byte of the medium; `None` where it is free. Files that only an open handle or a
    /// loop device still leads to are called `inode n`.
    pub fn owner_of(&self, offset: u64) -> Option<String> {
        let machine = self.machine();
        let physical = offset / machine.config.block as u64;
        let mut owners = [&machine.live, &machine.durable].into_iter().flat_map(|disk| {
            let inodes = disk.inodes.iter().filter(|(_, i)| i.blocks.values().any(|b| b.physical == physical));
            inodes.map(|(ino, _)| {
                let name = disk.names.iter().find(|(_, i)| *i == ino).map(|((_, name), _)| name.clone());
                name.unwrap_or_else(|| format!("inode {ino}"))
            })
        });
        owners.next()
    }

    /// Names in a directory, as running programs see them.
    pub fn names(&self, dir: &Path) -> Vec<String> {
        let machine = self.machine();
        let Some(handle) = machine.paths.get(dir) else { return Vec::new() };
        machine.live.names.keys().filter(|(d, _)| d == handle).map(|(_, name)| name.clone()).collect()
    }

    /// A small file's content.
    pub fn content(&self, dir: &Path, name: &str) -> Option<Vec<u8>> {
        let machine = self.machine();
        let ino = machine.find_file(dir, name)?;
        machine.live.inodes.get(&ino).map(|i| i.content.clone())
    }

    /// A file's whole content as a read through it would give it, whoever has it open.
    pub fn file_bytes(&self, dir: &Path, name: &str) -> Option<Vec<u8>> {
        let machine = self.machine();
        let ino = machine.find_file(dir, name)?;
        let mut out = vec![0; index(machine.live.inodes.get(&ino)?.size)];
        machine.read_blocks(ino, 0, &mut out).ok()?;
        Some(out)
    }

    /// Where a file's bytes lie.
    pub fn extents(&self, dir: &Path, name: &str) -> Option<PhysicalMap> {
        let machine = self.machine();
        let inode = machine.live.inodes.get(&machine.find_file(dir, name)?)?;
        Some(machine.live.map(inode))
    }

    /// Bytes of blocks that files hold, by what running programs see.
    pub fn allocated(&self) -> u64 {
        let machine = self.machine();
        machine.live.used().len() as u64 * machine.config.block as u64
    }

    /// Loop devices that exist, with the name of the file each is on, where it has one.
    pub fn loops(&self) -> Vec<(u32, Option<String>)> {
        let machine = self.machine();
        let name = |ino| machine.live.names.iter().find(|(_, i)| **i == ino).map(|((_, name), _)| name.clone());
        machine.loops.iter().map(|(number, l)| (*number, name(l.ino))).collect()
    }

    /// Every `mkfs` that was ever begun on this machine.
    pub fn mkfs_runs(&self) -> Vec<MkfsRun> {
        self.machine().mkfs_runs.clone()
    }
}

fn flat(disk: &Disk) -> Vec<u8> {
    let mut out = Vec::with_capacity(disk.block * disk.medium.len());
    for block in &disk.medium {
        out.extend_from_slice(block);
    }
    out
}

fn find(bytes: &[u8], token: &[u8]) -> Vec<u64> {
    Finder::new(token).find_iter(bytes).map(|at| at as u64).collect()
}
