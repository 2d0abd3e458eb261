//! Both engines on files and loop devices that the tests made, on the disk that holds /var/tmp.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::*;

mod loopback;
mod seccomp;

use loopback::Loopback;

const BOTH: [EngineChoice; 2] = [EngineChoice::IoUring, EngineChoice::Threads];

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("bedplate-probe-").tempdir_in("/var/tmp").unwrap()
}

/// A file of `mib` MiB of bytes that are not zero, except that the blocks from `zero_from` on are.
fn written(folder: &TempDir, mib: u64, zero_from: u64) -> PathBuf {
    let path = folder.path().join("disk");
    let mut file = File::create(&path).unwrap();
    let mut block = vec![0u8; 4096];
    for index in 0..mib * 256 {
        if index < zero_from {
            fill(&mut block);
            block[..8].copy_from_slice(&(index + 1).to_le_bytes());
        } else {
            block.fill(0);
        }
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
    path
}

fn request(depth: u16, ops: u64, engine: EngineChoice) -> Request {
    Request { depth, block_size: 4096, ops, time: Duration::from_secs(20), engine }
}

fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIP {test}: loop devices need root");
    }
    root
}

fn on(_: &Live<'_>) -> Flow {
    Flow::Continue
}

#[test]
fn both_engines_read_a_loop_device_and_tell_the_same_kind_of_figures() {
    if !root("both_engines_read_a_loop_device_and_tell_the_same_kind_of_figures") {
        return;
    }
    let folder = folder();
    let device = Loopback::attach(&written(&folder, 16, u64::MAX)).unwrap();
    let target = ReadTarget::open(&device.path).unwrap();
    assert_eq!(target.size(), 16 << 20);
    for (choice, engine) in BOTH.into_iter().zip([Engine::IoUring, Engine::Threads]) {
        for depth in [1, 4, 32] {
            let mut offsets = Offsets::new(target.size(), 4096, 7);
            let report = target.read(&request(depth, 1000, choice), &mut offsets, &mut on).unwrap();
            assert_eq!((report.engine, report.issued, report.completed, report.end), (engine, 1000, 1000, End::Ops));
            assert_eq!((report.fault_count, report.zero_blocks), (0, 0));
            assert_eq!(report.latencies.count(), 1000);
            let (p50, p99) = (report.latencies.quantile(0.5), report.latencies.quantile(0.99));
            assert!(p50 > Duration::from_micros(1) && p50 <= p99 && p99 <= report.elapsed * 101 / 100);
            assert!(report.iops() > 10.0);
            assert!(report.slices.iter().map(|&n| u64::from(n)).sum::<u64>() <= 1000);
            // What was left of the range is still there for the next step, and nothing of what was read.
            assert_eq!(offsets.count(), 16 * 256 - 1000);
        }
    }
}

#[test]
fn no_read_is_issued_beyond_the_number_allowed_nor_after_the_time() {
    let folder = folder();
    let target = ReadTarget::open(&written(&folder, 8, u64::MAX)).unwrap();
    for engine in BOTH {
        for (depth, ops) in [(1, 1), (32, 5), (32, 33), (7, 100)] {
            let mut offsets = Offsets::new(target.size(), 4096, 1);
            let report = target.read(&request(depth, ops, engine), &mut offsets, &mut on).unwrap();
            assert_eq!((report.issued, report.completed), (ops, ops));
        }
        let none = Request { time: Duration::ZERO, ..request(32, 1000, engine) };
        let report = target.read(&none, &mut Offsets::new(target.size(), 4096, 1), &mut on).unwrap();
        assert_eq!((report.issued, report.end), (0, End::Time));
    }
}

