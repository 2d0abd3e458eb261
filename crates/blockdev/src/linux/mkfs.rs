//! Making filesystems with their own tools: by absolute path, with an argument list and an empty environment, no shell.
//!
//! Only on a device that is blank, or that carries nothing but what a begun `mkfs` with the same UUID left. Afterwards
//! the device is looked at again: it must carry that filesystem with that UUID. No tool is ever forced: before a
//! repetition, what the begun one left is erased where signatures lie, so that every tool finds a blank device (and
//! `mkfs.btrfs` does not find the UUID taken). Nothing is discarded, so the backing file keeps every block.
//!
//! ext4 initialises its inode tables later, in the kernel, once it is mounted (`lazy_itable_init=1`): writing them now
//! takes time in proportion to the size (256 MiB for a volume of 16 GiB), and what the kernel writes later lands in the
//! same allocated blocks, as the tests on real loop devices show. Its journal is left as it is for the same reason: a
//! fresh volume reads as zeroes, and only a journal of the same UUID is ever replayed.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bedplate_core::disk::DeviceNumber;
use bedplate_core::filesystem::FsType;
use bedplate_core::signature::{Contents, ENDS, Look};
use uuid::Uuid;

use super::Roots;
use super::loops::Loops;
use super::sys;
use crate::signature::{LookError, sentence};
use crate::{HostError, LoopDevice, Mkfs, signature};

/// Where distributions put them.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// Where btrfs keeps copies of its superblock, in bytes.
const BTRFS_COPIES: [u64; 2] = [64 << 20, 256 << 30];
/// Bytes of a tool's complaint that are kept.
const LONGEST_COMPLAINT: usize = 2000;

/// The package that holds a filesystem's `mkfs` (the same name in the large distributions).
const fn package(fs: FsType) -> &'static str {
    match fs {
        FsType::Ext4 => "e2fsprogs",
        FsType::Xfs => "xfsprogs",
        FsType::Btrfs => "btrfs-progs",
        FsType::F2fs => "f2fs-tools",
    }
}

fn tool(fs: FsType) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(format!("mkfs.{fs}"))).find(|path| path.is_file())
}

/// The arguments. Bedplate's own come first where the last one wins for values a class may choose, and nowhere else.
fn arguments(mkfs: &Mkfs) -> Vec<String> {
    let uuid = mkfs.uuid.to_string();
    let own: Vec<String> = match mkfs.fs_type {
        FsType::Ext4 => {
            // `-E` replaces the one before: ours and the class's are one list.
            let (extended, rest) = split_extended(&mkfs.options);
            let ours = ["nodiscard", "lazy_itable_init=1", "lazy_journal_init=1"].map(String::from);
            let list: Vec<String> = extended.into_iter().chain(ours).collect();
            let mut own = vec!["-q".into(), "-m".into(), "0".into()];
            own.extend(rest);
            own.extend(["-E".into(), list.join(","), "-U".into(), uuid]);
            return own;
        }
        FsType::Xfs => vec!["-q".into(), "-K".into(), "-m".into(), format!("uuid={uuid}")],
        FsType::Btrfs => vec!["-q".into(), "-K".into(), "-U".into(), uuid],
        FsType::F2fs => vec!["-q".into(), "-t".into(), "0".into(), "-U".into(), uuid],
    };
    own.into_iter().chain(mkfs.options.iter().cloned()).collect()
}

/// The values of every `-E`, and the other words.
fn split_extended(options: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut extended, mut rest) = (Vec::new(), Vec::new());
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), words.as_slice().first()) {
            ("-E", Some(value)) => {
                extended.push(value.clone());
                words.next();
            }
            _ => rest.push(word.clone()),
        }
    }
    (extended, rest)
}

fn look(roots: &Roots, device: &LoopDevice) -> Result<Contents, HostError> {
    let failed = |e: io::Error| HostError::failed("look for a signature on", device.path.display().to_string(), e);
    let loops = Loops::new(roots);
    let (major, minor) = loops.number_of(device.number).map_err(failed)?;
    let sector = super::pool::number(&roots.sys.join(format!("block/loop{}/queue/logical_block_size", device.number)));
    let sector = u32::try_from(sector.map_err(failed)?).map_err(|e| failed(io::Error::other(e)))?;
    signature::look(&device.path, DeviceNumber { major, minor }, sector).map_err(|error| match error {
        LookError::Open { source, .. } => failed(source),
        LookError::Read { offset, source, .. } => {
            let object = format!("{} at byte {offset}", device.path.display());
            HostError::failed("look for a signature on", object, source)
        }
        other => failed(io::Error::other(sentence(&other))),
    })
}

