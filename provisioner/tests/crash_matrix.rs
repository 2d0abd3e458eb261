//! The crash matrix: the engine is stopped at every call it makes of the machine, in every way that a kill, a power cut
//! or an error can, and must come back with nothing leaked, nothing lost, and everything settled.
//!
//! The machine is the scripted fake of `bedplate-blockdev`. The judge (`oracle.rs`) looks at the raw medium.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may panic")]

#[path = "crash_matrix/client.rs"]
mod client;
#[path = "crash_matrix/oracle.rs"]
mod oracle;
#[path = "crash_matrix/story.rs"]
mod story;
#[path = "crash_matrix/world.rs"]
mod world;

use std::ops::Range;
use std::time::Instant;

use bedplate_blockdev::Host;
use bedplate_blockdev::fake::{Breadth, DeviceFault, Done, Fate, Outcome, Script, Step};
use bedplate_core::volume::StuckReason;
use bedplate_core::wipe::{Level, ZeroMethod};
use client::{Client, Trouble, Want};
use nix::errno::Errno;
use story::Moment;
use world::{BLOCK, BLOCKS, open, pool, state};

/// What was tried and what went wrong.
struct Matrix {
    name: &'static str,
    points: usize,
    outcomes: usize,
    broken: Vec<String>,
    began: Instant,
}

impl Matrix {
    fn new(name: &'static str) -> Self {
        Self { name, points: 0, outcomes: 0, broken: Vec::new(), began: Instant::now() }
    }

    fn record(&mut self, story: impl FnOnce() -> String, verdict: Result<(), String>) {
        self.outcomes += 1;
        if let Err(what) = verdict {
            self.broken.push(format!("{}: {what}", story()));
        }
    }

    fn close(self) {
        let Self { name, points, outcomes, broken, began } = self;
        println!("{name}: {points} crash points, {outcomes} outcomes, {} broken, {:?}", broken.len(), began.elapsed());
        assert!(points > 0 && outcomes >= points, "nothing was tried");
        assert!(broken.is_empty(), "{} of {outcomes} broken, first:\n{}", broken.len(), show(&broken));
    }
}

fn show(broken: &[String]) -> String {
    let mut shown = String::new();
    for line in broken.iter().take(25) {
        shown.push_str(line);
        shown.push('\n');
    }
    shown
}

fn inhabited() -> Moment {
    Moment::inhabited(Level::Clear, ZeroMethod::DirectWrites)
}

/// Whether a call can change anything on the machine.
fn changes(step: &Step) -> bool {
    !matches!(
        step.op,
        "open_dir"
            | "list"
            | "read"
            | "pool_facts"
            | "backing"
            | "map"
            | "open_backing"
            | "attachments"
            | "users"
            | "signature"
            | "device.read_at"
    )
}

fn name(step: &Step) -> String {
    format!("step {} {} {}", step.number, step.op, step.object)
}

#[test]
fn a_kill_at_any_call_loses_and_leaks_nothing() {
    let mut matrix = Matrix::new("kill");
    for start in [Moment::blank(), inhabited()] {
        for step in start.calls() {
            matrix.points += 1;
            let parts = if changes(&step) {
                vec![Done::Nothing, Done::Whole, Done::Part(0), Done::Part(1)]
            } else {
                vec![Done::Nothing]
            };
            for done in parts {
                let struck = start.struck(Script::new().kill_at(step.number, done));
                matrix.record(|| format!("killed at {} ({done:?})", name(&step)), struck.fork().judge());
            }
        }
    }
    matrix.close();
}

#[test]
fn a_power_cut_at_any_call_loses_and_leaks_nothing() {
    let mut matrix = Matrix::new("power cut");
    for start in [Moment::blank(), inhabited()] {
        for step in start.calls() {
            matrix.points += 1;
            let (parts, breadth) = if changes(&step) {
                (vec![Done::Nothing, Done::Whole], Breadth { each: 3, cuts: 3, random: 3, seed: step.number })
            } else {
                (vec![Done::Nothing], Breadth { each: 0, cuts: 0, random: 0, seed: 0 })
            };
            for done in parts {
                let struck = start.struck(Script::new().power_loss_at(step.number, done));
                for outcome in struck.host.outcomes(breadth) {
                    let story = || format!("power cut at {} ({done:?}), {outcome}", name(&step));
                    matrix.record(story, struck.rebooted(&outcome).judge());
                }
            }
        }
    }
    matrix.close();
}

