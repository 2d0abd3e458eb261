//! What an extender sees of this scheduler, recorded by an HTTP server; and what its answers do.

use crate::rig::{Cluster, condition, node_of, quick, until};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use bedplate_sim::scheduler::{ExtenderConfig, Options};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Answer = Arc<dyn Fn(&str, &Value) -> (u16, Value) + Send + Sync>;

/// An extender that answers as a test says, and keeps what it was asked.
#[derive(Clone)]
struct Fake {
    url: String,
    asked: Arc<Mutex<Vec<(String, String)>>>,
    answer: Arc<Mutex<Answer>>,
}

impl Fake {
    async fn start(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer: Answer = Arc::new(answer);
        let fake = Self { url, asked: Arc::default(), answer: Arc::new(Mutex::new(answer)) };
        let router = axum::Router::new().fallback(Self::serve).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    #[allow(clippy::unused_async)] // what a handler is
    async fn serve(State(fake): State<Self>, uri: Uri, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
        assert_eq!(headers["content-type"], "application/json");
        let text = String::from_utf8(body.to_vec()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        fake.asked.lock().unwrap().push((uri.path().to_owned(), text));
        let answer = Arc::clone(&fake.answer.lock().unwrap());
        let (code, answer) = answer(uri.path(), &value);
        (StatusCode::from_u16(code).unwrap(), axum::Json(answer))
    }

    fn now(&self, answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    fn asked(&self) -> Vec<(String, Value)> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(path, text)| (path.clone(), serde_json::from_str(text).unwrap())).collect()
    }

    fn config(&self) -> ExtenderConfig {
        let url_prefix = format!("{}/v1/", self.url);
        ExtenderConfig { url_prefix, ignorable: false, http_timeout: Duration::from_secs(5), ..Default::default() }
    }
}

fn names(arguments: &Value) -> Vec<String> {
    serde_json::from_value(arguments["NodeNames"].clone()).unwrap()
}

/// Echoes in filter, gives every node the same score.
fn echo(path: &str, arguments: &Value) -> (u16, Value) {
    if path.ends_with("/filter") {
        return (200, json!({ "NodeNames": arguments["NodeNames"] }));
    }
    (200, names(arguments).iter().map(|name| json!({ "Host": name, "Score": 1 })).collect())
}

fn with(extenders: Vec<ExtenderConfig>) -> Options {
    Options { extenders, ..quick() }
}

async fn placed(cluster: &Cluster, pod: &str) -> String {
    node_of(until(&cluster.api::<Pod>(), pod, |pod| node_of(pod).is_some()).await.as_ref()).unwrap()
}

async fn said(cluster: &Cluster, pod: &str, reason: &str, text: &str) -> String {
    let holds = |pod: Option<&Pod>| pod.and_then(condition).is_some_and(|(r, t)| r == reason && t.contains(text));
    let pod = until(&cluster.api::<Pod>(), pod, holds).await.unwrap();
    condition(&pod).unwrap().1
}

#[tokio::test]
async fn the_request_is_as_go_encodes_it_and_scores_decide() {
    let fake = Fake::start(|path, arguments| {
        if path == "/v1/filter" {
            return (200, json!({ "NodeNames": arguments["NodeNames"], "FailedNodes": null }));
        }
        assert_eq!(path, "/v1/prioritize");
        (200, json!([{ "Host": "n1", "Score": 0 }, { "Host": "n2", "Score": 10 }, { "Host": "n3", "Score": 9 }]))
    })
    .await;
    let cluster = Cluster::bare();
    cluster.nodes(&["n1", "n2", "n3"]).await;
    let cluster = cluster.with_scheduler(with(vec![fake.config()]));
    cluster.pod("p", &[], json!({})).await;
    assert_eq!(placed(&cluster, "p").await, "n2");
    let text = fake.asked.lock().unwrap()[0].1.clone();
    assert!(text.starts_with("{\"Pod\":{"), "{text}");
    assert!(text.ends_with(",\"Nodes\":null,\"NodeNames\":[\"n1\",\"n2\",\"n3\"]}"), "{text}");
    let pod = fake.asked()[0].1["Pod"].clone();
    assert!(pod.get("kind").is_none() && pod.get("apiVersion").is_none());
    assert!(pod["metadata"].get("managedFields").is_none(), "the real scheduler keeps none");
    assert_eq!((&pod["metadata"]["name"], pod["metadata"]["uid"].is_string()), (&json!("p"), true));
}

#[tokio::test]
async fn prioritize_is_not_called_for_one_survivor_nor_are_pods_of_other_schedulers() {
    let fake = Fake::start(|path, _| {
        assert!(path.ends_with("/filter"));
        (200, json!({ "nodenames": ["n2"] }))
    })
    .await;
    let cluster = Cluster::bare();
    cluster.nodes(&["n1", "n2"]).await;
    let cluster = cluster.with_scheduler(with(vec![fake.config()]));
    cluster.pod("other", &[], json!({ "spec": { "schedulerName": "somebody" } })).await;
    cluster.pod("gated", &[], json!({ "spec": { "schedulingGates": [{ "name": "g" }] } })).await;
    cluster.pod("p", &[], json!({})).await;
    assert_eq!(placed(&cluster, "p").await, "n2", "and its keys are read whatever their case");
    let asked = fake.asked();
    assert_eq!((asked.len(), &asked[0].1["Pod"]["metadata"]["name"]), (1, &json!("p")));
}

#[tokio::test]
async fn reasons_reach_the_pod_and_any_built_in_object_wakes_it() {
    let full = |_: &str, _: &Value| {
        let answer = json!({
            "NodeNames": [],
            "FailedNodes": { "n1": "held by another pod", "n2": "held by another pod" },
            "FailedAndUnresolvableNodes": { "n2": "no disk of this class" },
        });
        (200, answer)
    };
    let fake = Fake::start(full).await;
    let cluster = Cluster::bare();
    cluster.nodes(&["n1", "n2"]).await;
    let cluster = cluster.with_scheduler(with(vec![fake.config()]));
    cluster.pod("p", &[], json!({})).await;
    let text = said(&cluster, "p", "Unschedulable", "nodes are available").await;
    assert_eq!(
        text,
        "0/2 nodes are available: 1 held by another pod, 1 no disk of this class. no new claims to \
         deallocate, preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
    // Its own new condition has woken it once; the second, identical one does not.
    crate::rig::eventually("the second attempt", async || fake.asked().len() == 2).await;
    let quiet = tokio::time::timeout(Duration::from_millis(700), async {
        while fake.asked().len() == 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(quiet.await.is_err(), "nothing happened, and it was tried again");
    fake.now(echo);
    let class = json!({ "metadata": { "name": "any" }, "provisioner": "x" });
    cluster.create::<k8s_openapi::api::storage::v1::StorageClass>(class).await;
    placed(&cluster, "p").await;
}

#[tokio::test]
async fn an_empty_object_means_no_node_and_gives_no_reason() {
    let fake = Fake::start(|_, _| (200, json!({}))).await;
    let cluster = Cluster::bare();
    cluster.nodes(&["n1"]).await;
    let cluster = cluster.with_scheduler(with(vec![fake.config()]));
    cluster.pod("p", &[], json!({})).await;
    let text = said(&cluster, "p", "Unschedulable", "available").await;
    assert_eq!(
        text,
        "0/1 nodes are available: no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is \
         not helpful for scheduling."
    );
}

#[tokio::test]
async fn failures_hold_the_pod_unless_the_extender_is_ignorable() {
    let foreign = json!({ "NodeNames": ["n9"] });
    let cases: [(u16, Value, &str); 3] = [
        (500, json!({ "NodeNames": ["n1"] }), "code 500"),
        (200, foreign, "claims a filtered node \"n9\" which is not found in the input node list"),
        (200, json!({ "NodeNames": ["n1"], "Error": "index not ready" }), "index not ready"),
    ];
    for (code, answer, text) in cases {
        let fake = Fake::start(move |path, arguments| match path {
            "/v1/filter" => (code, answer.clone()),
            _ => echo(path, arguments),
        })
        .await;
        let cluster = Cluster::bare();
        cluster.nodes(&["n1", "n2"]).await;
        let cluster = cluster.with_scheduler(with(vec![fake.config()]));
        cluster.pod("p", &[], json!({})).await;
        said(&cluster, "p", "SchedulerError", text).await;
        let ignorable = ExtenderConfig { ignorable: true, ..fake.config() };
        let cluster = Cluster::bare();
        cluster.nodes(&["n1", "n2"]).await;
        let cluster = cluster.with_scheduler(with(vec![ignorable]));
        cluster.pod("p", &[], json!({})).await;
        placed(&cluster, "p").await;
    }
}

#[tokio::test]
async fn an_extender_that_hangs_costs_its_timeout_and_ignorable_ones_come_last() {
    let strict = Fake::start(echo).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url_prefix = format!("http://{}", listener.local_addr().unwrap());
    let hangs = ExtenderConfig { url_prefix, http_timeout: Duration::from_millis(100), ..Default::default() };
    let cluster = Cluster::bare();
    cluster.nodes(&["n1"]).await;
    let cluster = cluster.with_scheduler(with(vec![hangs, strict.config()]));
    let start = std::time::Instant::now();
    cluster.pod("p", &[], json!({})).await;
    placed(&cluster, "p").await;
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(strict.asked().len(), 1);
    drop(listener);
}

#[tokio::test]
async fn a_nominated_node_is_filtered_alone_first_and_then_all_are() {
    let fake = Fake::start(echo).await;
    let cluster = Cluster::bare().with_controllers();
    cluster.nodes(&["n1", "n2"]).await;
    cluster.pod("p", &[], json!({})).await;
    cluster.pod("q", &[], json!({})).await;
    for pod in ["p", "q"] {
        let nominated = Patch::Merge(json!({ "status": { "nominatedNodeName": "n2" } }));
        cluster.api::<Pod>().patch_status(pod, &PatchParams::default(), &nominated).await.unwrap();
    }
    let refuses_alone = |path: &str, arguments: &Value| {
        let of_q = arguments["Pod"]["metadata"]["name"] == "q";
        if of_q && names(arguments).len() == 1 { (200, json!({})) } else { echo(path, arguments) }
    };
    fake.now(refuses_alone);
    let cluster = cluster.with_scheduler(with(vec![fake.config()]));
    assert_eq!(placed(&cluster, "p").await, "n2");
    placed(&cluster, "q").await;
    let sent = |pod: &str| -> Vec<usize> {
        let asked = fake.asked().into_iter().filter(|(path, _)| path.ends_with("/filter"));
        let of = asked.filter(|(_, arguments)| arguments["Pod"]["metadata"]["name"] == pod);
        of.map(|(_, arguments)| names(&arguments).len()).collect()
    };
    assert_eq!((sent("p"), sent("q")), (vec![1], vec![1, 2]));
}

#[tokio::test]
async fn a_large_cluster_is_sampled_and_the_next_pod_sees_the_next_nodes() {
    let fake = Fake::start(echo).await;
    let cluster = Cluster::bare();
    for number in 0..150 {
        cluster.nodes(&[&format!("n{number:03}")]).await;
    }
    let cluster = cluster.with_scheduler(with(vec![fake.config()]));
    cluster.pod("p", &[], json!({})).await;
    placed(&cluster, "p").await;
    cluster.pod("q", &[], json!({})).await;
    placed(&cluster, "q").await;
    let filters: Vec<_> = fake.asked().into_iter().filter(|(path, _)| path.ends_with("/filter")).collect();
    let (first, second) = (names(&filters[0].1), names(&filters[1].1));
    assert_eq!((first.len(), &*first[0], &*first[99]), (100, "n000", "n099"));
    assert_eq!((second.len(), &*second[0], &*second[99]), (100, "n100", "n049"), "it starts where the last one ended");
}

#[tokio::test]
async fn whole_nodes_are_sent_where_the_extender_keeps_no_cache() {
    let fake = Fake::start(|path, arguments| {
        assert!(arguments["NodeNames"].is_null());
        let items = arguments["Nodes"]["items"].as_array().unwrap();
        assert!(items.iter().all(|node| node.get("kind").is_none() && node["metadata"]["uid"].is_string()));
        match path {
            "/v1/filter" => (200, json!({ "Nodes": { "items": [items[1]] } })),
            other => panic!("{other}"),
        }
    })
    .await;
    let config = ExtenderConfig { node_cache_capable: false, ..fake.config() };
    let cluster = Cluster::bare();
    cluster.nodes(&["n1", "n2"]).await;
    let cluster = cluster.with_scheduler(with(vec![config]));
    cluster.pod("p", &[], json!({})).await;
    assert_eq!(placed(&cluster, "p").await, "n2");
}

#[tokio::test]
async fn a_deleted_pod_is_not_tried_again_and_its_successor_of_the_same_name_is() {
    let fake = Fake::start(|_, _| (200, json!({ "FailedNodes": { "n1": "no" } }))).await;
    let cluster = Cluster::bare();
    cluster.nodes(&["n1"]).await;
    let cluster = cluster.with_scheduler(with(vec![fake.config()]));
    let first = cluster.pod("p", &[], json!({})).await.uid();
    said(&cluster, "p", "Unschedulable", "no").await;
    cluster.api::<Pod>().delete("p", &DeleteParams::default()).await.unwrap();
    until(&cluster.api::<Pod>(), "p", |pod| pod.is_none()).await;
    fake.now(echo);
    let again = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "none" }] } });
    let again = serde_json::from_value(again).unwrap();
    let second = cluster.api::<Pod>().create(&PostParams::default(), &again).await.unwrap().uid();
    placed(&cluster, "p").await;
    assert_ne!(first, second);
    assert_eq!(fake.asked().last().unwrap().1["Pod"]["metadata"]["uid"], json!(second));
}

