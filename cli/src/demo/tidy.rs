//! Taking away what lies beneath a run's folder: mounts, loop devices, files. Nothing else is ever touched.
//!
//! Works from what the kernel says is there, not from memory, so it serves a run that ended in any way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::poll::poll;

use super::own_disk::{is_file_of, is_mount_of};
use super::tools::run;

/// How long a device may take to go.
const LETTING_GO: Duration = Duration::from_secs(5);
/// Milliseconds between two looks.
const LOOK_AGAIN_MS: u8 = 10;

/// Unmount everything beneath the folder but the run's own disks. What could not be, in sentences.
pub fn unmount_beneath(folder: &Path) -> Vec<String> {
    mounts(folder).into_iter().filter(|target| !is_mount_of(folder, target)).filter_map(|t| unmount(&t)).collect()
}

/// Take everything away: volumes' mounts and loop devices, the run's own disks and their loop devices, the files.
pub fn tidy(folder: &Path) -> Vec<String> {
    let mut left = unmount_beneath(folder);
    left.extend(detach(folder, |file| !is_file_of(folder, file)));
    left.extend(mounts(folder).into_iter().filter_map(|target| unmount(&target)));
    left.extend(detach(folder, |_| true));
    // Never remove files through a mount that is still there.
    if left.is_empty()
        && let Err(error) = std::fs::remove_dir_all(folder)
    {
        left.push(format!("{}: {error}", folder.display()));
    }
    left
}

/// Mount points beneath the folder, the deepest and latest first.
fn mounts(folder: &Path) -> Vec<PathBuf> {
    let table = procfs::process::Process::myself().and_then(|p| p.mountinfo());
    let mut list: Vec<PathBuf> =
        table.into_iter().flatten().map(|m| m.mount_point).filter(|target| target.starts_with(folder)).collect();
    list.reverse();
    list.sort_by_key(|target| std::cmp::Reverse(target.components().count()));
    list
}

fn unmount(target: &Path) -> Option<String> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => None,
        // Somebody looks at it; it goes when they have finished.
        Err(Errno::EBUSY) => umount2(target, MntFlags::MNT_DETACH).err().map(|e| format!("{}: {e}", target.display())),
        Err(error) => Some(format!("{}: {error}", target.display())),
    }
}

/// Loop devices on files beneath the folder.
fn loops(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let entries = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let file = PathBuf::from(file.trim_end_matches('\n').trim_end_matches(" (deleted)"));
            file.starts_with(folder).then(|| (Path::new("/dev").join(entry.file_name()), file))
        })
        .collect()
}

/// Detach loop devices and wait until they are gone: the kernel lets go only when the last who looks at one has closed it.
fn detach(folder: &Path, which: impl Fn(&Path) -> bool) -> Vec<String> {
    let there = || loops(folder).into_iter().filter(|(_, file)| which(file)).collect::<Vec<_>>();
    let errors: Vec<String> = there()
        .iter()
        .filter_map(|(device, _)| run("losetup", &[Path::new("--detach"), device]).err().map(|e| format!("{e:#}")))
        .collect();
    let deadline = Instant::now() + LETTING_GO;
    let mut left = there();
    while !left.is_empty() && Instant::now() < deadline {
        // Nothing tells of a loop device's end: look again after a moment.
        let _ = poll(&mut [], LOOK_AGAIN_MS);
        left = there();
    }
    let why = if errors.is_empty() { "somebody holds it open".to_owned() } else { errors.join(", ") };
    left.iter().map(|(device, file)| format!("{} on {}: {why}", device.display(), file.display())).collect()
}
