//! The machine's state and the paths that bytes take through it.
//!
//! `live` is what running programs see, `durable` is what the disk holds whatever happens, `waiting` lies between the
//! two in the order it was done.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bedplate_core::wipe::is_zero;
use nix::errno::Errno;
use uuid::Uuid;

use super::disk::{Block, Disk, Ino, Inode, index};
use super::effect::{Effect, Fate};
use super::rng::Rng;
use super::script::{Blow, DeviceFault, Done, Script, os_error};
use super::{Config, MkfsRun, Step};
use crate::{FileIdentity, HostError, User};

#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub effect: Effect,
    /// A failed sync has forgotten it: later syncs pass over it.
    pub forgotten: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub ino: Ino,
    pub direct_io: bool,
    pub discard_off: bool,
    /// It will go when the last holder does.
    pub clearing: bool,
    pub holders: Vec<User>,
    /// Holders that no listing shows.
    pub unseen: u32,
}

#[derive(Clone, Debug)]
pub(super) struct FakeDir {
    pub path: PathBuf,
    pub fs_type: String,
    pub fs_uuid: Option<Uuid>,
    pub options: Vec<String>,
    pub read_only: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub config: Config,
    pub powered: bool,
    pub alive: BTreeSet<u32>,
    pub next_process: u32,
    pub live: Disk,
    pub durable: Disk,
    pub waiting: Vec<Waiting>,
    pub dirs: Vec<FakeDir>,
    pub paths: BTreeMap<PathBuf, u64>,
    pub loops: BTreeMap<u32, Loop>,
    pub next_loop: u32,
    pub next_ino: Ino,
    pub locks: BTreeMap<(u64, String), u32>,
    pub handles: BTreeMap<u64, (u32, Ino)>,
    pub next_handle: u64,
    pub file_holders: Vec<(Ino, User)>,
    pub steps: u64,
    pub trace: Vec<Step>,
    pub script: Script,
    /// Each with the medium as it was when the fault began.
    pub faults: Vec<(DeviceFault, Vec<Arc<[u8]>>)>,
    /// Blocks that the device only says to be zero.
    pub pretended: BTreeSet<u64>,
    pub mkfs_runs: Vec<MkfsRun>,
}

/// What becomes of one call.
pub(super) enum Verdict {
    Go,
    Fail(io::Error),
    FailAfter(Done, io::Error),
}

impl Machine {
    /// Count a call, record it, and say what the script has for it.
    pub(super) fn next_step(&mut self, process: u32, op: &'static str, object: &str) -> Verdict {
        if !self.powered {
            return Verdict::Fail(io::Error::other("the machine has lost power"));
        }
        if !self.alive.contains(&process) {
            return Verdict::Fail(io::Error::other("the process was killed"));
        }
        self.steps += 1;
        self.trace.push(Step { number: self.steps, op, object: object.to_owned() });
        let Some((blow, done)) = self.script.strike(self.steps, op) else { return Verdict::Go };
        // An open that fails leaves nothing open behind in a process that lives on.
        let opens = matches!(op, "open_backing" | "lock");
        let done = if opens && matches!(blow, Blow::Error(_)) { Done::Nothing } else { done };
        // A sync that a kill or power cut stops has forgotten nothing.
        let syncs = matches!(op, "sync_file" | "sync_dir" | "device.flush");
        let done = if syncs && matches!((blow, done), (Blow::Kill | Blow::PowerLoss, Done::Part(_))) {
            Done::Nothing
        } else {
            done
        };
        let error = match blow {
            Blow::Error(errno) => os_error(errno),
            Blow::Kill => {
                self.alive.remove(&process);
                io::Error::other("the process was killed")
            }
            Blow::PowerLoss => {
                self.powered = false;
                io::Error::other("the machine has lost power")
            }
        };
        match done {
            Done::Nothing => Verdict::Fail(error),
            Done::Whole | Done::Part(_) => Verdict::FailAfter(done, error),
        }
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        self.live.apply(&effect, Fate::Kept);
        self.waiting.push(Waiting { effect, forgotten: false });
    }

