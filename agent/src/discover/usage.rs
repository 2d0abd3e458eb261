//! Who uses which device: mounts in every mount namespace of every process, and swap.
//!
//! One process speaks for a namespace; processes that vanish meanwhile are passed over. Whatever could not be seen is
//! said in [`Usage::partial`], because an unseen mount is no absent mount.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bedplate_core::bytes::Bytes;
use bedplate_core::disk::{DeviceNumber, Mount, Sight};
use procfs::process::MountInfo;

use super::Roots;
use super::attributes::Attributes;

/// Inode of the first process namespace (kernel `include/linux/proc_ns.h`, PROC_PID_INIT_INO).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Mounts and swap of the whole machine, as far as they can be seen.
#[derive(Debug, Default)]
pub(super) struct Usage {
    by_number: BTreeMap<DeviceNumber, BTreeSet<Mount>>,
    by_name: BTreeMap<String, BTreeSet<Mount>>,
    swaps: BTreeSet<String>,
    partial: Vec<String>,
}

impl Usage {
    pub(super) fn read(roots: &Roots) -> Self {
        let mut usage = Self::default();
        usage.read_mounts(roots);
        usage.read_btrfs(roots);
        usage.read_swaps(roots);
        usage
    }

    /// Mounts of one device; one entry for each place and filesystem, whichever process sees it.
    pub(super) fn mounts(&self, name: &str, number: Option<DeviceNumber>) -> Vec<Mount> {
        let mut seen: BTreeMap<(&str, &str), &Mount> = BTreeMap::new();
        let by_number = number.and_then(|n| self.by_number.get(&n));
        for mount in by_number.into_iter().chain(self.by_name.get(name)).flatten() {
            seen.entry((&mount.target, &mount.fs_type)).or_insert(mount);
        }
        seen.into_values().cloned().collect()
    }

    pub(super) fn is_swap(&self, name: &str) -> bool {
        self.swaps.contains(name)
    }

    /// What could not be seen, as sentences.
    pub(super) fn partial(&self) -> &[String] {
        &self.partial
    }

    pub(super) fn sight(&self) -> Sight {
        if self.partial.is_empty() { Sight::Whole } else { Sight::Partial(self.partial.clone()) }
    }

    fn read_mounts(&mut self, roots: &Roots) {
        let proc = &roots.proc;
        match std::fs::read_link(proc.join("self/ns/pid")) {
            Ok(namespace) if namespace == Path::new(FIRST_PID_NAMESPACE) => {}
            Ok(_) => self.partial.push("processes outside this container are not visible, nor are their mounts".into()),
            Err(error) => self.partial.push(format!("{}/self/ns/pid cannot be read: {error}", proc.display())),
        }
        let mut processes: Vec<u32> = match std::fs::read_dir(proc) {
            Ok(entries) => entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect(),
            Err(error) => {
                self.partial.push(format!("processes cannot be listed in {}: {error}", proc.display()));
                return;
            }
        };
        processes.sort_unstable();
        if processes.first() != Some(&1) {
            self.partial.push("process 1 is not visible, so others may be hidden too".to_owned());
        }

        let mut namespaces: BTreeSet<PathBuf> = BTreeSet::new();
        let mut tables: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut closed = 0u32;
        for pid in processes {
            let process = proc.join(pid.to_string());
            // The link needs ptrace rights over the process, its mount table does not: without the link, every table is
            // read and only equal ones are passed over.
            let namespace = match std::fs::read_link(process.join("ns/mnt")) {
                Ok(namespace) if namespaces.contains(&namespace) => continue,
                Ok(namespace) => Some(namespace),
                Err(error) if vanished(&error) => continue,
                Err(_) => None,
            };
            match std::fs::read(process.join("mountinfo")) {
                Ok(text) => {
                    namespaces.extend(namespace);
                    if !tables.contains(&text) {
                        self.take_mounts(roots, pid, &String::from_utf8_lossy(&text));
                        tables.insert(text);
                    }
                }
                // Another process of the same namespace, if any, speaks for it.
                Err(error) if vanished(&error) => {}
                Err(_) => closed += 1,
            }
        }
        if closed > 0 {
            self.partial.push(format!("the mounts of {closed} processes cannot be read"));
        }
    }

    fn take_mounts(&mut self, roots: &Roots, pid: u32, text: &str) {
        for line in text.lines() {
            let Ok(info) = MountInfo::from_line(line) else {
                self.partial.push(format!("a line of /proc/{pid}/mountinfo is not understood: {line:?}"));
                continue;
            };
            let mount = Mount {
                target: unescape(&info.mount_point.to_string_lossy()),
                fs_type: info.fs_type.clone(),
                read_only: info.mount_options.contains_key("ro"),
                seen_by: pid,
            };
            match info.majmin.parse::<DeviceNumber>() {
                Ok(number) if number.major != 0 => {
                    self.by_number.entry(number).or_default().insert(mount);
                }
                // Filesystems over several devices have a number of their own; their source names one or all of them.
                _ if matches!(info.fs_type.as_str(), "btrfs" | "bcachefs") => {
                    for source in info.mount_source.as_deref().unwrap_or_default().split(':') {
                        if let Some(name) = kernel_name(roots, &unescape(source)) {
                            self.by_name.entry(name).or_default().insert(mount.clone());
                        } else {
                            self.partial
                                .push(format!("the device {source:?} of a mounted {} is not known", info.fs_type));
                        }
                    }
                }
                _ => {}
            }
        }
        self.partial.sort_unstable();
        self.partial.dedup();
    }

