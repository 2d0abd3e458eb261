//! Probes of files and loop devices that the tests made, beneath a made-up view of the machine's other work.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use bedplate_blockdev::scratch::{ScratchBudget, ScratchError};
use bedplate_core::probe::{Budget, Confidence};
use tempfile::TempDir;

use super::*;

#[path = "../../../crates/blockdev/src/probe_io/tests/loopback.rs"]
mod loopback;

use loopback::Loopback;

/// A folder on a real disk with a made-up /sys and /proc for a disk called `x`, quiet until told otherwise.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("bedplate-agent-probe-").tempdir_in("/var/tmp").unwrap();
        let scene = Self { folder };
        fs::create_dir_all(scene.path("sys/block/x")).unwrap();
        fs::create_dir_all(scene.path("proc/pressure")).unwrap();
        scene.set_busy(0);
        scene.set_inflight(0);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whole or not at all, as the kernel's files are.
    fn put(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn set_busy(&self, io_ticks: u64) {
        self.put("sys/block/x/stat", &format!("1 2 3 4 5 6 7 8 0 {io_ticks} 11 0 0 0 0 0 0\n"));
    }

    fn set_inflight(&self, writes: u64) {
        self.put("sys/block/x/inflight", &format!("       0 {writes:8}\n"));
    }

    fn set_stalled(&self, micros: u64) {
        self.put("proc/pressure/io", &format!("some avg10=0 avg60=0 avg300=0 total={micros}\nfull total=0\n"));
    }

    fn prober(&self, engine: EngineChoice) -> Prober {
        let roots = Roots { sys: self.path("sys"), proc: self.path("proc"), ..Roots::default() };
        Prober::new(roots, engine)
    }

    /// A file of `mib` MiB, of zeroes if `zero`, else without a zero block.
    fn file(&self, mib: usize, zero: bool) -> PathBuf {
        let path = self.path("disk");
        let mut file = File::create(&path).unwrap();
        let chunk: Vec<u8> = (0..1 << 20).map(|i: u32| if zero { 0 } else { i.to_le_bytes()[0] | 1 }).collect();
        (0..mib).for_each(|_| file.write_all(&chunk).unwrap());
        file.sync_all().unwrap();
        path
    }
}

fn disk(node: &Path) -> Disk {
    Disk { name: "x".into(), node: node.to_owned(), logical_block: 512, mechanical: false }
}

fn plan() -> ReadPlan {
    ReadPlan::new(512)
}

fn quiet(_: &Progress<'_>) {}

fn measured(outcome: Outcome) -> Figures {
    match outcome {
        Outcome::Measured(figures) => figures,
        other => panic!("no figures: {other:?}"),
    }
}

fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIP {test}: loop devices need root");
    }
    root
}

/// Bytes that the kernel read from storage for this process and its threads. A device's own counters also hold what
/// other processes read there. Every test is a process of its own under nextest; elsewhere this says nothing.
fn counted() -> Option<u64> {
    if std::env::var_os("NEXTEST").is_none() {
        println!("this test counts reads only under cargo nextest");
        return None;
    }
    let io = fs::read_to_string("/proc/self/io").unwrap();
    Some(io.lines().find_map(|l| l.strip_prefix("read_bytes: ")).unwrap().parse().unwrap())
}

#[test]
fn the_kernel_counts_no_more_reads_and_bytes_than_the_budget_allows() {
    if !root("the_kernel_counts_no_more_reads_and_bytes_than_the_budget_allows") {
        return;
    }
    let scene = Scene::new();
    let device = Loopback::attach(&scene.file(32, false)).unwrap();
    let cases = [
        (EngineChoice::IoUring, Budget { reads: 700, ..Budget::default() }, 700),
        (EngineChoice::Threads, Budget { reads: 700, ..Budget::default() }, 700),
        (EngineChoice::IoUring, Budget { bytes: 1 << 20, ..Budget::default() }, 256),
        (EngineChoice::Threads, Budget { bytes: 1 << 20, ..Budget::default() }, 256),
    ];
    for (engine, budget, most) in cases {
        let before = counted();
        let start = Instant::now();
        let outcome = scene.prober(engine).probe(&disk(&device.path), ReadPlan { budget, ..plan() }, 5, &mut quiet);
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        let after = counted();
        let figures = measured(outcome);
        assert!(figures.reads > 0 && figures.reads <= most, "{engine:?}: {}", figures.reads);
        if let (Some(before), Some(after)) = (before, after) {
            assert_eq!(after - before, figures.reads * 4096, "{engine:?}: what is told is what the kernel counted");
        }
    }
}

