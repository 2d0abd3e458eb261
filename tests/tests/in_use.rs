//! Somebody still uses the volume: a release is refused, or a wipe that was ordered waits and says for whom, and goes on
//! by itself when they let go. On a real ext4 host, through the wipe queue.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_core::ids::VolumeId;
use bedplate_provisioner::engine::{Driven, Engine, ReleaseError};
use bedplate_tests::engine::{Mounted, Node, drive, phase, queue, release, wait, want_ext4};
use bedplate_tests::loopfs::{TestLoop, run};
use bedplate_tests::skip::need_root;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const BLOCKS: usize = 64;

struct Used {
    engine: Arc<Engine>,
    id: VolumeId,
    node: Node,
}

impl Used {
    fn new() -> Self {
        let node = Node::new("ext4", 320).unwrap();
        let engine = node.open().unwrap();
        let id = engine.create(&want_ext4("used", 16)).unwrap().id;
        Self { engine, id, node }
    }

    /// Mounted, with markers in it.
    fn mount(&self) -> Mounted {
        let mounted = self.node.mount(&self.engine, &self.id).unwrap();
        self.node.oracle.write_file(&mounted.path().join("data"), 1, BLOCKS).unwrap();
        mounted
    }

    fn file(&self) -> PathBuf {
        self.node.only_file().unwrap()
    }

    /// Why it cannot be unstaged, and that a release is refused with nothing recorded.
    fn is_refused(&self) -> String {
        let unstaged = self.engine.unstage(&self.id).unwrap_err().to_string();
        let error = release(&self.engine, &self.id).unwrap_err().downcast::<ReleaseError>().unwrap();
        assert!(matches!(error, ReleaseError::InUse { .. }), "{error:?}");
        assert!(error.to_string().contains("nothing was recorded"));
        assert_eq!(phase(&self.engine, &self.id), "Ready");
        assert_eq!(drive(&self.engine, &self.id).unwrap(), Driven::Nothing);
        unstaged
    }

    /// Whom the ordered wipe waits for.
    fn waits(&self) -> String {
        let Driven::Waiting { users } = drive(&self.engine, &self.id).unwrap() else {
            panic!("{:?}", self.engine.volume(&self.id))
        };
        assert!(!users.is_empty());
        assert_eq!(self.node.on_disk(1).unwrap(), BLOCKS, "wiped although somebody uses it");
        assert_eq!(self.node.receipts().unwrap().len(), 0);
        users
    }

    /// The queue has tried and waits; with the user gone it goes on by itself.
    fn goes_on_after(&self, let_go: impl FnOnce()) {
        let wiping = queue(&self.engine).unwrap();
        // It looks every half second: two looks and nothing has moved.
        let moved = wait(Duration::from_millis(1200), || {
            (phase(&self.engine, &self.id) == "Freed" || self.node.on_disk(1).unwrap() != BLOCKS).then_some(())
        });
        assert!(moved.is_none(), "{:?}", self.engine.volume(&self.id));
        let_go();
        let freed = || (phase(&self.engine, &self.id) == "Freed").then_some(());
        assert!(wait(Duration::from_secs(20), freed).is_some(), "{:?}", self.engine.volume(&self.id));
        drop(wiping);
        assert_eq!(self.node.on_disk(1).unwrap(), 0);
        assert!(self.node.loops().is_empty() && self.node.files().unwrap().is_empty());
    }
}

#[test]
fn a_mounted_volume_is_not_released() {
    if !need_root("a_mounted_volume_is_not_released") {
        return;
    }
    let used = Used::new();
    let mounted = used.mount();
    let said = used.is_refused();
    assert!(said.contains(&mounted.path().display().to_string()), "{said}");
    mounted.unmount().unwrap();
    used.engine.unstage(&used.id).unwrap();
    release(&used.engine, &used.id).unwrap();
    assert_eq!(drive(&used.engine, &used.id).unwrap(), Driven::Freed);
}

