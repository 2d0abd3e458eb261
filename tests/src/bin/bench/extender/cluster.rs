//! A cluster in an embedded API server: nodes with four pools each, volumes, and claims of pods to come.
//!
//! A pool is nearly full or has far more room than all pods together ask for, so that holds never change an answer and
//! brute force over the pools alone is the truth.

use anyhow::{Context, Result};
use bedplate_api::local_volume::{ClaimReference, LocalVolumeSpec, Phase, VolumeMode};
use bedplate_api::storage_node::{PoolStatus, StorageNodeStatus, VolumeRecord};
use bedplate_api::{LocalVolume, StorageNode, StorageNodeSpec, crds};
use bedplate_sim::apiserver::{ApiServer, Options};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const GIB: u64 = 1 << 30;
/// Requests under way at once while the cluster is made.
const AT_ONCE: usize = 32;

/// How large.
pub struct Size {
    pub nodes: usize,
    pub volumes_a_node: usize,
    pub pods: usize,
}

/// A pool, as its node tells of it.
pub struct Pool {
    pub media: &'static str,
    pub free: u64,
}

/// A cluster.
pub struct Cluster {
    pub server: ApiServer,
    pub names: Vec<String>,
    pub pools: Vec<[Pool; 4]>,
}

/// What a pod's two claims ask for: class and GiB. Classes are named after media; `any` takes every medium.
pub fn claims(pod: usize) -> [(&'static str, u64); 2] {
    [[("ssd", 10), ("hdd", 4)], [("nvme", 3), ("ssd", 5)], [("ssd", 8), ("ssd", 8)], [("any", 6), ("nvme", 2)]][pod % 4]
}

/// The four pools of a node: some lack a medium, some are full.
fn pools(node: usize) -> [Pool; 4] {
    let media = [
        ["nvme", "ssd", "hdd", "ssd"],
        ["nvme", "nvme", "hdd", "hdd"],
        ["ssd", "ssd", "hdd", "hdd"],
        ["nvme", "ssd", "hdd", "unknown"],
    ][node % 4];
    let mut at = 0;
    media.map(|media| {
        at += 1;
        let full = (node * 7 + at * 13) % 5 < 3;
        Pool { media, free: if full { GIB / 2 } else { (2_048 + (node * 31 + at * 17) as u64 % 1_024) * GIB } }
    })
}

impl Cluster {
    /// Make one, with everything told that the extender watches.
    pub async fn make(size: &Size) -> Result<Self> {
        let server = ApiServer::start(Options::default()).context("the embedded API server")?;
        let client = server.client()?;
        let names: Vec<String> =
            (0..size.nodes).map(|i| format!("ip-10-{}-{}.eu-central-1.compute.internal", i / 250, i % 250)).collect();
        for definition in crds::all() {
            create(&Api::all(client.clone()), definition).await?;
        }
        for class in ["ssd", "hdd", "nvme", "any"] {
            let media = if class == "any" { json!({}) } else { json!({ "bedplate.dev/media": class }) };
            let class: StorageClass = serde_json::from_value(json!({ "metadata": { "name": class },
                "provisioner": "bedplate.dev", "volumeBindingMode": "WaitForFirstConsumer", "parameters": media }))?;
            create(&Api::all(client.clone()), class).await?;
        }
        let wanted = (0..size.pods).flat_map(|pod| {
            claims(pod)
                .into_iter()
                .enumerate()
                .map(move |(i, (class, gib))| claim(&format!("pod-{pod}-{i}"), class, gib, None))
        });
        each(wanted, |claim| create_claim(&client, claim)).await?;
        let volumes = (0..size.nodes).flat_map(|node| (0..size.volumes_a_node).map(move |i| (node, i)));
        each(volumes, |(node, i)| volume(&client, &names[node], node, i)).await?;
        each(0..size.nodes, |node| storage_node(&client, &names[node], node, size.volumes_a_node)).await?;
        let pools = (0..size.nodes).map(pools).collect();
        Ok(Self { server, names, pools })
    }

    /// A filter or prioritize request for these nodes, as the scheduler writes it; without a number, of a pod that has no
    /// claims.
    pub fn request(&self, pod: Option<usize>, nodes: &[usize]) -> Vec<u8> {
        let names: Vec<&str> = nodes.iter().map(|node| self.names[*node].as_str()).collect();
        // In the order in which Go writes a struct's fields; a map would be sorted.
        format!(r#"{{"Pod":{},"Nodes":null,"NodeNames":{}}}"#, object(pod), json!(names)).into_bytes()
    }
}

/// A pod of an ordinary size: two containers, probes, an access token.
fn object(pod: Option<usize>) -> Value {
    let name = pod.map_or_else(|| "web-0".to_owned(), |pod| format!("pod-{pod}"));
    let container = |name: &str| {
        json!({ "name": name, "image": "registry.example/team/app:1.2.3", "command": ["/app", "--serve"],
            "env": [{ "name": "NODE", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "spec.nodeName" } } }],
            "resources": { "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "memory": "2Gi" } },
            "livenessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 10 },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }], "imagePullPolicy": "IfNotPresent" })
    };
    let mut volumes = vec![json!({ "name": "token", "projected": { "sources": null, "defaultMode": 420 } })];
    if let Some(pod) = pod {
        volumes.extend((0..2).map(
            |i| json!({ "name": format!("v{i}"), "persistentVolumeClaim": { "claimName": format!("pod-{pod}-{i}") } }),
        ));
    }
    json!({ "metadata": { "name": name, "namespace": "default", "uid": format!("{name}-uid"), "resourceVersion": "10",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "app": "db" } },
        "spec": { "volumes": volumes, "containers": [container("app"), container("sidecar")],
            "restartPolicy": "Always", "schedulerName": "default-scheduler", "tolerations": null },
        "status": { "phase": "Pending", "qosClass": "Burstable" } })
}

async fn each<T, F: Future<Output = Result<()>>>(
    all: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> F,
) -> Result<()> {
    stream::iter(all).map(work).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(|_| ())
}

async fn create<K>(api: &Api<K>, object: K) -> Result<()>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    api.create(&PostParams::default(), &object).await.map(|_| ()).context("create")
}

fn claim(name: &str, class: &str, gib: u64, volume: Option<&str>) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default" },
        "spec": { "storageClassName": class, "accessModes": ["ReadWriteOnce"], "volumeName": volume,
            "resources": { "requests": { "storage": format!("{gib}Gi") } } } })
}