#[test]
fn a_slow_budget_is_used_for_a_disk_known_to_turn() {
    let scene = Scene::new();
    let disk = Disk { mechanical: true, ..disk(&scene.file(32, false)) };
    let figures = measured(scene.prober(EngineChoice::Auto).probe(&disk, plan(), 5, &mut quiet));
    assert!(figures.reads <= 600, "{}", figures.reads);
}

#[test]
fn both_engines_give_the_same_kind_of_figures() {
    let scene = Scene::new();
    let node = scene.file(96, false);
    for (choice, engine) in [(EngineChoice::IoUring, Engine::IoUring), (EngineChoice::Threads, Engine::Threads)] {
        let mut fractions = Vec::new();
        let figures = measured(scene.prober(choice).probe(&disk(&node), plan(), 9, &mut |p: &Progress<'_>| {
            assert_eq!(p.disk, "x");
            fractions.push(p.fraction);
        }));
        assert_eq!(figures.method, Method { engine, medium: Medium::WholeDisk });
        assert_eq!((figures.block_size, figures.span_bytes), (4096, 96 << 20));
        assert!(figures.reads <= 20_000 && figures.zero_blocks == 0);
        let depths: Vec<u16> = figures.read.iter().map(|f| f.depth).collect();
        assert!(depths.len() >= 2 && [1, 4, 16, 32].starts_with(&depths), "{depths:?}");
        for f in &figures.read {
            assert!(f.iops > 0 && f.mib_s > 0.0 && f.reads > 0, "{f:?}");
            assert!(f.p50_us > 0 && f.p50_us <= f.p99_us && f.p99_us <= f.p999_us, "{f:?}");
        }
        let Confidence::Low(doubts) = &figures.confidence else { panic!("a range of 96 MiB fits into a cache") };
        assert!(doubts.contains(&Doubt::SmallSpan) && !doubts.contains(&Doubt::MostlyZero), "{doubts:?}");
        assert!(figures.measured_latency().is_some_and(|l| l.samples >= 30 && l.p50_us == figures.read[0].p50_us));
        assert!(fractions.is_sorted() && fractions.iter().all(|f| (0.0..=1.0).contains(f)), "{fractions:?}");
    }
}

#[test]
fn blocks_of_zeroes_lower_the_confidence() {
    let scene = Scene::new();
    let figures = measured(scene.prober(EngineChoice::Auto).probe(&disk(&scene.file(16, true)), plan(), 1, &mut quiet));
    assert_eq!(figures.zero_blocks, figures.reads);
    assert!(matches!(figures.confidence, Confidence::Low(d) if d.contains(&Doubt::MostlyZero)));
}

#[test]
fn a_busy_disk_is_skipped_without_one_read() {
    if !root("a_busy_disk_is_skipped_without_one_read") {
        return;
    }
    let scene = Scene::new();
    let device = Loopback::attach(&scene.file(4, false)).unwrap();
    scene.set_inflight(9);
    let before = counted();
    let outcome = scene.prober(EngineChoice::Auto).probe(&disk(&device.path), plan(), 1, &mut quiet);
    assert!(matches!(outcome, Outcome::Busy(Busy::Disk { inflight: 9, .. })), "{outcome:?}");
    assert_eq!(counted(), before);
}

/// Runs `work` while another thread keeps calling `change` with the milliseconds that went by.
fn while_changing<T>(change: impl Fn(u64) + Sync, work: impl FnOnce() -> T) -> T {
    struct Done<'a>(&'a Halt);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    let halt = Halt::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            while halt.pass(Duration::from_millis(2)) == Flow::Continue {
                change(u64::try_from(start.elapsed().as_millis()).unwrap());
            }
        });
        let _done = Done(&halt);
        work()
    })
}