/// A bind mount elsewhere keeps the filesystem alive after the staging path is unmounted.
#[test]
fn a_second_mount_of_the_volume_counts() {
    if !need_root("a_second_mount_of_the_volume_counts") {
        return;
    }
    let used = Used::new();
    let mounted = used.mount();
    let second = used.node.place().join("second");
    std::fs::create_dir(&second).unwrap();
    run("mount", &["--bind".as_ref(), mounted.path().as_os_str(), second.as_os_str()]).unwrap();
    mounted.unmount().unwrap();
    let said = used.is_refused();
    run("umount", &[&second]).unwrap();
    assert!(said.contains(&second.display().to_string()), "{said}");
    used.engine.unstage(&used.id).unwrap();
    release(&used.engine, &used.id).unwrap();
    assert_eq!(drive(&used.engine, &used.id).unwrap(), Driven::Freed);
}

#[test]
fn a_lazily_unmounted_volume_with_an_open_file_is_in_use() {
    if !need_root("a_lazily_unmounted_volume_with_an_open_file_is_in_use") {
        return;
    }
    let used = Used::new();
    let mounted = used.mount();
    let open = File::open(mounted.path().join("data")).unwrap();
    mounted.unmount_lazily().unwrap();
    let said = used.is_refused();
    assert!(said.contains(&std::process::id().to_string()) || said.contains("unseen"), "{said}");
    drop(open);
    let free = || used.engine.unstage(&used.id).ok();
    assert!(wait(Duration::from_secs(5), free).is_some());
    release(&used.engine, &used.id).unwrap();
    assert_eq!(drive(&used.engine, &used.id).unwrap(), Driven::Freed);
}

/// A process of its own that holds something until it is told to end.
struct Holder(Child);

