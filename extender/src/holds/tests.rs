use proptest::prelude::*;

use super::*;

fn pod(name: &str) -> Arc<str> {
    name.into()
}

/// One claim of `bytes`, on pool 0 of each node.
fn found(pod: &str, bytes: u64, nodes: &[Slot]) -> Survivors {
    Survivors {
        claims: vec![Held { claim: format!("{pod}-claim").into(), bytes }],
        nodes: nodes.to_vec(),
        pools: vec![0; nodes.len()],
        scores: vec![5; nodes.len()],
    }
}

fn filter(holds: &mut Holds, name: &str, bytes: u64, nodes: &[Slot], now: Millis) {
    let old = holds.lift(name);
    holds.replace(&pod(name), old, found(name, bytes, nodes), Version { resource: 5, unscheduled: 0 }, now);
}

fn on(holds: &Holds, slots: std::ops::Range<Slot>) -> Vec<u64> {
    slots.map(|slot| holds.on(slot).first().copied().unwrap_or(0)).collect()
}

fn event(name: &str, resource: u64, unscheduled: u64) -> Seen {
    Seen { uid: pod(name), version: Version { resource, unscheduled }, node: None }
}

#[test]
fn a_second_filter_replaces_the_first_and_does_not_count_it() {
    let mut holds = Holds::default();
    filter(&mut holds, "a", 7, &[0, 1, 2], 0);
    assert_eq!(on(&holds, 0..3), [7, 7, 7]);
    let old = holds.lift("a");
    assert_eq!(on(&holds, 0..3), [0, 0, 0], "ignored by its own pod");
    holds.replace(&pod("a"), old, found("a", 7, &[1, 2]), Version::default(), 1);
    assert_eq!(on(&holds, 0..3), [0, 7, 7]);
}

#[test]
fn one_survivor_pins_and_none_holds_nothing() {
    let mut holds = Holds::default();
    filter(&mut holds, "a", 7, &[1], 0);
    assert_eq!((holds.len(), holds.pinned()), (1, 1));
    filter(&mut holds, "a", 7, &[], 1);
    assert!(holds.is_empty());
    assert_eq!(on(&holds, 0..2), [0, 0]);
}

#[test]
fn prioritize_narrows_and_selected_node_pins() {
    let mut holds = Holds::default();
    filter(&mut holds, "a", 7, &[0, 1, 2], 0);
    holds.narrow("a", &[0, 2], 1);
    assert_eq!(on(&holds, 0..3), [7, 0, 7]);
    holds.selected("a-claim", 2, 2);
    assert_eq!((on(&holds, 0..3), holds.pinned()), (vec![0, 0, 7], 1));
    holds.selected("stranger", 0, 3);
    assert_eq!(on(&holds, 0..3), [0, 0, 7]);
}

#[test]
fn node_name_and_nominated_node_pin() {
    let mut holds = Holds::default();
    filter(&mut holds, "a", 7, &[0, 1], 0);
    let seen = Seen { node: Some("n1".into()), ..event("a", 6, 0) };
    holds.seen(&seen, |name| (name == "n1").then_some(1), 1);
    assert_eq!(on(&holds, 0..2), [0, 7]);
}

#[test]
fn a_local_volume_turns_a_hold_into_an_allocation_claim_by_claim() {
    let mut holds = Holds::default();
    // A node's numbers are made for more pools than are known of.
    let on = |holds: &Holds, slot| holds.on(slot).get(..2).map(<[u64]>::to_vec).unwrap_or_default();
    let old = holds.lift("a");
    let two = Survivors {
        claims: vec![Held { claim: "c1".into(), bytes: 3 }, Held { claim: "c2".into(), bytes: 4 }],
        nodes: vec![0, 1],
        pools: vec![0, 1, 1, 0],
        scores: vec![1, 2],
    };
    holds.replace(&pod("a"), old, two, Version::default(), 0);
    assert_eq!((on(&holds, 0), on(&holds, 1)), (vec![3, 4], vec![4, 3]));
    holds.allocated("c1", 1, 1);
    assert_eq!((on(&holds, 0), on(&holds, 1)), (vec![0, 0], vec![4, 0]), "the other claim follows to the node");
    holds.allocated("c2", 1, 2);
    assert!(holds.is_empty());
    assert_eq!(on(&holds, 1), [0, 0]);
}

