//! Time, chance and the machine's names, as the engine sees them: arguments, so that tests decide.

use bedplate_core::receipt::DiskName;
use jiff::Timestamp;

/// What surrounds the engine.
pub trait Surroundings: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
    /// 256 random bits, fit for secrets.
    fn random(&self) -> [u8; 32];
    /// The kernel's boot id: differs after every reboot.
    fn boot(&self) -> String;
    /// What is known of the disk beneath the block device (major, minor).
    fn disk(&self, device: Option<(u32, u32)>) -> DiskName;
}

/// The real ones.
#[derive(Debug, Default)]
pub struct RealSurroundings {
    boot: String,
}

impl RealSurroundings {
    /// Read the boot id.
    ///
    /// # Errors
    /// Where `/proc` is not there.
    pub fn new() -> std::io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { boot })
    }
}

impl Surroundings for RealSurroundings {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn random(&self) -> [u8; 32] {
        rand::random()
    }

    fn boot(&self) -> String {
        self.boot.clone()
    }

    fn disk(&self, device: Option<(u32, u32)>) -> DiskName {
        let device = device.map(|(major, minor)| format!("{major}:{minor}"));
        DiskName { identity: "weak".to_owned(), device, ..DiskName::default() }
    }
}
