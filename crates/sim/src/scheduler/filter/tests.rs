#![allow(clippy::needless_pass_by_value)] // json!() makes values

use super::*;
use serde_json::{Value, json};

fn node(name: &str, more: Value) -> Arc<Node> {
    let labels = json!({ "kubernetes.io/hostname": name });
    let mut node = json!({ "metadata": { "name": name, "labels": labels } });
    json_patch::merge(&mut node, &more);
    Arc::new(serde_json::from_value(node).unwrap())
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let metadata = json!({ "name": name, "uid": name, "namespace": "n", "labels": { "app": name } });
    let mut pod = json!({ "metadata": metadata, "spec": { "containers": [] } });
    json_patch::merge(&mut pod["spec"], &spec);
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// Fits, or the reasons.
fn judge(pod: &Pod, node: &Arc<Node>, here: &[Arc<Pod>]) -> Result<(), String> {
    let nodes = Nodes { all: vec![node.clone()], pods: HashMap::from([(node.name_any(), here.to_vec())]) };
    let wanted = Wanted::new(pod, &nodes);
    let verdict = wanted.fits(node, &nodes).and_then(|()| wanted.gets_along(node));
    verdict.map_err(|out| out.reasons.join("; "))
}

#[test]
fn cordoned_tainted_and_unready_nodes_need_a_toleration() {
    let cordoned = node("a", json!({ "spec": { "unschedulable": true } }));
    let tainted = node("a", json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] } }));
    let soft = node("a", json!({ "spec": { "taints": [{ "key": "k", "effect": "PreferNoSchedule" }] } }));
    let unready = node("a", json!({ "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] } }));
    let plain = pod("p", json!({}));
    assert_eq!(judge(&plain, &cordoned, &[]).unwrap_err(), "node(s) were unschedulable");
    assert_eq!(judge(&plain, &tainted, &[]).unwrap_err(), "node(s) had untolerated taint(s)");
    assert_eq!(judge(&plain, &unready, &[]).unwrap_err(), "node(s) had untolerated taint(s)");
    assert_eq!(judge(&plain, &soft, &[]), Ok(()));
    let equal = pod("p", json!({ "tolerations": [{ "key": "k", "value": "v" }] }));
    assert_eq!(judge(&equal, &tainted, &[]), Ok(()));
    let other = pod("p", json!({ "tolerations": [{ "key": "k", "value": "w" }] }));
    assert!(judge(&other, &tainted, &[]).is_err());
    let all = pod("p", json!({ "tolerations": [{ "operator": "Exists" }] }));
    for node in [cordoned, tainted, unready] {
        assert_eq!(judge(&all, &node, &[]), Ok(()));
    }
}

#[test]
fn selector_and_node_affinity_with_fields_and_numbers() {
    let labels = json!({ "metadata": { "labels": { "iops": "32768", "ssd": "true" } } });
    let here = node("a", labels);
    let wants = |expressions: Value, fields: Value| {
        let term = json!([{ "matchExpressions": expressions, "matchFields": fields }]);
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": term } });
        judge(&pod("p", json!({ "affinity": { "nodeAffinity": required } })), &here, &[]).is_ok()
    };
    let gt = |bound: &str| json!([{ "key": "iops", "operator": "Gt", "values": [bound] }]);
    let name = |operator: &str| json!([{ "key": "metadata.name", "operator": operator, "values": ["a"] }]);
    assert!(wants(gt("16384"), Value::Null));
    assert!(!wants(gt("32768"), Value::Null));
    assert!(wants(Value::Null, name("In")));
    assert!(!wants(gt("16384"), name("NotIn")), "all of a term must hold");
    assert!(!wants(Value::Null, Value::Null), "an empty term selects nothing");
    assert!(judge(&pod("p", json!({ "nodeSelector": { "ssd": "true" } })), &here, &[]).is_ok());
    assert_eq!(
        judge(&pod("p", json!({ "nodeSelector": { "hdd": "true" } })), &here, &[]).unwrap_err(),
        "node(s) didn't match Pod's node affinity/selector"
    );
}

#[test]
fn room_is_counted_per_resource() {
    let small = node("a", json!({ "status": { "allocatable": { "cpu": "2", "memory": "1Gi", "pods": "2" } } }));
    let asks = |name: &str, cpu: &str, memory: &str| {
        let requests = json!({ "requests": { "cpu": cpu, "memory": memory } });
        pod(name, json!({ "containers": [{ "name": "c", "resources": requests }] }))
    };
    let there = asks("there", "1500m", "256Mi");
    assert_eq!(judge(&asks("p", "500m", "768Mi"), &small, std::slice::from_ref(&there)), Ok(()));
    assert_eq!(
        judge(&asks("p", "501m", "769Mi"), &small, &[there.clone(), there]).unwrap_err(),
        "Too many pods; Insufficient cpu; Insufficient memory"
    );
}

#[test]
fn members_of_a_stateful_set_keep_away_from_each_other_in_both_directions() {
    let far = |app: &str| {
        let term =
            json!([{ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": app } } }]);
        json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term } } })
    };
    let a = node("a", json!({}));
    let quiet = pod("raft", json!({}));
    let avoids = pod("raft", far("raft"));
    assert_eq!(
        judge(&avoids, &a, std::slice::from_ref(&quiet)).unwrap_err(),
        "node(s) didn't match pod anti-affinity rules"
    );
    assert_eq!(
        judge(&quiet, &a, std::slice::from_ref(&avoids)).unwrap_err(),
        "node(s) didn't satisfy existing pods anti-affinity rules"
    );
    assert_eq!(judge(&pod("other", json!({})), &a, &[avoids]), Ok(()));
}

#[test]
fn pod_affinity_needs_a_neighbour_unless_the_pod_is_the_first_of_its_kind() {
    let near = |app: &str| {
        let term =
            json!([{ "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": app } } }]);
        json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": term } } })
    };
    let a = node("a", json!({}));
    assert_eq!(judge(&pod("p", near("p")), &a, &[]), Ok(()));
    assert_eq!(judge(&pod("p", near("q")), &a, &[]).unwrap_err(), "node(s) didn't match pod affinity rules");
    assert_eq!(judge(&pod("p", near("q")), &a, &[pod("q", json!({}))]), Ok(()));
}
