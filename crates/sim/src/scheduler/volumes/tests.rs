#![allow(clippy::needless_pass_by_value)] // json!() makes values

use super::*;
use serde_json::{Value, json};

#[derive(Default)]
struct World {
    claims: Vec<Value>,
    volumes: Vec<Value>,
    mode: &'static str,
    storage_capacity: bool,
    capacities: Vec<Value>,
    assumed: Option<String>,
}

fn found<T: serde::de::DeserializeOwned>(values: &[Value], name: &str) -> Option<Arc<T>> {
    let value = values.iter().find(|value| value["metadata"]["name"] == name)?;
    Some(Arc::new(serde_json::from_value(value.clone()).unwrap()))
}

impl Lookup for World {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        assert_eq!(namespace, "n");
        found(&self.claims, name)
    }
    fn assumed_node(&self, _: &str, _: &str) -> Option<String> {
        self.assumed.clone()
    }
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        found(&self.volumes, name)
    }
    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        let class = json!({ "metadata": { "name": name }, "provisioner": "d", "volumeBindingMode": self.mode });
        (name == "fast").then(|| Arc::new(serde_json::from_value(class).unwrap()))
    }
    fn driver(&self, name: &str) -> Option<Arc<CSIDriver>> {
        let driver = json!({ "metadata": { "name": name }, "spec": { "storageCapacity": self.storage_capacity } });
        Some(Arc::new(serde_json::from_value(driver).unwrap()))
    }
    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>> {
        self.capacities.iter().map(|value| Arc::new(serde_json::from_value(value.clone()).unwrap())).collect()
    }
}

fn claim(more: Value) -> Value {
    let resources = json!({ "requests": { "storage": "1Gi" } });
    let mut claim = json!({
        "metadata": { "name": "c", "namespace": "n" },
        "spec": { "storageClassName": "fast", "resources": resources },
    });
    json_patch::merge(&mut claim, &more);
    claim
}

/// What is said about node `a`; an error about the pod counts too.
fn judge(world: &World) -> Result<(), String> {
    let volumes = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]);
    let pod =
        json!({ "metadata": { "name": "p", "namespace": "n" }, "spec": { "containers": [], "volumes": volumes } });
    let node = json!({ "metadata": { "name": "a", "labels": { "t": "a" } } });
    let claims = Claims::of(&serde_json::from_value(pod).unwrap(), world)?;
    claims.fit(&serde_json::from_value(node).unwrap()).map_err(|out| out.reasons.join("; "))
}

const WAITS: &str = "WaitForFirstConsumer";

#[test]
fn a_selected_node_is_the_only_one_that_passes() {
    let at = |node: &str| claim(json!({ "metadata": { "annotations": { ANNOTATION_SELECTED_NODE: node } } }));
    let world = |claim: Value| World { claims: vec![claim], mode: WAITS, ..World::default() };
    assert_eq!(judge(&world(claim(json!({})))), Ok(()));
    assert_eq!(judge(&world(at("a"))), Ok(()));
    assert_eq!(judge(&world(at("b"))).unwrap_err(), NO_VOLUME);
    let assumed = World { assumed: Some("b".into()), ..world(claim(json!({}))) };
    assert_eq!(judge(&assumed).unwrap_err(), NO_VOLUME, "chosen a moment ago for another pod");
}

#[test]
fn capacity_is_asked_only_where_the_driver_publishes_it_and_no_object_means_none() {
    let capacity = |fields: Value| {
        let mut object = json!({ "metadata": { "name": "k" }, "storageClassName": "fast" });
        json_patch::merge(&mut object, &fields);
        object
    };
    let on_a = json!({ "matchLabels": { "t": "a" } });
    let verdict = |published: bool, capacities: Vec<Value>| {
        let claims = vec![claim(json!({}))];
        judge(&World { claims, mode: WAITS, storage_capacity: published, capacities, ..World::default() })
    };
    assert_eq!(verdict(false, vec![]), Ok(()));
    assert_eq!(verdict(true, vec![]).unwrap_err(), NO_CAPACITY);
    let enough = json!({ "capacity": "10Gi", "maximumVolumeSize": "1Gi", "nodeTopology": on_a });
    assert_eq!(verdict(true, vec![capacity(enough)]), Ok(()));
    let fragmented = json!({ "capacity": "10Gi", "maximumVolumeSize": "1023Mi", "nodeTopology": on_a });
    assert_eq!(verdict(true, vec![capacity(fragmented)]).unwrap_err(), NO_CAPACITY, "the largest volume decides");
    let elsewhere = json!({ "capacity": "10Gi", "nodeTopology": { "matchLabels": { "t": "b" } } });
    assert_eq!(verdict(true, vec![capacity(elsewhere)]).unwrap_err(), NO_CAPACITY);
    let nowhere = json!({ "capacity": "10Gi" });
    assert_eq!(verdict(true, vec![capacity(nowhere)]).unwrap_err(), NO_CAPACITY, "no topology is no node");
    let other_class = json!({ "capacity": "10Gi", "nodeTopology": on_a, "storageClassName": "slow" });
    assert_eq!(verdict(true, vec![capacity(other_class)]).unwrap_err(), NO_CAPACITY);
}

#[test]
fn a_bound_claim_follows_its_volume() {
    let bound = json!({
        "metadata": { "annotations": { ANNOTATION_BIND_COMPLETED: "yes" } }, "spec": { "volumeName": "pv" },
    });
    let volume = |node: &str| {
        let term = json!([{ "matchExpressions": [{ "key": "t", "operator": "In", "values": [node] }] }]);
        let affinity = json!({ "required": { "nodeSelectorTerms": term } });
        json!({ "metadata": { "name": "pv" }, "spec": { "nodeAffinity": affinity } })
    };
    let world = |volumes| World { claims: vec![claim(bound.clone())], volumes, ..World::default() };
    assert_eq!(judge(&world(vec![volume("a")])), Ok(()));
    assert_eq!(judge(&world(vec![volume("b")])).unwrap_err(), WRONG_NODE);
    assert_eq!(judge(&world(vec![])).unwrap_err(), VOLUME_GONE);
}

#[test]
fn claims_that_cannot_be_bound_by_choosing_a_node_hold_the_pod() {
    let judge = |claims: Vec<Value>, mode| judge(&World { claims, mode, ..World::default() }).unwrap_err();
    assert_eq!(judge(vec![], WAITS), "persistentvolumeclaim \"c\" not found");
    let immediate = "pod has unbound immediate PersistentVolumeClaims";
    assert_eq!(judge(vec![claim(json!({}))], "Immediate"), immediate);
    assert_eq!(judge(vec![claim(json!({ "spec": { "volumeName": "pv" } }))], WAITS), immediate, "not completed yet");
    let deleted = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    assert_eq!(judge(vec![claim(deleted)], WAITS), "persistentvolumeclaim \"c\" is being deleted");
    let lost = json!({ "status": { "phase": "Lost" }, "spec": { "volumeName": "pv" } });
    let text = "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"pv\"";
    assert_eq!(judge(vec![claim(lost)], WAITS), text);
}
