//! API errors, lost answers, conflicts, relists, restarts: no volume is lost and none is made twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bedplate_sim::apiserver::{Fault, Interruption};

use super::agent::Agent;
use super::binder::Binder;
use super::world::{World, until};

/// Claims made, bound and given up while a fault meets every third write.
async fn goes_through(fault: Fault) {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    world.settle("n1").await;
    let turn = AtomicUsize::new(0);
    world.server.inject(usize::MAX, fault, move |method, path| {
        // Only what the provisioner writes: agents and control plane have their own tests.
        let its_own = method.as_str() == "POST"
            && (path.contains("/localvolumes") || path.contains("/persistentvolumes"))
            || matches!(method.as_str(), "PATCH" | "DELETE")
                && path.contains("/localvolumes/")
                && !path.contains("/status");
        its_own && turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(3)
    });
    let names: Vec<String> = (0..12).map(|number| format!("c{number}")).collect();
    for name in &names {
        world.claim(name, "ssd", "1Mi", "n1").await;
    }
    for name in &names {
        world.until_bound(name).await;
    }
    assert_eq!(agent.living().len(), 13);
    assert_eq!((world.locals().await.len(), world.volumes().await.len()), (13, 13));
    for name in &names {
        world.delete_claim(name).await;
    }
    until("all are wiped", || async { world.locals().await.len() == 1 && world.volumes().await.len() == 1 }).await;
    assert_eq!(agent.living().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_fail_are_done_again() {
    goes_through(Fault::Refuse(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_throttled_are_done_again() {
    goes_through(Fault::Refuse(429)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_before_anything_is_done_cost_nothing() {
    goes_through(Fault::Drop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_make_nothing_twice() {
    goes_through(Fault::LoseAnswer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_writes_cost_only_time() {
    goes_through(Fault::Delay(Duration::from_millis(200))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_and_history_that_is_gone_cost_nothing() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    world.settle("n1").await;
    for number in 0..6 {
        let name = format!("c{number}");
        world.claim(&name, "ssd", "1Mi", "n1").await;
        world.server.compact();
        world.server.interrupt_watches(Interruption::Close);
        world.until_bound(&name).await;
    }
    assert_eq!(agent.living().len(), 7);
    assert_eq!((world.locals().await.len(), world.volumes().await.len()), (7, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provisioner_that_was_away_for_everything_catches_up() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let provisioner = world.provisioner();
    for name in ["stays", "goes"] {
        world.claim(name, "ssd", "1Mi", "n1").await;
        world.until_bound(name).await;
    }
    provisioner.kill();
    world.delete_claim("goes").await;
    world.claim("comes", "ssd", "1Mi", "n1").await;
    let made_and_gone = world.claim("flies", "ssd", "1Mi", "n1").await;
    world.delete_claim("flies").await;
    assert!(made_and_gone.metadata.uid.is_some());
    let _provisioner = world.provisioner();
    world.until_bound("comes").await;
    until("the gone one is wiped", || async { world.locals().await.len() == 2 && world.volumes().await.len() == 2 })
        .await;
    assert_eq!(agent.living().len(), 2);
}
