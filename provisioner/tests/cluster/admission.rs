//! Admission as the commit point: a pod's claims together, against one ledger, or none of them.

use bedplate_api::local_volume::ReleaseKind;
use bedplate_api::{StorageNode, names};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::agent::Agent;
use super::binder::Binder;
use super::world::{World, object, stays, until};

#[tokio::test(flavor = "multi_thread")]
async fn two_claims_of_a_pod_are_made_together_and_no_volume_exists_before_both_are_ready() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    world.pod("db", &["data", "log"]).await;
    world.claim("data", "ssd", "10Mi", "n1").await;
    world.claim_with("log", "ssd", "10Mi", json!({})).await;
    stays("one alone is not begun", || async { world.locals().await.is_empty() }).await;
    agent.set(|state| state.silent = true);
    world.select("log", "n1").await;
    until("both are ordered", || async { world.locals().await.len() == 2 }).await;
    stays("nothing is bound", || async { world.volumes().await.is_empty() }).await;
    agent.set(|state| state.silent = false);
    world.until_bound("data").await;
    world.until_bound("log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_claims_that_do_not_fit_together_all_go_back_with_the_reason_and_nothing_is_made() {
    let world = World::new().await;
    let (_agent, _binder) = (Agent::start(&world, "n1", 100).await, Binder::start(&world));
    world.pod("db", &["data", "log"]).await;
    world.claim("data", "ssd", "60Mi", "n1").await;
    world.claim("log", "ssd", "60Mi", "n1").await;
    let _provisioner = world.provisioner();
    world.until_sent_back("data").await;
    world.until_sent_back("log").await;
    world.told("data", &["DoesNotFit", "n1", "do not fit together"]).await;
    until("the pod is told too", || async {
        world.events("Pod", "db").await.iter().any(|text| text.contains("do not fit together"))
    })
    .await;
    assert!(world.locals().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_refuses_goes_back_only_when_the_other_attempt_is_confirmed_gone() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let other = Agent::start(&world, "n2", 1024).await;
    let _provisioner = world.provisioner();
    world.pod("db", &["data", "log"]).await;
    // The node has less than it said: the first to come is made, the second refused.
    agent.set(|state| {
        state.capacity = 15 << 20;
        state.boast = 1024 << 20;
    });
    world.claim("data", "ssd", "10Mi", "n1").await;
    world.claim("log", "ssd", "10Mi", "n1").await;
    world.until_sent_back("data").await;
    world.until_sent_back("log").await;
    assert!(agent.living().is_empty(), "sent back while an attempt was alive");
    assert!(world.volumes().await.is_empty());
    world.told("log", &["DoesNotFit", "no room after all"]).await;
    world.select("data", "n2").await;
    world.select("log", "n2").await;
    world.until_bound("data").await;
    world.until_bound("log").await;
    until("the old attempts are gone", || async { world.locals().await.len() == 2 }).await;
    assert_eq!((agent.living().len(), other.living().len()), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_never_promised_twice_however_many_claims_come_at_once() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 100).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    let names: Vec<String> = (0..30).map(|number| format!("c{number}")).collect();
    futures::future::join_all(names.iter().map(|name| world.claim(name, "ssd", "10Mi", "n1"))).await;
    until("each is bound or sent back", || async {
        let mut decided = 0;
        for name in &names {
            decided += usize::from(world.is_bound(name).await || world.selected_node(name).await.is_none());
        }
        decided == names.len()
    })
    .await;
    assert_eq!(agent.living().len(), 10, "the pool holds exactly ten");
    assert_eq!(agent.used(), 100 << 20);
    let refused = world.locals().await.into_iter().filter(|l| l.spec.release.is_some()).count();
    assert_eq!(refused, 0, "admission itself kept count: nothing was ordered in vain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_larger_than_any_pool_goes_back_with_the_numbers() {
    let world = World::new().await;
    let _agent = Agent::start(&world, "n1", 100).await;
    let _provisioner = world.provisioner();
    world.claim("data", "ssd", "1Ti", "n1").await;
    world.until_sent_back("data").await;
    world.told("data", &["DoesNotFit", "larger than any matching pool", "100 MiB"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selected_node_without_an_agent_is_cleared_after_a_while() {
    let world = World::new().await;
    world.node("bare").await;
    let _provisioner = world.provisioner();
    world.claim("data", "ssd", "1Mi", "bare").await;
    let begun = std::time::Instant::now();
    world.until_sent_back("data").await;
    assert!(begun.elapsed().as_millis() > 500, "it waits for an agent first");
    world.told("data", &["NoAgent", "bare"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selected_node_whose_kubelet_lost_the_driver_is_cleared_after_a_while() {
    let world = World::new().await;
    let _agent = Agent::start(&world, "n1", 100).await;
    let nodes: kube::Api<CSINode> = world.all();
    let patch = Patch::Merge(json!({"spec": {"drivers": []}}));
    nodes.patch("n1", &PatchParams::default(), &patch).await.unwrap();
    let _provisioner = world.provisioner();
    world.claim("data", "ssd", "1Mi", "n1").await;
    world.until_sent_back("data").await;
    world.told("data", &["NoAgent", "CSINode"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_node_voids_its_attempt_and_the_release_waits_for_its_return() {
    let world = World::new().await;
    let _binder = Binder::start(&world);
    let agent = Agent::start(&world, "n1", 1024).await;
    let _other = Agent::start(&world, "n2", 1024).await;
    agent.set(|state| state.silent = true);
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "ssd", "10Mi", "n1").await;
    until("it is ordered", || async { world.locals().await.len() == 1 }).await;
    let nodes: kube::Api<Node> = world.all();
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    world.until_sent_back("data").await;
    let first = format!("pvc-{}-0", claim.uid().unwrap());
    let release = world.locals().await[0].spec.release.clone().unwrap();
    assert_eq!(release.kind, ReleaseKind::NeverBound, "the release is there before the claim goes on");
    world.select("data", "n2").await;
    world.until_bound("data").await;
    assert!(world.locals().await.iter().any(|l| l.name_any() == first), "its object stays for the node's return");
    let node: Node = object(json!({"metadata": {"name": "n1"}}));
    nodes.create(&kube::api::PostParams::default(), &node).await.unwrap();
    agent.set(|state| state.silent = false);
    until("the returned node has discarded it", || async {
        world.locals().await.iter().all(|local| local.name_any() != first)
    })
    .await;
    assert!(agent.living().is_empty());
    let bound = world.volume_of(&claim).await.unwrap();
    assert_eq!(bound.annotations()[names::ANNOTATION_LOCAL_VOLUME], format!("pvc-{}-1", claim.uid().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_on_a_node_that_is_there_is_never_given_up_for_silence() {
    let world = World::new().await;
    let agent = Agent::start(&world, "n1", 1024).await;
    agent.set(|state| state.silent = true);
    let _provisioner = world.provisioner();
    world.claim("data", "ssd", "10Mi", "n1").await;
    world.told("data", &["WaitsForAgent", "n1"]).await;
    assert_eq!(world.selected_node("data").await.as_deref(), Some("n1"));
    assert!(world.locals().await[0].spec.release.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_storage_node_costs_a_bounce_and_never_a_volume() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 10).await, Binder::start(&world));
    let storages: kube::Api<StorageNode> = world.all();
    let published = storages.get("n1").await.unwrap().status.unwrap();
    let _provisioner = world.provisioner();
    world.claim("first", "ssd", "10Mi", "n1").await;
    world.until_bound("first").await;
    // An old picture: all free, and no volume known.
    super::world::patch_status(&storages, "n1", json!({"pools": published.pools, "volumes": []})).await;
    world.claim("second", "ssd", "10Mi", "n1").await;
    world.until_sent_back("second").await;
    assert_eq!(agent.living().len(), 1);
    assert!(world.is_bound("first").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_deleted_while_it_is_made_leaves_nothing_behind() {
    let world = World::new().await;
    let agent = Agent::start(&world, "n1", 1024).await;
    agent.set(|state| state.silent = true);
    let _provisioner = world.provisioner();
    world.claim("data", "ssd", "10Mi", "n1").await;
    until("it is ordered", || async { world.locals().await.len() == 1 }).await;
    world.delete_claim("data").await;
    until("it is voided", || async { world.locals().await[0].spec.release.is_some() }).await;
    stays("its object waits for the node's word", || async { world.locals().await.len() == 1 }).await;
    agent.set(|state| state.silent = false);
    until("it is gone", || async { world.locals().await.is_empty() }).await;
    assert!(world.volumes().await.is_empty());
    assert_eq!(agent.used(), 0);
}
