//! Whether somebody else needs the disk: looked at before a probe and, while the probe is silent, between its steps.
//!
//! Evidence is the disk's own counters in sysfs and the machine's I/O pressure. The pressure is only read across windows
//! without a read of ours: a thread that waits for the probe's own reads counts as stalled, and one probe at depth 1
//! shows as some 50 % pressure, so a pressure trigger that stays armed during a probe only ever reports the probe.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bedplate_core::probe::Conditions;

use super::{Halt, Outcome};
use crate::discover::Roots;
use bedplate_blockdev::probe_io::Flow;

/// How long a disk is watched before the first read, and between steps.
const BEFORE: Duration = Duration::from_millis(200);
const BETWEEN: Duration = Duration::from_millis(100);
/// How many silent windows a busy neighbour is given to finish before the probe gives up.
const PATIENCE: usize = 5;
/// A disk busy for a larger share of the time is left alone.
const BUSY_SHARE: f64 = 0.30;
/// A disk with more requests than this in flight, at both looks, is left alone.
const BUSY_INFLIGHT: u64 = 4;
/// Some task stalled on I/O for a larger share of the time: the machine is short of I/O.
const PRESSED_SHARE: f64 = 0.15;
/// A disk used more than this is measured, but not as idle.
const IDLE_SHARE: f64 = 0.10;

/// Who is in the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Busy {
    /// The disk has other work.
    Disk {
        /// Requests in flight that are not ours.
        inflight: u64,
        /// Share of the time it had any, 0 to 1.
        utilisation: f64,
    },
    /// Tasks somewhere on the machine wait for I/O.
    Pressure {
        /// Share of the time that at least one did, 0 to 1.
        share: f64,
    },
    /// Reads became far slower than at the start.
    Slowed {
        /// 99th percentile when the probe gave way.
        p99: Duration,
    },
}

/// The places to look at for one disk.
#[derive(Debug)]
pub(super) struct Neighbours {
    stat: PathBuf,
    inflight: PathBuf,
    pressure: PathBuf,
}

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    /// Milliseconds since boot that the disk had work.
    io_ticks: u64,
    /// Requests in flight.
    inflight: u64,
    /// Microseconds since boot that some task was stalled on I/O; `None` where the kernel does not tell.
    stalled: Option<u64>,
}

impl Neighbours {
    pub(super) fn of(roots: &Roots, disk: &str) -> Self {
        let block = roots.sys.join("block").join(disk);
        Self { stat: block.join("stat"), inflight: block.join("inflight"), pressure: roots.proc.join("pressure/io") }
    }

    /// Watches before the first read.
    pub(super) fn before(&self, halt: &Halt) -> Result<Conditions, Outcome> {
        self.watch(BEFORE, halt)?.map_err(Outcome::Busy)
    }

    /// Watches between steps; waits a little for a neighbour to finish.
    pub(super) fn between(&self, halt: &Halt) -> Result<Conditions, Outcome> {
        let mut conditions = Conditions::Idle;
        for attempt in 1.. {
            match self.watch(BETWEEN, halt)? {
                Ok(seen) if conditions == Conditions::Idle => return Ok(seen),
                Ok(_) => return Ok(conditions),
                Err(busy) if attempt == PATIENCE => return Err(Outcome::Busy(busy)),
                Err(_) => conditions = Conditions::Disturbed,
            }
        }
        Ok(conditions)
    }

    fn watch(&self, window: Duration, halt: &Halt) -> Result<Result<Conditions, Busy>, Outcome> {
        let start = Instant::now();
        let before = self.look()?;
        if halt.pass(window) == Flow::Stop {
            return Err(Outcome::Stopped);
        }
        let after = self.look()?;
        Ok(judge(before, after, start.elapsed()))
    }

