//! Disks that clouds and hypervisors are known by, from their vendors' documents and from what their guests report.

use super::{MachineIdentity, Media};
use crate::disk::{DiskFacts, Transport};

/// What a model name gives away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Flash in this machine.
    LocalFlash {
        /// `nvme` or `ssd`.
        media: Media,
        /// Whose, with an article where needed.
        name: String,
    },
    /// A volume behind a network.
    Network {
        /// Whose.
        name: String,
    },
    /// A disk that a hypervisor or controller makes up; nothing is known about what is behind.
    Virtual {
        /// Whose disks, in the plural.
        name: String,
    },
}

/// EC2 instance types whose instance store is made of hard disks although it speaks NVMe or Xen
/// (AWS, "Storage optimized instances": D2, D3, D3en, H1).
const EC2_HDD_FAMILIES: [&str; 4] = ["d2.", "d3.", "d3en.", "h1."];

/// How a row of the table is matched.
enum Match {
    Exactly(&'static str),
    Starts(&'static str),
}

impl Match {
    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exactly(whole) => text == *whole,
            Self::Starts(start) => text.starts_with(start),
        }
    }
}

const NETWORK: [(Match, &str); 11] = [
    (Match::Starts("Amazon Elastic Block Store"), "an Amazon EBS volume"),
    (Match::Exactly("nvme_card-pd"), "a Google Persistent Disk or Hyperdisk"),
    (Match::Starts("Google PersistentDisk"), "a Google Persistent Disk"),
    (Match::Starts("MSFT NVMe Accelerator"), "an Azure remote disk"),
    (Match::Starts("ORACLE BlockVolume"), "an Oracle Cloud block volume"),
    (Match::Starts("Alibaba Cloud Elastic Block Storage"), "an Alibaba Cloud disk"),
    (Match::Starts("HC Volume"), "a Hetzner Cloud volume"),
    (Match::Starts("DO Volume"), "a DigitalOcean volume"),
    (Match::Starts("SCW b_ssd"), "a Scaleway volume"),
    (Match::Starts("LIO-ORG"), "an iSCSI or fabric target"),
    (Match::Starts("IET VIRTUAL-DISK"), "an iSCSI target"),
];

const LOCAL_FLASH: [(Match, Media, &str); 3] = [
    (Match::Starts("Microsoft NVMe Direct Disk"), Media::Nvme, "an Azure local NVMe disk"),
    (Match::Exactly("nvme_card"), Media::Nvme, "a Google local SSD"),
    (Match::Starts("Google EphemeralDisk"), Media::Ssd, "a Google local SSD"),
];

const VIRTUAL: [(Match, &str); 9] = [
    (Match::Starts("QEMU"), "QEMU's virtual disks"),
    (Match::Starts("VMware"), "VMware's virtual disks, vSAN's among them"),
    (Match::Starts("Msft Virtual"), "Hyper-V's and Azure's virtual disks"),
    (Match::Starts("VBOX"), "VirtualBox's virtual disks"),
    (Match::Starts("ATA VBOX"), "VirtualBox's virtual disks"),
    (Match::Starts("ATA QEMU"), "QEMU's virtual disks"),
    (Match::Starts("ATA VMware"), "VMware's virtual disks, vSAN's among them"),
    (Match::Starts("NUTANIX"), "Nutanix's virtual disks"),
    (Match::Starts("Virtual"), "virtual disks"),
];

pub(super) fn known(facts: &DiskFacts, machine: &MachineIdentity) -> Option<Known> {
    let model = facts.model.as_deref().unwrap_or_default().trim();
    let vendor = facts.vendor.as_deref().unwrap_or_default().trim();
    // SCSI splits one name over two fields; NVMe's and virtio's vendor is a PCI number and says nothing here.
    let full =
        if vendor.is_empty() || vendor.starts_with("0x") { model.to_owned() } else { format!("{vendor} {model}") };
    let any = |row: &Match| row.fits(model) || row.fits(&full);

    if model.starts_with("Amazon EC2 NVMe Instance Storage") {
        return Some(ec2_instance_store(machine));
    }
    // Google numbers its local disks where each has a controller of its own: nvme_card0, nvme_card1, …
    let numbered =
        model.strip_prefix("nvme_card").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if numbered {
        return Some(Known::LocalFlash { media: Media::Nvme, name: "a Google local SSD".to_owned() });
    }
    if let Some((_, media, name)) = LOCAL_FLASH.iter().find(|(row, ..)| any(row)) {
        return Some(Known::LocalFlash { media: *media, name: (*name).to_owned() });
    }
    if let Some((_, name)) = NETWORK.iter().find(|(row, _)| any(row)) {
        return Some(Known::Network { name: (*name).to_owned() });
    }
    if let Some((_, name)) = VIRTUAL.iter().find(|(row, _)| any(row)) {
        return Some(Known::Virtual { name: (*name).to_owned() });
    }
    let xen = facts.transport == Transport::Xen || machine.hypervisor.as_deref() == Some("xen");
    (xen && model.is_empty()).then(|| Known::Virtual { name: "Xen's virtual disks".to_owned() })
}

fn ec2_instance_store(machine: &MachineIdentity) -> Known {
    match machine.product.as_deref().map(str::trim) {
        Some(product) if !EC2_HDD_FAMILIES.iter().any(|family| product.starts_with(family)) => {
            Known::LocalFlash { media: Media::Nvme, name: format!("the NVMe instance store of an EC2 {product}") }
        }
        Some(product) => Known::Virtual { name: format!("the instance store of an EC2 {product}, made of hard disks") },
        None => Known::Virtual { name: "an EC2 instance store of unknown instance type".to_owned() },
    }
}
