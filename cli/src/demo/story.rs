//! How the demo speaks: numbered steps, what happens in them, and one verdict.
//!
//! A reader who has gone away (`| head`) does not stop it: what was made must be taken away all the same.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::output::plain;

/// What is told, and since when.
pub struct Story {
    begun: Instant,
    steps: u32,
    out: io::Stdout,
}

impl Story {
    /// From now on.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), steps: 0, out: io::stdout() }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A new step.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        self.write(&format!("\n{}. {title}", self.steps));
    }

    /// A sentence or a whole table, indented.
    pub fn say(&self, text: &str) {
        for line in text.trim_matches('\n').lines() {
            self.write(&format!("   {}", plain(line)));
        }
    }

    /// A table, as wide as the terminal.
    pub fn table(&self, text: &str) {
        text.split('\n').for_each(|line| self.write(&plain(line)));
    }

    /// The last word.
    pub fn end(&self, text: &str) {
        self.write("");
        text.lines().for_each(|line| self.write(&plain(line)));
    }

    fn write(&self, text: &str) {
        // A closed pipe is no reason to stop half-way.
        let _ = writeln!(self.out.lock(), "{}", text.trim_end());
    }
}

/// Milliseconds for people.
pub fn millis(time: Duration) -> String {
    format!("{:.0} ms", (time.as_secs_f64() * 1000.0).max(1.0))
}

/// Rate for people.
pub fn rate(bytes: u64, time: Duration) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{:.0} MiB/s", mib / time.as_secs_f64().max(0.001))
}
