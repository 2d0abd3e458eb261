use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::bytes::{GIB, MIB};
use crate::class::MediaDemand;
use crate::filesystem::FsType;
use crate::media::Media;
use crate::volume::Mode;
use crate::wipe::Level;

fn pool(name: &str, media: Media, gib: u64) -> Pool {
    Pool {
        name: name.into(),
        media,
        level: Some(Level::Clear),
        present: true,
        capacity: gib * GIB,
        free: gib * GIB,
        largest: gib * GIB,
        promised: 0,
        shares: 0,
    }
}

fn node(pools: impl IntoIterator<Item = Pool>) -> Node {
    let mut pools: Vec<Pool> = pools.into_iter().collect();
    for (i, pool) in pools.iter_mut().enumerate() {
        pool.shares = u16::try_from(i).unwrap();
    }
    Node { ready: true, filesystems: [FsType::Ext4, FsType::Xfs].into_iter().collect(), pools }
}

fn claim(gib: u64, media: Option<MediaDemand>) -> ClaimDemand {
    ClaimDemand {
        id: "data".into(),
        bytes: gib * GIB,
        pool: None,
        media,
        wipe: None,
        mode: Mode::Filesystem(FsType::Ext4),
    }
}

fn pod(claims: impl IntoIterator<Item = ClaimDemand>) -> PodDemand {
    PodDemand { claims: claims.into_iter().collect(), fixed: Vec::new() }
}

fn on(node: &Node, pod: &PodDemand) -> Result<Vec<u16>, Reason> {
    evaluate("n1", Some(node.view()), pod, &[]).map(|(pools, _)| pools)
}

const SSD: Option<MediaDemand> = Some(MediaDemand::Ssd);

#[test]
fn an_ssd_claim_takes_nvme_only_where_flash_of_the_lesser_kind_has_no_room() {
    let n = node([pool("fast", Media::Nvme, 50), pool("flash", Media::Ssd, 100), pool("slow", Media::Hdd, 900)]);
    assert_eq!(on(&n, &pod([claim(10, SSD)])), Ok(vec![1]));
    assert_eq!(on(&n, &pod([claim(60, SSD), claim(60, SSD)])), Err(Reason::Together));
    assert_eq!(on(&n, &pod([claim(60, SSD), claim(50, SSD)])), Ok(vec![1, 0]));
    assert_eq!(on(&n, &pod([claim(10, None)])), Ok(vec![2]), "nobody asked for flash");
}

#[test]
fn an_unknown_medium_serves_only_those_who_do_not_care() {
    let n = node([pool("what", Media::Unknown, 50)]);
    assert_eq!(on(&n, &pod([claim(1, Some(MediaDemand::Hdd))])), Err(Reason::Media));
    assert_eq!(on(&n, &pod([claim(1, None)])), Ok(vec![0]));
}

#[test]
fn the_fuller_pool_is_filled_first() {
    let mut n = node([pool("a", Media::Ssd, 100), pool("b", Media::Ssd, 100)]);
    n.pools[1].free = 20 * GIB;
    assert_eq!(on(&n, &pod([claim(10, SSD)])), Ok(vec![1]));
    assert_eq!(on(&n, &pod([claim(30, SSD)])), Ok(vec![0]));
}

#[test]
fn two_claims_that_fit_one_by_one_but_not_together_are_refused() {
    let n = node([pool("a", Media::Ssd, 100)]);
    assert_eq!(on(&n, &pod([claim(60, SSD)])), Ok(vec![0]));
    assert_eq!(on(&n, &pod([claim(60, SSD), claim(60, SSD)])), Err(Reason::Together));
}

#[test]
fn greed_would_fail_where_the_search_finds_room() {
    let mut small = claim(40, SSD);
    small.pool = Some("a".into());
    let n = node([pool("a", Media::Ssd, 50), pool("b", Media::Ssd, 60)]);
    assert_eq!(on(&n, &pod([claim(50, SSD), small])), Ok(vec![1, 0]));
}

#[test]
fn a_pod_whose_claims_all_have_volumes_is_asked_only_for_its_node() {
    let fixed = PodDemand { claims: Vec::new(), fixed: vec!["n1".into(), "n1".into()] };
    assert_eq!(evaluate("n1", None, &fixed, &[]), Ok((vec![], 10)), "not even the agent is asked for");
    assert_eq!(evaluate("n2", None, &fixed, &[]), Err(Reason::OtherNode));
    let torn = PodDemand { claims: Vec::new(), fixed: vec!["n1".into(), "n2".into()] };
    assert_eq!(evaluate("n1", None, &torn, &[]), Err(Reason::OtherNode));
}