impl Holder {
    fn start(tool: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(tool);
        Self(command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn end(mut self) {
        // Its input ends, and so does it.
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_that_has_the_raw_device_open_is_named() {
    if !need_root("a_program_that_has_the_raw_device_open_is_named") {
        return;
    }
    let used = Used::new();
    let mounted = used.mount();
    let device = mounted.device().display().to_string();
    mounted.unmount().unwrap();
    let holder = Holder::start("sh", &["-c", "exec 9<\"$0\"; read line", &device]);
    let pid = holder.0.id();
    let opened = || std::fs::read_link(format!("/proc/{pid}/fd/9")).ok();
    assert!(wait(Duration::from_secs(5), opened).is_some());
    let said = used.is_refused();
    assert!(said.contains(&pid.to_string()) && said.contains("(sh)"), "{said}");
    holder.end();
    used.engine.unstage(&used.id).unwrap();
    release(&used.engine, &used.id).unwrap();
    assert_eq!(drive(&used.engine, &used.id).unwrap(), Driven::Freed);
}

/// After the release: whoever gets hold of the backing file makes the wipe wait, and is named.
#[test]
fn a_wipe_waits_for_a_program_that_has_the_backing_file_open_and_then_goes_on() {
    if !need_root("a_wipe_waits_for_a_program_that_has_the_backing_file_open_and_then_goes_on") {
        return;
    }
    let used = Used::new();
    used.mount().unmount().unwrap();
    used.engine.unstage(&used.id).unwrap();
    release(&used.engine, &used.id).unwrap();
    let holder = Holder::start("sh", &["-c", "exec 9<\"$0\"; read line", &used.file().display().to_string()]);
    let pid = holder.0.id();
    assert!(wait(Duration::from_secs(5), || std::fs::read_link(format!("/proc/{pid}/fd/9")).ok()).is_some());
    let said = used.waits();
    assert!(said.contains(&pid.to_string()), "{said}");
    used.goes_on_after(|| holder.end());
}

#[test]
fn a_wipe_waits_for_a_loop_device_of_somebody_else_and_then_goes_on() {
    if !need_root("a_wipe_waits_for_a_loop_device_of_somebody_else_and_then_goes_on") {
        return;
    }
    let used = Used::new();
    used.mount().unmount().unwrap();
    used.engine.unstage(&used.id).unwrap();
    release(&used.engine, &used.id).unwrap();
    // An administrator looks into the file, and has it mounted.
    let theirs = TestLoop::attach(&used.file(), 4096).unwrap();
    let target = used.node.place().join("theirs");
    std::fs::create_dir(&target).unwrap();
    run("mount", &["-o".as_ref(), "ro,noload".as_ref(), theirs.path().as_os_str(), target.as_os_str()]).unwrap();
    let said = used.waits();
    assert!(said.contains("loop") || said.contains(&target.display().to_string()), "{said}");
    used.goes_on_after(|| {
        run("umount", &[&target]).unwrap();
        drop(theirs);
    });
}

/// A loop device on our loop device (somebody who looks for partitions) holds it open.
#[test]
fn a_loop_device_on_our_loop_device_counts() {
    if !need_root("a_loop_device_on_our_loop_device_counts") {
        return;
    }
    let used = Used::new();
    let mounted = used.mount();
    let device = mounted.device().to_owned();
    mounted.unmount().unwrap();
    let theirs = TestLoop::attach(&device, 4096).unwrap();
    let said = used.is_refused();
    assert!(said.contains(&theirs.path().display().to_string()), "{said}");
    drop(theirs);
    let free = || used.engine.unstage(&used.id).ok();
    assert!(wait(Duration::from_secs(5), free).is_some());
    release(&used.engine, &used.id).unwrap();
    assert_eq!(drive(&used.engine, &used.id).unwrap(), Driven::Freed);
}

/// A mount namespace that no process is in, kept alive by a bind mount of its nsfs file: no table shows its mounts.
#[test]
fn a_mount_in_a_namespace_without_a_process_is_in_use() {
    if !need_root("a_mount_in_a_namespace_without_a_process_is_in_use") {
        return;
    }
    let used = Used::new();
    let mounted = used.mount();
    let (keep, name) = (used.node.place().join("keep"), used.node.place().join("keep/namespace"));
    std::fs::create_dir(&keep).unwrap();
    run("mount", &["--bind", &keep.display().to_string(), &keep.display().to_string()]).unwrap();
    run("mount", &["--make-private", &keep.display().to_string()]).unwrap();
    File::create(&name).unwrap();
    let hidden = Hidden { keep, name };
    // The new namespace copies every mount, ours among them, and outlives the `true` that ran in it.
    run("unshare", &[&format!("--mount={}", hidden.name.display()), "--propagation", "private", "true"]).unwrap();
    mounted.unmount().unwrap();
    let said = used.is_refused();
    assert!(said.contains("unseen") || said.contains("exclusive"), "{said}");
    drop(hidden);
    let free = || used.engine.unstage(&used.id).ok();
    assert!(wait(Duration::from_secs(5), free).is_some());
    release(&used.engine, &used.id).unwrap();
    assert_eq!(drive(&used.engine, &used.id).unwrap(), Driven::Freed);
}

struct Hidden {
    keep: PathBuf,
    name: PathBuf,
}

impl Drop for Hidden {
    fn drop(&mut self) {
        for target in [&self.name, &self.keep] {
            let _ = run("umount", &[target]);
        }
    }
}

/// The descriptor of the wipe is held from the quarantine to the end: nobody else who asks gets the file in between.
#[test]
fn nobody_gets_the_file_exclusively_while_it_is_wiped() {
    if !need_root("nobody_gets_the_file_exclusively_while_it_is_wiped") {
        return;
    }
    let used = Used::new();
    used.mount().unmount().unwrap();
    used.engine.unstage(&used.id).unwrap();
    release(&used.engine, &used.id).unwrap();
    let file = used.file();
    let tried = std::sync::atomic::AtomicU32::new(0);
    let between = || {
        let open = File::options().read(true).custom_flags(nix::libc::O_CLOEXEC).open(&file).unwrap();
        let locked = nix::fcntl::Flock::lock(open, nix::fcntl::FlockArg::LockSharedNonblock);
        assert!(locked.is_err(), "the file under the wipe could be locked");
        tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let driven = used.engine.drive(&used.id, &bedplate_provisioner::engine::Stop::default(), &between).unwrap();
    assert_eq!(driven, Driven::Freed);
    assert!(tried.into_inner() > 16);
}
