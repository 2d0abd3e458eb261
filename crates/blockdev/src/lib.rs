//! The only crate that opens a device or calls an ioctl.
//!
//! [`Host`] is everything the volume engine may ask of a machine, one call a step: each may fail, and each may be the
//! last before a power cut. `linux` is the real machine; `fake` is a scripted one that fails, lies or loses power at
//! call n, so that the engine's promises can be tested at every step.

pub mod device;
pub mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod host;
pub mod linux;
pub mod memory;
pub mod probe_io;
pub mod raw;
pub mod scratch;
pub mod signature;

pub use device::{Aligned, Device, ZeroMethod};
pub use error::{Failed, HostError, Refused};
pub use host::{Attachment, BackingFacts, Detached, Dir, FileIdentity, Host, Lock, LoopDevice, Mkfs, PoolFacts, User};
pub use linux::{LinuxHost, Roots};
