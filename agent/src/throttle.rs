//! Manners of a wipe: it pauses while the machine's tasks stall on I/O.
//!
//! The figure is the kernel's own (`/proc/pressure/io`, `some avg10`: share of the last 10 s in which at least one task
//! waited for I/O, in percent; Documentation/accounting/psi.rst). A wipe itself raises it, hence a generous threshold and
//! a bounded pause: a wipe always goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate_provisioner::engine::Stop;
use bedplate_provisioner::queue::Throttle;

/// The longest pause before one piece.
const LONGEST: Duration = Duration::from_secs(2);
/// How often the figure is read during a pause.
const LOOK: Duration = Duration::from_millis(100);

/// A throttle that pauses above `percent`; 100 never pauses.
pub fn by_pressure(proc_root: PathBuf, percent: u8) -> Throttle {
    Arc::new(move |stop: &Stop| {
        if percent >= 100 {
            return;
        }
        let until = Instant::now() + LONGEST;
        while Instant::now() < until && !stop.is_set() {
            match some_avg10(&proc_root) {
                Some(stalled) if stalled > f64::from(percent) => std::thread::park_timeout(LOOK),
                Some(_) | None => return,
            }
        }
    })
}

/// `some avg10` of I/O in percent; `None` where the kernel does not tell.
fn some_avg10(proc_root: &std::path::Path) -> Option<f64> {
    let text = std::fs::read_to_string(proc_root.join("pressure/io")).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pressure")).unwrap();
        std::fs::write(dir.path().join("pressure/io"), text).unwrap();
        dir
    }

    #[test]
    fn a_wipe_pauses_under_pressure_and_goes_on_in_the_end() {
        let dir =
            pressure("some avg10=90.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0 avg300=0 total=0\n");
        assert_eq!(some_avg10(dir.path()), Some(90.0));
        let start = Instant::now();
        by_pressure(dir.path().to_owned(), 40)(&Stop::default());
        assert!(start.elapsed() >= LONGEST);
    }

    #[test]
    fn a_kernel_without_the_figure_never_pauses() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        by_pressure(dir.path().to_owned(), 0)(&Stop::default());
        assert!(start.elapsed() < LONGEST);
    }
}