#[test]
fn an_unschedulable_pod_gives_back_only_what_it_held_before_that_was_said() {
    let mut holds = Holds::default();
    let version = Version { resource: 5, unscheduled: 77 };
    let old = holds.lift("a");
    holds.replace(&pod("a"), old, found("a", 7, &[0, 1]), version, 0);
    holds.seen(&event("a", 4, 66), |_| None, 1);
    assert_eq!(holds.len(), 1, "an older word than the filter's");
    holds.seen(&event("a", 6, 77), |_| None, 1);
    assert_eq!(holds.len(), 1, "the same word as at the filter: some label changed");
    holds.seen(&event("a", 7, 0), |_| None, 1);
    assert_eq!(holds.len(), 1, "not said at all");
    holds.seen(&event("a", 8, 88), |_| None, 1);
    assert!(holds.is_empty());
}

#[test]
fn holds_end_when_their_pod_does_or_time_is_up() {
    let mut holds = Holds::default();
    filter(&mut holds, "a", 7, &[0], 0);
    filter(&mut holds, "b", 7, &[0], 1_000);
    holds.gone(&pod("a"), 2_000);
    assert_eq!(on(&holds, 0..1), [7]);
    filter(&mut holds, "a", 7, &[0], 2_001);
    assert_eq!(on(&holds, 0..1), [7], "a late request for a deleted pod holds nothing");
    holds.expire(1_000 + TTL - 1);
    assert_eq!(holds.len(), 1);
    holds.expire(1_000 + TTL);
    assert!(holds.is_empty());
}

#[test]
fn prioritize_and_pins_give_a_hold_more_time() {
    let mut holds = Holds::default();
    filter(&mut holds, "a", 7, &[0, 1], 0);
    holds.narrow("a", &[0, 1], 10_000);
    holds.expire(TTL + 1);
    assert_eq!(holds.len(), 1);
    holds.expire(10_000 + TTL);
    assert!(holds.is_empty());
}

#[test]
fn only_room_that_turned_somebody_away_wakes_anybody() {
    let mut holds = Holds::default();
    filter(&mut holds, "a", 7, &[0, 1, 2], 0);
    holds.end("a");
    assert!(!holds.take_wake(), "nobody was turned away");
    filter(&mut holds, "a", 7, &[0, 1, 2], 0);
    holds.blame(1);
    filter(&mut holds, "a", 7, &[0, 1], 1);
    assert!(!holds.take_wake(), "still held where it matters");
    holds.narrow("a", &[0], 2);
    assert!(holds.take_wake());
    assert!(!holds.take_wake(), "once");
    holds.blame(0);
    holds.allocated("a-claim", 0, 3);
    assert!(!holds.take_wake(), "nothing became free");
    filter(&mut holds, "b", 7, &[0], 4);
    holds.expire(4 + TTL);
    assert!(holds.take_wake());
}

#[test]
fn too_many_holds_cost_the_oldest() {
    let mut holds = Holds::new(5);
    filter(&mut holds, "a", 7, &[0, 1, 2], 0);
    filter(&mut holds, "b", 7, &[0, 1, 2], 1);
    assert_eq!((holds.len(), holds.evicted()), (1, 1));
    assert!(holds.scores("b").is_some());
    assert_eq!(on(&holds, 0..3), [7, 7, 7]);
}