    /// A mounted btrfs lists all its devices here; every one of them is in use, whichever one the mount names.
    fn read_btrfs(&mut self, roots: &Roots) {
        let all = Attributes::new(roots.sys.join("fs/btrfs"));
        for filesystem in all.names("") {
            let devices = all.sub(&filesystem).names("devices");
            let mut mounts: BTreeSet<Mount> =
                devices.iter().filter_map(|d| self.by_name.get(d)).flatten().cloned().collect();
            if mounts.is_empty() && !devices.is_empty() {
                mounts.insert(Mount {
                    target: "a place out of sight".to_owned(),
                    fs_type: "btrfs".to_owned(),
                    read_only: false,
                    seen_by: 0,
                });
            }
            for device in devices {
                self.by_name.entry(device).or_default().extend(mounts.iter().cloned());
            }
        }
    }

    fn read_swaps(&mut self, roots: &Roots) {
        let path = roots.proc.join("swaps");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // A kernel without swap has no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && roots.proc.join("mounts").exists() => return,
            Err(error) => {
                self.partial.push(format!("{} cannot be read: {error}", path.display()));
                return;
            }
        };
        for line in text.lines().skip(1) {
            let mut fields = line.split_whitespace();
            let (Some(device), Some("partition")) = (fields.next(), fields.next()) else { continue };
            match kernel_name(roots, &unescape(device)) {
                Some(name) => {
                    self.swaps.insert(name);
                }
                None => self.partial.push(format!("the swap device {device:?} is not known")),
            }
        }
    }
}

/// ENOENT and ESRCH: the process is gone. EINVAL: a mountinfo of a process that is just going.
fn vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ESRCH | nix::libc::EINVAL))
}

/// The kernel's name of the device that `path` leads to: by link, by mapping name, or as it stands.
fn kernel_name(roots: &Roots, path: &str) -> Option<String> {
    let rest = path.strip_prefix("/dev/")?;
    if !rest.contains('/') && rest != "root" && !rest.is_empty() {
        return Some(rest.to_owned());
    }
    if let Some(mapping) = rest.strip_prefix("mapper/") {
        let block = Attributes::new(roots.sys.join("block"));
        let found =
            block.names("").into_iter().find(|n| block.sub(n).sub("dm").text("name").as_deref() == Some(mapping));
        if found.is_some() {
            return found;
        }
    }
    let real = std::fs::canonicalize(roots.dev.join(rest)).ok()?;
    let name = real.file_name()?.to_string_lossy().into_owned();
    (real.parent() == std::fs::canonicalize(&roots.dev).ok().as_deref()).then_some(name)
}

/// mountinfo and swaps write blank, tab, newline, backslash and `#` as a backslash and three octal digits.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal = bytes
            .get(i + 1..i + 4)
            .filter(|_| bytes[i] == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(octal.unwrap_or(bytes[i]));
        i += if octal.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Sizes as `/proc/partitions` lists them: a second source on which partitions there are. `None` where unreadable.
pub(super) fn listed_sizes(proc: &Path) -> Option<BTreeMap<String, Bytes>> {
    let text = std::fs::read_to_string(proc.join("partitions")).ok()?;
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (_, _, blocks, name) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), Bytes(blocks.parse::<u64>().ok()?.checked_mul(1024)?)))
    };
    Some(text.lines().filter_map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_blanks_are_read_and_broken_escapes_stay() {
        assert_eq!(unescape("/mnt/my\\040disk"), "/mnt/my disk");
        assert_eq!(unescape("a\\04"), "a\\04");
        assert_eq!(unescape("a\\999b"), "a\\999b");
    }

    #[test]
    fn a_machine_whose_proc_is_missing_is_seen_in_part_only() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots { sys: dir.path().into(), proc: dir.path().join("none"), ..Roots::default() };
        assert!(matches!(Usage::read(&roots).sight(), Sight::Partial(_)));
    }

    #[test]
    fn the_mounts_of_this_very_process_are_seen() {
        let usage = Usage::read(&Roots::default());
        let own = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let real = own.lines().filter_map(|l| MountInfo::from_line(l).ok()).find(|m| !m.majmin.starts_with("0:"));
        let Some(real) = real else {
            println!("SKIP the_mounts_of_this_very_process_are_seen: nothing is mounted from a block device");
            return;
        };
        let number = real.majmin.parse().unwrap();
        let target = unescape(&real.mount_point.to_string_lossy());
        assert!(usage.mounts("", Some(number)).iter().any(|m| m.target == target));
    }
}