#[test]
fn bound_claims_fix_the_node_and_hard_rules_judge_the_rest() {
    let n = node([pool("a", Media::Ssd, 10)]);
    let mut mixed = pod([claim(5, SSD)]);
    mixed.fixed.push("n1".into());
    assert!(evaluate("n1", Some(n.view()), &mixed, &[]).is_ok());
    assert_eq!(evaluate("n2", Some(n.view()), &mixed, &[]), Err(Reason::OtherNode));
    assert_eq!(evaluate("n1", Some(n.view()), &mixed, &[6 * GIB]), Err(Reason::NoRoom));
}

#[test]
fn every_misfit_has_its_reason() {
    let n = node([pool("a", Media::Ssd, 100), pool("h", Media::Hdd, 100)]);
    let with = |change: &dyn Fn(&mut Node, &mut ClaimDemand)| {
        let (mut n, mut c) = (n.clone(), claim(10, SSD));
        change(&mut n, &mut c);
        on(&n, &pod([c])).unwrap_err()
    };
    assert_eq!(evaluate("n1", None, &pod([claim(1, None)]), &[]), Err(Reason::NoAgent));
    assert_eq!(with(&|n, _| n.ready = false), Reason::NotReady);
    assert_eq!(with(&|_, c| c.mode = Mode::Filesystem(FsType::F2fs)), Reason::Filesystem);
    assert_eq!(with(&|_, c| c.pool = Some("z".into())), Reason::NoPool);
    assert_eq!(with(&|n, _| n.pools.clear()), Reason::NoPool);
    assert_eq!(with(&|_, c| c.pool = Some("h".into())), Reason::Media);
    assert_eq!(with(&|_, c| c.media = Some(MediaDemand::Nvme)), Reason::Media);
    assert_eq!(with(&|_, c| c.wipe = Some(Level::CryptoErase)), Reason::Level);
    assert_eq!(with(&|n, c| (n.pools[0].level, c.wipe) = (None, Some(Level::Isolation))), Reason::Level);
    assert_eq!(with(&|_, c| c.bytes = 101 * GIB), Reason::TooLarge);
    assert_eq!(with(&|n, _| n.pools[0].free = GIB), Reason::NoRoom);
    assert_eq!(with(&|n, _| n.pools[0].promised = 91 * GIB), Reason::NoRoom);
    assert_eq!(with(&|n, _| n.pools[0].largest = GIB), Reason::Pieces);
    // The pool that would do is away; the one that is here is of the wrong kind and says so.
    assert_eq!(with(&|n, c| (n.pools[0].present, c.pool) = (false, Some("a".into()))), Reason::PoolAbsent);
}

#[test]
fn no_text_holds_a_number_and_no_two_are_alike() {
    let texts: std::collections::BTreeSet<_> = Reason::ALL.into_iter().map(Reason::text).collect();
    let labels: std::collections::BTreeSet<_> = Reason::ALL.into_iter().map(Reason::label).collect();
    assert_eq!((texts.len(), labels.len()), (Reason::ALL.len(), Reason::ALL.len()));
    for text in texts {
        assert!(text.starts_with("bedplate: ") && !text.contains(|c: char| c.is_ascii_digit()), "{text}");
        assert!(text.len() < 80, "{text}");
    }
}

#[test]
fn pools_on_one_filesystem_are_not_counted_twice() {
    let mut n = node([pool("a", Media::Ssd, 100), pool("b", Media::Ssd, 100)]);
    n.pools[1].shares = 0;
    assert_eq!(on(&n, &pod([claim(60, SSD), claim(60, SSD)])), Err(Reason::Together));
    assert!(on(&n, &pod([claim(60, SSD), claim(40, SSD)])).is_ok());
    n.pools[0].promised = 60 * GIB;
    assert_eq!(on(&n, &pod([claim(60, SSD)])), Err(Reason::NoRoom));
    assert_eq!(evaluate("n1", Some(n.view()), &pod([claim(40, SSD)]), &[0, GIB]), Err(Reason::NoRoom));
}

