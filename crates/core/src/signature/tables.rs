//! Partition tables. GPT headers stand at one *logical sector* from either end, so at byte 4096 on a 4Kn disk; a disk
//! moved between a 512-byte and a 4 KiB enclosure keeps its old place, so both are looked at (UEFI 2.10 §5.3).

use super::{Signature, Usage, Windows};

pub(super) fn detect(windows: &Windows, sector: u32, found: &mut Vec<Signature>) {
    let gpt = gpt(windows, sector);
    let has_gpt = !gpt.is_empty();
    found.extend(gpt);
    if let Some(mbr) = mbr(windows, has_gpt, found) {
        found.push(mbr);
    }
    for (format, offset, magic) in
        [("mac", 512, b"PM\0\0".as_slice()), ("sun", 508, &[0xda, 0xbe]), ("bsd", 512, &[0x57, 0x45, 0x56, 0x82])]
    {
        if windows.has(offset, magic) {
            found.push(table(format, None, offset));
        }
    }
    if windows.has(0, &[0xc9, 0xc2, 0xd4, 0xc1]) || windows.has(8196, &[0xe5, 0xd6, 0xd3, 0xf1]) {
        found.push(table("dasd", None, 0));
    }
}

fn table(format: &str, uuid: Option<String>, offset: u64) -> Signature {
    Signature { format: format.to_owned(), usage: Usage::PartitionTable, label: None, uuid, offset }
}

fn gpt(windows: &Windows, sector: u32) -> Vec<Signature> {
    let mut sectors = vec![512, 4096, u64::from(sector)];
    sectors.sort_unstable();
    sectors.dedup();
    let mut found = Vec::new();
    for at in sectors.iter().flat_map(|s| [Some(*s), windows.size().checked_sub(*s)]).flatten() {
        if windows.has(at, b"EFI PART") {
            found.push(table("gpt", windows.at(at + 56, 16).and_then(guid), at));
        }
    }
    found
}

/// A GUID as UEFI writes it: the first three fields little-endian.
fn guid(bytes: &[u8]) -> Option<String> {
    let uuid = uuid::Uuid::from_bytes_le(bytes.try_into().ok()?);
    (!uuid.is_nil()).then(|| uuid.to_string())
}

/// 55 AA closes an MBR, but also every FAT, NTFS and exFAT boot sector: those were found already. A table whose four
/// entries are sane counts as one; without entries it is still a boot sector, so never blank.
fn mbr(windows: &Windows, has_gpt: bool, found: &[Signature]) -> Option<Signature> {
    if !windows.has(510, &[0x55, 0xaa]) {
        return None;
    }
    let boot_sector_of_filesystem =
        found.iter().any(|s| matches!(s.format.as_str(), "vfat" | "ntfs" | "exfat" | "BitLocker" | "xfs"));
    let entries: Vec<&[u8]> = (0..4u64).filter_map(|i| windows.at(446 + 16 * i, 16)).collect();
    let sane = entries.iter().all(|e| matches!(e[0], 0 | 0x80));
    let used = entries.iter().any(|e| e[4] != 0);
    let protective = entries.iter().any(|e| e[4] == 0xee);
    if boot_sector_of_filesystem && !(sane && used) {
        return None;
    }
    let format = if protective || has_gpt {
        "PMBR"
    } else if sane && used {
        "dos"
    } else {
        "boot-sector"
    };
    let id = windows.le32(440).filter(|n| *n != 0 && format == "dos").map(|n| format!("{n:08x}"));
    Some(table(format, id, 510))
}
