//! Things that stand between a disk and a filesystem: encryption, volume groups, arrays, caches, and storage systems
//! with formats of their own. Offsets are those of the formats' own documents and of the kernel (`drivers/md`,
//! `include/uapi/linux/raid/md_p.h`, cryptsetup's LUKS1 and LUKS2 specifications, LVM2's label format, OpenZFS's on-disk
//! format).

use super::{Signature, Usage, Windows, text, uuid};

/// Formats known by one magic at one place.
const PLAIN: [(&str, Usage, u64, &[u8]); 12] = [
    ("BitLocker", Usage::Crypto, 3, b"-FVE-FS-"),
    ("DM_integrity", Usage::Crypto, 0, b"integrt\0"),
    ("DM_verity_hash", Usage::Crypto, 0, b"verity\0\0"),
    ("DM_snapshot_cow", Usage::Member, 0, b"SnAp"),
    ("vdo", Usage::Member, 0, b"dmvdo001"),
    ("ceph_bluestore", Usage::Other, 0, b"bluestore block device"),
    ("LVM1_member", Usage::Member, 0, b"HM\x01\0"),
    ("LVM1_member", Usage::Member, 0, b"HM\x02\0"),
    ("stratis", Usage::Member, 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("stratis", Usage::Member, 9 * 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("oracleasm", Usage::Other, 32, b"ORCLDISK"),
    ("ubi", Usage::Member, 0, b"UBI#"),
];

const BCACHE: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];
const BCACHEFS: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];

pub(super) fn detect(windows: &Windows, found: &mut Vec<Signature>) {
    for (format, usage, offset, magic) in PLAIN {
        if windows.has(offset, magic) {
            found.push(signature(format, usage, None, None, offset));
        }
    }
    for (format, usage, magic) in [("bcache", Usage::Member, &BCACHE), ("bcachefs", Usage::Filesystem, &BCACHEFS)] {
        if windows.has(4096 + 24, magic) {
            let uuid = windows.at(4096 + 40, 16).and_then(uuid);
            found.push(signature(format, usage, None, uuid, 4096 + 24));
        }
    }
    found.extend([luks(windows), lvm2(windows), zfs(windows), drbd(windows)].into_iter().flatten());
    found.extend(md(windows));
    found.extend(firmware_raid(windows));
}

fn signature(format: &str, usage: Usage, label: Option<String>, uuid: Option<String>, offset: u64) -> Signature {
    Signature { format: format.to_owned(), usage, label, uuid, offset }
}

/// LUKS1 and LUKS2 at the start; LUKS2 keeps a second header at one of these places (LUKS2 specification §2.1).
fn luks(windows: &Windows) -> Option<Signature> {
    let second = [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000];
    let base = if windows.has(0, b"LUKS\xba\xbe") {
        0
    } else {
        second.into_iter().find(|at| windows.has(*at, b"SKUL\xba\xbe"))?
    };
    let label = windows.at(base + 24, 48).and_then(text).filter(|_| windows.has(base + 6, &[0, 2]));
    let uuid = windows.at(base + 168, 40).and_then(text);
    Some(signature("crypto_LUKS", Usage::Crypto, label, uuid, base))
}

/// The label may stand in any of the first four sectors of 512 bytes; on 4Kn disks in the second sector of 4 KiB.
fn lvm2(windows: &Windows) -> Option<Signature> {
    let base = [0, 512, 1024, 1536, 4096, 8192, 12_288]
        .into_iter()
        .find(|at| windows.has(*at, b"LABELONE") && windows.has(*at + 24, b"LVM2 001"))?;
    let uuid = windows.at(base + 32, 32).and_then(text);
    Some(signature("LVM2_member", Usage::Member, None, uuid, base))
}

/// Four labels of 256 KiB, two at each end; each holds a ring of überblocks from 128 KiB on, of either byte order.
fn zfs(windows: &Windows) -> Option<Signature> {
    const MAGIC: u64 = 0x00ba_b10c;
    const LABEL: u64 = 256 << 10;
    let end = windows.size() / LABEL * LABEL;
    let labels = [0, LABEL, end.saturating_sub(2 * LABEL), end.saturating_sub(LABEL)];
    labels.into_iter().find_map(|label| {
        let at = (0..128u64)
            .map(|slot| label + (128 << 10) + (slot << 10))
            .find(|at| windows.le64(*at).is_some_and(|n| n == MAGIC || n.swap_bytes() == MAGIC))?;
        Some(signature("zfs_member", Usage::Member, None, None, at))
    })
}

/// Metadata 1.1 at the start, 1.2 at 4 KiB, 1.0 in the last 8 to 12 KiB, 0.90 in the last 64 to 128 KiB
/// (kernel `drivers/md/md.c`, `super_1_load` and `calc_dev_sboffset`).
fn md(windows: &Windows) -> Vec<Signature> {
    const MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];
    const MAGIC_SWAPPED: [u8; 4] = [0xa9, 0x2b, 0x4e, 0xfc];
    let size = windows.size();
    let mut places = vec![0, 4096];
    places.extend((size / 512).checked_sub(16).map(|sectors| (sectors & !7) * 512));
    places.extend((size & !0xffff).checked_sub(0x1_0000));
    places.sort_unstable();
    places.dedup();
    places
        .into_iter()
        .filter(|at| windows.has(*at, &MAGIC) || windows.has(*at, &MAGIC_SWAPPED))
        .map(|at| {
            let newer = windows.le32(at + 4) == Some(1);
            let label = windows.at(at + 32, 32).filter(|_| newer).and_then(text);
            let uuid = windows.at(at + 16, 16).filter(|_| newer).and_then(uuid);
            signature("linux_raid_member", Usage::Member, label, uuid, at)
        })
        .collect()
}

/// Anchors that RAID firmware keeps in the last sectors: SNIA DDF (last sector) and Intel IMSM (second last sector).
fn firmware_raid(windows: &Windows) -> Vec<Signature> {
    let mut found = Vec::new();
    for sector in [512u64, 4096] {
        if let Some(at) = windows.size().checked_sub(sector)
            && (windows.has(at, &[0xde, 0x11, 0xde, 0x11]) || windows.has(at, &[0x11, 0xde, 0x11, 0xde]))
        {
            found.push(signature("ddf_raid_member", Usage::Member, None, None, at));
        }
        if let Some(at) = windows.size().checked_sub(2 * sector)
            && windows.has(at, b"Intel Raid ISM Cfg Sig. ")
        {
            found.push(signature("isw_raid_member", Usage::Member, None, None, at));
        }
    }
    found
}

/// Internal metadata in the last 4 KiB, big-endian, magic behind 60 bytes (versions 8.4 and 9 use 08).
fn drbd(windows: &Windows) -> Option<Signature> {
    let base = (windows.size() & !4095).checked_sub(4096)?;
    let magic = windows.at(base + 60, 4)?;
    let known = [[0x83, 0x74, 0x02, 0x6b], [0x83, 0x74, 0x02, 0x6c], [0x83, 0x74, 0x02, 0x6d]];
    known.iter().any(|m| m == magic).then(|| signature("drbd", Usage::Member, None, None, base + 60))
}
