//! Manners of a wipe: it pauses while others need its disk, or the machine's tasks stall on I/O.
//!
//! Both are looked at while the wipe itself is silent, once in a second of its work: a wipe keeps its disk busy and waits for
//! it, so at any other moment it would report itself. The figures are the kernel's: the disk's `io_ticks`
//! (Documentation/block/stat.rst), and the `some` total of `/proc/pressure/io` (Documentation/accounting/psi.rst), which is
//! of the whole machine and left out while another wipe of ours goes on. A pause is bounded: a wipe always goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate_provisioner::queue::{Pause, Throttle};

use crate::discover::Roots;
use crate::probe::neighbours::{number, some_total};

/// The longest pause at a time.
const LONGEST: Duration = Duration::from_secs(2);
/// How long the wipe is silent at least, to hear others.
const SILENCE: Duration = Duration::from_millis(25);

/// A throttle that pauses while others take more than `percent` of the time; 100 never pauses.
pub fn by_neighbours(roots: &Roots, percent: u8) -> Throttle {
    let (devices, pressure) = (roots.sys.join("dev/block"), roots.proc.join("pressure/io"));
    Arc::new(move |pause: &Pause<'_>| {
        if percent >= 100 {
            return;
        }
        let disk = pause.device.and_then(|device| counters(&devices, device));
        let until = Instant::now() + LONGEST;
        while !pause.stop.is_set() && Instant::now() < until {
            let pressure = (pause.alone)().then_some(pressure.as_path());
            if share(disk.as_deref(), pressure) * 100.0 <= f64::from(percent) {
                return;
            }
        }
    })
}

/// Where the counters of a device's whole disk are.
fn counters(devices: &Path, (major, minor): (u32, u32)) -> Option<PathBuf> {
    let block = fs::canonicalize(devices.join(format!("{major}:{minor}"))).ok()?;
    let disk = if block.join("partition").exists() { block.parent()? } else { &block };
    Some(disk.join("stat"))
}

/// The share of a silence, 0 to 1, in which the disk had work or some task stalled on I/O, whichever is more.
fn share(disk: Option<&Path>, pressure: Option<&Path>) -> f64 {
    let read = |path: Option<&Path>| path.and_then(|path| fs::read_to_string(path).ok());
    // Microseconds, both.
    let look = || {
        (read(disk).and_then(|text| Some(number(&text, 9)? * 1000)), read(pressure).and_then(|text| some_total(&text)))
    };
    let (start, before) = (Instant::now(), look());
    std::thread::park_timeout(SILENCE);
    let (after, micros) = (look(), start.elapsed().as_micros().max(1) as f64);
    let grown = |before: Option<u64>, after: Option<u64>| after.unwrap_or(0).saturating_sub(before.unwrap_or(u64::MAX));
    grown(before.0, after.0).max(grown(before.1, after.1)) as f64 / micros
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use bedplate_provisioner::engine::Stop;

    use super::*;

    /// A machine with one partitioned disk, whose counters a thread moves on.
    struct Machine {
        dir: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let part = dir.path().join("sys/devices/sda/sda1");
            fs::create_dir_all(&part).unwrap();
            fs::create_dir_all(dir.path().join("sys/dev/block")).unwrap();
            fs::create_dir_all(dir.path().join("proc/pressure")).unwrap();
            fs::write(part.join("partition"), "1").unwrap();
            std::os::unix::fs::symlink(&part, dir.path().join("sys/dev/block/8:1")).unwrap();
            let machine = Self { dir };
            machine.tell(0, 0);
            machine
        }

        /// The disk's busy milliseconds, the machine's stalled microseconds.
        fn tell(&self, ticks: u64, stalled: u64) {
            let put = |path: &str, text: String| {
                let (at, next) = (self.dir.path().join(path), self.dir.path().join("next"));
                fs::write(&next, text).unwrap();
                fs::rename(next, at).unwrap();
            };
            put("sys/devices/sda/stat", format!("1 0 8 1 1 0 8 1 0 {ticks} 2 0 0 0 0 0 0"));
            put(
                "proc/pressure/io",
                format!("some avg10=99.00 avg60=9.00 avg300=0.00 total={stalled}\nfull avg10=0 total=0\n"),
            );
        }

        /// How long a worker pauses while each millisecond adds so much to the figures.
        fn pauses(&self, each: (u64, u64), alone: bool, device: Option<(u32, u32)>) -> Duration {
            let roots =
                Roots { sys: self.dir.path().join("sys"), proc: self.dir.path().join("proc"), ..Roots::default() };
            let (over, stop) = (AtomicBool::new(false), Stop::default());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let start = Instant::now();
                    while !over.load(Ordering::Relaxed) {
                        let past = u64::try_from(start.elapsed().as_micros()).unwrap();
                        self.tell(past * each.0 / 1000, past * each.1 / 1000);
                        std::thread::park_timeout(Duration::from_millis(1));
                    }
                });
                let start = Instant::now();
                by_neighbours(&roots, 40)(&Pause { stop: &stop, device, alone: &|| alone });
                over.store(true, Ordering::Relaxed);
                start.elapsed()
            })
        }
    }

    const SDA1: Option<(u32, u32)> = Some((8, 1));

    #[test]
    fn what_the_wipe_itself_caused_before_makes_nobody_wait() {
        let machine = Machine::new();
        machine.tell(1_000_000, 1_000_000_000);
        assert!(machine.pauses((0, 0), true, SDA1) < LONGEST / 2);
    }

    #[test]
    fn a_neighbour_on_another_partition_is_given_way_to_and_the_wipe_goes_on_in_the_end() {
        assert!(Machine::new().pauses((1, 0), false, SDA1) >= LONGEST);
    }

    #[test]
    fn stalled_tasks_count_unless_another_wipe_of_ours_may_be_what_they_wait_for() {
        let machine = Machine::new();
        assert!(machine.pauses((0, 900), true, SDA1) >= LONGEST);
        assert!(machine.pauses((0, 900), false, SDA1) < LONGEST / 2);
    }

    #[test]
    fn a_machine_without_the_figures_never_waits() {
        let machine = Machine::new();
        fs::remove_file(machine.dir.path().join("proc/pressure/io")).unwrap();
        fs::remove_dir(machine.dir.path().join("proc/pressure")).unwrap();
        let roots =
            Roots { sys: machine.dir.path().join("none"), proc: machine.dir.path().join("none"), ..Roots::default() };
        let start = Instant::now();
        by_neighbours(&roots, 0)(&Pause { stop: &Stop::default(), device: SDA1, alone: &|| true });
        assert!(start.elapsed() < LONGEST / 2);
    }

    #[test]
    fn a_queue_that_ends_waits_for_nobody() {
        let stop = Stop::default();
        stop.set();
        let start = Instant::now();
        by_neighbours(&Roots::default(), 0)(&Pause { stop: &stop, device: None, alone: &|| true });
        assert!(start.elapsed() < SILENCE);
    }
}