async fn create_claim(client: &Client, claim: Value) -> Result<()> {
    create(&Api::<PersistentVolumeClaim>::default_namespaced(client.clone()), serde_json::from_value(claim)?).await
}

/// A volume that stands: LocalVolume, PersistentVolume, bound claim.
async fn volume(client: &Client, node_name: &str, node: usize, i: usize) -> Result<()> {
    let name = local_name(node, i);
    let spec = LocalVolumeSpec {
        node_name: node_name.to_owned(),
        ledger_id: LEDGER.to_owned(),
        pool: "pool-0".to_owned(),
        bytes: 10 << 30,
        mode: VolumeMode::Filesystem,
        class_name: "ssd".to_owned(),
        claim_uid: uid(node, i),
        claim: ClaimReference {
            namespace: "default".to_owned(),
            name: format!("data-{node}-{i}"),
            ..Default::default()
        },
        ..LocalVolumeSpec::default()
    };
    create(&Api::all(client.clone()), LocalVolume::new(&name, spec)).await?;
    let persistent = format!("pvc-{}", uid(node, i));
    let affinity = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
        { "key": "topology.bedplate.dev/node", "operator": "In", "values": [node_name] }] }] } });
    let object: PersistentVolume = serde_json::from_value(json!({ "metadata": { "name": persistent }, "spec": {
        "capacity": { "storage": "10Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "ssd",
        "csi": { "driver": "bedplate.dev", "volumeHandle": name }, "nodeAffinity": affinity } }))?;
    create(&Api::all(client.clone()), object).await?;
    create_claim(client, claim(&format!("data-{node}-{i}"), "ssd", 10, Some(&persistent))).await
}

const LEDGER: &str = "00000000-0000-4000-8000-000000000000";

fn uid(node: usize, i: usize) -> String {
    format!("00000000-0000-4000-8000-{:012}", node * 100 + i)
}

fn local_name(node: usize, i: usize) -> String {
    LocalVolume::name_for(&uid(node, i), 0)
}

async fn storage_node(client: &Client, name: &str, node: usize, volumes: usize) -> Result<()> {
    let api = Api::<StorageNode>::all(client.clone());
    create(&api, StorageNode::new(name, StorageNodeSpec {})).await?;
    let pools = pools(node).into_iter().enumerate().map(|(i, pool)| PoolStatus {
        name: format!("pool-{i}"),
        backend: "image".to_owned(),
        media: pool.media.to_owned(),
        capacity: 4 << 40,
        free: i64::try_from(pool.free).unwrap_or(i64::MAX),
        largest_volume: i64::try_from(pool.free).unwrap_or(i64::MAX),
        ..PoolStatus::default()
    });
    let volumes = (0..volumes).map(|i| VolumeRecord {
        name: local_name(node, i),
        volume_handle: format!("vol-{node}-{i}"),
        pool: "pool-0".to_owned(),
        bytes: 10 << 30,
        mode: VolumeMode::Filesystem,
        fs_type: None,
        class_name: "ssd".to_owned(),
        parameters: std::collections::BTreeMap::new(),
        demand: None,
        wipe: None,
        claim_uid: uid(node, i),
        claim: ClaimReference::default(),
        attempt: 0,
        phase: Phase::Ready,
    });
    let status = StorageNodeStatus {
        ledger_id: LEDGER.to_owned(),
        filesystems: vec![bedplate_api::local_volume::FsType::Ext4],
        pools: pools.collect(),
        volumes: volumes.collect(),
        ..StorageNodeStatus::default()
    };
    let patch = Patch::Merge(json!({ "status": status }));
    api.patch_status(name, &PatchParams::default(), &patch).await.context("status").map(|_| ())
}