#[derive(Clone, Debug)]
enum Op {
    Filter(u8, Vec<Slot>),
    Narrow(u8, usize),
    Pin(u8, Slot),
    Allocated(u8, u8, Slot),
    Gone(u8),
    Seen(u8, u64),
    Time(Millis),
}

fn any_op() -> impl Strategy<Value = Op> {
    let pod = 0u8..6;
    prop_oneof![
        4 => (pod.clone(), prop::collection::btree_set(0u32..5, 0..5)).prop_map(|(p, n)| Op::Filter(p, n.into_iter().collect())),
        2 => (pod.clone(), 0usize..5).prop_map(|(p, n)| Op::Narrow(p, n)),
        2 => (pod.clone(), 0u32..6).prop_map(|(p, n)| Op::Pin(p, n)),
        2 => (pod.clone(), 0u8..2, 0u32..5).prop_map(|(p, c, n)| Op::Allocated(p, c, n)),
        1 => pod.clone().prop_map(Op::Gone),
        1 => (pod, 0u64..9).prop_map(|(p, r)| Op::Seen(p, r)),
        2 => (0u64..20_000).prop_map(Op::Time),
    ]
}

proptest! {
    #[test]
    fn the_account_is_always_the_sum_of_the_holds(ops in prop::collection::vec(any_op(), 1..80)) {
        let mut holds = Holds::new(12);
        let mut now = 0;
        for op in ops {
            match op {
                Op::Filter(p, nodes) => {
                    let name = format!("p{p}");
                    let old = holds.lift(&name);
                    let claims = (0..2).map(|c| Held { claim: format!("c{p}{c}").into(), bytes: u64::from(p) + 1 });
                    let pools = nodes.iter().flat_map(|n| [u16::try_from(*n).unwrap() % 3, 1]);
                    let found = Survivors {
                        claims: claims.collect(), pools: pools.collect(), scores: vec![0; nodes.len()], nodes,
                    };
                    holds.replace(&pod(&name), old, found, Version::default(), now);
                }
                Op::Narrow(p, keep) => {
                    let have = holds.scores(&format!("p{p}")).map_or(0, |(nodes, _)| nodes.len());
                    holds.narrow(&format!("p{p}"), &(0..keep.min(have)).collect::<Vec<_>>(), now);
                }
                Op::Pin(p, slot) => holds.pin(&format!("p{p}"), slot, now),
                Op::Allocated(p, c, slot) => holds.allocated(&format!("c{p}{c}"), slot, now),
                Op::Gone(p) => holds.gone(&pod(&format!("p{p}")), now),
                Op::Seen(p, r) => holds.seen(&event(&format!("p{p}"), r, r), |_| None, now),
                Op::Time(t) => { now += t; holds.expire(now); }
            }
            let mut truth: HashMap<(Slot, u16), u64> = HashMap::new();
            let mut nodes = 0;
            for hold in holds.pods.values() {
                let n = hold.found.claims.len();
                prop_assert!(n > 0 && !hold.found.nodes.is_empty());
                prop_assert_eq!(hold.found.pools.len(), n * hold.found.nodes.len());
                nodes += hold.found.nodes.len();
                for (slot, pools) in hold.found.nodes.iter().zip(hold.found.pools.chunks(n)) {
                    for (pool, claim) in pools.iter().zip(&hold.found.claims) {
                        *truth.entry((*slot, *pool)).or_default() += claim.bytes;
                        prop_assert!(holds.claims.contains_key(&claim.claim));
                    }
                }
            }
            for slot in 0..5 {
                for pool in 0..3u16 {
                    let held = holds.on(slot).get(usize::from(pool)).copied().unwrap_or(0);
                    prop_assert_eq!(held, truth.get(&(slot, pool)).copied().unwrap_or(0));
                }
            }
            prop_assert_eq!(holds.nodes, nodes);
            prop_assert_eq!(holds.expiries.len(), holds.pods.len());
            prop_assert!(nodes <= 12);
        }
    }
}