#[tokio::test]
async fn over_tls_the_named_authority_decides_and_without_one_anybody_is_believed() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [right, wrong] = [("right.pem", made.cert.pem()), ("wrong.pem", other.cert.pem())].map(|(name, pem)| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    });
    let (chain, key) = (made.cert.der().clone(), made.signing_key.serialize_der().try_into().unwrap());
    let server = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![chain], key).unwrap();
    let tls = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(server));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url_prefix = format!("https://{}", listener.local_addr().unwrap());
    let filter = async |axum::Json(arguments): axum::Json<Value>| axum::Json(echo("/filter", &arguments).1);
    let router = axum::Router::new().route("/filter", axum::routing::post(filter));
    let serving = axum_server::from_tcp_rustls(listener, tls).unwrap().serve(router.into_make_service());
    tokio::spawn(serving);
    for (ca_file, trusted) in [(Some(right), true), (Some(wrong), false), (None, true)] {
        let http_timeout = Duration::from_secs(5);
        let url_prefix = url_prefix.clone();
        let config = ExtenderConfig { url_prefix, ca_file, ignorable: false, http_timeout, ..Default::default() };
        let cluster = Cluster::bare();
        cluster.nodes(&["n1"]).await;
        let cluster = cluster.with_scheduler(with(vec![config]));
        cluster.pod("p", &[], json!({})).await;
        if trusted {
            placed(&cluster, "p").await;
        } else {
            said(&cluster, "p", "SchedulerError", "failed filter with extender").await;
        }
    }
}