#[test]
fn a_hostile_number_of_claims_is_refused_in_bounded_time() {
    // Sizes that nearly fill the pools in many ways, and never quite fit.
    let n = node((0..16).map(|i| pool(&format!("p{i}"), Media::Ssd, 100)));
    let claims = (0..48).map(|i| claim(33 + i % 3, SSD));
    let begin = std::time::Instant::now();
    let verdict = on(&n, &pod(claims));
    assert!(matches!(verdict, Err(Reason::TooMany | Reason::Together)), "{verdict:?}");
    assert!(begin.elapsed() < std::time::Duration::from_secs(1));
}

#[test]
fn scores_prefer_the_least_that_fits() {
    let score = |n: &Node| evaluate("n1", Some(n.view()), &pod([claim(10, SSD)]), &[]).unwrap().1;
    let nvme = node([pool("a", Media::Nvme, 100)]);
    let empty = node([pool("a", Media::Ssd, 100)]);
    let mut full = empty.clone();
    full.pools[0].free = 10 * GIB;
    assert!(score(&nvme) < score(&empty) && score(&empty) < score(&full));
    assert_eq!(score(&full), 10);
}

#[test]
fn an_explanation_has_the_numbers_that_the_reason_must_not_have() {
    let n = node([pool("a", Media::Ssd, 100)]);
    let told = explain("n1", Some(n.view()), &pod([claim(60, SSD)]), &[50 * GIB]);
    assert_eq!(told.verdict, Err(Reason::NoRoom));
    let detail = told.claims[0].pools[0].detail.to_string();
    assert_eq!(
        detail,
        "pool a (ssd, wipes to clear): 100 GiB of 100 GiB free, 0 B promised, 50 GiB held, largest 100 GiB"
    );
}

/// Every assignment there is, without any cleverness.
fn brute(node: &Node, pod: &PodDemand, held: &[u64]) -> Option<(u32, u128)> {
    let held = |i: usize| held.get(i).copied().unwrap_or(0);
    let (n, m) = (pod.claims.len(), node.pools.len());
    let mut best = None;
    for code in 0..m.pow(u32::try_from(n).unwrap()) {
        let chosen: Vec<usize> = (0..n).map(|i| code / m.pow(u32::try_from(i).unwrap()) % m).collect();
        let (mut waste, mut room) = (0, 0);
        let fits = pod.claims.iter().zip(&chosen).all(|(claim, &p)| {
            let pool = &node.pools[p];
            let named = claim.pool.as_ref().is_none_or(|name| *name == pool.name);
            let level = claim.wipe.is_none_or(|w| pool.level.is_some_and(|l| l.satisfies(w)));
            let Some(w) = pool.waste(claim.media) else { return false };
            waste += u32::from(w);
            room += u128::from(pool.room().saturating_sub(held(p)));
            named && level && pool.present && claim.bytes <= pool.largest && claim.bytes <= pool.capacity
        });
        let sum = |of: &dyn Fn(usize) -> bool| -> u64 {
            pod.claims.iter().zip(&chosen).filter(|(_, p)| of(**p)).map(|(c, _)| c.bytes).sum()
        };
        let own =
            (0..m).all(|p| sum(&|q| q == p) <= node.pools[p].room().saturating_sub(held(p)) || sum(&|q| q == p) == 0);
        let shared = (0..m).all(|g| {
            let group = |q: usize| usize::from(node.pools[q].shares) == g;
            let members: Vec<usize> = (0..m).filter(|q| group(*q)).collect();
            let most = members.iter().filter(|q| node.pools[**q].present).map(|q| node.pools[*q].free).max();
            let gone: u64 = members.iter().map(|q| node.pools[*q].promised + held(*q)).sum();
            let used = sum(&group);
            used == 0 || used <= most.unwrap_or(0).saturating_sub(gone)
        });
        if fits && own && shared && best.is_none_or(|b| (waste, room) < b) {
            best = Some((waste, room));
        }
    }
    best
}

prop_compose! {
    fn any_pool()(
        media in prop_oneof![Just(Media::Nvme), Just(Media::Ssd), Just(Media::Hdd), Just(Media::Unknown)],
        capacity in 1u64..12, free in 0u64..12, largest in 0u64..12, promised in 0u64..4, present in prop::bool::weighted(0.9),
        level in prop_oneof![Just(None), Just(Some(Level::Clear)), Just(Some(Level::Isolation))],
    ) -> Pool {
        Pool {
            name: "".into(), media, level, present, capacity: capacity * MIB, free: free.min(capacity) * MIB,
            largest: largest.max(1) * MIB, promised: promised * MIB, shares: 0,
        }
    }
}

