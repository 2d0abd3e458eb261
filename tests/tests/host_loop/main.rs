//! The real machine on filesystems of the test's own: ext4, xfs and btrfs hosts on loop devices on the real disk.
//!
//! Every rule about images has its test here with the kernel's own behaviour beside it as a control: the same act on a
//! device without the rule does the harm that the rule prevents.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this is test code; clippy knows only `#[test]` functions"
)]

mod backing;
mod files;
mod format;
mod rig;
mod rules;
mod users;
mod wiping;
