//! Everybody who can use a volume is found, each situation made for real.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bedplate_blockdev::{Detached, Host, LoopDevice, User};
use bedplate_core::filesystem::FsType;
use bedplate_tests::loopfs::{TestLoop, run};
use bedplate_tests::skip::need_root;
use nix::libc;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use crate::rig::{Mounted, NAME, Rig, eventually};

fn formatted(host: &'static str, fs: FsType) -> (Rig, LoopDevice) {
    let rig = Rig::new(host);
    let device = rig.attach();
    rig.format(&device, fs);
    assert_eq!(rig.users(Some(&device)), [], "nobody yet");
    (rig, device)
}

fn own_descriptor(user: &User) -> bool {
    matches!(user, User::Descriptor { pid, .. } if *pid == std::process::id())
}

fn unseen(user: &User) -> bool {
    matches!(user, User::Unseen { .. })
}

fn released(rig: &Rig, device: &LoopDevice) {
    eventually("nobody uses it any more", || rig.users(Some(device)).is_empty());
    assert_eq!(rig.detach(device), Detached::Gone);
    assert_eq!(rig.users(None), []);
    drop(rig.open().unwrap());
}

#[test]
fn a_mount_is_found_whatever_the_filesystem() {
    if !need_root("a_mount_is_found_whatever_the_filesystem") {
        return;
    }
    for fs in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
        let (rig, device) = formatted("ext4", fs);
        let mounted = Mounted::new(&device.path, "defaults");
        let users = rig.users(Some(&device));
        let target = mounted.path().display().to_string();
        assert!(users.iter().any(|u| matches!(u, User::Mount { target: t, .. } if *t == target)), "{fs}: {users:?}");
        drop(mounted);
        released(&rig, &device);
    }
}

/// A process with a mount namespace of its own, in which `command` was run; ends when dropped.
struct Elsewhere(Child);

impl Elsewhere {
    fn new(script: &str, argument: &str, target: &str) -> Self {
        let script = format!("{script}; echo ready; read end");
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", &script, "sh", argument, target])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_mount_in_another_processs_namespace_is_found() {
    if !need_root("a_mount_in_another_processs_namespace_is_found") {
        return;
    }
    let (rig, device) = formatted("xfs", FsType::Ext4);
    let target = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = target.path().to_str().unwrap();
    let elsewhere = Elsewhere::new("mount \"$1\" \"$2\"", device.path.to_str().unwrap(), path);
    let users = rig.users(Some(&device));
    let seen = |u: &User| matches!(u, User::Mount { pid, target } if *pid == elsewhere.0.id() && target == path);
    assert!(users.iter().any(seen), "{users:?}");
    drop(elsewhere);
    released(&rig, &device);
}

#[test]
fn a_mount_namespace_without_a_process_is_felt() {
    if !need_root("a_mount_namespace_without_a_process_is_felt") {
        return;
    }
    let (rig, device) = formatted("ext4", FsType::Xfs);
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (keep, target) = (folder.path().join("keep"), folder.path().join("target"));
    std::fs::create_dir(&keep).unwrap();
    std::fs::create_dir(&target).unwrap();
    let keep = keep.to_str().unwrap();
    // A namespace can be kept by a bind mount of its file on a private mount.
    run("mount", &["--bind", keep, keep]).unwrap();
    run("mount", &["--make-private", keep]).unwrap();
    let file = format!("{keep}/namespace");
    std::fs::write(&file, b"").unwrap();
    let flag = format!("--mount={file}");
    let target = target.to_str().unwrap();
    let node = device.path.to_str().unwrap();
    let made = run("unshare", &[&flag, "--propagation", "private", "mount", node, target]);
    let users = rig.users(Some(&device));
    let held = rig.open().err();
    run("umount", &[&file]).unwrap();
    run("umount", &[keep]).unwrap();
    made.unwrap();
    assert!(users.iter().any(unseen), "{users:?}");
    assert!(held.is_some());
    released(&rig, &device);
}

#[test]
fn a_lazily_unmounted_filesystem_with_an_open_file_is_found() {
    if !need_root("a_lazily_unmounted_filesystem_with_an_open_file_is_found") {
        return;
    }
    for fs in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
        let (rig, device) = formatted("ext4", fs);
        let mut mounted = Mounted::new(&device.path, "defaults");
        let file = File::create(mounted.path().join("open")).unwrap();
        mounted.detach_lazily();
        let users = rig.users(Some(&device));
        assert!(users.iter().any(unseen), "{fs}: {users:?}");
        assert!(!users.iter().any(|u| matches!(u, User::Mount { .. })), "{fs}: {users:?}");
        // btrfs gives its files a device number of their own: there only the exclusive open tells.
        assert!(fs == FsType::Btrfs || users.iter().any(own_descriptor), "{fs}: {users:?}");
        assert!(rig.open().is_err());
        drop(file);
        released(&rig, &device);
    }
}

#[test]
fn an_opener_of_the_raw_device_is_found_and_keeps_it_from_being_let_go() {
    if !need_root("an_opener_of_the_raw_device_is_found_and_keeps_it_from_being_let_go") {
        return;
    }
    let rig = Rig::new("ext4");
    let device = rig.attach();
    let raw = File::open(&device.path).unwrap();
    assert!(rig.users(Some(&device)).iter().any(own_descriptor));
    assert_eq!(rig.detach(&device), Detached::StillHeld);
    assert!(rig.open().is_err(), "the file is still beneath the device");
    drop(raw);
    eventually("the kernel lets go at the last close", || {
        rig.host.attachments(&rig.dir, NAME, &rig.identity).unwrap().is_empty()
    });
    drop(rig.open().unwrap());

    let device = rig.attach();
    let exclusive = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&device.path).unwrap();
    let users = rig.users(Some(&device));
    assert!(users.iter().any(own_descriptor) && users.iter().any(unseen), "{users:?}");
    drop(exclusive);
    released(&rig, &device);
}

