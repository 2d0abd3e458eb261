//! The objects that the demo asks a cluster for: what `deploy/` ships, a pool a node, and a shop's workloads.

use std::path::Path;

use anyhow::Context;
use bedplate_api::DiskPool;
use bedplate_core::bytes::Bytes;
use bedplate_core::media::Media;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::nodes::Node;

/// The namespace of the shop.
pub const NAMESPACE: &str = "shop";
/// The Raft group, a StatefulSet.
pub const GROUP: &str = "orders";
/// Its members.
pub const MEMBERS: u32 = 3;
/// The bulk pod, and its claim.
pub const BULK: &str = "archive";
/// The pod that fits nowhere.
pub const MISFIT: &str = "warehouse";
/// Its claims.
pub const MISFITS: [&str; 2] = ["facts", "index"];
/// Where a container sees its volume. The kubelet stand-in writes the real path wherever it finds this one in a command.
const MOUNT: &str = "/bedplate-demo-volume";

/// What `deploy/` says of a kind.
fn shipped<T: DeserializeOwned>(text: &str) -> anyhow::Result<Vec<T>> {
    serde_saphyr::from_multiple(text).context("a manifest of deploy/ cannot be read")
}

/// The StorageClasses.
pub fn classes() -> anyhow::Result<Vec<StorageClass>> {
    shipped(include_str!("../../../deploy/kustomize/base/storageclasses.yaml"))
}

/// What the scheduler and the kubelets have to know of the driver.
pub fn driver() -> anyhow::Result<Vec<CSIDriver>> {
    shipped(include_str!("../../../deploy/kustomize/base/csidriver.yaml"))
}

/// The object whose change wakes pods that were turned away.
pub fn wake() -> anyhow::Result<Vec<CSIStorageCapacity>> {
    shipped(include_str!("../../../deploy/kustomize/base/extender/wake.yaml"))
}

/// A node's pool.
pub fn pool(node: &Node, capacity: Bytes) -> anyhow::Result<DiskPool> {
    let directory = node.directory.to_str().with_context(|| format!("{} is not Unicode", node.directory.display()))?;
    typed(json!({
        "apiVersion": "bedplate.dev/v1alpha1",
        "kind": "DiskPool",
        "metadata": { "name": node.pool },
        "spec": {
            "nodeSelector": { "matchLabels": { "kubernetes.io/hostname": node.name } },
            "backend": "image",
            "directory": directory,
            "media": if node.media == Media::Unknown { None } else { Some(node.media) },
            "capacity": quantity(capacity),
            "reserve": "64Mi"
        }
    }))
}

/// The Raft group: three members on flash, no two on one node.
pub fn group(size: Bytes, program: &Path, foreman: &Path) -> anyhow::Result<StatefulSet> {
    let labels = json!({ "app": GROUP });
    let apart = json!([{
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": { "matchLabels": labels }
    }]);
    typed(json!({
        "metadata": { "name": GROUP, "namespace": NAMESPACE },
        "spec": {
            "serviceName": GROUP,
            "replicas": MEMBERS,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": apart } },
                    "containers": [container(program, foreman)?]
                }
            },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": wish("ssd", size) }]
        }
    }))
}

/// A claim.
pub fn claim(name: &str, class: &str, size: Bytes) -> anyhow::Result<PersistentVolumeClaim> {
    typed(json!({ "metadata": { "name": name, "namespace": NAMESPACE }, "spec": wish(class, size) }))
}

/// A pod with these claims.
pub fn pod(name: &str, claims: &[&str], program: &Path, foreman: &Path) -> anyhow::Result<Pod> {
    let volumes = claims
        .iter()
        .zip(["data", "more"])
        .map(|(claim, name)| json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } }));
    typed(json!({
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "app": name } },
        "spec": { "containers": [container(program, foreman)?], "volumes": volumes.collect::<Value>() }
    }))
}

fn wish(class: &str, size: Bytes) -> Value {
    json!({
        "storageClassName": class,
        "accessModes": ["ReadWriteOncePod"],
        "resources": { "requests": { "storage": quantity(size) } }
    })
}

/// A process of this program; which volume is its own, and what it has to write, its foreman says.
fn container(program: &Path, foreman: &Path) -> anyhow::Result<Value> {
    let text =
        |path: &Path| path.to_str().map(str::to_owned).with_context(|| format!("{} is not Unicode", path.display()));
    Ok(json!({
        "name": "writer",
        "image": "bedplate",
        "command": [text(program)?, "demo-workload", "--foreman", text(foreman)?, "--mount", MOUNT],
        "volumeMounts": [{ "name": "data", "mountPath": MOUNT }]
    }))
}

/// A size as Kubernetes writes it, exactly.
fn quantity(size: Bytes) -> String {
    size.get().to_string()
}

fn typed<T: DeserializeOwned>(value: Value) -> anyhow::Result<T> {
    serde_json::from_value(value).context("a manifest of the demo's own cannot be read")
}
