//! What a pod asks of a node's disks.

use std::sync::Arc;

use crate::class::{Class, MediaDemand};
use crate::volume::{BadSize, Mode};
use crate::wipe::Level;

/// One claim that has no volume yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimDemand {
    /// Which claim, for people: its name.
    pub id: Arc<str>,
    /// Bytes its volume will take: the size that is made, not the size asked for.
    pub bytes: u64,
    /// In this pool and no other.
    pub pool: Option<Arc<str>>,
    /// On this medium; `ssd` accepts NVMe.
    pub media: Option<MediaDemand>,
    /// At least this level.
    pub wipe: Option<Level>,
    /// How it is offered.
    pub mode: Mode,
}

impl ClaimDemand {
    /// A claim of `class` for `required` bytes. Sizes are rounded exactly as whoever makes the volume rounds them.
    ///
    /// # Errors
    /// Where no volume can have that size.
    pub fn new(id: &str, required: u64, class: &Class, mode: Mode) -> Result<Self, BadSize> {
        Ok(Self {
            id: id.into(),
            bytes: mode.size(required, 0)?,
            pool: class.pool.as_ref().map(|pool| pool.as_str().into()),
            media: class.media,
            wipe: class.wipe,
            mode,
        })
    }

    /// Whether two claims ask the same of a pool.
    pub(super) fn like(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.pool == other.pool && self.media == other.media && self.wipe == other.wipe
    }
}

/// All claims of a pod that are Bedplate's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDemand {
    /// Those that have no volume yet.
    pub claims: Vec<ClaimDemand>,
    /// Nodes of the volumes that the others have already, bound or being made: the pod can run nowhere else.
    pub fixed: Vec<Arc<str>>,
}
