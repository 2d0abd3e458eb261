use proptest::prelude::*;

use super::*;
use crate::extent::{Extent, ExtentFlags, PhysicalMap, RawExtent};

fn plan(blocks: u64, chunk_blocks: u64, verify: VerifyDemand, seed: u8) -> WipePlan {
    let geometry = Geometry { chunk: chunk_blocks * 512, block: 512, canaries: 2 };
    WipePlan::new(blocks * 512, geometry, ZeroMethod::DirectWrites, verify, u64::MAX, Seed([seed; 32])).unwrap()
}

fn map(flags: ExtentFlags, physical: u64) -> PhysicalMap {
    PhysicalMap::normalise([RawExtent { extent: Extent { logical: 0, physical, length: 4096 }, flags }], 4096)
}

proptest! {
    #[test]
    fn chunks_cover_every_byte_exactly_once(blocks in 1u64..5000, chunk in 1u64..700) {
        let plan = plan(blocks, chunk, VerifyDemand::Full, 1);
        let mut at = 0;
        for c in plan.chunks(0) {
            prop_assert_eq!(c.start, at);
            prop_assert!(c.end > c.start);
            at = c.end;
        }
        prop_assert_eq!(at, plan.size);
    }

    #[test]
    fn every_chunk_carries_canaries_inside_itself(blocks in 1u64..3000, chunk in 1u64..700, seed in any::<u8>()) {
        let plan = plan(blocks, chunk, VerifyDemand::Full, seed);
        for c in plan.chunks(0) {
            let canaries = plan.canaries(&c);
            prop_assert!(!canaries.is_empty());
            prop_assert_eq!(canaries[0].offset, c.start);
            for canary in &canaries {
                prop_assert!(canary.offset >= c.start && canary.offset + 512 <= c.end);
                prop_assert!(!is_zero(&canary.content));
            }
            prop_assert_eq!(&canaries, &plan.canaries(&c));
        }
    }

    #[test]
    fn a_sample_holds_both_ends_every_seam_and_one_block_a_stratum(
        blocks in 1u64..20_000, chunk in 1u64..900, at in any::<prop::sample::Index>(),
    ) {
        let plan = plan(blocks, chunk, VerifyDemand::Sample, 7);
        let resumed = at.index(usize::try_from(blocks).unwrap()) as u64 * 512;
        let ranges = plan.to_verify(&[resumed]);
        let covers = |offset: u64| ranges.iter().any(|r| r.contains(&offset));
        prop_assert!(covers(0) && covers(plan.size - 1));
        prop_assert!(covers(resumed) && covers(resumed.saturating_sub(1)));
        for c in plan.chunks(0) {
            prop_assert!(covers(c.start) && covers(c.start.saturating_sub(1)));
        }
        prop_assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start));
        prop_assert!(ranges.iter().all(|r| r.end <= plan.size && r.start % 512 == 0 && r.end % 512 == 0));
    }

    #[test]
    fn a_full_verification_reads_every_byte(blocks in 1u64..100_000) {
        let ranges = plan(blocks, 100, VerifyDemand::Full, 7).to_verify(&[]);
        prop_assert_eq!(ranges.iter().map(|r| r.end - r.start).sum::<u64>(), blocks * 512);
    }

    #[test]
    fn only_direct_writes_over_an_untouched_map_earn_clear(
        unwritten in any::<bool>(), shared in any::<bool>(), encoded in any::<bool>(), unplaced in any::<bool>(),
        moved in any::<bool>(), hole in any::<bool>(), direct in any::<bool>(),
    ) {
        let recorded = map(ExtentFlags { unwritten: true, ..ExtentFlags::default() }, 0);
        let after = map(ExtentFlags { unwritten, shared, encoded, unplaced }, if moved { 1 << 20 } else { 0 });
        let size = if hole { 8192 } else { 4096 };
        let method = if direct { ZeroMethod::DirectWrites } else { ZeroMethod::ZeroRange };
        let (level, losses) = level_after_wipe(method, &recorded, &after, size, &[]);
        let clean = direct && !(unwritten || shared || encoded || unplaced || moved || hole);
        prop_assert_eq!(level == Level::Clear, clean);
        prop_assert_eq!(losses.is_empty(), clean);
    }
}

#[test]
fn a_resume_goes_back_one_chunk_to_rewrite_the_seam() {
    let plan = plan(100, 10, VerifyDemand::Full, 1);
    assert_eq!(plan.resume_at(0), 0);
    assert_eq!(plan.resume_at(5120), 0);
    assert_eq!(plan.resume_at(15_360), 10_240);
}

#[test]
fn what_was_lost_in_life_stays_lost() {
    let clean = map(ExtentFlags::default(), 0);
    let earlier = [LevelLoss::Shared { bytes: 4096 }];
    let (level, losses) = level_after_wipe(ZeroMethod::DirectWrites, &clean, &clean, 4096, &earlier);
    assert_eq!((level, losses.as_slice()), (Level::Isolation, &earlier[..]));
}

#[test]
fn neither_overwriting_nor_key_destruction_stands_for_the_other() {
    assert!(!Level::Clear.satisfies(Level::CryptoErase));
    assert!(!Level::CryptoErase.satisfies(Level::Clear));
    assert!(Level::Clear.satisfies(Level::Isolation) && !Level::Isolation.satisfies(Level::Clear));
}

#[test]
fn the_bound_of_a_sample_is_the_published_one() {
    // 299 samples find 1 % with 95 %, 2,995 find 0.1 %.
    assert_eq!(Verification::Sample { samples: 299 }.bound_ppm(), 9970);
    assert_eq!(Verification::Sample { samples: 2_995 }.bound_ppm(), 1000);
    assert_eq!(Verification::Full.bound_ppm(), 0);
}

#[test]
fn sizes_that_do_not_divide_are_refused() {
    let geometry = Geometry { chunk: 1024, block: 512, canaries: 1 };
    for size in [0, 511, 513] {
        assert!(
            WipePlan::new(size, geometry, ZeroMethod::DirectWrites, VerifyDemand::Full, 0, Seed([0; 32])).is_err(),
            "{size}"
        );
    }
}
