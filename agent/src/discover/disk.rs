//! The facts of one whole disk, from its folder in sysfs and udev's record of it.

use std::collections::BTreeMap;

use bedplate_core::bytes::Bytes;
use bedplate_core::disk::{DeviceNumber, DiskFacts, Exclusive, Kind, QueueFacts, Transport};
use bedplate_core::identity::normal_wwn;
use bedplate_core::signature::Look;

use super::Roots;
use super::attributes::Attributes;
use super::layers;
use super::transport::{self, Attachment};
use super::udev::Record;
use super::usage::Usage;
use super::vpd;

/// Facts of the disk `name`, its content not yet looked at; `None` for what is no disk (memory disks, detached loop and
/// network devices, mappings that are layers of another disk, hidden paths) and for one that vanished meanwhile.
pub(super) fn read(
    roots: &Roots,
    usage: &Usage,
    listed: Option<&BTreeMap<String, Bytes>>,
    name: &str,
) -> Option<DiskFacts> {
    let block = Attributes::new(roots.sys.join("block").join(name));
    if ["zram", "ram"].iter().any(|memory| name.starts_with(memory)) || block.flag("hidden") == Some(true) {
        return None;
    }
    let number: DeviceNumber = block.text("dev")?.parse().ok()?;
    let diskseq: Option<u64> = block.number("diskseq");
    let size = block.sectors("size");
    let device = layers::kind(&block, name);
    let empty = size == Some(Bytes::ZERO);
    let is_entry = match &device {
        Kind::Loop { backing, .. } => backing.is_some() && !empty,
        Kind::DeviceMapper { .. } => device.is_multipath(),
        Kind::Md { .. } | Kind::Virtual => !empty,
        Kind::Disk => !(empty && name.starts_with("nbd")),
        Kind::Drive => true,
    };
    if !is_entry {
        return None;
    }

    let place = std::fs::canonicalize(block.path()).ok()?;
    let bus = block.sub("device");
    let udev = Record::of(roots, number);
    let vendor = bus.text("vendor");
    let plain_model = bus.text("model").or_else(|| bus.text("name"));
    let Attachment { transport, driver } = transport::of(name, &place, vendor.as_deref(), plain_model.as_deref());
    let partitions = layers::partitions(roots, usage, &block);
    let mut contradictions =
        listed.map(|listed| layers::contradictions(name, size, &partitions, listed)).unwrap_or_default();

    let facts = DiskFacts {
        name: name.to_owned(),
        number,
        diskseq,
        transport,
        driver,
        by_id: udev.names("by-id"),
        by_path: udev.names("by-path").into_iter().next().or_else(|| slot(&place)),
        model: vpd::ata_model(&bus).or(match (&plain_model, udev.model()) {
            // SCSI's field is cut off at 16 characters; ATA disks' full name is in udev's record.
            (Some(short), Some(long)) if vendor.as_deref() == Some("ATA") && long.starts_with(short.as_str()) => {
                Some(long)
            }
            (Some(model), _) => Some(model.clone()),
            (None, long) => long,
        }),
        vendor: vendor.filter(|_| transport != Transport::Virtio || name.starts_with("sd")),
        serial: serial(&block, &bus, &place, &udev),
        wwn: wwn(&block, &bus, &device, &udev),
        firmware: ["rev", "firmware_rev", "fwrev"]
            .iter()
            .find_map(|key| bus.text(key))
            .or_else(|| udev.text("ID_REVISION")),
        size,
        logical_sector: block.number("queue/logical_block_size"),
        physical_sector: block.number("queue/physical_block_size"),
        rotational: block.flag("queue/rotational"),
        rotation: vpd::rotation(&bus).or_else(|| udev.rotation()),
        removable: block.flag("removable"),
        read_only: block.flag("ro"),
        queue: queue(&block.sub("queue")),
        table_uuid: udev.text("ID_PART_TABLE_UUID"),
        holders: layers::holders(roots, usage, &block),
        slaves: block.names("slaves"),
        mounts: usage.mounts(name, Some(number)),
        swap: usage.is_swap(name),
        udev: udev.view(),
        look: Look::NotDone,
        exclusive: Exclusive::NotTried,
        sight: usage.sight(),
        contradictions: Vec::new(),
        partitions,
        device,
    };

    // Hot removal: whatever was read above belongs together only if the same disk is still there.
    let still: DeviceNumber = block.text("dev")?.parse().ok()?;
    if still != number || block.number::<u64>("diskseq") != diskseq {
        contradictions.push("it was replaced by another disk while being looked at".to_owned());
    } else if block.sectors("size") != size {
        contradictions.push("its size changed while being looked at".to_owned());
    }
    Some(DiskFacts { contradictions, ..facts })
}

