//! The agent's Kubernetes side, by its own program: a volume's life in API objects, restarts, what is never made again,
//! DiskPools, labels, registration.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_api::WipeReceipt;
use bedplate_api::local_volume::{Phase, ReleaseKind};
use bedplate_tests::cluster_node::{Cluster, Machine, eventually};
use bedplate_tests::loopfs::HostFs;
use bedplate_tests::skip::need_root;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;

const NODE: &str = "node-1";
const UID: &str = "0f3e1a2b-0000-4000-8000-000000000001";

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_by_api_objects_from_order_to_receipt() {
    if !need_root("a_volume_lives_by_api_objects_from_order_to_receipt") {
        return;
    }
    let cluster = Cluster::start().await.unwrap();
    let fs = HostFs::new("ext4", 320 << 20).unwrap();
    let pool = fs.pool("pool").unwrap();
    cluster.node(NODE, &[]).await.unwrap();
    cluster.pool("fast", &pool, |_| ()).await.unwrap();
    let machine = Machine::new(&cluster, NODE).unwrap();
    let _agent = machine.agent().unwrap();
    let before = cluster.storage_node(NODE, "a pool", |node| node.pools.len() == 1).await.unwrap();
    assert!(before.pools[0].free > 0 && before.volumes.is_empty(), "{before:?}");

    let made = cluster.volume(&before, NODE, UID, 64, |_| ()).await.unwrap();
    let name = made.metadata.name.unwrap();
    let ready = cluster.phase(&name, Phase::Ready).await.unwrap().status.unwrap();
    assert_eq!(ready.bytes, Some(64 << 20));
    let handle = ready.volume_handle.unwrap();
    let told = cluster.storage_node(NODE, "the volume", |node| node.volumes.len() == 1).await.unwrap();
    assert_eq!((told.volumes[0].volume_handle.as_str(), told.volumes[0].claim_uid.as_str()), (handle.as_str(), UID));
    assert!(told.pools[0].free <= before.pools[0].free - (64 << 20), "{:?}", told.pools);
    eventually("the pool's label on the Node", async || {
        let labels = cluster.api::<Node>().get(NODE).await?.metadata.labels.unwrap_or_default();
        Ok(if labels.contains_key("bedplate.dev/pool.fast") { Ok(()) } else { Err(format!("{labels:?}")) })
    })
    .await
    .unwrap();

    cluster.release(&name, UID, ReleaseKind::Reclaimed).await.unwrap();
    let freed = cluster.phase(&name, Phase::Freed).await.unwrap().status.unwrap();
    assert_eq!(freed.receipt, Some(1));
    let receipt = eventually("the receipt", async || {
        let found = cluster.api::<WipeReceipt>().list(&ListParams::default()).await?.items;
        Ok(found.first().cloned().ok_or_else(|| "none".to_owned()))
    })
    .await
    .unwrap();
    assert_eq!((receipt.spec.volume.as_str(), receipt.spec.claim_uid.as_str()), (handle.as_str(), UID));
    cluster.storage_node(NODE, "no volume", |node| node.volumes.is_empty()).await.unwrap();
}
