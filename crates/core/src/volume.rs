//! A volume's life, in types.
//!
//! `Freed` is reachable only from `Verified`, `Quarantined` only from `Released`: the transitions are methods of the
//! state they leave, so an illegal one does not compile. Each returns the [`Change`] to journal *before* acting on the
//! new state; replaying changes goes through the same methods ([`AnyVolume::apply`]).

mod replay;
mod size;
mod spec;
mod states;

pub use replay::{AnyVolume, IllegalChange};
pub use size::{BadSize, DEFAULT_SIZE, GRAIN};
pub use spec::{Backing, Claim, FileIdentity, Mode, Origin, Promise, Release, ReleaseKind, Spec};
pub use states::{
    Change, Discarded, Flushed, Forgotten, Format, Freed, Quarantined, Ready, Released, Reserved, Retained, Staged,
    Stuck, StuckReason, Verified, Verifying, Volume, Wiping,
};

#[cfg(test)]
mod tests;
