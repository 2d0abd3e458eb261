//! Extra `mkfs` arguments, word by word against an allow list.
//!
//! Bedplate itself sets what its promises rest on (no discard, the journalled UUID, no force); an option that could undo
//! that, name another device or read a file of the host is not on the list.

use crate::filesystem::FsType;

/// Flags that take a value, by filesystem. Sources: mke2fs(8), mkfs.xfs(8), mkfs.btrfs(8), mkfs.f2fs(8).
const WITH_VALUE: [(FsType, &[&str]); 4] = [
    (FsType::Ext4, &["-b", "-C", "-g", "-I", "-i", "-J", "-L", "-m", "-N", "-O", "-T", "-E"]),
    (FsType::Xfs, &["-b", "-d", "-i", "-L", "-l", "-m", "-n", "-s"]),
    (FsType::Btrfs, &["-n", "-s", "-L", "-O", "-d", "-m", "--checksum", "--csum"]),
    (FsType::F2fs, &["-l", "-O", "-o", "-s", "-w", "-z"]),
];

/// Sub-options that would break a promise: discards, other identities, other devices, sizes beside the device's own.
const FORBIDDEN: [&str; 14] = [
    "discard",
    "nodiscard",
    "uuid",
    "lazy_itable_init",
    "lazy_journal_init",
    "file",
    "name",
    "device",
    "logdev",
    "rtdev",
    "size",
    "offset",
    "root_owner",
    "hash_seed",
];

/// The words of `text`, all allowed for `fs`.
pub(super) fn checked(fs: FsType, text: &str) -> Result<Vec<String>, String> {
    let allowed = WITH_VALUE.iter().find(|(f, _)| *f == fs).map_or(&[][..], |(_, list)| list);
    let mut words = text.split_ascii_whitespace();
    let mut out = Vec::new();
    while let Some(flag) = words.next() {
        if !allowed.contains(&flag) {
            return Err(format!("{flag:?} is not among the options allowed for {fs}: {}", allowed.join(" ")));
        }
        let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let good = |b: u8| b.is_ascii_alphanumeric() || b"=,._^+-:".contains(&b);
        if value.starts_with('-') || !value.bytes().all(good) {
            return Err(format!(
                "{flag} has the value {value:?}; only letters, digits and = , . _ ^ + - : are allowed"
            ));
        }
        for part in value.split(',') {
            let key = part.split('=').next().unwrap_or(part);
            // A label may be any word; everything else is read as sub-options.
            let label = if fs == FsType::F2fs { "-l" } else { "-L" };
            if FORBIDDEN.contains(&key) && flag != label {
                return Err(format!("{flag} {key} is set by Bedplate itself and cannot be changed"));
            }
        }
        out.push(flag.to_owned());
        out.push(value.to_owned());
    }
    Ok(out)
}
