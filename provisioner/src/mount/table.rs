//! The kernel's mount table, `/proc/self/mountinfo` (proc_pid_mountinfo(5)), and whose a mount is.

use super::{Device, MountError};
use nix::mount::MsFlags;
use nix::sys::stat::{major, minor};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where, in this process's view.
    pub point: PathBuf,
    /// Whether writes are refused through this mount.
    pub read_only: bool,
    /// Number of the filesystem's device; btrfs and tmpfs show one of their own, with major 0.
    number: (u64, u64),
    /// Which part of the filesystem.
    root: String,
    fs_type: String,
    source: String,
    options: Vec<String>,
}

impl Mount {
    /// Whether this is the whole filesystem on `device`.
    pub fn carries(&self, device: &Device) -> bool {
        // btrfs hides the device's number behind its own, but names the device as the source.
        let same = self.number == device.number
            || (self.number.0 == 0 && self.fs_type == "btrfs" && Path::new(&self.source) == device.path);
        same && self.root == "/"
    }

    /// Whether this is the node of `device`, bound to a file.
    pub fn is_node_of(&self, device: &Device) -> bool {
        self.number.0 == 0
            && std::fs::symlink_metadata(&self.point).is_ok_and(|found| {
                found.file_type().is_block_device() && (major(found.rdev()), minor(found.rdev())) == device.number
            })
    }

    /// The error that names this mount as somebody else's.
    pub(super) fn foreign(&self) -> MountError {
        MountError::Foreign { path: self.point.clone(), what: format!("{} from {}", self.fs_type, self.source) }
    }

    /// The flags that a remount must repeat, or the kernel takes them off.
    pub(super) fn kept_flags(&self) -> MsFlags {
        self.options.iter().fold(MsFlags::empty(), |flags, option| {
            flags
                | match option.as_str() {
                    "nosuid" => MsFlags::MS_NOSUID,
                    "nodev" => MsFlags::MS_NODEV,
                    "noexec" => MsFlags::MS_NOEXEC,
                    "noatime" => MsFlags::MS_NOATIME,
                    "nodiratime" => MsFlags::MS_NODIRATIME,
                    "relatime" => MsFlags::MS_RELATIME,
                    _ => MsFlags::empty(),
                }
        })
    }
}

/// All mounts of this process's namespace, in the order they were made.
#[derive(Debug)]
pub struct Table(pub Vec<Mount>);

impl Table {
    /// Reads it.
    ///
    /// # Errors
    /// The file cannot be read, or has a form that no kernel writes.
    pub fn read() -> Result<Self, MountError> {
        let path = Path::new(MOUNTINFO);
        let bytes = std::fs::read(path).map_err(MountError::io("read", path))?;
        Self::parse(&bytes).map_err(MountError::io("understand", path))
    }

    /// The mount that one sees at `point`.
    pub fn top(&self, point: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|mount| mount.point == point)
    }

    fn parse(bytes: &[u8]) -> Result<Self, std::io::Error> {
        // A tenant may mount at a path that is not UTF-8; that line loses its name here, not its place in the table.
        let text = String::from_utf8_lossy(bytes);
        let mut mounts = Vec::new();
        for line in text.lines() {
            let found = procfs::process::MountInfo::from_line(line).map_err(std::io::Error::other)?;
            let number = found.majmin.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            mounts.push(Mount {
                point: PathBuf::from(unescape(&found.mount_point.to_string_lossy())),
                read_only: found.mount_options.contains_key("ro"),
                number: number.ok_or_else(|| std::io::Error::other(format!("device number in {line:?}")))?,
                root: unescape(&found.root),
                fs_type: found.fs_type,
                source: unescape(&found.mount_source.unwrap_or_default()),
                options: found.mount_options.into_keys().collect(),
            });
        }
        Ok(Self(mounts))
    }
}

/// Space, tab, newline and backslash stand as three octal digits in the table.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code.filter(u8::is_ascii) {
            out.push(char::from(code));
            rest = &after[3..];
        } else {
            out.push('\\');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
42 27 7:0 / /a\\040b/s rw,nosuid,nodev - ext4 /dev/loop0 rw
43 27 7:0 / /t ro,nodev - ext4 /dev/loop0 rw
44 27 0:45 / /b rw - btrfs /dev/loop1 rw,space_cache=v2
45 27 0:46 / /t rw - tmpfs /dev/loop0 rw
46 27 7:0 /sub /sub rw - ext4 /dev/loop0 rw
47 27 0:47 / /bad\xff rw - tmpfs none rw
";

    fn device(path: &str, number: (u64, u64)) -> Device {
        Device { path: path.into(), number }
    }

    #[test]
    fn escapes_flags_and_stacking_are_understood() {
        let table = Table::parse(LINES).unwrap();
        assert!(table.top(Path::new("/a b/s")).unwrap().carries(&device("/dev/loop0", (7, 0))));
        assert_eq!(table.top(Path::new("/t")).unwrap().fs_type, "tmpfs", "the last mount is on top");
        assert!(table.0[2].read_only && !table.0[1].read_only);
        assert_eq!(table.0[1].kept_flags(), MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert!(table.top(Path::new("/nowhere")).is_none());
        assert_eq!(table.0.len(), 7, "a name that is not UTF-8 spoils no other line");
    }

    #[test]
    fn a_mount_is_ours_by_device_not_by_what_it_calls_its_source() {
        let table = Table::parse(LINES).unwrap();
        let (ext4, btrfs) = (device("/dev/loop0", (7, 0)), device("/dev/loop1", (7, 1)));
        let carried = |device: &Device| -> Vec<_> {
            table.0.iter().filter(|m| m.carries(device)).map(|m| m.point.to_str().unwrap()).collect()
        };
        assert_eq!(carried(&ext4), ["/a b/s", "/t"], "not the tmpfs that borrows its name, not a part of it");
        assert_eq!(carried(&btrfs), ["/b"]);
    }

    #[test]
    fn a_table_of_an_unknown_form_is_an_error() {
        assert!(Table::parse(b"27 1 x / / rw - ext4 a rw\n").is_err());
    }
}
