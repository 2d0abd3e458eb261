//! One leads. Who is deposed stops in time; what two believed at once is still one volume a claim.

use std::time::Duration;

use bedplate_api::names;
use bedplate_provisioner::cluster::config::Config;
use bedplate_sim::apiserver::Fault;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::agent::Agent;
use super::binder::Binder;
use super::world::{SYSTEM, World, config, stays, until};

fn leases(world: &World) -> Api<Lease> {
    Api::namespaced(world.client.clone(), SYSTEM)
}

async fn holder(world: &World) -> Option<String> {
    leases(world).get_opt(names::LEASE).await.unwrap()?.spec?.holder_identity.filter(|holder| !holder.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_provisioner_takes_over_at_once_when_the_first_stops_and_in_time_when_it_dies() {
    let world = World::new().await;
    let (_agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let first = world.provisioner_with(config("first"));
    until("the first leads", || async { holder(&world).await.is_some_and(|h| h.starts_with("first_")) }).await;
    let second = world.provisioner_with(config("second"));
    world.claim("a", "ssd", "1Mi", "n1").await;
    world.until_bound("a").await;
    first.stop().await;
    let begun = std::time::Instant::now();
    until("the second leads", || async { holder(&world).await.is_some_and(|h| h.starts_with("second_")) }).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "the Lease was given up: {:?}", begun.elapsed());
    world.claim("b", "ssd", "1Mi", "n1").await;
    world.until_bound("b").await;
    second.kill();
    let _third = world.provisioner_with(config("third"));
    world.claim("c", "ssd", "1Mi", "n1").await;
    world.until_bound("c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_days_off_neither_steals_nor_loses_the_lease() {
    let world = World::new().await;
    let _first = world.provisioner_with(config("first"));
    until("the first leads", || async { holder(&world).await.is_some() }).await;
    let _second = world.provisioner_with(config("second"));
    // Whatever the other's clock writes is not compared with ours.
    for time in ["2001-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"] {
        let patch = Patch::Merge(json!({"spec": {"renewTime": time}}));
        leases(&world).patch(names::LEASE, &PatchParams::default(), &patch).await.unwrap();
        stays("the first leads", || async { holder(&world).await.is_some_and(|h| h.starts_with("first_")) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_writes_nothing_any_more() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _deposed = world.provisioner_with(config("deposed"));
    world.settle("n1").await;
    // It cannot renew, and does not hear of it either.
    world.server.inject(usize::MAX, Fault::Drop, |method, path| method.as_str() != "GET" && path.contains("/leases/"));
    tokio::time::sleep(Duration::from_millis(800)).await;
    let before = world.locals().await.len();
    world.claim("late", "ssd", "1Mi", "n1").await;
    stays("nothing is written", || async { world.locals().await.len() == before }).await;
    world.server.clear_faults();
    world.until_bound("late").await;
    assert_eq!(agent.living().len(), 2);
}

/// Two that both believe: each leads by a Lease of its own.
#[tokio::test(flavor = "multi_thread")]
async fn two_that_both_believe_they_lead_make_one_volume_a_claim_and_promise_nothing_twice() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 100).await, Binder::start(&world));
    let elsewhere = Config { namespace: "default".to_owned(), ..config("other") };
    let (_one, _two) = (world.provisioner(), world.provisioner_with(elsewhere));
    let names: Vec<String> = (0..24).map(|number| format!("c{number}")).collect();
    for pair in names.chunks(2) {
        world.pod(&format!("pod-{}", pair[0]), &[&pair[0], &pair[1]]).await;
    }
    futures::future::join_all(names.iter().map(|name| world.claim(name, "ssd", "10Mi", "n1"))).await;
    until("each is bound or sent back", || async {
        let mut decided = 0;
        for name in &names {
            decided += usize::from(world.is_bound(name).await || world.selected_node(name).await.is_none());
        }
        decided == names.len()
    })
    .await;
    until("what was made is bound", || async {
        let mut bound = 0;
        for name in &names {
            bound += usize::from(world.is_bound(name).await);
        }
        agent.living().len() == bound && agent.used() <= 100 << 20
    })
    .await;
    let volumes = world.volumes().await;
    let mut claims: Vec<String> =
        volumes.iter().map(|v| v.spec.clone().unwrap().claim_ref.unwrap().uid.unwrap()).collect();
    claims.sort();
    claims.dedup();
    assert_eq!(claims.len(), volumes.len(), "one volume a claim");
    for volume in volumes {
        let local = volume.annotations()[names::ANNOTATION_LOCAL_VOLUME].clone();
        assert!(agent.living().contains(&local), "{local} is served");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_survives_a_leader_killed_in_its_middle() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let first = world.provisioner_with(config("first"));
    world.settle("n1").await;
    let _second = world.provisioner_with(config("second"));
    let names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    futures::future::join_all(names.iter().map(|name| world.claim(name, "ssd", "1Mi", "n1"))).await;
    until("it is in the middle", || async { world.locals().await.len() > 5 }).await;
    first.kill();
    for name in &names {
        world.until_bound(name).await;
    }
    assert_eq!(agent.living().len(), 41);
    assert_eq!(world.locals().await.len(), 41);
    assert_eq!(world.volumes().await.len(), 41);
}
