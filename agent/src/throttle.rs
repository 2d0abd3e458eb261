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

/// Microseconds so far, each where it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figures {
    /// That the disk had work.
    busy: Option<u64>,
    /// That some task stalled on I/O.
    stalled: Option<u64>,
}

/// A throttle that pauses while others take more than `percent` of the time; 100 never pauses.
pub fn by_neighbours(roots: &Roots, percent: u8) -> Throttle {
    let (devices, pressure) = (roots.sys.join("dev/block"), roots.proc.join("pressure/io"));
    Arc::new(move |pause: &Pause<'_>| {
        if percent < 100 {
            let disk = pause.device.and_then(|device| counters(&devices, device));
            give_way(pause, percent, &|alone| figures(disk.as_deref(), alone.then_some(&pressure)));
        }
    })
}

/// Wait while others take more than `percent`. `look` is told whether this wipe is the only one.
fn give_way(pause: &Pause<'_>, percent: u8, look: &dyn Fn(bool) -> Figures) {
    let until = Instant::now() + LONGEST;
    while !pause.stop.is_set() && Instant::now() < until {
        let alone = (pause.alone)();
        let (start, before) = (Instant::now(), look(alone));
        std::thread::park_timeout(SILENCE);
        let (after, micros) = (look(alone), start.elapsed().as_micros().max(1));
        let grown = |before: Option<u64>, after: Option<u64>| {
            before.zip(after).map_or(0, |(before, after)| u128::from(after.saturating_sub(before)))
        };
        let most = grown(before.busy, after.busy).max(grown(before.stalled, after.stalled));
        if most * 100 <= micros * u128::from(percent) {
            return;
        }
    }
}

/// Where the counters of a device's whole disk are.
fn counters(devices: &Path, (major, minor): (u32, u32)) -> Option<PathBuf> {
    let block = fs::canonicalize(devices.join(format!("{major}:{minor}"))).ok()?;
    let disk = if block.join("partition").exists() { block.parent()? } else { &block };
    Some(disk.join("stat"))
}

fn figures(disk: Option<&Path>, pressure: Option<&PathBuf>) -> Figures {
    Figures {
        busy: disk.and_then(|path| number(&fs::read_to_string(path).ok()?, 9)).map(|millis| millis * 1000),
        stalled: pressure.and_then(|path| some_total(&fs::read_to_string(path).ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use bedplate_provisioner::engine::Stop;

    use super::*;

    /// How long a worker pauses at 40 % on a machine whose figures grow by so many parts in a thousand of the time.
    fn pauses(busy: Option<u128>, stalled: Option<u128>, alone: bool) -> Duration {
        let start = Instant::now();
        let now = |part: u128| u64::try_from(start.elapsed().as_micros() * part / 1000).unwrap();
        // Both were busy all the time before: with the wipe itself.
        let look = |alone: bool| Figures {
            busy: busy.map(|part| 1 << 40 | now(part)),
            stalled: stalled.filter(|_| alone).map(|part| 1 << 40 | now(part)),
        };
        give_way(&Pause { stop: &Stop::default(), device: None, alone: &|| alone }, 40, &look);
        start.elapsed()
    }

    #[test]
    fn only_what_happens_while_the_wipe_is_silent_makes_it_wait() {
        assert!(pauses(Some(0), Some(0), true) < LONGEST);
        assert!(pauses(Some(0), Some(0), true) >= SILENCE);
        assert!(pauses(Some(300), Some(300), true) < LONGEST);
    }

    #[test]
    fn a_neighbour_is_given_way_to_and_the_wipe_goes_on_in_the_end() {
        assert!(pauses(Some(900), Some(0), false) >= LONGEST);
    }

    #[test]
    fn stalled_tasks_count_unless_another_wipe_of_ours_may_be_what_they_wait_for() {
        assert!(pauses(Some(0), Some(900), true) >= LONGEST);
        assert!(pauses(Some(0), Some(900), false) < LONGEST);
    }

    #[test]
    fn a_machine_without_the_figures_never_waits() {
        assert!(pauses(None, None, true) < LONGEST);
    }

    #[test]
    fn a_queue_that_ends_waits_for_nobody() {
        let stop = Stop::default();
        stop.set();
        give_way(&Pause { stop: &stop, device: None, alone: &|| true }, 0, &|_| panic!("nothing to look at"));
    }

    #[test]
    fn a_partition_is_judged_by_its_whole_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, devices, pressure) = (dir.path().join("sda"), dir.path().join("block"), dir.path().join("io"));
        fs::create_dir_all(disk.join("sda1")).unwrap();
        fs::create_dir(&devices).unwrap();
        fs::write(disk.join("sda1/partition"), "1").unwrap();
        fs::write(disk.join("stat"), "1 0 8 1 1 0 8 1 0 7 2 0 0 0 0 0 0").unwrap();
        fs::write(&pressure, "some avg10=99.00 avg60=9.00 avg300=0.00 total=5\nfull avg10=0 total=0\n").unwrap();
        for (number, of) in [("8:0", "sda"), ("8:1", "sda/sda1")] {
            std::os::unix::fs::symlink(dir.path().join(of), devices.join(number)).unwrap();
        }
        for device in [(8, 0), (8, 1)] {
            let stat = counters(&devices, device).unwrap();
            assert_eq!(figures(Some(&stat), Some(&pressure)), Figures { busy: Some(7_000), stalled: Some(5) });
        }
        assert_eq!(counters(&devices, (8, 2)), None);
        assert_eq!(figures(Some(&devices.join("none")), None), Figures::default());
    }
}