#[test]
fn an_opener_of_the_backing_file_is_found() {
    if !need_root("an_opener_of_the_backing_file_is_found") {
        return;
    }
    for host in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::new(host);
        let device = rig.attach();
        let file = File::open(rig.path()).unwrap();
        assert!(rig.users(Some(&device)).iter().any(own_descriptor), "{host}");
        assert_eq!(rig.detach(&device), Detached::Gone);
        assert!(rig.users(None).iter().any(own_descriptor), "{host}");
        drop(file);
        assert_eq!(rig.users(None), [], "{host}");
    }
}

#[test]
fn an_open_file_in_flight_over_a_socket_is_felt() {
    if !need_root("an_open_file_in_flight_over_a_socket_is_felt") {
        return;
    }
    for host in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::new(host);
        let (from, to) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let file = File::open(rig.path()).unwrap();
        let fds = [file.as_raw_fd()];
        let message = [IoSlice::new(b"x")];
        sendmsg::<()>(from.as_raw_fd(), &message, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None).unwrap();
        drop(file);
        let users = rig.users(None);
        assert!(users.iter().any(unseen), "{host}: {users:?}");
        assert!(rig.open().is_err(), "{host}");
        drop((from, to));
        // The kernel collects descriptors in flight after their sockets are gone.
        eventually("in flight no more", || rig.users(None).is_empty());
    }
}

#[test]
fn a_program_that_runs_from_the_volume_is_found_after_a_lazy_unmount() {
    if !need_root("a_program_that_runs_from_the_volume_is_found_after_a_lazy_unmount") {
        return;
    }
    let (rig, device) = formatted("ext4", FsType::Ext4);
    let mut mounted = Mounted::new(&device.path, "defaults");
    let program = mounted.path().join("cat");
    std::fs::copy("/bin/cat", &program).unwrap();
    let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let maps = format!("/proc/{}/maps", child.id());
    eventually("it runs", || std::fs::read_to_string(&maps).is_ok_and(|m| m.contains("/cat")));
    mounted.detach_lazily();
    let users = rig.users(Some(&device));
    let pid = child.id();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(users.iter().any(|u| matches!(u, User::Descriptor { pid: p, .. } if *p == pid)), "{users:?}");
    released(&rig, &device);
}

#[test]
fn a_process_that_stands_in_the_volume_is_found_after_a_lazy_unmount() {
    if !need_root("a_process_that_stands_in_the_volume_is_found_after_a_lazy_unmount") {
        return;
    }
    let (rig, device) = formatted("ext4", FsType::Ext4);
    let mut mounted = Mounted::new(&device.path, "defaults");
    let mut child = Command::new("cat").current_dir(mounted.path()).stdin(Stdio::piped()).spawn().unwrap();
    mounted.detach_lazily();
    let users = rig.users(Some(&device));
    let pid = child.id();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(users.iter().any(|u| matches!(u, User::Descriptor { pid: p, .. } if *p == pid)), "{users:?}");
    released(&rig, &device);
}

#[test]
fn another_loop_device_on_the_device_or_the_file_is_found() {
    if !need_root("another_loop_device_on_the_device_or_the_file_is_found") {
        return;
    }
    for host in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::new(host);
        let device = rig.attach();
        let sector = if host == "btrfs" { 4096 } else { 512 };
        for beneath in [device.path.clone(), rig.path()] {
            let other = TestLoop::attach(&beneath, sector).unwrap();
            let number: u32 = other.path().to_str().unwrap().trim_start_matches("/dev/loop").parse().unwrap();
            let users = rig.users(Some(&device));
            assert!(users.contains(&User::Loop { number }), "{host}, {}: {users:?}", beneath.display());
        }
        let other = TestLoop::attach(&rig.path(), sector).unwrap();
        assert_eq!(rig.detach(&device), Detached::Gone);
        assert!(matches!(rig.users(None)[..], [User::Loop { .. }]));
        assert!(rig.open().is_err(), "{host}");
        drop(other);
        eventually("the other loop is gone", || rig.users(None).is_empty());
    }
}

#[test]
fn a_published_device_node_is_found() {
    if !need_root("a_published_device_node_is_found") {
        return;
    }
    let rig = Rig::new("ext4");
    let device = rig.attach();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let node = folder.path().join("node");
    std::fs::write(&node, b"").unwrap();
    run("mount", &["--bind", device.path.to_str().unwrap(), node.to_str().unwrap()]).unwrap();
    let users = rig.users(Some(&device));
    run("umount", &[&node]).unwrap();
    let target = node.display().to_string();
    assert!(users.iter().any(|u| matches!(u, User::Mount { target: t, .. } if *t == target)), "{users:?}");
    released(&rig, &device);
}

#[test]
fn somebody_who_only_glances_at_the_device_is_waited_for() {
    if !need_root("somebody_who_only_glances_at_the_device_is_waited_for") {
        return;
    }
    let rig = Rig::new("ext4");
    let device = rig.attach();
    let raw = File::open(&device.path).unwrap();
    let thread = std::thread::spawn(move || {
        let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(60u16));
        drop(raw);
    });
    assert_eq!(rig.users(Some(&device)), []);
    thread.join().unwrap();
    released(&rig, &device);
    // The same for the file itself.
    let file = File::open(rig.path()).unwrap();
    let thread = std::thread::spawn(move || {
        let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::try_from(Duration::from_millis(60)).unwrap());
        drop(file);
    });
    drop(rig.open().unwrap());
    thread.join().unwrap();
}