/// A sync that failed and has forgotten what it was to keep has its own test.
fn may_fail_so(step: &Step, done: Done) -> bool {
    !(matches!(done, Done::Part(_)) && step.op == "sync_file")
}

#[test]
fn an_error_at_any_call_loses_and_leaks_nothing() {
    let mut matrix = Matrix::new("error");
    for start in [Moment::blank(), inhabited()] {
        for step in start.calls() {
            matrix.points += 1;
            let eio = (Errno::EIO, Done::Nothing);
            let full = (Errno::ENOSPC, Done::Part(step.number));
            let blows = if changes(&step) { vec![eio, (Errno::EIO, Done::Whole), full] } else { vec![eio] };
            for (errno, done) in blows.into_iter().filter(|(_, done)| may_fail_so(&step, *done)) {
                let mut story = start.fork();
                story.host.set_script(Script::new().fail_at(step.number, errno, done));
                let verdict = story.muddle_through().and_then(|_| story.judge());
                matrix.record(|| format!("{errno} at {} ({done:?})", name(&step)), verdict);
            }
        }
    }
    matrix.close();
}

/// Numbers that only a seed decides.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |limit| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit.max(1)
    }
}

/// How many of the first calls of the way back are each struck too: the engine reads there what the first crash left.
const NEAR: usize = 10;

#[test]
fn a_second_crash_on_the_way_back_loses_and_leaks_nothing() {
    let mut matrix = Matrix::new("two crashes");
    let mut dice = dice(2);
    for start in [Moment::blank(), inhabited()] {
        let calls = start.calls();
        for step in calls.iter().filter(|s| changes(s)) {
            // A kill leaves what is not durable in sight of the next process: the harder first blow.
            let first = if dice(4) == 0 {
                let struck = start.struck(Script::new().power_loss_at(step.number, Done::Whole));
                let outcomes = struck.host.outcomes(Breadth { each: 1, cuts: 1, random: 2, seed: step.number });
                struck.rebooted(&outcomes[usize::try_from(dice(outcomes.len() as u64)).unwrap()])
            } else {
                start.struck(Script::new().kill_at(step.number, Done::Whole)).fork()
            };
            let way_back = first.calls();
            let near = way_back.iter().filter(|s| changes(s)).take(NEAR).map(|s| s.number);
            let far = (0..2).map(|_| 1 + dice(way_back.len() as u64));
            for second in near.chain(far).collect::<Vec<_>>() {
                matrix.points += 1;
                let struck = first.struck(Script::new().power_loss_at(second, Done::Whole));
                let outcomes = struck.host.outcomes(Breadth { each: 0, cuts: 0, random: 2, seed: second });
                let outcome = &outcomes[if dice(2) == 0 { 0 } else { outcomes.len() - 1 }];
                let story = || {
                    let again = &way_back[usize::try_from(second).unwrap() - 1];
                    format!("crash at {}, then power cut at {}, {outcome}", name(step), name(again))
                };
                matrix.record(story, struck.rebooted(outcome).judge());
            }
        }
    }
    matrix.close();
}

#[test]
fn a_kill_in_the_middle_of_serving_again_after_a_reboot_is_settled() {
    // The living volume is recorded as staged in another boot; its device may be left without its settings.
    let mut matrix = Matrix::new("kill while serving again");
    let booted = inhabited().rebooted(&Outcome::nothing());
    for step in booted.calls().iter().take_while(|s| s.op != "create_backing") {
        for done in [Done::Nothing, Done::Whole, Done::Part(1)] {
            matrix.points += 1;
            let struck = booted.struck(Script::new().kill_at(step.number, done));
            matrix.record(|| format!("killed at {} ({done:?})", name(step)), struck.fork().judge());
        }
    }
    matrix.close();
}

/// Everything done but the wipe: the tenant has written every block, the release is recorded.
fn released(demand: Level, method: ZeroMethod) -> Moment {
    let start = Moment::inhabited(demand, method);
    let at = start.calls().iter().find(|s| s.op == "open_backing").unwrap().number;
    let moment = start.struck(Script::new().kill_at(at, Done::Nothing));
    assert_eq!(moment.client.want, Want::Wipe);
    // What the tenant did not flush has reached the medium all the same.
    let everything = Outcome::of(vec![Fate::Kept; moment.host.waiting()]);
    moment.rebooted(&everything)
}

