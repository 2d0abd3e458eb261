//! Nothing but a recorded release is authority to wipe (G8): objects deleted by anybody, CRDs and all, cost no byte.

use bedplate_api::local_volume::Phase;
use bedplate_api::{LocalVolume, StorageNode, names};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::agent::Agent;
use super::binder::Binder;
use super::world::{SYSTEM, World, stays, until};

async fn strip(locals: &Api<LocalVolume>, name: &str) {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    drop(locals.patch(name, &PatchParams::default(), &patch).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_volume_deleted_without_a_release_keeps_serving_and_says_so() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "ssd", "10Mi", "n1").await;
    world.until_bound("data").await;
    let name = format!("pvc-{}-0", claim.uid().unwrap());
    let locals: Api<LocalVolume> = world.all();
    locals.delete(&name, &DeleteParams::default()).await.unwrap();
    until("it says so", || async {
        let events = world.events("LocalVolume", &name).await;
        events.iter().any(|text| text.contains("DeletedWithoutRelease") && text.contains("keeps serving"))
    })
    .await;
    stays("it serves and is held", || async {
        let local = locals.get_opt(&name).await.unwrap();
        agent.living().len() == 1 && local.is_some_and(|local| local.spec.release.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_volume_whose_finalizer_was_stripped_is_rebuilt_from_the_nodes_record() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "ssd", "10Mi", "n1").await;
    world.until_bound("data").await;
    let name = format!("pvc-{}-0", claim.uid().unwrap());
    let locals: Api<LocalVolume> = world.all();
    let before = locals.get(&name).await.unwrap();
    strip(&locals, &name).await;
    locals.delete(&name, &DeleteParams::default()).await.unwrap();
    until("it is rebuilt", || async {
        let local = locals.get_opt(&name).await.unwrap();
        local.is_some_and(|local| local.uid() != before.uid() && local.phase() == Some(Phase::Ready))
    })
    .await;
    assert_eq!(locals.get(&name).await.unwrap().spec, before.spec);
    assert_eq!(agent.living(), std::slice::from_ref(&name));
    // And it ends in due form.
    world.delete_claim("data").await;
    until("it is wiped", || async { agent.used() == 0 && world.locals().await.is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_deleted_and_made_again_under_bound_volumes_cost_nothing() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    for name in ["a", "b", "c"] {
        world.claim(name, "ssd", "10Mi", "n1").await;
        world.until_bound(name).await;
    }
    let living = agent.living();
    let crds: Api<CustomResourceDefinition> = world.all();
    for crd in bedplate_api::crds::all() {
        crds.delete(&crd.name_any(), &DeleteParams::default()).await.unwrap();
    }
    let locals: Api<LocalVolume> = world.all();
    until("the CRDs are gone", || async {
        for name in &living {
            strip(&locals, name).await;
        }
        crds.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty()
    })
    .await;
    // A claim that goes while nobody can say anything about its volume.
    world.delete_claim("c").await;
    stays("nothing is given up", || async {
        let volumes = world.volumes().await;
        volumes.len() == 3
            && volumes.iter().all(|v| v.finalizers().contains(&names::FINALIZER.to_owned()))
            && agent.living() == living
    })
    .await;
    world.make_crds().await;
    agent.set(|_| {});
    until("all are rebuilt, and the one that was given up is wiped", || async {
        agent.set(|_| {});
        let locals = world.locals().await;
        locals.len() == 2
            && locals.iter().all(|local| local.phase() == Some(Phase::Ready))
            && world.volumes().await.len() == 2
    })
    .await;
    assert_eq!(agent.living().len(), 2);
    assert!(world.is_bound("a").await && world.is_bound("b").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_storage_node_ends_nothing() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    world.claim("data", "ssd", "10Mi", "n1").await;
    world.until_bound("data").await;
    let storages: Api<StorageNode> = world.all();
    storages.delete("n1", &DeleteParams::default()).await.unwrap();
    until("its capacity is withdrawn", || async { world.capacities().await.is_empty() }).await;
    stays("the volume serves", || async {
        agent.living().len() == 1 && world.locals().await.len() == 1 && world.is_bound("data").await
    })
    .await;
    agent.set(|_| {});
    world.claim("next", "ssd", "10Mi", "n1").await;
    world.until_bound("next").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_stripped_and_volume_deleted_by_hand_leave_the_bytes_withheld() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "ssd", "10Mi", "n1").await;
    world.until_bound("data").await;
    let name = format!("pvc-{}", claim.uid().unwrap());
    until("the volume was seen bound", || async {
        world.locals().await[0].annotations().get(names::ANNOTATION_BOUND).is_some_and(|mark| mark == "bound")
    })
    .await;
    let volumes: Api<PersistentVolume> = world.all();
    volumes.delete(&name, &DeleteParams::default()).await.unwrap();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    volumes.patch(&name, &PatchParams::default(), &patch).await.unwrap();
    until("the volume object is gone", || async { volumes.get_opt(&name).await.unwrap().is_none() }).await;
    world.delete_claim("data").await;
    let local = format!("{name}-0");
    until("a person is told", || async {
        world.events("LocalVolume", &local).await.iter().any(|text| text.contains("NeverReleased"))
    })
    .await;
    stays("nothing is released", || async {
        agent.living().len() == 1 && world.locals().await[0].spec.release.is_none() && world.volumes().await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_volume_is_said_to_be_lost_and_never_made_again() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "ssd", "10Mi", "n1").await;
    world.until_bound("data").await;
    // New disks under the same name.
    agent.set(|state| {
        state.ledger.clear();
        state.ledger_id = uuid::Uuid::new_v4().to_string();
    });
    world.told("data", &["VolumeLost", "n1", "never made again"]).await;
    until("its volume says so too", || async {
        let name = format!("pvc-{}", claim.uid().unwrap());
        world.events("PersistentVolume", &name).await.iter().any(|text| text.contains("VolumeLost"))
    })
    .await;
    stays("nothing is made", || async { agent.living().is_empty() && world.locals().await.len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_restored_to_yesterday_loses_nothing() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    world.claim("old", "ssd", "10Mi", "n1").await;
    world.until_bound("old").await;
    world.claim("ended", "ssd", "10Mi", "n1").await;
    world.until_bound("ended").await;
    let yesterday = world.server.snapshot();
    let ended = world.get_claim("ended").await.unwrap().uid().unwrap();
    world.claim("new", "ssd", "10Mi", "n1").await;
    world.until_bound("new").await;
    world.delete_claim("ended").await;
    until("it is wiped", || async { agent.phase(&format!("pvc-{ended}-0")) == Some(Phase::Freed) }).await;
    let living = agent.living();
    assert_eq!(living.len(), 2);
    let revision = world.server.revision();
    until("the Lease is renewed, as it is every other moment", || async {
        let leases: Api<Lease> = Api::namespaced(world.client.clone(), SYSTEM);
        let version = leases.get(names::LEASE).await.unwrap().resource_version().unwrap();
        version.parse::<u64>().unwrap() > revision
    })
    .await;
    world.server.restore(yesterday);
    // The agent starts again, as it would; the provisioner has to notice by itself.
    let agent = Agent::resume(&world, "n1", agent.state.clone()).await;
    let _binder = Binder::start(&world);
    until("what the node has is in the API again", || async {
        agent.set(|_| {});
        let locals = world.locals().await;
        living.iter().all(|name| locals.iter().any(|local| local.name_any() == *name))
    })
    .await;
    world.told("ended", &["VolumeLost"]).await;
    stays("nothing is given up, nothing is made again", || async { agent.living() == living }).await;
    assert!(world.is_bound("old").await);
}
