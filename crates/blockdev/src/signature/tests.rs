//! Real filesystems made by their own tools, held against what `blkid` says where it is installed.

use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn look_at(file: &Path) -> Contents {
    let mut open = File::open(file).unwrap();
    contents(&mut open, file, 512).unwrap()
}

fn image(dir: &Path, mib: u64) -> PathBuf {
    let path = dir.join("image");
    File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path
}

/// A folder on a real disk, not tmpfs.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

fn tool(name: &str, arguments: &[&str]) -> bool {
    match Command::new(name).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) => {
            assert!(status.success(), "{name} {arguments:?} failed");
            true
        }
        Err(_) => false,
    }
}

fn blkid(path: &Path, field: &str) -> Option<String> {
    let out =
        Command::new("blkid").args(["-p", "-o", "value", "-s", field]).arg(path).stderr(Stdio::null()).output().ok()?;
    Some(String::from_utf8(out.stdout).unwrap().trim().to_owned()).filter(|t| !t.is_empty())
}

#[test]
fn filesystems_made_by_their_own_tools_are_read_as_blkid_reads_them() {
    let makers: [(&str, &[&str]); 7] = [
        ("mkfs.ext4", &["-q", "-F", "-L", "data"]),
        ("mkfs.ext2", &["-q", "-F", "-L", "data"]),
        ("mkfs.xfs", &["-q", "-L", "data"]),
        ("mkfs.btrfs", &["-q", "-L", "data"]),
        ("mkfs.f2fs", &["-q", "-l", "data"]),
        ("mkfs.vfat", &["-n", "DATA"]),
        ("mkswap", &["-L", "data"]),
    ];
    let mut tried = 0;
    for (maker, arguments) in makers {
        let dir = folder();
        let path = image(dir.path(), 320);
        if !tool(maker, &[arguments, &[path.to_str().unwrap()]].concat()) {
            eprintln!("not installed, left out here: {maker}");
            continue;
        }
        tried += 1;
        let found = look_at(&path);
        let main = found.main().unwrap_or_else(|| panic!("{maker} not recognised: {found:?}"));
        if let Some(kind) = blkid(&path, "TYPE") {
            assert_eq!(main.format, kind, "{maker}");
            assert_eq!(main.label, blkid(&path, "LABEL"), "{maker}");
            assert_eq!(main.uuid, blkid(&path, "UUID"), "{maker}");
        }
        assert!(!as_fact(Ok(found)).is_blank());
    }
    if tried == 0 {
        println!("SKIP filesystems_made_by_their_own_tools_are_read_as_blkid_reads_them: no mkfs installed");
    }
}

#[test]
fn an_image_of_zeroes_is_blank_and_one_byte_at_a_sampled_place_is_not() {
    let dir = folder();
    let path = image(dir.path(), 200);
    assert!(as_fact(Ok(look_at(&path))).is_blank());
    let stride = ((200u64 << 20) / (SAMPLES + 1)) & !(PIECE - 1);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[7], 30 * stride + 11).unwrap();
    let found = look_at(&path);
    assert_eq!(found.data_at, Some(30 * stride + 11));
    assert!(!as_fact(Ok(found)).is_blank());
}

#[test]
fn the_ends_are_covered_at_every_odd_size() {
    let dir = folder();
    for size in [512, 4096, 1 << 20, (1 << 20) + 512, (2 << 20) - 512, 2 << 20, (2 << 20) + 512, (5 << 20) + 1024] {
        let path = dir.path().join("odd");
        File::create(&path).unwrap().set_len(size).unwrap();
        let found = look_at(&path);
        assert!(found.covers_both_ends(), "{size}: {found:?}");
        assert!(as_fact(Ok(found)).is_blank(), "{size}");
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::End(-1)).unwrap();
        file.write_all(&[1]).unwrap();
        assert_eq!(look_at(&path).data_at, Some(size - 1), "{size}");
    }
}

#[test]
fn a_btrfs_whose_first_megabyte_was_erased_is_still_seen() {
    let dir = folder();
    let path = image(dir.path(), 320);
    if !tool("mkfs.btrfs", &["-q", path.to_str().unwrap()]) {
        println!("SKIP a_btrfs_whose_first_megabyte_was_erased_is_still_seen: no mkfs.btrfs");
        return;
    }
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&vec![0; 1 << 20], 0).unwrap();
    assert_eq!(look_at(&path).signatures[0].format, "btrfs");
}

#[test]
fn what_is_no_block_device_or_another_one_or_absent_is_an_error_that_names_it() {
    let dir = folder();
    let path = image(dir.path(), 1);
    let any = DeviceNumber { major: 8, minor: 0 };
    assert!(matches!(look(&path, any, 512), Err(LookError::NotADevice { .. })));
    assert!(matches!(look(Path::new("/dev/null"), any, 512), Err(LookError::NotADevice { .. })));
    let missing = as_fact(look(&dir.path().join("none"), any, 512));
    let Look::Failed(why) = missing else { panic!("{missing:?}") };
    assert!(why.starts_with("cannot open ") && why.contains("No such file"), "{why}");
}
