//! The only thing in a scan that touches a device. A trait, because a recorded machine has no devices to open.

use std::path::Path;

use bedplate_blockdev::signature;
use bedplate_core::disk::{DeviceNumber, Exclusive};
use bedplate_core::signature::Look;

/// Looking at devices.
pub trait Eyes {
    /// Read what lies on the device behind `node`, which must be `number`; `sector` is its logical sector in bytes.
    fn look(&self, node: &Path, number: DeviceNumber, sector: u32) -> Look;
    /// Try whether it can be held exclusively, and let go.
    fn hold(&self, node: &Path, number: DeviceNumber) -> Exclusive;
}

/// Opens device nodes, read-only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opened;

impl Eyes for Opened {
    fn look(&self, node: &Path, number: DeviceNumber, sector: u32) -> Look {
        signature::as_fact(signature::look(node, number, sector))
    }

    fn hold(&self, node: &Path, number: DeviceNumber) -> Exclusive {
        match signature::can_hold(node, number) {
            Ok(true) => Exclusive::Opened,
            Ok(false) => Exclusive::Busy,
            Err(error) => Exclusive::Failed(signature::sentence(&error)),
        }
    }
}