    pub(super) fn new_inode(&mut self) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        let born = 1_700_000_000_000_000_000 + i64::try_from(ino).unwrap_or(0) * 1_000_003;
        let inode = Inode { born, size: 0, content: Vec::new(), blocks: BTreeMap::new() };
        self.live.inodes.insert(ino, inode.clone());
        // Invisible until a name leads to it; a power cut removes what no name leads to.
        self.durable.inodes.insert(ino, inode);
        ino
    }

    pub(super) fn identity(&self, ino: Ino) -> Option<FileIdentity> {
        self.live.inodes.get(&ino).map(|inode| FileIdentity { inode: ino, born: inode.born })
    }

    /// The inode behind a name, if it still is that file.
    pub(super) fn same_file(
        &self,
        op: &'static str,
        dir: u64,
        name: &str,
        identity: &FileIdentity,
    ) -> Result<Ino, HostError> {
        let Some(ino) = self.live.lookup(dir, name) else {
            return Err(HostError::refused(op, name, "there is no such file", "look for who removed it"));
        };
        if self.identity(ino) == Some(*identity) {
            Ok(ino)
        } else {
            Err(HostError::refused(op, name, "it is another file than the recorded one", "look for who replaced it"))
        }
    }

    /// Make durable what waits for this file.
    pub(super) fn sync_inode(&mut self, ino: Ino) {
        let mut left: Vec<Waiting> = Vec::new();
        for Waiting { effect, forgotten } in std::mem::take(&mut self.waiting) {
            if effect.ino() != ino || effect.dir().is_some() || forgotten {
                left.push(Waiting { effect, forgotten });
                continue;
            }
            let Effect::Data { ino, logical, physical, maps, .. } = effect else {
                self.durable.apply(&effect, Fate::Kept);
                continue;
            };
            // A device keeps the order of writes to one block: what was written there before cannot come back.
            left.retain(|w| !matches!(w.effect, Effect::Data { physical: p, .. } if p == physical));
            if self.is_afflicted(physical, |fault| matches!(fault, DeviceFault::ForgetOnFlush(_))) {
                let old = Arc::clone(&self.durable.medium[index(physical)]);
                self.live.medium[index(physical)] = Arc::clone(&old);
                self.durable.apply(&Effect::Data { ino, logical, physical, bytes: old, maps }, Fate::Kept);
            } else {
                self.durable.apply(&effect, Fate::Kept);
            }
        }
        self.waiting = left;
        self.collect();
    }

    /// A failed sync: the file's small content stays visible and is never made durable any more.
    pub(super) fn forget(&mut self, ino: Ino) {
        for w in &mut self.waiting {
            let content = matches!(w.effect, Effect::Replace { .. } | Effect::Append { .. } | Effect::Cut { .. });
            w.forgotten |= content && w.effect.ino() == ino;
        }
    }

    /// Make durable what waits for these names.
    pub(super) fn sync_names(&mut self, of: impl Fn(u64) -> bool) {
        let (now, left) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|w| w.effect.dir().is_some_and(&of) && !w.forgotten);
        self.waiting = left;
        for Waiting { effect, .. } in now {
            self.durable.apply(&effect, Fate::Kept);
        }
        self.collect();
    }

    /// Whether running programs can still reach it.
    pub(super) fn is_reachable(&self, ino: Ino) -> bool {
        self.live.names.values().any(|i| *i == ino) || self.is_held(ino)
    }

    fn is_held(&self, ino: Ino) -> bool {
        self.loops.values().any(|l| l.ino == ino)
            || self.handles.values().any(|(_, i)| *i == ino)
            || self.file_holders.iter().any(|(i, _)| *i == ino)
    }

    /// Give back the blocks of files that nothing leads to any more, on the disk or in memory.
    pub(super) fn collect(&mut self) {
        let named: BTreeSet<Ino> = self
            .durable
            .names
            .values()
            .copied()
            .chain(self.waiting.iter().filter(|w| w.effect.dir().is_some()).map(|w| w.effect.ino()))
            .collect();
        let dead: Vec<Ino> =
            self.live.inodes.keys().copied().filter(|i| !named.contains(i) && !self.is_reachable(*i)).collect();
        for ino in dead {
            self.live.inodes.remove(&ino);
            self.durable.inodes.remove(&ino);
            // Of its waiting effects only data may still reach the medium.
            self.waiting.retain(|w| w.effect.ino() != ino || matches!(w.effect, Effect::Data { .. }));
            for w in &mut self.waiting {
                if let Effect::Data { ino: of, maps, .. } = &mut w.effect {
                    *maps &= *of != ino;
                }
            }
        }
    }

    fn free_blocks(&self) -> Vec<u64> {
        let mut used = self.live.used();
        used.extend(self.durable.used());
        for w in &self.waiting {
            match &w.effect {
                Effect::Allocate { blocks, .. } => used.extend(blocks.iter().map(|(_, p)| *p)),
                Effect::Data { physical, maps: true, .. } => {
                    used.insert(*physical);
                }
                _ => {}
            }
        }
        (0..self.config.blocks).filter(|b| !used.contains(b)).collect()
    }

    /// Up to `count` free blocks, in one run where there is one, lowest first: what was freed is soon used again.
    pub(super) fn allocate(&mut self, count: usize) -> Vec<u64> {
        let mut free = self.free_blocks();
        if free.len() < count {
            // Blocks of a removed file are not used again before its removal is durable; a full filesystem commits.
            self.sync_names(|_| true);
            free = self.free_blocks();
        }
        if count == 0 {
            return Vec::new();
        }
        let run = free.windows(count).find(|w| w[count - 1] - w[0] == count as u64 - 1);
        run.map_or_else(|| free.iter().take(count).copied().collect(), <[u64]>::to_vec)
    }

    pub(super) fn is_afflicted(&self, physical: u64, which: impl Fn(&DeviceFault) -> bool) -> bool {
        let block = self.config.block as u64;
        let bytes = physical * block..(physical + 1) * block;
        self.faults.iter().any(|(fault, _)| which(fault) && fault.touches(&bytes))
    }

    /// Fill `buf` from a file, whole blocks.
    pub(super) fn read_blocks(&self, ino: Ino, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let size = self.config.block;
        let inode = self.live.inodes.get(&ino).ok_or_else(|| os_error(Errno::ENXIO))?;
        for (i, piece) in buf.chunks_mut(size).enumerate() {
            let logical = offset / size as u64 + i as u64;
            let block = inode.blocks.get(&logical).filter(|b| b.written && !self.pretended.contains(&b.physical));
            let Some(Block { physical, .. }) = block.copied() else {
                piece.fill(0);
                continue;
            };
            if self.is_afflicted(physical, |f| matches!(f, DeviceFault::ReadError(_))) {
                return Err(os_error(Errno::EIO));
            }
            let bytes = physical * size as u64..(physical + 1) * size as u64;
            let stale = self.faults.iter().find(|(f, _)| matches!(f, DeviceFault::StaleReads(_)) && f.touches(&bytes));
            let medium = stale.map_or(&self.live.medium, |(_, old)| old);
            piece.copy_from_slice(&medium[index(physical)][..piece.len()]);
            for (fault, _) in &self.faults {
                if let DeviceFault::FlippedBit { offset, bit } = fault
                    && bytes.contains(offset)
                    && let Some(byte) = piece.get_mut(index(offset - bytes.start))
                {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
        Ok(())
    }

    /// Write whole blocks of a file, as a disk with a volatile cache does.
    pub(super) fn write_blocks(&mut self, ino: Ino, offset: u64, bytes: &[u8], done: Done) -> io::Result<()> {
        let size = self.config.block;
        let count = bytes.len().div_ceil(size);
        let most = match done {
            Done::Part(seed) => Rng::new(seed).pick(count.max(1)),
            Done::Nothing | Done::Whole => count,
        };
        for (i, piece) in bytes.chunks(size).enumerate().take(most) {
            let logical = offset / size as u64 + i as u64;
            let inode = self.live.inodes.get(&ino).ok_or_else(|| os_error(Errno::ENXIO))?;
            let (physical, maps) = match inode.blocks.get(&logical).copied() {
                Some(block) if !self.live.is_shared(block.physical) => (block.physical, !block.written),
                _ => (*self.allocate(1).first().ok_or_else(|| os_error(Errno::ENOSPC))?, true),
            };
            if self.is_afflicted(physical, |f| matches!(f, DeviceFault::WriteError(_))) {
                return Err(os_error(Errno::EIO));
            }
            let pretends =
                is_zero(piece) && self.is_afflicted(physical, |f| matches!(f, DeviceFault::PretendedZeroes(_)));
            if pretends {
                self.pretended.insert(physical);
            } else {
                self.pretended.remove(&physical);
            }
            let bytes = if pretends || self.is_afflicted(physical, |f| matches!(f, DeviceFault::DropWrites(_))) {
                Arc::clone(&self.live.medium[index(physical)])
            } else {
                piece.into()
            };
            self.perform(Effect::Data { ino, logical, physical, bytes, maps });
        }
        Ok(())
    }

    /// The loop device lets go: at once, or after its last holder.
    pub(super) fn let_go(&mut self, number: u32) -> bool {
        let Some(device) = self.loops.get_mut(&number) else { return true };
        device.clearing = true;
        if !device.holders.is_empty() || device.unseen > 0 {
            return false;
        }
        self.loops.remove(&number);
        self.collect();
        true
    }
}
