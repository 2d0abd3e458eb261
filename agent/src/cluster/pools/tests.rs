use bedplate_api::disk_pool::DiskPoolSpec;

use super::*;
use crate::cluster::testing::context;
use crate::metrics::tests::machine;

/// What this node answers to a DiskPool on `/pool` that the engine has already.
fn answer(change: impl FnOnce(&mut DiskPoolSpec)) -> (PoolState, String) {
    let mut spec = DiskPoolSpec { directory: Some("/pool".to_owned()), ..DiskPoolSpec::default() };
    change(&mut spec);
    let context = context(&machine()).0;
    let answers = settle(&context, &[DiskPool::new("fast", spec)], Some(&BTreeMap::new()));
    let answer = answers["fast"].clone().expect("it is for this node");
    (answer.state, answer.message)
}

#[tokio::test]
async fn a_reserve_that_leaves_no_room_is_answered_in_words_and_one_that_does_is_not() {
    let small = answer(|spec| spec.reserve = Some("1Mi".to_owned()));
    assert_eq!(small, (PoolState::Ready, String::new()));
    // The machine's medium has 8 MiB.
    for spec in [Some("1Gi"), Some("8Mi"), None] {
        let (state, message) = answer(|pool| pool.reserve = spec.map(str::to_owned));
        let reserve = match spec {
            Some("8Mi") => "8 MiB",
            Some(_) => "1 GiB",
            None => "10 GiB",
        };
        assert_eq!(state, PoolState::Ready, "what lives there is served");
        for part in ["/pool", &format!("spec.reserve keeps {reserve}"), "set spec.reserve to less", "larger filesystem"]
        {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
}

#[test]
fn a_capacity_below_what_is_in_use_is_answered_in_words_and_a_pool_that_is_merely_full_is_not() {
    let config = |capacity| PoolConfig {
        capacity: Some(Bytes(capacity)),
        ..PoolConfig::new("fast".parse().unwrap(), PathBuf::from("/pool"))
    };
    let message = roomless(&config(1 << 20), 3 << 20, 0);
    for part in ["/pool", "spec.capacity 1 MiB", "3 MiB in use", "set spec.capacity to more", "release volumes"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert_eq!(roomless(&config(3 << 20), 3 << 20, 0), "");
}
