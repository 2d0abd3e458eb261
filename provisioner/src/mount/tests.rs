//! Real mounts of a real loop device, as root; everything in a folder of its own, taken away even when a test fails.

use super::*;
use std::os::unix::fs::symlink;
use std::process::Command;
use tempfile::TempDir;

/// A loop device with ext4 on it, and a folder for mounts; made by this test and by nobody else.
struct Bench {
    dir: TempDir,
    device: Device,
}

impl Bench {
    fn new(test: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP {test}: needs root (loop devices, mounts)");
            return None;
        }
        // Not the temporary folder: that may be memory, and loop devices want a disk.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target").unwrap();
        let file = dir.path().join("image");
        std::fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
        run("mkfs.ext4", &["-q", file.to_str().unwrap()]);
        let path = run("losetup", &["--find", "--show", file.to_str().unwrap()]);
        let device = Device::at(Path::new(path.trim())).unwrap();
        Some(Self { dir, device })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Staged at `s`.
    fn staged(&self) -> PathBuf {
        let staging = self.at("s");
        stage(&self.device, FsType::Ext4, &staging, &Options::default()).unwrap();
        staging
    }

    fn publish(&self, target: &Path, read_only: bool) -> Result<(), MountError> {
        publish_directory(&self.device, &self.at("s"), target, read_only, &self.at("scratch"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let base = self.dir.path().canonicalize().unwrap();
        for mount in Table::read().unwrap().0.iter().rev().filter(|mount| mount.point.starts_with(&base)) {
            let _ = umount2(&mount.point, MntFlags::UMOUNT_NOFOLLOW);
        }
        let _ = Command::new("losetup").arg("--detach").arg(&self.device.path).status();
    }
}

fn run(tool: &str, args: &[&str]) -> String {
    let done = Command::new(tool).args(args).output().unwrap();
    assert!(done.status.success(), "{tool}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn stage_and_publish_and_back_may_each_be_repeated() {
    let Some(bench) = Bench::new("stage_and_publish_and_back_may_each_be_repeated") else { return };
    let (staging, target) = (bench.staged(), bench.at("t"));
    stage(&bench.device, FsType::Ext4, &staging, &Options::default()).unwrap();
    for _ in 0..3 {
        bench.publish(&target, false).unwrap();
    }
    std::fs::write(target.join("file"), "x").unwrap();
    assert!(staging.join("file").exists());
    assert_eq!(appearances(&bench.device).unwrap().len(), 2, "one mount a call that did something");
    let options = Table::read().unwrap().top(&canonical(&target).unwrap()).unwrap().kept_flags();
    assert!(options.contains(MsFlags::MS_NODEV | MsFlags::MS_NOSUID), "{options:?}");
    for _ in 0..3 {
        unpublish(Some(&bench.device), &target).unwrap();
    }
    assert!(!target.exists());
    for _ in 0..3 {
        unmount(Some(&bench.device), &staging).unwrap();
    }
    assert!(staging.is_dir() && appearances(&bench.device).unwrap().is_empty());
}

#[test]
fn a_read_only_publication_refuses_writes_and_a_writable_one_beside_it_does_not() {
    let Some(bench) = Bench::new("a_read_only_publication_refuses_writes_and_a_writable_one_beside_it_does_not") else {
        return;
    };
    bench.staged();
    let (reader, writer) = (bench.at("r"), bench.at("w"));
    bench.publish(&reader, true).unwrap();
    bench.publish(&writer, false).unwrap();
    bench.publish(&reader, true).unwrap();
    std::fs::write(writer.join("file"), "x").unwrap();
    let refused = std::fs::write(reader.join("file"), "y").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    assert!(matches!(bench.publish(&reader, false), Err(MountError::OtherMode { read_only: true, .. })));
    assert!(matches!(bench.publish(&writer, true), Err(MountError::OtherMode { read_only: false, .. })));
    assert_eq!(look(&bench.device, &bench.at("scratch")).unwrap(), None, "nothing stays in the scratch folder");
    assert_eq!(appearances(&bench.device).unwrap().len(), 3);
}

#[test]
fn a_symlink_at_the_target_is_never_followed() {
    let Some(bench) = Bench::new("a_symlink_at_the_target_is_never_followed") else { return };
    bench.staged();
    let (elsewhere, link) = (bench.at("elsewhere"), bench.at("link"));
    std::fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &link).unwrap();
    assert!(matches!(bench.publish(&link, false), Err(MountError::Symlink(_))));
    assert!(matches!(unpublish(Some(&bench.device), &link), Err(MountError::Symlink(_))));
    let options = Options::default();
    assert!(matches!(stage(&bench.device, FsType::Ext4, &link, &options), Err(MountError::Symlink(_))));
    assert!(link.is_symlink() && elsewhere.is_dir());
    // A folder above may be one: kubelet's root often is.
    bench.publish(&link.join("t"), false).unwrap();
    bench.publish(&link.join("t"), false).unwrap();
    assert_eq!(look(&bench.device, &elsewhere.join("t")).unwrap(), Some(true));
    unpublish(Some(&bench.device), &link.join("t")).unwrap();
    assert!(!elsewhere.join("t").exists());
}

#[test]
fn somebody_elses_mount_and_files_stay_untouched() {
    let Some(bench) = Bench::new("somebody_elses_mount_and_files_stay_untouched") else { return };
    bench.staged();
    let foreign = bench.at("foreign");
    std::fs::create_dir(&foreign).unwrap();
    mount(Some("none"), &foreign, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    std::fs::write(foreign.join("precious"), "x").unwrap();
    for outcome in [
        bench.publish(&foreign, false),
        unpublish(Some(&bench.device), &foreign),
        unpublish(None, &foreign),
        stage(&bench.device, FsType::Ext4, &foreign, &Options::default()),
    ] {
        let Err(MountError::Foreign { what, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(what.contains("tmpfs"), "{what}");
    }
    assert!(foreign.join("precious").exists());
    umount2(&foreign, MntFlags::UMOUNT_NOFOLLOW).unwrap();

    std::fs::write(foreign.join("precious"), "x").unwrap();
    assert!(matches!(bench.publish(&foreign, false), Err(MountError::NotEmpty(_))));
    assert!(matches!(unpublish(Some(&bench.device), &foreign), Err(MountError::NotEmpty(_))));
    assert!(matches!(bench.publish(&foreign.join("precious"), false), Err(MountError::WrongKind { .. })));
    assert!(foreign.join("precious").exists());
    assert!(matches!(bench.publish(&bench.at("no/folder"), false), Err(MountError::NoFolder(_))));
    unpublish(Some(&bench.device), &bench.at("no/folder")).unwrap();
}

#[test]
fn a_busy_target_is_not_hidden_but_refused() {
    let Some(bench) = Bench::new("a_busy_target_is_not_hidden_but_refused") else { return };
    bench.staged();
    let target = bench.at("t");
    bench.publish(&target, false).unwrap();
    let open = std::fs::File::create(target.join("file")).unwrap();
    assert!(matches!(unpublish(Some(&bench.device), &target), Err(MountError::Busy(_))));
    assert_eq!(look(&bench.device, &target).unwrap(), Some(true));
    drop(open);
    unpublish(Some(&bench.device), &target).unwrap();
}

#[test]
fn a_volume_that_is_not_staged_is_not_published() {
    let Some(bench) = Bench::new("a_volume_that_is_not_staged_is_not_published") else { return };
    let target = bench.at("t");
    assert!(matches!(bench.publish(&target, false), Err(MountError::NotStaged(_))));
    std::fs::create_dir(bench.at("s")).unwrap();
    assert!(matches!(bench.publish(&target, false), Err(MountError::NotStaged(_))));
    assert!(!target.exists());
}

#[test]
fn a_device_node_is_published_as_a_file_and_removed() {
    let Some(bench) = Bench::new("a_device_node_is_published_as_a_file_and_removed") else { return };
    let target = bench.at("block");
    for _ in 0..3 {
        publish_node(&bench.device, &target).unwrap();
    }
    assert_eq!(Device::at(&target).unwrap().number, bench.device.number);
    assert_eq!(appearances(&bench.device).unwrap().len(), 1);
    assert_eq!(look(&bench.device, &target).unwrap(), Some(true));
    assert!(!bench.device.is_read_only().unwrap());
    for _ in 0..3 {
        unpublish(Some(&bench.device), &target).unwrap();
    }
    assert!(!target.exists());
    std::fs::write(&target, "precious").unwrap();
    assert!(matches!(publish_node(&bench.device, &target), Err(MountError::NotEmpty(_))));
    assert!(matches!(unpublish(Some(&bench.device), &target), Err(MountError::NotEmpty(_))));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn what_a_crash_left_in_the_scratch_folder_is_taken_away() {
    let Some(bench) = Bench::new("what_a_crash_left_in_the_scratch_folder_is_taken_away") else { return };
    let (staging, scratch) = (bench.staged(), bench.at("scratch"));
    std::fs::create_dir(&scratch).unwrap();
    for _ in 0..2 {
        mount(Some(&staging), &scratch, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    clear_scratch(&scratch).unwrap();
    assert_eq!(appearances(&bench.device).unwrap().len(), 1);
}