/// The place in the device tree without what changes from boot to boot: the weakest of identities.
fn slot(place: &std::path::Path) -> Option<String> {
    let parts: Vec<String> = place.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    let pci = parts.iter().rev().find(|p| p.len() >= 12 && p.as_bytes().get(4) == Some(&b':') && p.contains('.'))?;
    let lun = parts.iter().rev().find(|p| p.split(':').count() == 4 && !p.contains('.'));
    Some(match lun {
        // Host numbers are given out in order of discovery; channel, target and LUN are the device's own.
        Some(hctl) => format!("pci-{pci}-scsi-{}", hctl.split_once(':').map_or(hctl.as_str(), |(_, ctl)| ctl)),
        None => format!("pci-{pci}"),
    })
}

fn serial(block: &Attributes, bus: &Attributes, place: &std::path::Path, udev: &Record) -> Option<String> {
    let usb = || {
        let device = place.ancestors().find(|p| p.join("idVendor").exists())?;
        Attributes::new(device).text("serial")
    };
    let t10 = || {
        let wwid = bus.text("wwid")?;
        let (_, words) = wwid.split_once("t10.")?;
        words.split_whitespace().skip(1).last().map(str::to_owned)
    };
    // virtio keeps it on the disk, NVMe and MMC on the controller, SCSI in page 80.
    block
        .text("serial")
        .or_else(|| bus.text("serial"))
        .or_else(|| vpd::serial(bus))
        .or_else(|| udev.serial())
        .or_else(usb)
        .or_else(t10)
}

fn wwn(block: &Attributes, bus: &Attributes, device: &Kind, udev: &Record) -> Option<String> {
    if let Kind::DeviceMapper { uuid: Some(uuid), .. } = device {
        // multipath names a map after its paths' designator, a 3 before it for NAA (multipath.conf, `wwid`).
        let wwid = uuid.strip_prefix("mpath-")?;
        let naa = wwid.strip_prefix('3').filter(|rest| matches!(rest.len(), 16 | 32));
        return Some(naa.unwrap_or(wwid).to_owned());
    }
    let sysfs = block.text("wwid").or_else(|| bus.text("wwid")).filter(|wwid| normal_wwn(wwid).is_some());
    sysfs.or_else(|| udev.wwn())
}

fn queue(queue: &Attributes) -> QueueFacts {
    QueueFacts {
        scheduler: queue.text("scheduler").and_then(|all| {
            let active = all.split_whitespace().find_map(|s| s.strip_prefix('[')?.strip_suffix(']'));
            active.or(Some(all.as_str())).map(str::to_owned)
        }),
        requests: queue.number("nr_requests"),
        write_cache: queue.text("write_cache"),
        zoned: queue.text("zoned"),
        discard_max: queue.amount("discard_max_bytes"),
        discard_granularity: queue.amount("discard_granularity"),
        write_zeroes_max: queue.amount("write_zeroes_max_bytes"),
        minimum_io: queue.amount("minimum_io_size"),
        optimal_io: queue.amount("optimal_io_size"),
    }
}