#[test]
fn a_disk_that_works_for_others_all_the_time_is_skipped() {
    let scene = Scene::new();
    let node = scene.file(4, false);
    let outcome = while_changing(
        |ms| scene.set_busy(ms),
        || scene.prober(EngineChoice::Auto).probe(&disk(&node), plan(), 1, &mut quiet),
    );
    let Outcome::Busy(Busy::Disk { utilisation, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(utilisation > 0.30, "{utilisation}");
}

#[test]
fn a_machine_short_of_io_is_not_probed() {
    let scene = Scene::new();
    let node = scene.file(4, false);
    let outcome = while_changing(
        |ms| scene.set_stalled(ms * 1000),
        || scene.prober(EngineChoice::Auto).probe(&disk(&node), plan(), 1, &mut quiet),
    );
    assert!(matches!(outcome, Outcome::Busy(Busy::Pressure { share }) if share > 0.15), "{outcome:?}");
}

#[test]
fn a_neighbour_that_wakes_up_during_a_probe_is_given_way() {
    let scene = Scene::new();
    let node = scene.file(64, false);
    let outcome = scene.prober(EngineChoice::Auto).probe(&disk(&node), plan(), 1, &mut |p: &Progress<'_>| {
        if matches!(p.phase, Phase::Reading(_)) {
            scene.set_inflight(20);
        }
    });
    assert!(matches!(outcome, Outcome::Busy(Busy::Disk { inflight: 20, .. })), "{outcome:?}");
}

#[test]
fn a_lightly_used_disk_is_measured_but_not_as_idle() {
    let scene = Scene::new();
    let node = scene.file(64, false);
    scene.set_inflight(2);
    let figures = measured(scene.prober(EngineChoice::Auto).probe(&disk(&node), plan(), 1, &mut quiet));
    assert_eq!(figures.conditions, Conditions::Disturbed);
    scene.set_inflight(0);
    let figures = measured(scene.prober(EngineChoice::Auto).probe(&disk(&node), plan(), 1, &mut quiet));
    let slowed = figures.stopped == StopReason::Watchdog;
    assert_eq!(figures.conditions == Conditions::Idle, !slowed, "our own reads do not count: {figures:?}");
}

#[test]
fn a_disk_whose_activity_cannot_be_seen_is_not_touched() {
    let scene = Scene::new();
    let node = scene.file(4, false);
    fs::remove_file(scene.path("sys/block/x/inflight")).unwrap();
    let outcome = scene.prober(EngineChoice::Auto).probe(&disk(&node), plan(), 1, &mut quiet);
    assert!(matches!(outcome, Outcome::Unwatched { path, .. } if path.ends_with("inflight")));
    scene.set_inflight(0);
    scene.put("sys/block/x/stat", "1 2 3\n");
    let outcome = scene.prober(EngineChoice::Auto).probe(&disk(&node), plan(), 1, &mut quiet);
    assert!(matches!(outcome, Outcome::Unwatched { path, .. } if path.ends_with("stat")));
}

#[test]
fn a_read_error_is_reported_as_health_and_gives_no_figures() {
    if !root("a_read_error_is_reported_as_health_and_gives_no_figures") {
        return;
    }
    let scene = Scene::new();
    let backing = scene.file(16, false);
    let device = Loopback::attach(&backing).unwrap();
    OpenOptions::new().write(true).open(&backing).unwrap().set_len(8 << 20).unwrap();
    for engine in [EngineChoice::IoUring, EngineChoice::Threads] {
        let before = counted();
        let outcome = scene.prober(engine).probe(&disk(&device.path), plan(), 2, &mut quiet);
        let Outcome::Unhealthy(health) = outcome else { panic!("{outcome:?}") };
        assert_eq!(health.errno, nix::errno::Errno::EIO as i32);
        assert!(health.first_offset >= 8 << 20 && health.errors >= 1, "{health:?}");
        if let (Some(before), Some(after)) = (before, counted()) {
            let most = (health.good_reads + health.errors) * 4096;
            assert!(after - before <= most, "left alone at once: {health:?}, {} bytes", after - before);
        }
    }
}

#[test]
fn disks_are_measured_one_at_a_time_however_many_ask() {
    let scene = Scene::new();
    let node = scene.file(8, false);
    let prober = scene.prober(EngineChoice::Auto);
    let told = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (prober, node, told) = (&prober, &node, &told);
            scope.spawn(move || prober.probe(&disk(node), plan(), seed, &mut |_| told.lock().unwrap().push(seed)));
        }
    });
    let mut told = told.into_inner().unwrap();
    assert!(told.len() > 3, "each tells at least twice");
    told.dedup();
    assert_eq!(told.len(), 3, "no probe told of its progress amidst another's: {told:?}");
}

