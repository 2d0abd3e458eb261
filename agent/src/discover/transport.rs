//! How a disk is attached, from its place in the device tree and the driver of its controller.
//!
//! Sources: kernel `Documentation/ABI/testing/sysfs-block`, the drivers' own `proc_name`, and the names that the SCSI
//! transport classes give their parts of the tree (`session*`, `rport-*`, `end_device-*`).

use std::path::Path;

use bedplate_core::disk::Transport;

use super::attributes::Attributes;

/// Drivers whose logical drives hide the disks behind them.
const RAID: [&str; 14] = [
    "megaraid_sas",
    "megaraid",
    "mpi3mr",
    "hpsa",
    "smartpqi",
    "cciss",
    "aacraid",
    "arcmsr",
    "3w-9xxx",
    "3w-sas",
    "ips",
    "hptiop",
    "stex",
    "esas2r",
];
const SAS: [&str; 9] =
    ["mpt2sas", "mpt3sas", "mptsas", "isci", "pm80xx", "mvsas", "aic94xx", "hisi_sas_v3_hw", "hisi_sas"];

/// A disk's transport and its controller's driver.
pub(super) struct Attachment {
    pub(super) transport: Transport,
    pub(super) driver: Option<String>,
}

/// `place` is the disk's folder in the device tree, every link resolved; `vendor` and `model` as SCSI words them.
pub(super) fn of(name: &str, place: &Path, vendor: Option<&str>, model: Option<&str>) -> Attachment {
    let parts: Vec<String> = place.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let starts = |prefix: &str| parts.iter().any(|part| numbered(part, prefix));
    let driver = scsi_driver(place);
    let hidden_by_raid = driver.as_deref().is_some_and(|d| RAID.contains(&d)) || logical_volume(vendor, model);

    let transport = if let Some(transport) = by_name(name) {
        transport
    } else if name.starts_with("nvme") {
        nvme(place)
    } else if starts("usb") {
        Transport::Usb
    } else if starts("session") || driver.as_deref() == Some("iscsi_tcp") {
        Transport::Iscsi
    } else if parts.iter().any(|p| p.starts_with("rport-")) || matches!(driver.as_deref(), Some("qla2xxx" | "lpfc")) {
        Transport::FibreChannel
    } else if starts("virtio") || driver.as_deref() == Some("virtio_scsi") {
        Transport::Virtio
    } else if parts.iter().any(|p| p.starts_with("vbd-")) {
        Transport::Xen
    } else if driver.as_deref() == Some("storvsc_host") || parts.iter().any(|p| p.starts_with("VMBUS")) {
        Transport::HyperV
    } else if driver.as_deref() == Some("vmw_pvscsi") || vendor.is_some_and(|v| v.trim() == "VMware") {
        Transport::Vmware
    } else if hidden_by_raid {
        Transport::Raid
    } else if starts("ata") {
        Transport::Sata
    } else if driver.as_deref().is_some_and(|d| SAS.contains(&d)) || parts.iter().any(|p| p.starts_with("end_device-"))
    {
        Transport::Sas
    } else if name.starts_with("sd") || starts("host") {
        Transport::Scsi
    } else {
        Transport::Unknown
    };
    Attachment { transport, driver }
}

fn by_name(name: &str) -> Option<Transport> {
    let by = [
        ("vd", Transport::Virtio),
        ("xvd", Transport::Xen),
        ("mmcblk", Transport::Mmc),
        ("nbd", Transport::NetworkBlock),
        ("rbd", Transport::NetworkBlock),
        ("drbd", Transport::NetworkBlock),
        ("pmem", Transport::Pmem),
        ("loop", Transport::Loop),
        ("dm-", Transport::DeviceMapper),
        ("md", Transport::Md),
    ];
    by.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, transport)| *transport)
}

/// Whether `part` is `prefix` and a number: `usb3`, `host12`.
fn numbered(part: &str, prefix: &str) -> bool {
    part.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Logical volumes that otherwise plain SAS adapters make (LSI's integrated RAID), and controllers known by name.
fn logical_volume(vendor: Option<&str>, model: Option<&str>) -> bool {
    let model = model.unwrap_or_default().trim();
    let vendor = vendor.unwrap_or_default().trim();
    model.eq_ignore_ascii_case("logical volume")
        || model.starts_with("PERC ")
        || (vendor == "LSI" && model.starts_with("MR"))
}

/// With native multipath a namespace hangs on a subsystem, whose controllers know the transport.
fn nvme(place: &Path) -> Transport {
    let device = Attributes::new(place.join("device"));
    let transport = device.text("transport").or_else(|| {
        let controllers = device.names("");
        controllers.iter().filter(|c| numbered(c, "nvme")).find_map(|c| device.sub(c).text("transport"))
    });
    match transport.as_deref() {
        Some("pcie") => Transport::Nvme,
        Some("tcp" | "rdma" | "fc" | "loop") => Transport::NvmeFabrics,
        // Kernels before 4.15 do not say; a controller on PCI is in the path then.
        _ if place.iter().any(|part| part.to_string_lossy().starts_with("pci")) => Transport::Nvme,
        _ => Transport::Unknown,
    }
}

/// The SCSI host adapter's driver: `…/hostN/scsi_host/hostN/proc_name`.
fn scsi_driver(place: &Path) -> Option<String> {
    let host = place.ancestors().find(|p| p.file_name().is_some_and(|n| numbered(&n.to_string_lossy(), "host")))?;
    let name = host.file_name()?.to_string_lossy().into_owned();
    Attributes::new(host).sub("scsi_host").sub(&name).text("proc_name").filter(|d| d != "<NULL>" && d != "(null)")
}
