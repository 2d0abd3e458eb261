//! What goes wrong, and when.
//!
//! A [`Script`] belongs to one life of the process and is gone after a restart. A [`DeviceFault`] belongs to the
//! hardware and stays.

use std::io;
use std::ops::Range;

use nix::errno::Errno;

/// How much of a call happens before it is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing.
    Nothing,
    /// All of it, though the caller never hears so.
    Whole,
    /// A part, chosen by the seed: some blocks of a write, some bytes of a file, half a `mkfs`, a loop device whose
    /// settings were not made yet. A sync that fails like this has forgotten what it was to make durable.
    Part(u64),
}

#[derive(Clone, Copy, Debug)]
enum When {
    Step(u64),
    Op { op: &'static str, skip: u64, times: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Blow {
    Error(Errno),
    Kill,
    PowerLoss,
}

#[derive(Clone, Debug)]
struct Event {
    when: When,
    blow: Blow,
    done: Done,
}

/// What is to go wrong in this life of the process. Steps count from 1: the first call is step 1.
#[derive(Clone, Debug, Default)]
pub struct Script {
    events: Vec<Event>,
}

impl Script {
    /// Nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Call `step` answers `errno`, having done `done`.
    #[must_use]
    pub fn fail_at(mut self, step: u64, errno: Errno, done: Done) -> Self {
        self.events.push(Event { when: When::Step(step), blow: Blow::Error(errno), done });
        self
    }

    /// The calls named `op` answer `errno` and do nothing: `times` of them, after `skip` good ones.
    #[must_use]
    pub fn fail_op(self, op: &'static str, skip: u64, times: u64, errno: Errno) -> Self {
        self.break_op(op, skip, times, errno, Done::Nothing)
    }

    /// The calls named `op` answer `errno`, having done `done`: `times` of them, after `skip` good ones.
    #[must_use]
    pub fn break_op(mut self, op: &'static str, skip: u64, times: u64, errno: Errno, done: Done) -> Self {
        self.events.push(Event { when: When::Op { op, skip, times }, blow: Blow::Error(errno), done });
        self
    }

    /// The process dies in call `step`: this and every later call fails; the kernel lives on.
    #[must_use]
    pub fn kill_at(mut self, step: u64, done: Done) -> Self {
        self.events.push(Event { when: When::Step(step), blow: Blow::Kill, done });
        self
    }

    /// The power goes in call `step`: this and every later call fails.
    #[must_use]
    pub fn power_loss_at(mut self, step: u64, done: Done) -> Self {
        self.events.push(Event { when: When::Step(step), blow: Blow::PowerLoss, done });
        self
    }

    /// What happens to call `step`, named `op`.
    pub(super) fn strike(&mut self, step: u64, op: &str) -> Option<(Blow, Done)> {
        let mut hit = None;
        for event in &mut self.events {
            let strikes = match &mut event.when {
                When::Step(n) => *n == step,
                When::Op { op: name, .. } if *name != op => false,
                When::Op { skip, .. } if *skip > 0 => {
                    *skip -= 1;
                    false
                }
                When::Op { times: 0, .. } => false,
                When::Op { times, .. } => {
                    *times -= 1;
                    true
                }
            };
            if strikes && hit.is_none() {
                hit = Some((event.blow, event.done));
            }
        }
        hit
    }
}

/// What the hardware does wrong, at a range of bytes of the medium. It outlives restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceFault {
    /// Acknowledges writes there and throws them away.
    DropWrites(Range<u64>),
    /// Acknowledges writes there and shows them until the next flush, which throws them away.
    ForgetOnFlush(Range<u64>),
    /// Acknowledges writes of zeroes there, leaves the medium as it is, and answers later reads with zeroes: nobody who
    /// asks the device can find out.
    PretendedZeroes(Range<u64>),
    /// Reads there give what was there when the fault began.
    StaleReads(Range<u64>),
    /// Reads there have one bit wrong.
    FlippedBit {
        /// Byte offset on the medium.
        offset: u64,
        /// Which of its bits.
        bit: u8,
    },
    /// Reads there fail with EIO.
    ReadError(Range<u64>),
    /// Writes there fail with EIO.
    WriteError(Range<u64>),
}

impl DeviceFault {
    pub(super) fn touches(&self, bytes: &Range<u64>) -> bool {
        let meets = |r: &Range<u64>| r.start < bytes.end && bytes.start < r.end;
        match self {
            Self::DropWrites(r)
            | Self::ForgetOnFlush(r)
            | Self::PretendedZeroes(r)
            | Self::StaleReads(r)
            | Self::ReadError(r)
            | Self::WriteError(r) => meets(r),
            Self::FlippedBit { offset, .. } => bytes.contains(offset),
        }
    }
}

/// The error a script's errno becomes.
pub(super) fn os_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}