/// What the device carries; `None` only where it is proven blank.
pub(super) fn found(roots: &Roots, device: &LoopDevice) -> Result<Option<String>, HostError> {
    let contents = look(roots, device)?;
    if Look::Done(contents.clone()).is_blank() {
        return Ok(None);
    }
    Ok(Some(describe(&contents)))
}

fn describe(contents: &Contents) -> String {
    match (contents.main(), contents.data_at) {
        (Some(main), _) => main.to_string(),
        (None, Some(at)) => format!("unrecognised data at byte {at}"),
        (None, None) => "something that could not be read to both ends".to_owned(),
    }
}

/// Whether nothing on it is known to be anybody's but that `mkfs`'s.
fn is_left_of(contents: &Contents, uuid: Uuid) -> bool {
    let same = |text: &str| text.parse::<Uuid>().is_ok_and(|u| u == uuid);
    contents.signatures.iter().all(|s| s.uuid.as_deref().is_some_and(same))
}

/// Writes zeroes over both ends and over btrfs's copies of its superblock: all places where a signature can be.
fn erase(roots: &Roots, device: &LoopDevice, size: u64) -> io::Result<()> {
    let node = Loops::new(roots).open_alone(device)?;
    let zeroes = vec![0; usize::try_from(ENDS).map_err(io::Error::other)?];
    for offset in [0, BTRFS_COPIES[0], BTRFS_COPIES[1], size.saturating_sub(ENDS)] {
        if offset < size {
            let length = usize::try_from(ENDS.min(size - offset)).map_err(io::Error::other)?;
            node.write_all_at(&zeroes[..length], offset)?;
        }
    }
    node.sync_all()
}

/// Makes the filesystem.
pub(super) fn run(roots: &Roots, device: &LoopDevice, mkfs: &Mkfs) -> Result<(), HostError> {
    let object = || format!("{} as {}", device.path.display(), mkfs.fs_type);
    let failed = |e: io::Error| HostError::failed("format", object(), e);
    let path = tool(mkfs.fs_type).ok_or_else(|| {
        let way_out = format!("install {}", package(mkfs.fs_type));
        HostError::refused("format", object(), format!("there is no mkfs.{}", mkfs.fs_type), way_out)
    })?;
    let before = look(roots, device)?;
    let may_go_on = Look::Done(before.clone()).is_blank() || (mkfs.repeat && is_left_of(&before, mkfs.uuid));
    if !may_go_on {
        let reason = format!("it carries {}", describe(&before));
        let way_out = "look what it is; Bedplate formats a volume only once in its life";
        return Err(HostError::refused("format", object(), reason, way_out));
    }
    if mkfs.repeat {
        erase(roots, device, before.size.get()).map_err(failed)?;
    }
    let mut command = Command::new(&path);
    command.args(arguments(mkfs)).arg(&device.path).env_clear().env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    sys::die_with_parent(&mut command);
    let out = command.output().map_err(failed)?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let said: String = said.trim().chars().take(LONGEST_COMPLAINT).collect();
        return Err(failed(io::Error::other(format!("{} ended with {}: {said}", path.display(), out.status))));
    }
    Loops::new(roots).sync(device).map_err(failed)?;
    let after = look(roots, device)?;
    let uuid = after.main().and_then(|s| s.uuid.as_deref()).and_then(|u| u.parse::<Uuid>().ok());
    match after.main() {
        Some(main) if main.format == mkfs.fs_type.name() && uuid == Some(mkfs.uuid) => Ok(()),
        _ => Err(failed(io::Error::other(format!("afterwards it carries {}", describe(&after))))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mkfs(fs_type: FsType, options: &[&str], repeat: bool) -> Mkfs {
        Mkfs { fs_type, uuid: Uuid::from_u128(7), options: options.iter().map(|o| (*o).to_owned()).collect(), repeat }
    }

    #[test]
    fn no_option_of_a_class_replaces_nodiscard_or_the_uuid() {
        let got = arguments(&mkfs(FsType::Ext4, &["-E", "stride=4", "-m", "5", "-E", "stripe_width=8"], false));
        assert_eq!(got.iter().filter(|a| *a == "-E").count(), 1);
        assert!(
            got.contains(&"stride=4,stripe_width=8,nodiscard,lazy_itable_init=1,lazy_journal_init=1".to_owned()),
            "{got:?}"
        );
        let reserved: Vec<_> = got.iter().zip(got.iter().skip(1)).filter(|(a, _)| *a == "-m").map(|(_, b)| b).collect();
        assert_eq!(reserved, ["0", "5"]);
    }

    #[test]
    fn no_tool_is_ever_forced() {
        for fs in FsType::ALL {
            for repeat in [false, true] {
                assert!(!arguments(&mkfs(fs, &[], repeat)).iter().any(|a| a == "-f" || a == "-F"), "{fs}");
            }
        }
    }
}