prop_compose! {
    fn any_claim()(
        bytes in 1u64..6,
        media in prop_oneof![3 => Just(None), 2 => Just(SSD), 1 => Just(Some(MediaDemand::Nvme)), 1 => Just(Some(MediaDemand::Hdd))],
        pool in prop_oneof![4 => Just(None), 1 => (0u8..4).prop_map(|i| Some(Arc::from(format!("p{i}"))))],
        wipe in prop_oneof![4 => Just(None), 1 => Just(Some(Level::Isolation))],
    ) -> ClaimDemand {
        ClaimDemand { id: "c".into(), bytes: bytes * MIB, pool, media, wipe, mode: Mode::Block }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_search_agrees_with_brute_force(
        pools in prop::collection::vec(any_pool(), 0..5),
        claims in prop::collection::vec(any_claim(), 1..5),
        held in prop::collection::vec(0u64..4, 0..5),
        shared in prop::option::of((0u16..4, 0u16..4)),
    ) {
        let mut n = node(pools);
        for (i, pool) in n.pools.iter_mut().enumerate() {
            pool.name = format!("p{i}").into();
        }
        if let Some((a, b)) = shared
            && a < b && usize::from(b) < n.pools.len()
        {
            n.pools[usize::from(b)].shares = a;
        }
        let held: Vec<u64> = held.into_iter().map(|h| h * MIB).collect();
        let pod = pod(claims);
        let found = evaluate("n1", Some(n.view()), &pod, &held);
        let searched = Evaluator::searching(&pod).node("n1", Some(n.view()), &held).map(|fit| (fit.pools.to_vec(), fit.score));
        match (&found, &searched) {
            // Where two ways cost the same, either will do; which one may show in the score.
            (Ok(_), Ok(_)) => {}
            (found, searched) => prop_assert_eq!(found, searched, "the short way and the search"),
        }
        let truth = brute(&n, &pod, &held);
        prop_assert_eq!(found.is_ok(), truth.is_some(), "{:?} {:?}", found, truth);
        if let (Ok((chosen, score)), Some(truth)) = (found, truth) {
            let waste: u32 = pod.claims.iter().zip(&chosen)
                .map(|(c, p)| u32::from(n.pools[usize::from(*p)].waste(c.media).unwrap())).sum();
            let room: u128 = chosen.iter()
                .map(|p| u128::from(n.pools[usize::from(*p)].room()
                    .saturating_sub(held.get(usize::from(*p)).copied().unwrap_or(0)))).sum();
            prop_assert_eq!((waste, room), truth);
            prop_assert!(score <= 10);
        }
    }

    #[test]
    fn whatever_is_taken_step_by_step_never_exceeds_what_there_is(
        frees in prop::collection::vec(1u64..40, 1..4),
        steps in prop::collection::vec((any::<bool>(), prop::collection::vec(1u64..8, 1..4), any::<prop::sample::Index>()), 1..60),
    ) {
        // Holds, allocations and frees in any order, by what the evaluator says alone.
        let mut n = node(frees.iter().map(|f| Pool { capacity: f * MIB, free: f * MIB, largest: f * MIB, ..pool("p", Media::Ssd, 1) }));
        let mut held = vec![0u64; n.pools.len()];
        let mut living: Vec<(bool, Vec<(u16, u64)>)> = Vec::new();
        for (take, sizes, pick) in steps {
            if take || living.is_empty() {
                let pod = pod(sizes.iter().map(|s| ClaimDemand { bytes: s * MIB, mode: Mode::Block, ..claim(1, SSD) }));
                if let Ok((chosen, _)) = evaluate("n1", Some(n.view()), &pod, &held) {
                    let taken: Vec<(u16, u64)> = chosen.into_iter().zip(pod.claims.iter().map(|c| c.bytes)).collect();
                    for (p, bytes) in &taken { held[usize::from(*p)] += bytes; }
                    living.push((false, taken));
                }
            } else {
                let at = pick.index(living.len());
                let (allocated, taken) = &mut living[at];
                for (p, bytes) in taken.iter() {
                    let p = usize::from(*p);
                    if *allocated { n.pools[p].promised -= bytes } else { held[p] -= bytes; n.pools[p].promised += bytes }
                }
                if *allocated { living.remove(at); } else { *allocated = true; }
            }
            for (i, pool) in n.pools.iter().enumerate() {
                prop_assert!(pool.promised + held[i] <= pool.free);
            }
        }
    }
}

#[test]
fn reasons_are_listed_in_their_own_order() {
    for (place, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, place, "{reason}");
    }
}