#[test]
fn a_probe_stops_when_asked_and_says_so() {
    let scene = Scene::new();
    let node = scene.file(64, false);
    let prober = scene.prober(EngineChoice::Auto);
    prober.halt().stop();
    assert!(matches!(prober.probe(&disk(&node), plan(), 1, &mut quiet), Outcome::Stopped));
    let prober = scene.prober(EngineChoice::Auto);
    let outcome = prober.probe(&disk(&node), plan(), 1, &mut |p: &Progress<'_>| {
        if matches!(p.phase, Phase::Reading(_)) {
            prober.halt().stop();
        }
    });
    assert!(matches!(outcome, Outcome::Stopped), "{outcome:?}");
}

#[test]
fn what_cannot_be_read_has_no_figures() {
    let scene = Scene::new();
    let prober = scene.prober(EngineChoice::Auto);
    let outcome = prober.probe(&disk(Path::new("/dev/null")), plan(), 1, &mut quiet);
    assert!(matches!(outcome, Outcome::Failed(ProbeIoError::NotADisk { .. })), "{outcome:?}");
    let empty = scene.path("empty");
    File::create(&empty).unwrap();
    assert!(matches!(prober.probe(&disk(&empty), plan(), 1, &mut quiet), Outcome::TooLittle));
}

#[test]
fn a_pool_is_measured_and_its_directory_left_empty() {
    let scene = Scene::new();
    let pool = scene.path("pool");
    fs::create_dir(&pool).unwrap();
    let budget = ScratchBudget { bytes: 32 << 20, keep_free: 0, ..ScratchBudget::default() };
    let prober = scene.prober(EngineChoice::Auto);
    let mut fractions = Vec::new();
    let mut tell = |p: &Progress<'_>| fractions.push(p.fraction);
    let PoolOutcome::Measured(figures) = prober.probe_pool(&pool, Some("x"), &budget, 1, &mut tell).unwrap() else {
        panic!("the made-up disk is quiet")
    };
    assert!(fractions.is_sorted() && fractions.iter().all(|f| (0.0..=1.0).contains(f)), "{fractions:?}");
    assert_eq!(figures.conditions, Conditions::Idle);
    let (first, over, usable) = (&figures.write.first_write, &figures.write.overwrite, figures.write.usable());
    assert_eq!(usable.fsync_p99_us, first.fsync_p99_us.max(over.fsync_p99_us));
    assert_eq!(usable.random_write_iops, first.random_write_iops.min(over.random_write_iops));
    let read = measured(figures.read.unwrap());
    assert_eq!((read.method.medium, read.zero_blocks), (Medium::ScratchFile, 0));
    assert_eq!(fs::read_dir(&pool).unwrap().count(), 0);

    scene.set_inflight(9);
    let busy = prober.probe_pool(&pool, Some("x"), &budget, 1, &mut quiet).unwrap();
    assert!(matches!(busy, PoolOutcome::NotNow(Outcome::Busy(_))));
    let unknown = prober.probe_pool(&pool, None, &budget, 1, &mut quiet).unwrap();
    assert!(matches!(unknown, PoolOutcome::Measured(f) if f.conditions == Conditions::Disturbed));

    let stopped = prober.probe_pool(&pool, None, &budget, 1, &mut |p: &Progress<'_>| {
        if p.phase == Phase::Writing {
            prober.halt().stop();
        }
    });
    assert!(matches!(stopped, Err(ScratchError::Stopped { .. })));
    assert_eq!(fs::read_dir(&pool).unwrap().count(), 0);
}

#[test]
fn a_single_depth_runs_for_its_time_and_no_ramp() {
    let scene = Scene::new();
    let node = scene.file(64, false);
    let parameters = ReadParameters { time: Duration::from_millis(100), ..ReadParameters::new(2, 1) };
    let single = read_probe(&node, &parameters).unwrap();
    assert_eq!(single.figure.depth, 2);
    assert!(single.figure.iops > 0 && single.health.is_none());
    let whole = single.figure.reads == (64 << 20) / 4096;
    assert!(whole || single.elapsed >= Duration::from_millis(95), "{single:?}");
}