    fn look(&self) -> Result<Look, Outcome> {
        let unwatched = |path: &PathBuf| {
            let path = path.clone();
            |source| Outcome::Unwatched { path, source }
        };
        let stat = fs::read_to_string(&self.stat).map_err(unwatched(&self.stat))?;
        let inflight = fs::read_to_string(&self.inflight).map_err(unwatched(&self.inflight))?;
        // Kernel Documentation/block/stat.rst: the tenth field is io_ticks in milliseconds.
        let io_ticks = number(&stat, 9).ok_or_else(odd).map_err(unwatched(&self.stat))?;
        let reads = number(&inflight, 0).ok_or_else(odd).map_err(unwatched(&self.inflight))?;
        let writes = number(&inflight, 1).ok_or_else(odd).map_err(unwatched(&self.inflight))?;
        let stalled = fs::read_to_string(&self.pressure).ok().as_deref().and_then(some_total);
        Ok(Look { io_ticks, inflight: reads + writes, stalled })
    }
}

/// What two looks `elapsed` apart say.
fn judge(before: Look, after: Look, elapsed: Duration) -> Result<Conditions, Busy> {
    let micros = elapsed.as_micros().max(1) as f64;
    let utilisation = after.io_ticks.saturating_sub(before.io_ticks) as f64 * 1000.0 / micros;
    let inflight = before.inflight.min(after.inflight);
    if inflight > BUSY_INFLIGHT || utilisation > BUSY_SHARE {
        return Err(Busy::Disk { inflight, utilisation: utilisation.min(1.0) });
    }
    let share = match (before.stalled, after.stalled) {
        (Some(before), Some(after)) => after.saturating_sub(before) as f64 / micros,
        _ => 0.0,
    };
    if share > PRESSED_SHARE {
        return Err(Busy::Pressure { share: share.min(1.0) });
    }
    Ok(if utilisation > IDLE_SHARE || inflight > 0 { Conditions::Disturbed } else { Conditions::Idle })
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "fewer numbers than the kernel documents")
}

pub(crate) fn number(text: &str, index: usize) -> Option<u64> {
    text.split_whitespace().nth(index)?.parse().ok()
}

/// The `total` of the `some` line of a pressure file (kernel Documentation/accounting/psi.rst), microseconds.
pub(crate) fn some_total(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|l| l.strip_prefix("some "))?
        .split_whitespace()
        .find_map(|f| f.strip_prefix("total="))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Look = Look { io_ticks: 1000, inflight: 0, stalled: Some(5000) };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_disk_is_busy_from_three_tenths_of_the_time_or_five_requests_on() {
        let after = |io_ticks, inflight| Look { io_ticks, inflight, ..QUIET };
        assert_eq!(judge(QUIET, after(1100, 0), SECOND), Ok(Conditions::Idle));
        assert_eq!(judge(QUIET, after(1101, 0), SECOND), Ok(Conditions::Disturbed));
        assert_eq!(judge(QUIET, after(1300, 0), SECOND), Ok(Conditions::Disturbed));
        assert_eq!(judge(QUIET, after(1301, 0), SECOND), Err(Busy::Disk { inflight: 0, utilisation: 0.301 }));
        let full = Look { inflight: 5, ..QUIET };
        assert_eq!(judge(full, full, SECOND), Err(Busy::Disk { inflight: 5, utilisation: 0.0 }));
        assert_eq!(judge(QUIET, full, SECOND), Ok(Conditions::Idle), "one look of five is chance");
    }

    #[test]
    fn a_machine_short_of_io_is_left_alone_even_where_this_disk_rests() {
        let after = Look { stalled: Some(5000 + 150_001), ..QUIET };
        assert!(matches!(judge(QUIET, after, SECOND), Err(Busy::Pressure { .. })));
        let after = Look { stalled: Some(5000 + 150_000), ..QUIET };
        assert_eq!(judge(QUIET, after, SECOND), Ok(Conditions::Idle));
    }

    #[test]
    fn a_kernel_without_pressure_files_is_judged_by_the_disk_alone() {
        let silent = Look { stalled: None, ..QUIET };
        assert_eq!(judge(silent, silent, SECOND), Ok(Conditions::Idle));
    }

    #[test]
    fn pressure_files_are_read_by_name() {
        let text = "some avg10=2.24 avg60=0.48 avg300=0.21 total=3165202\nfull avg10=2.11 avg60=0.45 avg300=0.20 total=2855056\n";
        assert_eq!(some_total(text), Some(3_165_202));
        assert_eq!(some_total("full avg10=0 total=1\n"), None);
        assert_eq!(some_total(""), None);
    }
}