#[test]
fn a_small_disk_is_read_once_and_then_left_alone() {
    let folder = folder();
    let target = ReadTarget::open(&written(&folder, 1, u64::MAX)).unwrap();
    for engine in BOTH {
        let mut offsets = Offsets::new(target.size(), 4096, 1);
        let report = target.read(&request(16, 10_000, engine), &mut offsets, &mut on).unwrap();
        assert_eq!((report.issued, report.end), (256, End::RangeExhausted));
    }
}

#[test]
fn blocks_that_are_all_zeroes_are_counted() {
    let folder = folder();
    let target = ReadTarget::open(&written(&folder, 2, 200)).unwrap();
    for engine in BOTH {
        let mut offsets = Offsets::new(target.size(), 4096, 1);
        let report = target.read(&request(4, 10_000, engine), &mut offsets, &mut on).unwrap();
        assert_eq!((report.completed, report.zero_blocks), (512, 312));
    }
}

#[test]
fn a_read_error_ends_the_run_and_is_told_with_its_place() {
    if !root("a_read_error_ends_the_run_and_is_told_with_its_place") {
        return;
    }
    let folder = folder();
    let backing = written(&folder, 16, u64::MAX);
    let device = Loopback::attach(&backing).unwrap();
    let target = ReadTarget::open(&device.path).unwrap();
    // The device still says 16 MiB, but the file beneath ends at 8: everything behind is unreadable.
    OpenOptions::new().write(true).open(&backing).unwrap().set_len(8 << 20).unwrap();
    for engine in BOTH {
        let mut offsets = Offsets::new(target.size(), 4096, 3);
        let report = target.read(&request(4, 4096, engine), &mut offsets, &mut on).unwrap();
        assert_eq!(report.end, End::Faults);
        assert!(report.fault_count >= 1 && report.fault_count <= 4, "only those in flight: {}", report.fault_count);
        assert_eq!(report.issued, report.completed + report.fault_count);
        assert!(report.faults.iter().all(|f| f.errno == libc::EIO && f.offset >= 8 << 20), "{:?}", report.faults);
    }
}

#[test]
fn the_observer_can_stop_a_run_and_sees_it_grow() {
    let folder = folder();
    let target = ReadTarget::open(&written(&folder, 64, u64::MAX)).unwrap();
    for engine in BOTH {
        let mut seen = Vec::new();
        let mut observer = |live: &Live<'_>| {
            assert_eq!(live.completed, live.latencies.count());
            seen.push(live.completed);
            Flow::Stop
        };
        // As many reads as no machine does within one tick of the observer.
        let report =
            target.read(&request(1, 16_384, engine), &mut Offsets::new(target.size(), 4096, 1), &mut observer).unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(report.end, End::Observer);
        assert!(report.issued < 16_384 && report.completed == report.issued);
    }
}

#[test]
fn a_probe_leaves_the_disk_byte_for_byte_as_it_was() {
    if !root("a_probe_leaves_the_disk_byte_for_byte_as_it_was") {
        return;
    }
    let folder = folder();
    let backing = written(&folder, 4, u64::MAX);
    let before = fs::read(&backing).unwrap();
    let device = Loopback::attach(&backing).unwrap();
    let target = ReadTarget::open(&device.path).unwrap();
    assert_eq!(
        target.file.as_ref().write_at(&before[..4096], 0).unwrap_err().raw_os_error(),
        Some(libc::EBADF),
        "the descriptor cannot write"
    );
    for engine in BOTH {
        target.read(&request(8, 1024, engine), &mut Offsets::new(target.size(), 4096, 1), &mut on).unwrap();
    }
    drop((target, device));
    assert_eq!(fs::read(&backing).unwrap(), before);
}

#[test]
fn a_disk_in_use_is_read_beside_its_exclusive_owner() {
    if !root("a_disk_in_use_is_read_beside_its_exclusive_owner") {
        return;
    }
    let folder = folder();
    let device = Loopback::attach(&written(&folder, 1, u64::MAX)).unwrap();
    let owner = OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(&device.path).unwrap();
    let target = ReadTarget::open(&device.path).unwrap();
    target.read(&request(1, 10, EngineChoice::Auto), &mut Offsets::new(1 << 20, 4096, 1), &mut on).unwrap();
    drop(owner);
}