/// The bytes of the medium that hold block `block` of the volume to be wiped.
fn place(moment: &Moment, block: u64) -> Range<u64> {
    let file = moment.client.victim(&moment.host).unwrap();
    let (offset, length) = (block * BLOCK as u64, BLOCK as u64);
    let map = moment.host.extents(pool(), &file).unwrap();
    let extent = map.extents.iter().find(|e| (e.logical..e.logical + e.length).contains(&offset)).unwrap();
    let at = extent.physical + offset - extent.logical;
    at..at + length
}

#[test]
fn a_device_that_lies_or_fails_about_any_block_ends_stuck_and_frees_nothing() {
    let mut matrix = Matrix::new("lies");
    let start = released(Level::Clear, ZeroMethod::DirectWrites);
    let lies: [fn(Range<u64>) -> DeviceFault; 6] = [
        DeviceFault::DropWrites,
        DeviceFault::ForgetOnFlush,
        DeviceFault::StaleReads,
        DeviceFault::ReadError,
        DeviceFault::WriteError,
        |r| DeviceFault::FlippedBit { offset: r.start + 99, bit: 5 },
    ];
    for block in 0..BLOCKS {
        for lie in lies {
            matrix.points += 1;
            let mut story = start.fork();
            let fault = lie(place(&story, block));
            story.host.afflict(fault.clone());
            let verdict = stuck_until_healed(&mut story);
            matrix.record(|| format!("{fault:?}"), verdict);
        }
    }
    matrix.close();
}

/// Stuck, over restarts and power cuts; then, with a good disk and a person's word, freed and clean.
fn stuck_until_healed(story: &mut Moment) -> Result<(), String> {
    for _ in 0..2 {
        match story.client.live(&story.host, &story.world) {
            Err(Trouble::Stuck(StuckReason::LevelLost { losses })) => return Err(format!("level lost: {losses:?}")),
            Err(Trouble::Stuck(_)) => {}
            other => return Err(format!("not stuck but {other:?}")),
        }
        oracle::nothing_leaked(&story.host, &story.client)?;
        *story = story.rebooted(&Outcome::nothing());
    }
    story.host.heal();
    story.client.retry(&story.host, &story.world).map_err(|e| format!("retry: {e:?}"))?;
    story.judge()
}

#[test]
fn the_judge_sees_a_wipe_that_a_device_only_pretends() {
    // Positive control: the engine cannot notice, so the judge must.
    let mut story = released(Level::Clear, ZeroMethod::DirectWrites);
    let fault = DeviceFault::PretendedZeroes(place(&story, 5));
    story.host.afflict(fault);
    let verdict = story.judge();
    assert!(verdict.as_ref().is_err_and(|e| e.starts_with("LEAK: freed")), "{verdict:?}");
    // The same story without the lie.
    released(Level::Clear, ZeroMethod::DirectWrites).judge().unwrap();
}

#[test]
fn a_wipe_by_zero_range_leaves_the_bytes_and_never_states_clear() {
    let mut story = Moment::inhabited(Level::Isolation, ZeroMethod::ZeroRange);
    let verdict = story.judge();
    assert!(verdict.as_ref().is_err_and(|e| e.starts_with("LEAK: freed")), "{verdict:?}");
    let dir = story.host.open_dir(state()).unwrap();
    let receipts = bedplate_provisioner::receipts::read(&story.host, &dir).unwrap();
    assert_eq!(receipts.iter().map(|r| r.level).collect::<Vec<_>>(), [Level::Isolation]);
    // A class that demands more is refused before the volume is made.
    let engine = open(&story.host, &story.world, ZeroMethod::ZeroRange).unwrap();
    let refused = engine.create(&Client::new(Level::Clear, ZeroMethod::ZeroRange).order("x")).unwrap_err();
    assert!(refused.to_string().contains("the class demands clear"), "{refused}");
}

#[test]
fn a_sync_that_failed_and_forgot_is_not_believed_later() {
    // After a failed fsync Linux calls the pages clean: the next fsync succeeds and keeps nothing.
    let mut matrix = Matrix::new("forgotten sync");
    for start in [Moment::blank(), inhabited()] {
        for step in start.calls().iter().filter(|s| s.op == "sync_file") {
            matrix.points += 1;
            let mut story = start.fork();
            story.host.set_script(Script::new().fail_at(step.number, Errno::EIO, Done::Part(0)));
            let verdict = story.muddle_through().and_then(|_| story.judge());
            matrix.record(|| format!("forgotten at {}", name(step)), verdict);
        }
    }
    matrix.close();
}
