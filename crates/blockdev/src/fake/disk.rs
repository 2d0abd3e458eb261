//! What survives power: the medium, the inodes with their block maps, the names.
//!
//! A freed block keeps its bytes, and a block handed out again is *unwritten*: reading it gives zeroes while the medium
//! still holds what was there, as ext4 and xfs do with `fallocate`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bedplate_core::extent::{Extent, ExtentFlags, PhysicalMap, RawExtent};

use super::effect::{Effect, Fate};

/// Inode number.
pub(super) type Ino = u64;

/// One filesystem block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Block number on the medium.
    pub physical: u64,
    /// Whether it was ever written since it was allocated.
    pub written: bool,
}

/// A file: small ones hold `content` apart from the medium, backing files hold `blocks`.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub born: i64,
    pub size: u64,
    pub content: Vec<u8>,
    pub blocks: BTreeMap<u64, Block>,
}

/// Everything that is on the disk.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub block: usize,
    pub medium: Vec<Arc<[u8]>>,
    pub inodes: BTreeMap<Ino, Inode>,
    pub names: BTreeMap<(u64, String), Ino>,
    /// Whether files ever shared blocks here; saves looking where none did.
    pub had_clones: bool,
}

/// Narrow an offset that is known to lie inside a medium held in memory.
pub(super) fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Disk {
    pub(super) fn blank(block: usize, blocks: u64) -> Self {
        let zero: Arc<[u8]> = vec![0; block].into();
        let medium = (0..blocks).map(|_| Arc::clone(&zero)).collect();
        Self { block, medium, inodes: BTreeMap::new(), names: BTreeMap::new(), had_clones: false }
    }

    pub(super) fn lookup(&self, dir: u64, name: &str) -> Option<Ino> {
        self.names.get(&(dir, name.to_owned())).copied()
    }

    pub(super) fn links(&self, ino: Ino) -> u64 {
        self.names.values().filter(|i| **i == ino).count() as u64
    }

    /// Every block that some file of this state holds.
    pub(super) fn used(&self) -> BTreeSet<u64> {
        self.inodes.values().flat_map(|i| i.blocks.values().map(|b| b.physical)).collect()
    }

    fn owners(&self, physical: u64) -> usize {
        self.inodes.values().flat_map(|i| i.blocks.values()).filter(|b| b.physical == physical).count()
    }

    /// Whether another file holds the block too.
    pub(super) fn is_shared(&self, physical: u64) -> bool {
        self.had_clones && self.owners(physical) > 1
    }

    pub(super) fn map(&self, inode: &Inode) -> PhysicalMap {
        let length = self.block as u64;
        let raw = inode.blocks.iter().map(|(logical, block)| RawExtent {
            extent: Extent { logical: logical * length, physical: block.physical * length, length },
            flags: ExtentFlags {
                unwritten: !block.written,
                shared: self.is_shared(block.physical),
                ..ExtentFlags::default()
            },
        });
        PhysicalMap::normalise(raw, inode.size)
    }

    /// Let one effect happen, as far as `fate` says.
    pub(super) fn apply(&mut self, effect: &Effect, fate: Fate) {
        if fate == Fate::Lost {
            return;
        }
        match effect {
            Effect::Link { dir, name, ino } => {
                self.names.insert((*dir, name.clone()), *ino);
            }
            Effect::Unlink { dir, name, ino } => self.unlink(*dir, name, *ino),
            Effect::Rename { dir, from, to, ino } => {
                self.unlink(*dir, from, *ino);
                self.names.insert((*dir, to.clone()), *ino);
            }
            Effect::Replace { ino, content } => {
                if let Some(inode) = self.inodes.get_mut(ino) {
                    inode.content = fate.of(content);
                }
            }
            Effect::Append { ino, at, bytes } => {
                if let Some(inode) = self.inodes.get_mut(ino) {
                    let bytes = fate.of(bytes);
                    let end = at + bytes.len();
                    if inode.content.len() < end {
                        inode.content.resize(end, 0);
                    }
                    inode.content[*at..end].copy_from_slice(&bytes);
                }
            }
            Effect::Cut { ino, length } => {
                if let Some(inode) = self.inodes.get_mut(ino) {
                    inode.content.resize(*length, 0);
                }
            }
            Effect::Allocate { ino, blocks, size } => {
                if let Some(inode) = self.inodes.get_mut(ino) {
                    for (logical, physical) in blocks {
                        inode.blocks.insert(*logical, Block { physical: *physical, written: false });
                    }
                    inode.size = inode.size.max(*size);
                }
            }
            Effect::Data { ino, logical, physical, bytes, maps } => {
                self.medium[index(*physical)] = Arc::clone(bytes);
                if let (true, Fate::Kept, Some(inode)) = (*maps, fate, self.inodes.get_mut(ino)) {
                    inode.blocks.insert(*logical, Block { physical: *physical, written: true });
                }
            }
            Effect::Unwrite { ino, logical } => {
                if let Some(block) = self.inodes.get_mut(ino).and_then(|i| i.blocks.get_mut(logical)) {
                    block.written = false;
                }
            }
        }
    }

    fn unlink(&mut self, dir: u64, name: &str, ino: Ino) {
        let key = (dir, name.to_owned());
        if self.names.get(&key) == Some(&ino) {
            self.names.remove(&key);
        }
    }
}