#[test]
fn what_is_no_disk_is_not_opened() {
    assert!(matches!(ReadTarget::open(Path::new("/dev/null")), Err(ProbeIoError::NotADisk { .. })));
    assert!(matches!(ReadTarget::open(Path::new("/var/tmp")), Err(ProbeIoError::NotADisk { .. })));
    let absent = ReadTarget::open(Path::new("/dev/bedplate-absent")).unwrap_err();
    assert!(absent.to_string().contains("/dev/bedplate-absent"));
}

#[test]
fn a_request_without_sense_is_refused() {
    let folder = folder();
    let target = ReadTarget::open(&written(&folder, 1, u64::MAX)).unwrap();
    for (depth, block_size) in [(0, 4096), (257, 4096), (1, 0), (1, 1000)] {
        let request = Request { depth, block_size, ..request(1, 1, EngineChoice::Auto) };
        let refused = target.read(&request, &mut Offsets::new(1 << 20, 4096, 1), &mut on);
        assert!(matches!(refused, Err(ProbeIoError::BadRequest { .. })), "{depth} {block_size}");
    }
}

#[test]
fn where_seccomp_blocks_io_uring_threads_take_over() {
    let folder = folder();
    let path = written(&folder, 2, u64::MAX);
    for errno in [libc::EPERM, libc::ENOSYS] {
        let path = path.clone();
        // A filter binds the thread that installs it and those it starts: the other tests keep their io_uring.
        std::thread::spawn(move || {
            seccomp::deny_io_uring(errno).unwrap();
            let target = ReadTarget::open(&path).unwrap();
            let mut offsets = Offsets::new(target.size(), 4096, 1);
            let forced = target.read(&request(4, 100, EngineChoice::IoUring), &mut offsets, &mut on).unwrap_err();
            assert!(matches!(
                forced,
                ProbeIoError::Engine { source, .. } if source.raw_os_error() == Some(errno)
            ));
            let report = target.read(&request(4, 100, EngineChoice::Auto), &mut offsets, &mut on).unwrap();
            assert_eq!((report.engine, report.completed), (Engine::Threads, 100));
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_read_that_never_returns_is_called_a_hang_in_bounded_time() {
    // Nobody ever writes into this pipe, so a read of it is a disk that does not answer.
    let (silent, _writer) = nix::unistd::pipe().unwrap();
    let request = Request { time: Duration::from_millis(50), ..request(2, 10, EngineChoice::IoUring) };
    let job = Job { file: Arc::new(File::from(silent)), op: Op::Read, base: 0, request };
    let start = std::time::Instant::now();
    let mut asked = 0;
    let result = run(&job, &mut Offsets::new(1 << 20, 4096, 1), &mut |live: &Live<'_>| {
        assert_eq!(live.completed, 0);
        asked += 1;
        Flow::Continue
    });
    assert!(matches!(result, Err(ProbeIoError::Hung { outstanding: 2, .. })), "{result:?}");
    assert!(start.elapsed() >= DRAIN_GRACE && start.elapsed() < DRAIN_GRACE * 3, "{:?}", start.elapsed());
    assert!(asked >= 1, "the observer is asked although nothing comes back");
}

#[test]
fn the_written_pattern_has_neither_zeroes_nor_repeats() {
    let mut block = vec![0u8; 1 << 16];
    fill(&mut block);
    let words: HashSet<&[u8]> = block.chunks(8).collect();
    assert_eq!(words.len(), block.len() / 8);
    assert!(!record::all_zero(&block));
    block.fill(0);
    assert!(record::all_zero(&block) && record::all_zero(&block[..17]));
    block[16] = 1;
    assert!(!record::all_zero(&block) && !record::all_zero(&block[..17]));
}
