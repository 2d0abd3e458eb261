//! From Kubernetes objects to what placement asks of them. Pure: no client, no watch, no decision.
//!
//! Objects are reduced to facts of a few words each, so that whoever watches a large cluster can drop the rest at once.

mod facts;
mod ledger;
mod names;
mod quantity;
mod unsupported;

pub use facts::{NodeFacts, PoolFacts, VolumeFacts};
pub use ledger::{Allocation, Ledger, Slot};
pub use quantity::{NotAQuantity, bytes_of, quantity_of};
pub use unsupported::{Unsupported, is_populated};

use bedplate_core::class::Class;
use bedplate_core::filesystem::FsType;
use bedplate_core::placement::ClaimDemand;
use bedplate_core::volume::{BadSize, Mode};

use crate::local_volume::VolumeMode;

/// Why a claim cannot be placed anywhere, whatever the nodes look like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDemand {
    /// It asks for no size that can be read.
    #[error("spec.resources.requests.storage: {0}")]
    Quantity(NotAQuantity),
    /// No volume can have its size.
    #[error("spec.resources.requests.storage: {0}")]
    Size(BadSize),
}

/// What the claim `name` of `class` asks of a node: `storage` is its request as Kubernetes writes it.
///
/// # Errors
/// Where the request is no size, or one that no volume can have.
pub fn demand(name: &str, storage: &str, mode: VolumeMode, class: &Class) -> Result<ClaimDemand, BadDemand> {
    let required = bytes_of(storage).map_err(BadDemand::Quantity)?;
    let mode = match mode {
        VolumeMode::Filesystem => Mode::Filesystem(class.fs_type.unwrap_or(FsType::Ext4)),
        VolumeMode::Block => Mode::Block,
    };
    ClaimDemand::new(name, required, class, mode).map_err(BadDemand::Size)
}

#[cfg(test)]
mod tests;
