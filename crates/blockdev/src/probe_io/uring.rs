//! The `io_uring` engine: one thread, registered file and buffers, the queue refilled after every wake-up.
//!
//! The only unsafe code of the probe. The kernel owns a slot's memory from submission to completion; the slot is
//! looked at only between those. If I/O never returns, ring and memory are leaked on purpose: freed memory would be
//! handed out again while a disk may still write into it.
#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::time::Instant;

use bedplate_core::probe::{Engine, Offsets};
use io_uring::types::{Fixed, Timespec};
use io_uring::{IoUring, opcode, squeue};
use nix::libc;

use super::record::{End, Fault, Live, Record, Report, all_zero};
use super::{DRAIN_GRACE, Flow, Job, Observer, Op, ProbeIoError, TICK, fill};
use crate::Aligned;

/// Operations given to the kernel at once. More than two are plugged: the first waits until the last is prepared, the
/// disk runs short meanwhile, and the figures sink (a fifth fewer reads at depth 32 on a virtual disk).
const SUBMIT_TOGETHER: usize = 2;

/// User data of the timeout that ends a wait; no slot has this number.
const TICK_MARK: u64 = u64::MAX;

/// Whether this error of setting up a ring means "not here" rather than "went wrong": seccomp or sysctl (EPERM,
/// EACCES), no such call (ENOSYS), too old for what is asked (EINVAL, EOPNOTSUPP), locked-memory limit (ENOMEM).
pub(super) fn unavailable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOMEM)
    )
}

/// A ring with its memory. Dropped only when nothing is in flight.
pub(super) struct Ring {
    queue: ManuallyDrop<IoUring>,
    memory: ManuallyDrop<Aligned>,
    /// Where the memory begins. Slots are reached through it, never through a reference to the whole.
    first: *mut u8,
    tick: Timespec,
    block: u32,
    in_flight: usize,
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight == 0 {
            // SAFETY: dropped once, here, and not used after. The ring goes first: it refers to the memory.
            unsafe {
                ManuallyDrop::drop(&mut self.queue);
                ManuallyDrop::drop(&mut self.memory);
            }
        }
    }
}

