//! The life of a claim: made, bound, released, wiped, gone; and kept where it is to be kept.

use bedplate_api::local_volume::{Phase, ReleaseKind};
use bedplate_api::names;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use super::agent::{Agent, handle};
use super::binder::Binder;
use super::world::{World, stays, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_bound_to_a_volume_as_the_contract_says() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    world
        .class_with(
            "fast",
            &[(names::PARAMETER_MEDIA, "ssd"), (names::PARAMETER_WIPE, "clear")],
            json!({
                "mountOptions": ["noatime"], "reclaimPolicy": "Retain",
            }),
        )
        .await;
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "fast", "10Mi", "n1").await;
    world.until_bound("data").await;

    let uid = claim.uid().unwrap();
    let volume = world.volume_of(&claim).await.unwrap();
    let local = format!("pvc-{uid}-0");
    assert_eq!(volume.name_any(), format!("pvc-{uid}"));
    assert_eq!(volume.annotations()[names::ANNOTATION_PROVISIONED_BY], names::DRIVER);
    assert_eq!(volume.annotations()[names::ANNOTATION_LOCAL_VOLUME], local);
    assert!(volume.finalizers().contains(&names::FINALIZER.to_owned()));
    let spec = serde_json::to_value(volume.spec.unwrap()).unwrap();
    assert_eq!(spec["claimRef"]["uid"], uid.as_str());
    assert_eq!(spec["claimRef"]["name"], "data");
    assert_eq!(spec["storageClassName"], "fast");
    assert_eq!(spec["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(spec["mountOptions"], json!(["noatime"]));
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(spec["volumeMode"], "Filesystem");
    assert_eq!(spec["capacity"]["storage"], "10Mi");
    assert_eq!(spec["csi"]["driver"], names::DRIVER);
    assert_eq!(spec["csi"]["volumeHandle"], handle(&local));
    assert_eq!(spec["csi"]["fsType"], "ext4");
    assert_eq!(spec["csi"]["volumeAttributes"][names::CONTEXT_LOCAL_VOLUME], local.as_str());
    let term = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!(*term, json!({"key": names::TOPOLOGY_NODE, "operator": "In", "values": ["n1"]}));

    let made = &world.locals().await[0];
    assert_eq!(made.name_any(), local);
    assert_eq!(made.spec.ledger_id, agent.state.lock().unwrap().ledger_id);
    assert_eq!((made.spec.pool.as_str(), made.spec.bytes), ("fast", 10 << 20));
    assert!(made.finalizers().contains(&names::FINALIZER.to_owned()));
    assert_eq!(made.labels()[names::LABEL_NODE], "n1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_volume_goes_only_after_its_wipe_is_on_record() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "ssd", "10Mi", "n1").await;
    world.until_bound("data").await;
    agent.set(|state| state.holds_wipes = true);
    world.delete_claim("data").await;

    let local = format!("pvc-{}-0", claim.uid().unwrap());
    until("the release is on record", || async { agent.phase(&local) == Some(Phase::Released) }).await;
    let release = world.locals().await[0].spec.release.clone().unwrap();
    assert_eq!((release.kind, release.claim_uid), (ReleaseKind::Reclaimed, claim.uid().unwrap()));
    stays("both objects are held", || async {
        let volume = world.volume_of(&claim).await;
        volume.is_some_and(|v| v.finalizers().contains(&names::FINALIZER.to_owned())) && world.locals().await.len() == 1
    })
    .await;
    agent.set(|state| state.holds_wipes = false);
    until("both objects are gone", || async {
        world.volume_of(&claim).await.is_none() && world.locals().await.is_empty()
    })
    .await;
    assert_eq!(agent.used(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_deleted_before_its_claim_serves_until_the_claim_goes() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "ssd", "10Mi", "n1").await;
    world.until_bound("data").await;
    let volumes: kube::Api<k8s_openapi::api::core::v1::PersistentVolume> = world.all();
    let name = format!("pvc-{}", claim.uid().unwrap());
    volumes.delete(&name, &DeleteParams::default()).await.unwrap();
    stays("nothing is released", || async {
        agent.living().len() == 1 && world.locals().await[0].spec.release.is_none()
    })
    .await;
    world.delete_claim("data").await;
    until("it is wiped", || async { agent.used() == 0 && world.locals().await.is_empty() }).await;
    // The control plane's own protection is not played here.
    until("the volume is held by nobody of ours", || async {
        world.volume_of(&claim).await.is_none_or(|v| !v.finalizers().contains(&names::FINALIZER.to_owned()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retain_keeps_the_bytes_and_lets_the_volume_object_go() {
    let world = World::new().await;
    let (agent, _binder) = (Agent::start(&world, "n1", 1024).await, Binder::start(&world));
    world.class_with("kept", &[], json!({"reclaimPolicy": "Retain"})).await;
    let _provisioner = world.provisioner();
    let claim = world.claim("data", "kept", "10Mi", "n1").await;
    world.until_bound("data").await;
    world.delete_claim("data").await;
    let local = format!("pvc-{}-0", claim.uid().unwrap());
    stays("nothing is released while the volume stands", || async {
        world.locals().await[0].spec.release.is_none() && world.volume_of(&claim).await.is_some()
    })
    .await;
    let volumes: kube::Api<k8s_openapi::api::core::v1::PersistentVolume> = world.all();
    volumes.delete(&format!("pvc-{}", claim.uid().unwrap()), &DeleteParams::default()).await.unwrap();
    until("the agent keeps it", || async { agent.phase(&local) == Some(Phase::Retained) }).await;
    until("our finalizer is off", || async {
        world.volume_of(&claim).await.is_none_or(|v| !v.finalizers().contains(&names::FINALIZER.to_owned()))
    })
    .await;
    assert_eq!(world.locals().await.len(), 1, "its object stays, its space is withheld");
    assert_eq!(agent.used(), 10 << 20);
}
