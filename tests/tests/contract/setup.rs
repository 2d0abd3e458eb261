//! What a case finds when it begins, and what happens beside its watches. The recording shows requests and answers; this
//! is the rest of how it was made.

use kube::client::Body;
use kube::{Client, Config};
use serde_json::{Value, json};

/// What is being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Embedded,
    Real,
}

/// A request of the set-up: method, path, content type, body.
pub type Request = (&'static str, String, &'static str, Value);

const MAPS: &str = "/api/v1/namespaces/contract/configmaps";
const WIDGETS: &str = "/apis/contract.test/v1/widgets";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// A client that neither retries nor hides a code.
pub fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.default_retry = false;
    Client::try_from(config)
}

/// An HTTP request as the client sends it.
pub fn http(method: &str, path: &str, content_type: &str, body: &Value) -> axum::http::Request<Body> {
    let body = if body.is_null() { Body::empty() } else { Body::from(serde_json::to_vec(body).expect("JSON")) };
    let request = axum::http::Request::builder().method(method).uri(path).header("user-agent", "contract/1");
    request.header("content-type", content_type).body(body).expect("a request")
}

fn map(name: &str, metadata: &Value) -> Request {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}});
    map["metadata"]["name"] = json!(name);
    ("POST", MAPS.to_owned(), JSON, map)
}

fn selected() -> Vec<Request> {
    vec![
        map("s1", &json!({"labels": {"app": "a", "tier": "x"}})),
        map("s2", &json!({"labels": {"app": "b", "tier": "y"}})),
        map("s3", &json!({})),
    ]
}

/// What a case needs to be there.
pub fn present(case: &str) -> Vec<Request> {
    let create = |path: &str, body: Value| ("POST", path.to_owned(), JSON, body);
    match case.split([':', ' ']).next().unwrap_or_default() {
        "update" => vec![map("one", &json!({}))],
        "patches" => vec![map("one", &json!({})), ("PATCH", format!("{MAPS}/one"), MERGE, json!({"data": {"a": "4"}}))],
        "selectors" | "paging" | "watch" => selected(),
        "delete" => {
            let mut all = selected();
            all.extend([map("d1", &json!({})), map("f1", &json!({"finalizers": ["t.test/hold"]}))]);
            all
        }
        "binding" => vec![create(
            "/api/v1/namespaces/contract/pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p1"},
                "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "none"}]}}),
        )],
        "a" => vec![create(
            "/apis/storage.k8s.io/v1/storageclasses",
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "gold"},
                "provisioner": "gold.test", "volumeBindingMode": "WaitForFirstConsumer"}),
        )],
        _ => Vec::new(),
    }
}

/// Objects of all cases; a list of names is of these.
pub const NAMES: &[&str] = &["s1", "s2", "s3", "p1", "a"];

/// What an earlier run may have left on a real server: all of it goes before a case begins.
pub fn leftovers() -> Vec<String> {
    let maps = ["one", "ssa", "s1", "s2", "s3", "w1", "d1", "f1"].map(|name| format!("{MAPS}/{name}"));
    let others = [
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.contract.test",
        "/api/v1/nodes/gold",
        "/api/v1/namespaces/contract/pods/p1",
        "/apis/coordination.k8s.io/v1/namespaces/contract/leases/lead",
        "/apis/events.k8s.io/v1/namespaces/default/events/e1",
        "/api/v1/namespaces/contract/persistentvolumeclaims/c1",
        "/api/v1/persistentvolumes/gold-pv",
        "/apis/storage.k8s.io/v1/storageclasses/gold",
    ];
    maps.into_iter().chain(others.map(str::to_owned)).collect()
}

/// What happens while a watch is open.
pub fn beside(path: &str) -> Vec<Request> {
    let label = |label: &str| ("PATCH", format!("{MAPS}/w1"), MERGE, json!({"metadata": {"labels": {"w": label}}}));
    if path.contains("w%3D1") {
        vec![
            map("w1", &json!({"labels": {"w": "1"}})),
            ("PATCH", format!("{MAPS}/w1"), MERGE, json!({"data": {"a": "9"}})),
            label("2"),
            label("1"),
            ("DELETE", format!("{MAPS}/w1"), JSON, Value::Null),
        ]
    } else if path.starts_with(WIDGETS) {
        let widget = json!({"apiVersion": "contract.test/v1", "kind": "Widget", "metadata": {"name": "c"},
            "spec": {"nodeName": "n2"}});
        vec![("POST", WIDGETS.to_owned(), JSON, widget)]
    } else {
        Vec::new()
    }
}

/// Where it has to answer 200 before the case goes on: a definition is served a moment after it is made.
pub fn served_after(path: &str) -> Option<&'static str> {
    path.ends_with("/customresourcedefinitions").then_some(WIDGETS)
}
