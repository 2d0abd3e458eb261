//! Discovery on this machine's own kernel: loop devices that the tests make, mounts in other namespaces, real uevents.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml frees tests only, not the helpers beside them

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bedplate_agent::discover::watch::{Event, Watch};
use bedplate_agent::discover::{Claim, Disk, Opened, Settings, discover};
use bedplate_blockdev::signature::can_hold;
use bedplate_core::verdict::{Reason, Verdict};

/// A loop device on a file of its own; gone with this value.
struct Loop {
    device: PathBuf,
    dir: tempfile::TempDir,
}

impl Loop {
    fn on_zeroes(gib: u64) -> Self {
        // Not /tmp, which may be memory.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = dir.path().join("disk.img");
        File::create(&file).unwrap().set_len(gib << 30).unwrap();
        let out = Command::new("losetup").args(["--find", "--show"]).arg(&file).output().unwrap();
        assert!(out.status.success(), "losetup: {}", String::from_utf8_lossy(&out.stderr));
        Self { device: String::from_utf8(out.stdout).unwrap().trim().into(), dir }
    }

    fn name(&self) -> &str {
        self.device.file_name().unwrap().to_str().unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    fn run(&self, tool: &str, arguments: &[&str]) {
        let out = Command::new(tool).args(arguments).arg(&self.device).output().unwrap();
        assert!(out.status.success(), "{tool}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// A process in a mount namespace of its own; killed with this value, and its mounts with it.
struct Elsewhere(Child);

impl Elsewhere {
    fn mount(device: &Path, at: &Path) -> Self {
        let script = "mount \"$1\" \"$2\" && echo mounted && exec cat";
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .args([device, at])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let elsewhere = Self(child);
        assert_eq!(said.trim(), "mounted");
        elsewhere
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !root {
        println!("SKIP {test}: needs root and loop devices");
    }
    root
}

fn scan(device: &Loop, claims: Vec<Claim>) -> Disk {
    let report = discover(&Settings { claims, ..Settings::default() }, &Opened).unwrap();
    report.disks.into_iter().find(|d| d.facts.name == device.name()).unwrap()
}

fn codes(disk: &Disk) -> Vec<&'static str> {
    disk.verdict.reasons().iter().map(Reason::code).collect()
}

#[test]
fn a_filesystem_on_a_loop_device_is_read_from_the_device_itself() {
    if !root("a_filesystem_on_a_loop_device_is_read_from_the_device_itself") {
        return;
    }
    let device = Loop::on_zeroes(2);
    assert!(scan(&device, vec![]).facts.look.is_blank(), "zeroes are blank");
    device.run("mkfs.ext4", &["-q", "-L", "bed"]);
    let disk = scan(&device, vec![]);
    let main = disk.facts.look.contents().unwrap().main().unwrap().clone();
    assert_eq!((main.format.as_str(), main.label.as_deref()), ("ext4", Some("bed")));
    assert_eq!(codes(&disk), ["loop", "content"], "{:?}", disk.verdict);
}

#[test]
fn one_byte_of_unknown_data_is_seen_through_the_kernel() {
    if !root("one_byte_of_unknown_data_is_seen_through_the_kernel") {
        return;
    }
    let device = Loop::on_zeroes(1);
    let open = OpenOptions::new().write(true).open(device.file()).unwrap();
    open.write_all_at(&[1], (1 << 30) - 3000).unwrap();
    open.sync_all().unwrap();
    let disk = scan(&device, vec![]);
    assert_eq!(disk.facts.look.contents().unwrap().data_at, Some((1 << 30) - 3000));
    assert!(codes(&disk).contains(&"unknown-data"));
}

#[test]
fn a_mount_that_only_another_process_sees_is_seen_and_the_disk_cannot_be_held() {
    if !root("a_mount_that_only_another_process_sees_is_seen_and_the_disk_cannot_be_held") {
        return;
    }
    let device = Loop::on_zeroes(1);
    device.run("mkfs.ext4", &["-q"]);
    let before = scan(&device, vec![]);
    assert_eq!(can_hold(&device.device, before.facts.number).ok(), Some(true));
    let at = device.dir.path().join("hidden place");
    std::fs::create_dir(&at).unwrap();

    let elsewhere = Elsewhere::mount(&device.device, &at);
    let own = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!own.contains("hidden"), "the mount must not be visible here, or this test shows nothing");
    let disk = scan(&device, vec![]);
    let first = disk.verdict.reasons()[0].to_string();
    assert_eq!(first, format!("carries a mounted ext4 at {}", at.display()));
    assert_eq!(can_hold(&device.device, disk.facts.number).ok(), Some(false));
    drop(elsewhere);
}

#[test]
fn a_loop_device_on_a_file_of_a_pools_folder_is_ours_and_on_any_other_it_is_not() {
    if !root("a_loop_device_on_a_file_of_a_pools_folder_is_ours_and_on_any_other_it_is_not") {
        return;
    }
    let device = Loop::on_zeroes(1);
    let claim = |path: &Path| vec![Claim::Folder { pool: "fast".to_owned(), path: path.to_owned() }];
    assert_eq!(scan(&device, claim(device.dir.path())).verdict, Verdict::Ours { pool: "fast".to_owned() });
    assert!(codes(&scan(&device, claim(Path::new("/var")))).contains(&"loop"), "a parent folder is not the folder");
}

#[test]
fn a_disk_that_comes_and_goes_is_told_by_the_kernel() {
    if !root("a_disk_that_comes_and_goes_is_told_by_the_kernel") {
        return;
    }
    let mut watch = Watch::open(Duration::from_hours(1)).unwrap();
    let device = Loop::on_zeroes(1);
    let name = device.name().to_owned();
    assert!(told(&mut watch, &name, PATIENCE), "no event about {name} when it was attached");
    // An attach is told more than once: the detach is what comes after silence.
    while told(&mut watch, &name, Duration::from_millis(500)) {}
    drop(device);
    assert!(told(&mut watch, &name, PATIENCE), "no event about {name} when it was detached");
}

const PATIENCE: Duration = Duration::from_secs(10);

fn told(watch: &mut Watch, wanted: &str, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        match watch.next_within(left).unwrap() {
            Some(Event::Block { name, .. }) if name == wanted => return true,
            _ => {}
        }
    }
    false
}

#[tokio::test]
async fn the_async_watch_tells_the_same_and_ends_with_its_owner() {
    if !root("the_async_watch_tells_the_same_and_ends_with_its_owner") {
        return;
    }
    let mut watch = Watch::open(Duration::from_hours(1)).unwrap().into_async().unwrap();
    let device = Loop::on_zeroes(1);
    let mine = async {
        while let Some(event) = watch.next().await {
            if matches!(event.unwrap(), Event::Block { name, .. } if name == device.name()) {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(PATIENCE, mine).await.unwrap());
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let listening =
        || threads().any(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|name| name.trim() == "uevents"));
    assert!(listening(), "there is a thread to end, or this test shows nothing");
    drop(watch);
    let deadline = Instant::now() + PATIENCE;
    while listening() && Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert!(!listening(), "the thread outlives its owner");
}
