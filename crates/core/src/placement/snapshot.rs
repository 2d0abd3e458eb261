//! A node's storage, reduced to what placement asks of it.

use std::sync::Arc;

use super::brief::Brief;
use crate::class::MediaDemand;
use crate::filesystem::FsType;
use crate::media::Media;
use crate::wipe::Level;

/// A set of filesystems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filesystems(u8);

impl Filesystems {
    /// Whether `fs` is among them.
    #[must_use]
    pub const fn has(self, fs: FsType) -> bool {
        self.0 & (1 << fs as u8) != 0
    }

    /// Whether all of `wanted` are among them.
    #[must_use]
    pub const fn has_all(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

impl FromIterator<FsType> for Filesystems {
    fn from_iter<I: IntoIterator<Item = FsType>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |set, fs| set | (1 << fs as u8)))
    }
}

/// A node that has an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Whether its agent says that it can make volumes.
    pub ready: bool,
    /// What it can make and mount.
    pub filesystems: Filesystems,
    /// Its pools, in an order that lasts: holds and choices name a pool by its place.
    pub pools: Vec<Pool>,
}

impl Node {
    /// The same, without owning the pools.
    #[must_use]
    pub fn view(&self) -> NodeView<'_> {
        NodeView::new(self.ready, self.filesystems, &self.pools, &[])
    }
}

/// A node whose pools are kept elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView<'a> {
    /// As in [`Node`].
    pub ready: bool,
    /// As in [`Node`].
    pub filesystems: Filesystems,
    /// As in [`Node`].
    pub pools: &'a [Pool],
    briefs: &'a [Brief],
}

impl<'a> NodeView<'a> {
    /// With each pool in brief, where its owner keeps that; else with nothing, and it is made whenever it is wanted.
    #[must_use]
    pub const fn new(ready: bool, filesystems: Filesystems, pools: &'a [Pool], briefs: &'a [Brief]) -> Self {
        Self { ready, filesystems, pools, briefs }
    }

    /// Each pool in brief, where its owner keeps that.
    pub(super) fn briefs(self) -> Option<&'a [Brief]> {
        (self.briefs.len() == self.pools.len()).then_some(self.briefs)
    }
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: Arc<str>,
    /// What its disk is made of.
    pub media: Media,
    /// The best level its wipes can state, if it said.
    pub level: Option<Level>,
    /// Whether it is there.
    pub present: bool,
    /// Bytes it can hold in all.
    pub capacity: u64,
    /// Bytes a new volume may take, as the node said at one moment of its ledger.
    pub free: u64,
    /// The largest single volume at that moment, in bytes.
    pub largest: u64,
    /// Bytes promised to volumes that the ledger did not hold at that moment.
    pub promised: u64,
    /// Place of the first pool of this node that draws on the same room (pools on one filesystem); its own where it is
    /// alone.
    pub shares: u16,
}

impl Pool {
    /// Bytes that are neither taken nor promised.
    #[must_use]
    pub const fn room(&self) -> u64 {
        self.free.saturating_sub(self.promised)
    }

    /// How far above what is asked for its medium is, or `None` where it will not do.
    #[must_use]
    pub const fn waste(&self, asked: Option<MediaDemand>) -> Option<u8> {
        self.media.waste(asked)
    }
}

impl Media {
    /// Every one, in its own order.
    pub const ALL: [Self; 4] = [Self::Nvme, Self::Ssd, Self::Hdd, Self::Unknown];

    /// How far above what is asked for it is, or `None` where it will not do.
    #[must_use]
    pub const fn waste(self, asked: Option<MediaDemand>) -> Option<u8> {
        match (asked, self) {
            (Some(MediaDemand::Hdd), Self::Hdd)
            | (Some(MediaDemand::Ssd), Self::Ssd)
            | (Some(MediaDemand::Nvme), Self::Nvme)
            | (None, Self::Hdd | Self::Unknown) => Some(0),
            (Some(MediaDemand::Ssd), Self::Nvme) | (None, Self::Ssd) => Some(1),
            (None, Self::Nvme) => Some(2),
            (Some(_), _) => None,
        }
    }
}
