//! Capacities, and how fast and small it is. Times here are generous: the bench measures, these only catch a collapse.

use std::time::{Duration, Instant};

use bedplate_api::names;
use kube::ResourceExt;

use super::agent::Agent;
use super::binder::Binder;
use super::world::{World, stays, until};

#[tokio::test(flavor = "multi_thread")]
async fn each_node_and_class_has_a_capacity_that_changes_with_room_and_goes_with_either() {
    let world = World::new().await;
    let (_agent, _binder) = (Agent::start(&world, "n1", 100).await, Binder::start(&world));
    world.class("disks", &[(names::PARAMETER_MEDIA, "hdd")]).await;
    world.class("broken", &[("bedplate.dev/medai", "x")]).await;
    let _provisioner = world.provisioner();
    let figure = |class: &'static str| {
        let world = &world;
        async move {
            let capacities = world.capacities().await;
            let one = capacities.into_iter().find(|capacity| capacity.storage_class_name == class)?;
            Some((one.capacity?.0, one.maximum_volume_size?.0))
        }
    };
    let bytes = |mib: u64| {
        let size = if mib == 0 { "0".to_owned() } else { format!("{mib}Mi") };
        Some((size.clone(), size))
    };
    until("the flash class has all", || async { figure("ssd").await == bytes(100) }).await;
    until("the platter class has none", || async { figure("disks").await == bytes(0) }).await;
    assert_eq!(world.capacities().await.len(), 2, "a class that cannot be met has no figure");
    let one = &world.capacities().await[0];
    let owner = &one.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("StorageNode", "n1"));
    let topology = one.node_topology.clone().unwrap().match_labels.unwrap();
    assert_eq!(topology[names::TOPOLOGY_NODE], "n1");

    world.claim("data", "ssd", "30Mi", "n1").await;
    world.until_bound("data").await;
    until("the figure follows", || async { figure("ssd").await == bytes(70) }).await;
    let revision = world.server.revision();
    let versions = |list: Vec<k8s_openapi::api::storage::v1::CSIStorageCapacity>| {
        list.iter().map(ResourceExt::resource_version).collect::<Vec<_>>()
    };
    let before = versions(world.capacities().await);
    stays("nothing is written when nothing changes", || async { versions(world.capacities().await) == before }).await;
    assert!(world.server.revision() - revision < 20, "only the Lease is renewed");

    let classes: kube::Api<k8s_openapi::api::storage::v1::StorageClass> = world.all();
    classes.delete("disks", &kube::api::DeleteParams::default()).await.unwrap();
    until("it goes with its class", || async { world.capacities().await.len() == 1 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_claim_is_bound_in_a_moment_and_fifty_in_little_more() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    world.settle("n1").await;
    let mut times = Vec::new();
    for number in 0..5 {
        let begun = Instant::now();
        let name = format!("one{number}");
        let claim = world.claim(&name, "ssd", "1Mi", "n1").await;
        until("its volume is made", || async { world.volume_of(&claim).await.is_some() }).await;
        times.push(begun.elapsed());
    }
    times.sort();
    let begun = Instant::now();
    let names: Vec<String> = (0..50).map(|number| format!("c{number}")).collect();
    futures::future::join_all(names.iter().map(|name| world.claim(name, "ssd", "1Mi", "n1"))).await;
    until("all volumes are made", || async { world.volumes().await.len() == 56 }).await;
    let all = begun.elapsed();
    eprintln!("one: {:?} (median of 5), fifty: {all:?}", times[2]);
    assert!(times[2] < Duration::from_millis(500) && all < Duration::from_secs(8));
    assert_eq!(agent.living().len(), 56);
}
