//! The ramp's promises: never beyond the budget, always ends, and ends for the right reason.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // simulated rates are small and positive

use proptest::prelude::*;

use super::*;

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// Runs a ramp against a disk whose reads take `p50` and that delivers `iops(depth)`; returns steps and the reason.
fn drive(
    plan: ReadPlan,
    p50: Duration,
    p99: impl Fn(u16) -> Duration,
    iops: impl Fn(u16) -> f64,
) -> (Vec<Step>, StopReason) {
    let mut ramp = Ramp::new(plan);
    let (mut clock, mut steps) = (Duration::ZERO, Vec::new());
    loop {
        match ramp.next(clock) {
            Next::Stop(reason) => return (steps, reason),
            Next::Step(step) => {
                let rate = iops(step.depth);
                let reads = ((step.time.as_secs_f64() * rate).floor() as u64).clamp(1, step.reads);
                let elapsed = Duration::from_secs_f64(reads as f64 / rate).min(step.time);
                clock += elapsed;
                ramp.record(&step, StepOutcome { iops: rate, p50, p99: p99(step.depth), reads, elapsed });
                steps.push(step);
            }
        }
        assert!(steps.len() <= 5, "the ramp must end");
    }
}

#[test]
fn a_flash_disk_is_read_at_all_four_depths() {
    let (steps, reason) = drive(ReadPlan::new(512), us(80), |_| us(150), |d| f64::from(d) * 10_000.0);
    assert_eq!(steps.iter().map(|s| s.depth).collect::<Vec<_>>(), [1, 1, 4, 16, 32]);
    assert_eq!(steps[0].kind, StepKind::Pilot);
    assert_eq!(reason, StopReason::RampComplete);
}

#[test]
fn a_disk_that_answers_like_a_mechanical_one_gets_600_reads_whatever_it_calls_itself() {
    let (steps, _) = drive(ReadPlan::new(512), us(9000), |_| us(20_000), |d| 100.0 * (1.0 + f64::from(d) / 4.0));
    let allowed: u64 = steps.iter().map(|s| s.reads).sum();
    assert!(allowed <= SLOW_READS, "{allowed}");
    assert!(steps.len() > 2, "it is measured all the same");
}

#[test]
fn no_deeper_when_the_last_depth_brought_less_than_a_tenth() {
    let (steps, reason) = drive(ReadPlan::new(512), us(300), |_| us(500), |_| 3000.0);
    assert_eq!(steps.last().map(|s| s.depth), Some(4));
    assert_eq!(reason, StopReason::SmallGain);
}

#[test]
fn no_deeper_when_reads_only_queue() {
    let p99 = |d| if d >= 16 { us(241) } else { us(200) };
    let (steps, reason) = drive(ReadPlan::new(512), us(80), p99, |d| f64::from(d) * 10_000.0);
    assert_eq!(steps.last().map(|s| s.depth), Some(16));
    assert_eq!(reason, StopReason::LatencyKnee);
}

#[test]
fn a_long_tail_at_depth_one_is_the_disks_own_and_does_not_end_the_ramp() {
    let p99 = |d| if d == 1 { us(5000) } else { us(200) };
    let (_, reason) = drive(ReadPlan::new(512), us(80), p99, |d| f64::from(d) * 10_000.0);
    assert_eq!(reason, StopReason::RampComplete);
}

#[test]
fn big_blocks_run_into_the_byte_budget() {
    let plan = ReadPlan { block_size: 1 << 20, ..ReadPlan::new(512) };
    let (steps, _) = drive(plan, us(300), |_| us(400), |d| f64::from(d) * 3000.0);
    let bytes: u64 = steps.iter().map(|s| s.reads << 20).sum();
    assert!(bytes <= 256 << 20, "{bytes}");
}

#[test]
fn the_watchdog_waits_for_a_real_change() {
    let mut ramp = Ramp::new(ReadPlan::new(512));
    assert_eq!(ramp.watchdog(), Duration::from_millis(20));
    let Next::Step(step) = ramp.next(Duration::ZERO) else { panic!("a fresh ramp starts") };
    ramp.record(&step, StepOutcome { iops: 100.0, p50: us(9000), p99: us(9000), reads: 32, elapsed: us(300_000) });
    assert_eq!(ramp.watchdog(), Duration::from_millis(90));
}

#[test]
fn four_kib_native_disks_and_odd_blocks_are_read_in_whole_blocks() {
    assert_eq!(ReadPlan::new(512).block_size, 4096);
    assert_eq!(ReadPlan::new(4096).block_size, 4096);
    assert_eq!(ReadPlan::new(8192).block_size, 8192);
}

proptest! {
    #[test]
    fn no_sequence_of_outcomes_makes_the_ramp_exceed_its_budget(
        time_ms in 1u64..6000, bytes in 4096u64..(512 << 20), reads in 1u64..30_000,
        logical in prop::sample::select(vec![512u32, 4096, 16_384]),
        results in prop::collection::vec((1.0f64..1e6, 1u64..1_000_000, 1u64..5_000_000, 0.0f64..=1.0), 5),
    ) {
        let budget = Budget { time: Duration::from_millis(time_ms), bytes, reads };
        let plan = ReadPlan { budget, ..ReadPlan::new(logical) };
        let block = u64::from(plan.block_size);
        let mut ramp = Ramp::new(plan);
        let (mut clock, mut issued) = (Duration::ZERO, 0u64);
        for (iops, p50, p99, used) in results {
            let Next::Step(step) = ramp.next(clock) else { break };
            prop_assert!(clock + step.time <= budget.time);
            prop_assert!(issued + step.reads <= budget.reads);
            prop_assert!((issued + step.reads) * block <= budget.bytes);
            prop_assert!(step.reads > 0);
            issued += step.reads;
            let elapsed = step.time.mul_f64(used);
            clock += elapsed;
            ramp.record(&step, StepOutcome { iops, p50: us(p50), p99: us(p99), reads: step.reads, elapsed });
            prop_assert_eq!(ramp.reads(), issued);
        }
    }
}
