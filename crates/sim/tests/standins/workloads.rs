//! StatefulSets, ephemeral claims, owners, nodes that go; and namespaces, which the embedded server empties itself.

use crate::rig::{Cluster, NAMESPACE, claim_spec, eventually, node_of, quick, until};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

async fn names<K>(api: &Api<K>) -> Vec<String>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut names: Vec<_> = api.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    names.sort();
    names
}

async fn ready(cluster: &Cluster, name: &str) {
    let status = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    cluster.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

fn set(replicas: u32, policy: &str, retention: &str) -> Value {
    json!({
        "metadata": { "name": "raft" },
        "spec": {
            "replicas": replicas,
            "serviceName": "raft",
            "podManagementPolicy": policy,
            "persistentVolumeClaimRetentionPolicy": { "whenDeleted": retention, "whenScaled": retention },
            "selector": { "matchLabels": { "app": "raft" } },
            "template": {
                "metadata": { "labels": { "app": "raft" } },
                "spec": { "containers": [{ "name": "c", "image": "none" }], "volumes": [{ "name": "tmp", "emptyDir": {} }] },
            },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": claim_spec() }],
        },
    })
}

#[tokio::test]
async fn members_come_one_after_the_other_each_with_its_claim_and_go_from_the_top() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick()).with_provisioner(&[]);
    cluster.nodes(&["n1", "n2", "n3"]).await;
    cluster.class("WaitForFirstConsumer", false).await;
    cluster.create_in::<StatefulSet>(set(3, "OrderedReady", "Retain")).await;
    let (pods, claims) = (cluster.api::<Pod>(), cluster.api::<PersistentVolumeClaim>());
    for member in ["raft-0", "raft-1", "raft-2"] {
        let pod = until(&pods, member, |pod| node_of(pod).is_some()).await.unwrap();
        assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], member);
        assert_eq!(pod.spec.as_ref().unwrap().volumes.as_ref().unwrap().len(), 2, "the template's and the claim's");
        assert_eq!(names(&pods).await.last().map(String::as_str), Some(member), "none before its turn");
        ready(&cluster, member).await;
    }
    let three = |set: Option<&StatefulSet>| {
        set.and_then(|set| set.status.clone()).is_some_and(|status| status.ready_replicas == Some(3))
    };
    until(&cluster.api::<StatefulSet>(), "raft", three).await;

    // A member that is deleted comes back by its name, with its claim.
    let before = claims.get("data-raft-1").await.unwrap().uid();
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let old = pods.delete("raft-1", &now).await.unwrap().left().and_then(|pod| pod.uid());
    until(&pods, "raft-1", |pod| node_of(pod).is_some() && pod.and_then(ResourceExt::uid) != old).await;
    assert_eq!(claims.get("data-raft-1").await.unwrap().uid(), before);
    ready(&cluster, "raft-1").await;

    let one = Patch::Merge(json!({ "spec": { "replicas": 1 } }));
    cluster.api::<StatefulSet>().patch("raft", &PatchParams::default(), &one).await.unwrap();
    for member in ["raft-2", "raft-1"] {
        until(&pods, member, |pod| pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())).await;
        assert!(pods.get("raft-0").await.unwrap().metadata.deletion_timestamp.is_none());
        pods.delete(member, &now).await.unwrap();
    }
    until(&pods, "raft-1", |pod| pod.is_none()).await;
    assert_eq!(names(&claims).await.len(), 3, "claims are retained");
}

#[tokio::test]
async fn a_parallel_set_starts_at_once_and_its_claims_go_with_it_where_it_says_so() {
    let cluster = Cluster::bare().with_controllers();
    cluster.create_in::<StatefulSet>(set(3, "Parallel", "Delete")).await;
    let (pods, claims) = (cluster.api::<Pod>(), cluster.api::<PersistentVolumeClaim>());
    eventually("three members", async || names(&pods).await.len() == 3).await;
    let two = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    cluster.api::<StatefulSet>().patch("raft", &PatchParams::default(), &two).await.unwrap();
    until(&claims, "data-raft-2", |claim| claim.is_none()).await;
    assert_eq!(names(&claims).await, ["data-raft-0", "data-raft-1"]);
    cluster.api::<StatefulSet>().delete("raft", &DeleteParams::default()).await.unwrap();
    eventually("nothing left", async || names(&pods).await.is_empty() && names(&claims).await.is_empty()).await;
}

#[tokio::test]
async fn an_ephemeral_claim_is_its_pods_and_goes_with_it() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick()).with_provisioner(&[]);
    cluster.nodes(&["n1"]).await;
    cluster.class("WaitForFirstConsumer", false).await;
    let volumes = json!([{ "name": "scratch", "ephemeral": { "volumeClaimTemplate": { "spec": claim_spec() } } }]);
    let pod = cluster.pod("p", &[], json!({ "spec": { "volumes": volumes } })).await;
    let (pods, claims) = (cluster.api::<Pod>(), cluster.api::<PersistentVolumeClaim>());
    until(&pods, "p", |pod| node_of(pod).is_some()).await;
    let claim = claims.get("p-scratch").await.unwrap();
    assert_eq!(
        (&claim.owner_references()[0].uid, claim.owner_references()[0].controller),
        (&pod.uid().unwrap(), Some(true))
    );
    pods.delete("p", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
    until(&claims, "p-scratch", |claim| claim.is_none()).await;
}

#[tokio::test]
async fn a_pod_of_a_deleted_node_is_removed_and_others_are_not() {
    let cluster = Cluster::bare().with_controllers().with_scheduler(quick());
    cluster.nodes(&["n1", "n2"]).await;
    for (pod, node) in [("a", "n1"), ("b", "n2")] {
        cluster.pod(pod, &[], json!({ "spec": { "nodeName": node } })).await;
    }
    Api::<Node>::all(cluster.client.clone()).delete("n1", &DeleteParams::default()).await.unwrap();
    until(&cluster.api::<Pod>(), "a", |pod| pod.is_none()).await;
    assert!(cluster.api::<Pod>().get("b").await.unwrap().metadata.deletion_timestamp.is_none());
}

#[tokio::test]
async fn a_deleted_namespace_is_emptied_and_then_gone() {
    let cluster = Cluster::bare().with_controllers();
    cluster.create::<Namespace>(json!({ "metadata": { "name": "ns" } })).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "ns");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), "ns");
    let map = serde_json::from_value(json!({ "metadata": { "name": "m" } })).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let claim = serde_json::from_value(json!({ "metadata": { "name": "c" }, "spec": claim_spec() })).unwrap();
    claims.create(&PostParams::default(), &claim).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete("ns", &DeleteParams::default()).await.unwrap();
    until(&namespaces, "ns", |namespace| namespace.is_none()).await;
    assert!(names(&maps).await.is_empty() && names(&claims).await.is_empty());
    assert!(namespaces.get(NAMESPACE).await.is_ok());
}