impl Ring {
    /// Sets up a ring for the job's depth and block size.
    pub(super) fn new(job: &Job) -> io::Result<Self> {
        let depth = job.request.depth;
        let block = job.request.block_size;
        let ring = build(u32::from(depth) + 1)?; // one for the tick
        if !ring.params().is_feature_nodrop() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)); // before 5.5
        }
        let mut memory = Aligned::zeroed(block as usize * usize::from(depth));
        if job.op == Op::Write {
            fill(&mut memory);
        }
        ring.submitter().register_files(&[job.file.as_raw_fd()])?;
        let first = memory.as_mut_ptr();
        let vector = libc::iovec { iov_base: first.cast(), iov_len: memory.len() };
        // SAFETY: the memory lives in the same struct as the ring and is freed after it, or never.
        unsafe { ring.submitter().register_buffers(&[vector])? };
        let (queue, memory) = (ManuallyDrop::new(ring), ManuallyDrop::new(memory));
        Ok(Self { queue, memory, first, tick: Timespec::from(TICK), block, in_flight: 0 })
    }

    /// Where the memory of a slot begins. `index` is below the depth.
    fn slot(&self, index: usize) -> *mut u8 {
        self.first.wrapping_add(index * self.block as usize)
    }

    /// Whether a slot is all zeroes.
    ///
    /// # Safety
    /// Its operation has returned and no other was submitted for it.
    unsafe fn is_zero(&self, index: usize) -> bool {
        // SAFETY: inside the memory, and the kernel is done with this slot, says the caller.
        all_zero(unsafe { std::slice::from_raw_parts(self.slot(index), self.block as usize) })
    }

    fn submit(&mut self, op: Op, index: usize, offset: u64) -> Result<(), squeue::PushError> {
        let (memory, length) = (self.slot(index), self.block);
        let entry = match op {
            Op::Read => opcode::ReadFixed::new(Fixed(0), memory, length, 0).offset(offset).build(),
            Op::Write => opcode::WriteFixed::new(Fixed(0), memory, length, 0).offset(offset).build(),
        };
        // SAFETY: the slot is free (no other operation uses it), inside the registered buffer, and stays alive until
        // the completion was seen or for ever.
        unsafe { self.queue.submission().push(&entry.user_data(index as u64))? };
        self.in_flight += 1;
        Ok(())
    }

    /// Submits what is queued.
    fn give(&mut self) -> io::Result<()> {
        self.queue.submit().map(drop).or_else(unhurried)
    }

    /// Queues the timeout that ends a wait in which no operation comes back: a disk may hang.
    fn set_tick(&mut self) -> Result<(), squeue::PushError> {
        let entry = opcode::Timeout::new(&raw const self.tick).build().user_data(TICK_MARK);
        // SAFETY: the kernel copies the time when the entry is submitted, by a method of this same struct.
        unsafe { self.queue.submission().push(&entry) }
    }

    /// Submits what is queued and waits for an operation or the tick. In two calls: in one, the kernel puts this thread
    /// to sleep before others that the operation needs (a loop device's worker) get to run, which on a loaded machine
    /// more than halved what a loop device gave at depth 1.
    fn wait(&mut self) -> io::Result<()> {
        self.give()?;
        if self.queue.completion().is_empty() {
            self.queue.submit_and_wait(1).map(drop).or_else(unhurried)
        } else {
            Ok(())
        }
    }

    /// Runs the job to its end.
    pub(super) fn run(
        mut self,
        job: &Job,
        offsets: &mut Offsets,
        observer: Observer<'_>,
    ) -> Result<Report, ProbeIoError> {
        let request = job.request;
        let depth = usize::from(request.depth);
        let broken = |source| ProbeIoError::Engine { engine: Engine::IoUring.name(), source };
        let mut free: Vec<usize> = (0..depth).rev().collect();
        let start = Instant::now();
        let mut slots = vec![(start, 0u64); depth];
        let mut record = Record::new()?;
        let (mut issued, mut end) = (0u64, None);
        let mut now = start;
        let mut ticking = false;
        let (mut asked, mut ended) = (start, None);
        loop {
            while end.is_none() && !free.is_empty() {
                if issued >= request.ops {
                    end = Some(End::Ops);
                } else if now - start >= request.time {
                    end = Some(End::Time);
                } else if let Some(offset) = offsets.next() {
                    if let Some(index) = free.pop() {
                        slots[index] = (Instant::now(), job.base + offset);
                        self.submit(job.op, index, job.base + offset).map_err(|e| broken(io::Error::other(e)))?;
                        issued += 1;
                        if self.queue.submission().len() >= SUBMIT_TOGETHER {
                            self.give().map_err(broken)?;
                        }
                    }
                } else {
                    end = Some(End::RangeExhausted);
                }
            }
            if self.in_flight == 0 {
                break;
            }
            if !ticking {
                self.set_tick().map_err(|e| broken(io::Error::other(e)))?;
                ticking = true;
            }
            self.wait().map_err(broken)?;
            now = Instant::now();
            while let Some(entry) = { self.queue.completion().next() } {
                if entry.user_data() == TICK_MARK {
                    ticking = false;
                    continue;
                }
                // The slot's number went in as user data.
                let index = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
                let Some(&(began, offset)) = slots.get(index) else { continue };
                self.in_flight -= 1;
                free.push(index);
                if u32::try_from(entry.result()) == Ok(self.block) {
                    // SAFETY: this is the slot's completion, and slots are refilled further up only.
                    let zero = job.op == Op::Read && unsafe { self.is_zero(index) };
                    record.success(now - start, now - began, zero);
                } else {
                    let errno = entry.result().min(0).saturating_neg();
                    record.failure(now - start, Fault { offset, errno });
                    end.get_or_insert(End::Faults);
                }
            }
            if end.is_none() && now - start >= request.time {
                end = Some(End::Time);
            } else if end.is_none() && now - asked >= TICK {
                asked = now;
                let live = Live { completed: record.completed, elapsed: now - start, latencies: &record.latencies };
                if observer(&live) == Flow::Stop {
                    end = Some(End::Observer);
                }
            }
            if end.is_some() {
                let waited = now - *ended.get_or_insert(now);
                if waited > DRAIN_GRACE && self.in_flight > 0 {
                    return Err(ProbeIoError::Hung { outstanding: self.in_flight as u64, waited });
                }
            }
        }
        Ok(record.into_report(Engine::IoUring, issued, end.unwrap_or(End::Observer)))
    }
}

/// A ring for one thread, with the cheapest completion delivery that this kernel knows.
fn build(entries: u32) -> io::Result<IoUring> {
    match IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::new(entries), // before 6.1
        other => other,
    }
}

/// Nothing is wrong when time is up, a signal came, or the kernel wants completions taken first.
fn unhurried(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
        _ => Err(error),
    }
}
