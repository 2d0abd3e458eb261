//! What stands on a disk: its partitions, and the device-mapper, md and bcache devices above it and above them.

use bedplate_core::bytes::Bytes;
use bedplate_core::disk::{Kind, Layer, Partition};
use bedplate_core::signature::Look;

use super::Roots;
use super::attributes::Attributes;
use super::udev::Record;
use super::usage::Usage;

/// Stacks deeper than this do not exist; a loop in a recorded or broken tree ends here.
const DEEPEST: usize = 16;

/// What kind of device `name` is.
pub(super) fn kind(block: &Attributes, name: &str) -> Kind {
    let dm = block.sub("dm");
    if block.exists("dm") {
        return Kind::DeviceMapper { name: dm.text("name"), uuid: dm.text("uuid") };
    }
    if block.exists("md") {
        let md = block.sub("md");
        return Kind::Md { level: md.text("level"), uuid: md.text("uuid") };
    }
    if name.starts_with("loop") {
        let of = block.sub("loop");
        return Kind::Loop { backing: of.text("backing_file"), direct_io: of.flag("dio") };
    }
    // SCSI peripheral device type 5: optical (SPC-5).
    if name.starts_with("sr") || name.starts_with("fd") || block.sub("device").text("type").as_deref() == Some("5") {
        return Kind::Drive;
    }
    // Made up by the kernel (zvol, bcache, drbd, null_blk, …): something else lies beneath.
    let made_up = std::fs::canonicalize(block.path())
        .is_ok_and(|place| place.parent().is_some_and(|p| p.ends_with("devices/virtual/block")));
    if made_up && !name.starts_with("nbd") { Kind::Virtual } else { Kind::Disk }
}

/// Everything above `device`, which is a disk's, a partition's or a layer's folder.
pub(super) fn holders(roots: &Roots, usage: &Usage, device: &Attributes) -> Vec<Layer> {
    above(roots, usage, device, DEEPEST)
}

fn above(roots: &Roots, usage: &Usage, device: &Attributes, deeper: usize) -> Vec<Layer> {
    device
        .names("holders")
        .into_iter()
        .map(|name| {
            let block = Attributes::new(roots.sys.join("block").join(&name));
            let number = block.text("dev").and_then(|dev| dev.parse().ok());
            let holders = if deeper == 0 { Vec::new() } else { above(roots, usage, &block, deeper - 1) };
            Layer {
                number,
                device: kind(&block, &name),
                size: block.sectors("size"),
                mounts: usage.mounts(&name, number),
                swap: usage.is_swap(&name),
                holders,
                name,
            }
        })
        .collect()
}

/// The partitions of the disk in `block`: its sub-folders that have a `partition` attribute, in order of number.
pub(super) fn partitions(roots: &Roots, usage: &Usage, block: &Attributes) -> Vec<Partition> {
    let mut found: Vec<(u32, Partition)> = block
        .names("")
        .into_iter()
        .filter_map(|name| {
            let folder = block.sub(&name);
            let index = folder.number("partition")?;
            let number = folder.text("dev").and_then(|dev| dev.parse().ok());
            let record = number.map(|n| Record::of(roots, n)).unwrap_or_default();
            let partition = Partition {
                number,
                start: folder.sectors("start"),
                size: folder.sectors("size"),
                uuid: record.text("ID_PART_ENTRY_UUID"),
                label: record.text("ID_PART_ENTRY_NAME").map(|n| n.replace("\\x20", " ")),
                look: Look::NotDone,
                mounts: usage.mounts(&name, number),
                swap: usage.is_swap(&name),
                holders: holders(roots, usage, &folder),
                name,
            };
            Some((index, partition))
        })
        .collect();
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, partition)| partition).collect()
}

/// Partitions that another source lists and this one does not, and sizes that differ.
pub(super) fn contradictions(
    name: &str,
    size: Option<Bytes>,
    partitions: &[Partition],
    listed: &std::collections::BTreeMap<String, Bytes>,
) -> Vec<String> {
    let mut found = Vec::new();
    if let (Some(size), Some(listed)) = (size, listed.get(name))
        && size.get() / 1024 != listed.get() / 1024
    {
        found.push(format!("its size is {size} in sysfs and {listed} in /proc/partitions"));
    }
    // Partitions of a disk whose name ends in a digit are numbered after a p.
    let stem = if name.ends_with(|c: char| c.is_ascii_digit()) { format!("{name}p") } else { name.to_owned() };
    for other in listed.keys() {
        let is_partition =
            other.strip_prefix(&stem).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if is_partition && !partitions.iter().any(|p| p.name == *other) {
            found.push(format!("/proc/partitions lists {other}, sysfs does not"));
        }
    }
    found
}
