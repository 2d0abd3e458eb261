//! What the system calls underneath do on this kernel. The steps built on them are tested on filesystems of their own,
//! in the suites that cross crates.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

use super::*;

/// A folder on a real disk, not tmpfs.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

#[test]
fn a_write_lease_is_granted_to_the_only_opener_and_to_nobody_else() {
    let folder = folder();
    let path = folder.path().join("file");
    let file = File::create(&path).unwrap();
    assert!(sys::is_only_opener(&file).unwrap());
    let reader = File::open(&path).unwrap();
    assert!(!sys::is_only_opener(&file).unwrap(), "a reader was not noticed");
    drop(reader);
    // A second descriptor of the same open file is no second opener.
    let twin = file.try_clone().unwrap();
    assert!(sys::is_only_opener(&file).unwrap());
    drop(twin);
}

#[test]
fn a_loop_devices_hold_on_its_file_denies_the_lease() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP a_loop_devices_hold_on_its_file_denies_the_lease: needs root (loop devices)");
        return;
    }
    let folder = folder();
    let path = folder.path().join("file");
    let file = File::create(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    let host = LinuxHost::default();
    let dir = host.open_dir(folder.path()).unwrap();
    let identity = host.backing(&dir, "file").unwrap().unwrap().identity;
    let device = host.attach(&dir, "file", &identity).unwrap();
    let held = sys::is_only_opener(&file).unwrap();
    assert_eq!(host.detach(&dir, "file", &identity, &device).unwrap(), Detached::Gone);
    assert!(!held);
    assert!(sys::is_only_opener(&file).unwrap());
}

#[test]
fn a_descriptor_that_only_asks_is_no_user_and_any_other_is() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP a_descriptor_that_only_asks_is_no_user_and_any_other_is: needs root (loop devices)");
        return;
    }
    let folder = folder();
    File::create(folder.path().join("file")).unwrap().set_len(1 << 20).unwrap();
    let host = LinuxHost::default();
    let dir = host.open_dir(folder.path()).unwrap();
    let identity = host.backing(&dir, "file").unwrap().unwrap().identity;
    let device = host.attach(&dir, "file", &identity).unwrap();
    let users = || host.users(&dir, "file", &identity, Some(&device)).unwrap();
    let open = File::open(&device.path).unwrap();
    let counted = users();
    let glimpse = glimpse::Glimpse::of(&open);
    let ignored = users();
    let second = File::open(&device.path).unwrap();
    let beside = users();
    drop((second, glimpse));
    let counted_again = users();
    drop(open);
    assert_eq!(host.detach(&dir, "file", &identity, &device).unwrap(), Detached::Gone);
    let own = |users: &[User]| matches!(users, [User::Descriptor { pid, .. }] if *pid == std::process::id());
    assert!(own(&counted) && own(&beside) && own(&counted_again), "{counted:?} {beside:?} {counted_again:?}");
    assert_eq!(ignored, []);
}

#[test]
fn others_who_open_the_file_while_it_is_leased_do_not_kill_us() {
    let folder = folder();
    let path = folder.path().join("file");
    let file = File::create(&path).unwrap();
    let stop = AtomicBool::new(false);
    let (alone, opened) = std::thread::scope(|scope| {
        let opener = scope.spawn(|| {
            let mut opened = 0u32;
            while !stop.load(Ordering::Relaxed) {
                drop(File::open(&path).unwrap());
                opened += 1;
            }
            opened
        });
        let alone = (0..20_000).filter(|_| sys::is_only_opener(&file).unwrap()).count();
        stop.store(true, Ordering::Relaxed);
        (alone, opener.join().unwrap())
    });
    assert!(opened > 100 && alone > 0, "the two never met: {opened} opens, {alone} leases");
}

#[test]
fn a_tool_dies_with_the_thread_that_started_it() {
    let starter = std::thread::spawn(|| {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        sys::die_with_parent(&mut command);
        command.spawn().unwrap()
    });
    let mut child = starter.join().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

/// A filesystem of the test's own on a loop device; unmounted when dropped, also when the test fails.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(mkfs: &str) -> Self {
        let folder = folder();
        let (image, at) = (folder.path().join("image"), folder.path().join("at"));
        File::create(&image).unwrap().set_len(320 << 20).unwrap();
        std::fs::create_dir(&at).unwrap();
        let mounted = Self(folder);
        for command in
            [Command::new(mkfs).arg("-q").arg(&image), Command::new("mount").arg("-oloop").args([&image, &at])]
        {
            let done = command.output().unwrap();
            assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path().join("at")).output();
    }
}

#[test]
fn the_superblock_tells_the_same_uuid_as_the_kernel() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP the_superblock_tells_the_same_uuid_as_the_kernel: needs root (loop devices)");
        return;
    }
    for (mkfs, fs_type) in [("mkfs.ext4", "ext4"), ("mkfs.xfs", "xfs")] {
        let host = Mounted::new(mkfs);
        let file = File::open(host.0.path().join("at")).unwrap();
        let facts = sys::facts(&file).unwrap();
        let told = sys::fs_uuid(&file).unwrap();
        assert!(told.is_some(), "{fs_type}: the kernel (6.9 or later) tells no uuid");
        assert_eq!(pool::uuid_on_disk(&Roots::default(), facts.dev, fs_type).unwrap(), told, "{fs_type}");
    }
}

#[test]
fn holders_are_named_as_sysfs_names_them() {
    let sys = tempfile::tempdir().unwrap();
    let holders = sys.path().join("block/loop7000/holders");
    std::fs::create_dir_all(holders.join("dm-3")).unwrap();
    std::fs::create_dir_all(holders.join("bcache0")).unwrap();
    let roots = Roots { sys: sys.path().to_owned(), ..Roots::default() };
    assert_eq!(Loops::new(&roots).holders(7000).unwrap(), ["bcache0", "dm-3"]);
    assert!(Loops::new(&roots).holders(7001).is_err(), "what cannot be read is not 'nobody'");
}
