//! The engine's surroundings on a real node: clock, chance, boot id, and the disk beneath a pool as discovery sees it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bedplate_core::disk::{DeviceNumber, Layer};
use bedplate_core::identity::Strength;
use bedplate_core::receipt::DiskName;
use bedplate_provisioner::surroundings::{RealSurroundings, Surroundings};
use jiff::Timestamp;

use crate::discover::{Disk, Opened, Settings, discover};

/// How long one scan answers for: receipts come in bursts, disks come and go rarely.
const FRESH: Duration = Duration::from_secs(30);

/// What surrounds the engine on this node.
pub struct NodeSurroundings {
    real: RealSurroundings,
    settings: Settings,
    seen: Mutex<Option<(Instant, Vec<Disk>)>>,
}

impl NodeSurroundings {
    /// On this machine.
    ///
    /// # Errors
    /// Where `/proc` is not there.
    pub fn new(settings: Settings) -> std::io::Result<Self> {
        Ok(Self { real: RealSurroundings::new()?, settings, seen: Mutex::new(None) })
    }
}

impl Surroundings for NodeSurroundings {
    fn now(&self) -> Timestamp {
        self.real.now()
    }

    fn random(&self) -> [u8; 32] {
        self.real.random()
    }

    fn boot(&self) -> String {
        self.real.boot()
    }

    fn disk(&self, device: Option<(u32, u32)>) -> DiskName {
        let Some((major, minor)) = device else { return self.real.disk(None) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.as_ref().is_none_or(|(at, _)| at.elapsed() > FRESH) {
            match discover(&self.settings, &Opened) {
                Ok(report) => *seen = Some((Instant::now(), report.disks)),
                Err(error) => {
                    tracing::warn!(error = %error, "the disk beneath a pool could not be looked up");
                    return self.real.disk(device);
                }
            }
        }
        let disks = seen.as_ref().map(|(_, disks)| disks.as_slice()).unwrap_or_default();
        disks.iter().find(|d| carries(d, DeviceNumber { major, minor })).map_or_else(|| self.real.disk(device), name)
    }
}

/// Whether `number` is the disk, one of its partitions, or a layer on them.
pub fn carries(disk: &Disk, number: DeviceNumber) -> bool {
    fn in_layers(layers: &[Layer], number: DeviceNumber) -> bool {
        layers.iter().any(|layer| layer.number == Some(number) || in_layers(&layer.holders, number))
    }
    let facts = &disk.facts;
    facts.number == number
        || in_layers(&facts.holders, number)
        || facts.partitions.iter().any(|p| p.number == Some(number) || in_layers(&p.holders, number))
}

fn name(disk: &Disk) -> DiskName {
    let strength = match disk.identity.strength {
        Strength::Strong => "strong",
        Strength::Weak | Strength::None => "weak",
    };
    DiskName {
        serial: disk.facts.serial.clone(),
        wwn: disk.facts.wwn.clone(),
        model: disk.facts.model.clone(),
        identity: strength.to_owned(),
        device: Some(disk.facts.name.clone()),
        filesystem_uuid: None,
    }
}
