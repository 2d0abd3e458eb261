//! Scratch files on the filesystem that holds /var/tmp: figures, budgets, and that nothing stays behind.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use bedplate_core::probe::Offsets;
use tempfile::TempDir;

use super::*;
use crate::probe_io::Request;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("bedplate-scratch-test-").tempdir_in("/var/tmp").unwrap()
}

fn budget() -> ScratchBudget {
    ScratchBudget { bytes: 16 << 20, keep_free: 0, ..ScratchBudget::default() }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn both_kinds_of_space_are_measured_and_the_file_is_gone_afterwards() {
    let folder = folder();
    for (engine, expected) in [(EngineChoice::IoUring, Engine::IoUring), (EngineChoice::Threads, Engine::Threads)] {
        let mut scratch = Scratch::create(folder.path(), &ScratchBudget { engine, ..budget() }).unwrap();
        assert_eq!(names(folder.path()).len(), 1);
        let allocated = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(scratch.path()).unwrap()) * 512;
        assert!(allocated >= 16 << 20, "allocated in full before the first measurement: {allocated}");
        let mut shares = Vec::new();
        let report = scratch
            .measure(&mut |share| {
                shares.push(share);
                Flow::Continue
            })
            .unwrap();
        assert_eq!((report.engine, report.file_bytes), (expected, 16 << 20));
        for figures in [&report.first_write, &report.overwrite] {
            assert!(figures.fsync_count > 0 && figures.fsync_count <= 256, "{figures:?}");
            assert!(figures.fsync_p50_us > 0 && figures.fsync_p50_us <= figures.fsync_p99_us, "{figures:?}");
            assert!(figures.random_write_iops > 0 && figures.sequential_mib_s > 0.0, "{figures:?}");
        }
        assert!(report.overwrite.fsync_count <= report.first_write.fsync_count, "only what was written is overwritten");
        assert!(shares.is_sorted() && shares.iter().all(|s| (0.0..=1.0).contains(s)));
        drop(scratch);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn what_was_written_can_be_read_for_latency_and_holds_no_zero_block() {
    let folder = folder();
    let mut scratch = Scratch::create(folder.path(), &budget()).unwrap();
    assert!(scratch.reader().unwrap().is_none(), "nothing is there to be read yet");
    scratch.measure(&mut |_| Flow::Continue).unwrap();
    let reader = scratch.reader().unwrap().unwrap();
    assert!(reader.size() >= 1 << 20);
    let request = Request {
        depth: 4,
        block_size: 4096,
        ops: u64::MAX,
        time: Duration::from_secs(10),
        engine: EngineChoice::Auto,
    };
    let mut offsets = Offsets::new(reader.size(), 4096, 1);
    let report = reader.read(&request, &mut offsets, &mut |_| Flow::Continue).unwrap();
    assert_eq!((report.completed, report.zero_blocks), (reader.size() / 4096, 0));
}

#[test]
fn a_time_budget_is_kept_on_a_disk_of_any_speed() {
    let folder = folder();
    let time = Duration::from_millis(400);
    let mut scratch = Scratch::create(folder.path(), &ScratchBudget { time, ..budget() }).unwrap();
    let start = std::time::Instant::now();
    let result = scratch.measure(&mut |_| Flow::Continue);
    // Operations under way and the closing flushes are waited for, nothing new is begun.
    assert!(start.elapsed() < time + Duration::from_secs(3), "{:?}", start.elapsed());
    if let Err(error) = result {
        assert!(matches!(error, ScratchError::TooSlow { .. }), "{error}");
    }
}

#[test]
fn a_stopped_measurement_leaves_nothing_behind() {
    let folder = folder();
    for at in [0.0, 0.2, 0.4, 0.6, 0.9] {
        let mut scratch = Scratch::create(folder.path(), &budget()).unwrap();
        let stopped = scratch.measure(&mut |share| if share > at { Flow::Stop } else { Flow::Continue });
        assert!(matches!(stopped, Err(ScratchError::Stopped { .. })), "{stopped:?}");
        drop(scratch);
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn no_scratch_file_where_it_would_take_the_last_room_or_measure_memory() {
    let folder = folder();
    let greedy = ScratchBudget { keep_free: u64::MAX / 2, ..budget() };
    assert!(matches!(Scratch::create(folder.path(), &greedy), Err(ScratchError::NoRoom { .. })));
    let tiny = ScratchBudget { bytes: 1 << 20, ..budget() };
    assert!(matches!(Scratch::create(folder.path(), &tiny), Err(ScratchError::TooSmall { .. })));
    assert!(matches!(Scratch::create(Path::new("/proc"), &budget()), Err(ScratchError::Filesystem { .. })));
    assert!(matches!(Scratch::create(Path::new("/var/tmp/absent-pool"), &budget()), Err(ScratchError::Io { .. })));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_scratch_file_that_was_replaced_is_not_removed() {
    let folder = folder();
    let scratch = Scratch::create(folder.path(), &budget()).unwrap();
    let path = scratch.path().to_owned();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody's file").unwrap();
    drop(scratch);
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's file");
}

/// Set in the process that the next test starts and kills.
const CHILD: &str = "BEDPLATE_TEST_SCRATCH_IN";

#[test]
fn a_scratch_file_left_by_kill_9_is_removed_at_the_next_start() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let mut scratch = Scratch::create(Path::new(&folder), &budget()).unwrap();
        let mut told = false;
        let _ = scratch.measure(&mut |_| {
            if !told {
                println!("measuring {}", scratch_name(Path::new(&folder)));
                told = true;
                // Wait to be killed, in the midst of it.
                let _ = std::io::stdin().lines().next();
            }
            Flow::Continue
        });
        return;
    }
    let folder = folder();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("scratch::tests::a_scratch_file_left_by_kill_9_is_removed_at_the_next_start")
        .env(CHILD, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).find_map(|l| l.split_once("measuring ").map(|(_, n)| n.to_owned()));
    let name = told.expect("the child tells when it measures");
    let live = remove_stale_scratch(folder.path()).unwrap();
    assert_eq!(live.kept, [(name.clone(), Kept::InUse)], "a live measurement keeps its file");
    assert_eq!(names(folder.path()), std::slice::from_ref(&name));

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(names(folder.path()), std::slice::from_ref(&name), "kill -9 leaves it");
    assert_eq!(remove_stale_scratch(folder.path()).unwrap(), Stale { removed: vec![name], kept: vec![] });
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

fn scratch_name(folder: &Path) -> String {
    names(folder).pop().unwrap()
}

#[test]
fn a_file_that_only_looks_like_a_scratch_file_is_never_removed() {
    let folder = folder();
    let name = |n: u8| format!("{}{}", file::PREFIX, format!("{n:x}").repeat(32));
    let put = |name: &str, content: &[u8], mode: u32| {
        let path = folder.path().join(name);
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).unwrap().write_all(content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    put(&name(1), b"somebody's data under our name", 0o600);
    put(&name(2), &file::marker(&name(3)), 0o600); // the marker of another file: a copy
    put(&name(4), &file::marker(&name(4)), 0o644); // not the mode we make
    put(&name(5), &file::marker(&name(5))[..4095], 0o600); // cut short
    put(".bedplate-scratch-notes", b"", 0o600);
    put(&format!("{}.bak", name(6)), &file::marker(&name(6)), 0o600);
    put(&name(7), &file::marker(&name(7)), 0o600);
    fs::hard_link(folder.path().join(name(7)), folder.path().join("kept-by-somebody")).unwrap();
    fs::create_dir(folder.path().join(name(8))).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join(name(9))).unwrap();
    nix::unistd::mkfifo(&folder.path().join(name(10)), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let before = names(folder.path());
    let found = remove_stale_scratch(folder.path()).unwrap();
    assert_eq!(found.removed, Vec::<String>::new());
    assert_eq!(found.kept.len(), 10, "{:?}", found.kept);
    assert!(found.kept.iter().all(|(_, why)| matches!(why, Kept::Foreign(_))), "{:?}", found.kept);
    assert_eq!(names(folder.path()), before);

    put(&name(11), &file::marker(&name(11)), 0o600);
    put(&name(12), b"", 0o600); // killed before the marker was written
    assert_eq!(remove_stale_scratch(folder.path()).unwrap().removed, [name(11), name(12)]);
    assert_eq!(names(folder.path()), before);
}
