//! Filesystems and swap. Offsets and magics are those of the on-disk formats as the Linux kernel and the formats' own
//! documents define them (kernel `Documentation/filesystems`, `include/uapi/linux/magic.h` and each `fs/*`).

use super::{Signature, Usage, Windows, text, uuid};

/// A format known by one magic and nothing more.
struct Plain {
    format: &'static str,
    offset: u64,
    magic: &'static [u8],
    label: Option<(u64, usize)>,
    uuid: Option<u64>,
}

const PLAIN: [Plain; 15] = [
    Plain { format: "xfs", offset: 0, magic: b"XFSB", label: Some((108, 12)), uuid: Some(32) },
    Plain {
        format: "btrfs",
        offset: 0x1_0040,
        magic: b"_BHRfS_M",
        label: Some((0x1_0000 + 0x12b, 256)),
        uuid: Some(0x1_0000 + 0x20),
    },
    Plain { format: "erofs", offset: 1024, magic: &[0xe2, 0xe1, 0xf5, 0xe0], label: None, uuid: Some(1024 + 48) },
    Plain { format: "squashfs", offset: 0, magic: b"hsqs", label: None, uuid: None },
    Plain { format: "exfat", offset: 3, magic: b"EXFAT   ", label: None, uuid: None },
    Plain { format: "reiserfs", offset: 0x1_0034, magic: b"ReIsEr", label: Some((0x1_0064, 16)), uuid: Some(0x1_0054) },
    Plain { format: "jfs", offset: 0x8000, magic: b"JFS1", label: Some((0x8098, 16)), uuid: Some(0x8088) },
    Plain { format: "gfs2", offset: 0x1_0000, magic: &[0x01, 0x16, 0x19, 0x70], label: None, uuid: None },
    Plain { format: "ocfs2", offset: 0x2000, magic: b"OCFSV2", label: None, uuid: None },
    Plain { format: "nilfs2", offset: 1030, magic: &[0x34, 0x34], label: None, uuid: None },
    Plain { format: "hfsplus", offset: 1024, magic: &[b'H', b'+', 0, 4], label: None, uuid: None },
    Plain { format: "apfs", offset: 32, magic: b"NXSB", label: None, uuid: None },
    Plain { format: "VMFS", offset: 0x10_0000, magic: &[0x0d, 0xd0, 0x01, 0xc0], label: None, uuid: None },
    Plain { format: "iso9660", offset: 0x8001, magic: b"CD001", label: Some((0x8028, 32)), uuid: None },
    Plain { format: "iso9660", offset: 0x9001, magic: b"CDROM", label: None, uuid: None },
];

/// Superblock copies of btrfs: it survives a wipe of the first megabyte.
pub(super) const BTRFS_COPIES: [u64; 2] = [64 << 20, 256 << 30];

pub(super) fn detect(windows: &Windows, found: &mut Vec<Signature>) {
    for plain in &PLAIN {
        if windows.has(plain.offset, plain.magic) {
            let label = plain.label.and_then(|(at, length)| text(windows.at(at, length)?));
            let uuid = plain.uuid.and_then(|at| uuid(windows.at(at, 16)?));
            found.push(filesystem(plain.format, label, uuid, plain.offset));
        }
    }
    for copy in BTRFS_COPIES {
        if windows.has(copy + 0x40, b"_BHRfS_M") {
            let label = windows.at(copy + 0x12b, 256).and_then(text);
            found.push(filesystem("btrfs", label, windows.at(copy + 0x20, 16).and_then(uuid), copy + 0x40));
        }
    }
    found.extend(
        [ext(windows), f2fs(windows), ntfs(windows), fat(windows), swap(windows), udf(windows)].into_iter().flatten(),
    );
}

fn filesystem(format: &str, label: Option<String>, uuid: Option<String>, offset: u64) -> Signature {
    Signature { format: format.to_owned(), usage: Usage::Filesystem, label, uuid, offset }
}

/// The superblock stands at byte 1024; feature words tell the generations apart.
fn ext(windows: &Windows) -> Option<Signature> {
    const BASE: u64 = 1024;
    if !windows.has(BASE + 0x38, &[0x53, 0xef]) {
        return None;
    }
    let compatible = windows.le32(BASE + 0x5c)?;
    let incompatible = windows.le32(BASE + 0x60)?;
    let read_only = windows.le32(BASE + 0x64)?;
    // Journal device; then anything beyond what ext3 understands (kernel fs/ext4/ext4.h, EXT3_FEATURE_*_SUPP).
    let format = if incompatible & 0x8 != 0 {
        "jbd"
    } else if incompatible & !0x16 != 0 || read_only & !0x7 != 0 {
        "ext4"
    } else if compatible & 0x4 != 0 {
        "ext3"
    } else {
        "ext2"
    };
    let label = windows.at(BASE + 0x78, 16).and_then(text);
    Some(filesystem(format, label, windows.at(BASE + 0x68, 16).and_then(uuid), BASE + 0x38))
}

fn f2fs(windows: &Windows) -> Option<Signature> {
    // The second copy lies one block (4 KiB) further on.
    let base = [0x400, 0x1400].into_iter().find(|at| windows.has(*at, &[0x10, 0x20, 0xf5, 0xf2]))?;
    let label = windows.at(base + 0x7c, 1024).and_then(|bytes| {
        let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).take_while(|u| *u != 0);
        text(char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect::<String>().as_bytes())
    });
    Some(filesystem("f2fs", label, windows.at(base + 0x6c, 16).and_then(uuid), base))
}

fn ntfs(windows: &Windows) -> Option<Signature> {
    if !windows.has(3, b"NTFS    ") {
        return None;
    }
    let serial = windows.le64(0x48).map(|n| format!("{n:016X}"));
    Some(filesystem("ntfs", None, serial, 3))
}

fn fat(windows: &Windows) -> Option<Signature> {
    let (offset, base): (u64, u64) = if windows.has(82, b"FAT32   ") {
        (82, 0x43)
    } else if [b"FAT16   ", b"FAT12   ", b"FAT     "].iter().any(|magic| windows.has(54, *magic)) {
        (54, 0x27)
    } else {
        return None;
    };
    let serial = windows.le32(base).map(|n| format!("{:04X}-{:04X}", n >> 16, n & 0xffff));
    let label = windows.at(base + 4, 11).and_then(text).filter(|label| label != "NO NAME");
    Some(filesystem("vfat", label, serial, offset))
}

fn udf(windows: &Windows) -> Option<Signature> {
    let offset = [0x8001, 0x8801, 0x9001, 0x9801]
        .into_iter()
        .find(|at| windows.has(*at, b"BEA01") || windows.has(*at, b"NSR02") || windows.has(*at, b"NSR03"))?;
    Some(filesystem("udf", None, None, offset))
}

/// The magic stands at the end of the first page, whose size is the machine's that made it.
fn swap(windows: &Windows) -> Option<Signature> {
    const MAGICS: [&[u8; 10]; 4] = [b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0", b"S2SUSPEND\0"];
    let offset = [4096, 8192, 16_384, 32_768, 65_536]
        .into_iter()
        .map(|page: u64| page - 10)
        .find(|at| MAGICS.iter().any(|magic| windows.has(*at, *magic)))?;
    let label = windows.at(1052, 16).and_then(text);
    let uuid = windows.at(1036, 16).and_then(uuid);
    Some(Signature { format: "swap".to_owned(), usage: Usage::Swap, label, uuid, offset })
}
