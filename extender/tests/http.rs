//! The extender over real HTTP, asked exactly as kube-scheduler asks: PascalCase keys, explicit nulls, objects without kind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum_server::Handle;
use bedplate_api::placement::{NodeFacts, PoolFacts, VolumeFacts};
use bedplate_core::bytes::GIB;
use bedplate_core::class::{Class, MediaDemand};
use bedplate_core::filesystem::FsType;
use bedplate_core::media::Media;
use bedplate_extender::fetch::Fetcher;
use bedplate_extender::holds::Seen;
use bedplate_extender::index::{Change, Claim, Op, StorageClass, Volume};
use bedplate_extender::{Config, Index, Judge, Metrics, serve};
use serde_json::{Value, json};

struct Rig {
    index: Arc<Index>,
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.shutdown();
        self.runtime.block_on(async {});
    }
}

/// Three nodes with one pool of 10 GiB each (n0 nvme, n1 ssd, n2 hdd), a class `ssd`, and whatever `more` says.
fn rig_with(config: Config, synced: bool) -> Rig {
    let index = Index::new();
    for (name, media) in [("n0", Media::Nvme), ("n1", Media::Ssd), ("n2", Media::Hdd)] {
        index.apply(Change::Node(Op::Applied(NodeFacts {
            name: name.into(),
            ready: true,
            filesystems: [FsType::Ext4].into_iter().collect(),
            pools: vec![PoolFacts {
                name: "a".into(),
                media,
                level: None,
                present: true,
                capacity: 10 * GIB,
                free: 10 * GIB,
                largest: 10 * GIB,
                filesystem: None,
            }],
            ..NodeFacts::default()
        })));
    }
    let ssd = Class { media: Some(MediaDemand::Ssd), ..Class::default() };
    index.apply(Change::Class(Op::Applied(("ssd".into(), StorageClass::Ours(Box::new(ssd))))));
    index.apply(Change::Class(Op::Applied(("other".into(), StorageClass::Other))));
    index.apply(Change::Class(Op::Applied(("bad".into(), StorageClass::Refused))));
    if synced {
        complete(&index);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let judge = Judge { index: index.clone(), fetcher: Fetcher::new(None), metrics: Arc::new(Metrics::new().unwrap()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let handle = Handle::new();
    let (judge, stop) = (Arc::new(judge), handle.clone());
    runtime.spawn(async move { serve(listener, judge, config, stop).await.unwrap() });
    Rig { index, address, handle, runtime }
}

fn rig() -> Rig {
    rig_with(Config::default(), true)
}

fn complete(index: &Index) {
    // Completed without a beginning: nothing is known to be gone.
    for change in [
        Change::Pod(Op::Complete),
        Change::Claim(Op::Complete),
        Change::Volume(Op::Complete),
        Change::Class(Op::Complete),
        Change::Node(Op::Complete),
        Change::Local(Op::Complete),
    ] {
        index.apply(change);
    }
}

fn claim(index: &Index, name: &str, class: &str, gib: u64) {
    let claim = Claim {
        uid: format!("{name}-uid").into(),
        storage: format!("{gib}Gi").into(),
        class: class.into(),
        ..Claim::default()
    };
    index.apply(Change::Claim(Op::Applied(("default".into(), name.into(), claim))));
}

/// A pod as the scheduler's Go structs marshal: nulls where nothing is set, no kind.
fn pod(name: &str, claims: &[&str]) -> Value {
    let volumes: Vec<Value> = (claims.iter().enumerate())
        .map(|(i, claim)| json!({ "name": format!("v{i}"), "persistentVolumeClaim": { "claimName": claim } }))
        .chain([json!({ "name": "kube-api-access", "projected": { "sources": null, "defaultMode": 420 } })])
        .collect();
    json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("{name}-uid"), "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{ "manager": "x", "fieldsV1": { "f:a": {} } }] },
        "spec": { "volumes": volumes, "containers": [{ "name": "c", "image": "i", "resources": {} }],
            "schedulerName": "default-scheduler" },
        "status": { "phase": "Pending" }
    })
}

fn arguments(pod: &Value, nodes: &[&str]) -> String {
    json!({ "Pod": pod, "Nodes": null, "NodeNames": nodes }).to_string()
}

fn send(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that refuses a body early may close before all of it is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    assert!(status != 200 || head.to_ascii_lowercase().contains("content-length"), "keep-alive needs it: {head}");
    (status, body.to_owned())
}

fn request(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    send(address, &[head.as_bytes(), body].concat())
}

fn ask(rig: &Rig, path: &str, body: &str) -> Value {
    let (status, body) = request(rig.address, "POST", path, body.as_bytes());
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn filter(rig: &Rig, pod: &Value) -> (Vec<String>, Value) {
    let answer = ask(rig, "/filter", &arguments(pod, &["n0", "n1", "n2"]));
    assert_eq!(answer["FailedNodes"], json!({}), "what is here invites preemption, which frees no disk");
    assert_eq!(answer["Error"], "");
    let names = answer["NodeNames"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
    (names.collect(), answer["FailedAndUnresolvableNodes"].clone())
}

fn metric(rig: &Rig, line: &str) -> u64 {
    let (_, text) = request(rig.address, "GET", "/metrics", b"");
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0)
}

#[test]
fn a_pod_without_claims_of_ours_is_echoed_whatever_the_state_of_things() {
    for synced in [true, false] {
        let rig = rig_with(Config::default(), synced);
        claim(&rig.index, "theirs", "other", 1);
        for pod in [pod("p", &[]), pod("p", &["theirs"])] {
            let (names, failed) = filter(&rig, &pod);
            assert_eq!((names.len(), failed), (3, json!({})));
            let scores = ask(&rig, "/prioritize", &arguments(&pod, &["n0", "n1"]));
            assert_eq!(scores, json!([]));
        }
        let unknown_nodes = ask(&rig, "/filter", &arguments(&pod("p", &[]), &["never-heard-of"]));
        assert_eq!(unknown_nodes["NodeNames"], json!(["never-heard-of"]));
    }
}

#[test]
fn the_least_that_fits_scores_best_and_misfits_have_fixed_reasons() {
    let rig = rig();
    claim(&rig.index, "data", "ssd", 4);
    let pod = pod("p", &["data"]);
    for path in ["", "/v1"] {
        let answer = ask(&rig, &format!("{path}/filter"), &arguments(&pod, &["n0", "n1", "n2", "n9"]));
        assert_eq!(answer["NodeNames"], json!(["n0", "n1"]));
        let failed = json!({
            "n2": "bedplate: no pool on the medium asked for", "n9": "bedplate: no agent on the node"
        });
        assert_eq!(answer["FailedAndUnresolvableNodes"], failed);
        let scores = ask(&rig, &format!("{path}/prioritize"), &arguments(&pod, &["n0", "n1"]));
        assert_eq!(scores, json!([{ "Host": "n0", "Score": 4 }, { "Host": "n1", "Score": 7 }]));
    }
    assert_eq!(metric(&rig, "bedplate_extender_misfits_total{reason=\"media\"}"), 2);
}

#[test]
fn filter_is_idempotent_and_holds_room_against_other_pods_only() {
    let rig = rig();
    claim(&rig.index, "one", "ssd", 6);
    claim(&rig.index, "two", "ssd", 6);
    let (first, second) = (pod("p1", &["one"]), pod("p2", &["two"]));
    for _ in 0..3 {
        assert_eq!(filter(&rig, &first).0, ["n0", "n1"]);
    }
    let (names, failed) = filter(&rig, &second);
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(failed["n0"], "bedplate: no matching pool has room");
    // The first is told where to go: the other node is free for the second.
    let told = Claim {
        uid: "one-uid".into(),
        selected: Some("n1".into()),
        storage: "6Gi".into(),
        class: "ssd".into(),
        ..Claim::default()
    };
    rig.index.apply(Change::Claim(Op::Applied(("default".into(), "one".into(), told))));
    assert_eq!(filter(&rig, &second).0, ["n0"]);
    assert_eq!(metric(&rig, "bedplate_extender_holds_count{state=\"pinned\"}"), 2);
    // Its volume stands: room is counted once, by the ledger.
    rig.index.apply(Change::Local(Op::Applied(VolumeFacts {
        name: "pvc-one-uid-0".into(),
        claim: "one-uid".into(),
        node: "n1".into(),
        pool: "a".into(),
        bytes: 6 * GIB,
        takes_room: true,
        serves: true,
    })));
    claim(&rig.index, "three", "ssd", 4);
    assert_eq!(filter(&rig, &pod("p3", &["three"])).0, ["n0", "n1"]);
    // A restart of the first pod asks for its node only.
    assert_eq!(filter(&rig, &first).0, ["n1"]);
}

#[test]
fn a_deleted_pod_gives_its_room_back_and_holds_none_by_a_late_request() {
    let rig = rig();
    claim(&rig.index, "one", "ssd", 6);
    claim(&rig.index, "two", "ssd", 6);
    let (first, second) = (pod("p1", &["one"]), pod("p2", &["two"]));
    filter(&rig, &first);
    assert!(filter(&rig, &second).0.is_empty());
    rig.index.apply(Change::Pod(Op::Deleted(Seen { uid: "p1-uid".into(), ..Seen::default() })));
    filter(&rig, &first);
    assert_eq!(filter(&rig, &second).0, ["n0", "n1"]);
}

#[test]
fn dry_runs_hold_nothing_and_see_what_others_hold() {
    let rig = rig();
    claim(&rig.index, "one", "ssd", 6);
    claim(&rig.index, "two", "ssd", 6);
    let (first, second) = (pod("p1", &["one"]), pod("p2", &["two"]));
    let body = arguments(&first, &["n0", "n1", "n2"]);
    assert_eq!(ask(&rig, "/simulate/filter", &body)["NodeNames"], json!(["n0", "n1"]));
    assert_eq!(ask(&rig, "/simulate/prioritize", &body).as_array().unwrap().len(), 3);
    assert_eq!(metric(&rig, "bedplate_extender_holds_count{state=\"open\"}"), 0);
    filter(&rig, &second);
    assert_eq!(ask(&rig, "/simulate/filter", &body)["NodeNames"], json!([]));
    assert_eq!(filter(&rig, &second).0, ["n0", "n1"], "the second's own hold is as it was");
}

#[test]
fn claims_of_a_pod_are_placed_together() {
    let rig = rig();
    claim(&rig.index, "a", "ssd", 6);
    claim(&rig.index, "b", "ssd", 6);
    let (names, failed) = filter(&rig, &pod("p", &["a", "b"]));
    assert!(names.is_empty());
    assert_eq!(failed["n1"], "bedplate: the pod's claims do not fit together");
}

#[test]
fn a_bound_claim_fixes_the_node_even_where_nothing_fits_any_more() {
    let rig = rig();
    let bound = Claim { uid: "u".into(), class: "bad".into(), volume: Some("pv".into()), ..Claim::default() };
    rig.index.apply(Change::Claim(Op::Applied(("default".into(), "db".into(), bound))));
    rig.index.apply(Change::Volume(Op::Applied(("pv".into(), Volume::Ours("n2".into())))));
    let (names, failed) = filter(&rig, &pod("p", &["db"]));
    assert_eq!(names, ["n2"]);
    assert_eq!(failed["n0"], "bedplate: a volume of the pod is on another node");
}

#[test]
fn whole_nodes_are_evaluated_with_holds_and_counted_as_misconfiguration() {
    let rig = rig();
    claim(&rig.index, "one", "ssd", 6);
    claim(&rig.index, "two", "ssd", 6);
    let items: Vec<Value> =
        ["n0", "n1", "n2"].iter().map(|n| json!({ "metadata": { "name": n }, "spec": {} })).collect();
    let body =
        |pod: &Value| json!({ "Pod": pod, "Nodes": { "metadata": {}, "items": items }, "NodeNames": null }).to_string();
    let answer = ask(&rig, "/filter", &body(&pod("p1", &["one"])));
    assert_eq!(answer["NodeNames"], Value::Null);
    assert_eq!(answer["Nodes"]["items"], json!(items[..2]));
    let answer = ask(&rig, "/filter", &body(&pod("p2", &["two"])));
    assert_eq!(answer["Nodes"]["items"], json!([]));
    let answer = ask(&rig, "/filter", &body(&pod("p3", &[])));
    assert_eq!(answer["Nodes"]["items"], json!(items));
    assert_eq!(metric(&rig, "bedplate_extender_whole_node_requests_total"), 3);
}

#[test]
fn an_object_the_index_lacks_is_waited_for() {
    let rig = rig();
    let index = rig.index.clone();
    let late = std::thread::spawn(move || {
        let begun = Instant::now();
        // The request is on its way: the watch delivers the claim only now.
        while begun.elapsed() < Duration::from_millis(15) {
            std::thread::yield_now();
        }
        claim(&index, "late", "ssd", 1);
    });
    assert_eq!(filter(&rig, &pod("p", &["late"])).0, ["n0", "n1"]);
    late.join().unwrap();
}

#[test]
fn what_cannot_be_found_out_leaves_storage_pods_waiting_with_a_reason() {
    let rig = rig();
    let begun = Instant::now();
    // No API server to ask.
    let (names, failed) = filter(&rig, &pod("p", &["unheard-of"]));
    assert!(names.is_empty() && begun.elapsed() < Duration::from_millis(500));
    assert_eq!(failed["n0"], "bedplate: the extender cannot tell, see its log");
    let rig = rig_with(Config::default(), false);
    claim(&rig.index, "data", "ssd", 1);
    assert_eq!(filter(&rig, &pod("p", &["data"])).1["n1"], "bedplate: the extender cannot tell, see its log");
    claim(&rig.index, "worse", "bad", 1);
    assert_eq!(
        filter(&rig, &pod("p", &["worse"])).1["n1"],
        "bedplate: a claim or its StorageClass is refused, see its events"
    );
}

#[test]
fn ephemeral_claims_are_found_by_pod_and_volume() {
    let rig = rig();
    claim(&rig.index, "p-scratch", "ssd", 1);
    let mut pod = pod("p", &[]);
    pod["spec"]["volumes"].as_array_mut().unwrap().push(json!({ "name": "scratch",
        "ephemeral": { "volumeClaimTemplate": { "metadata": { "creationTimestamp": null }, "spec": {} } } }));
    assert_eq!(filter(&rig, &pod).0, ["n0", "n1"]);
}

#[test]
fn bad_requests_are_refused_and_nothing_breaks() {
    let rig = rig_with(Config { max_body: 1 << 20, timeout: Duration::from_millis(300), ..Config::default() }, true);
    let good = arguments(&pod("p", &[]), &["n0"]);
    for path in ["/filter", "/prioritize", "/simulate/filter", "/simulate/prioritize"] {
        for (body, why) in [
            ("", "empty"),
            ("hello", "no JSON"),
            (&good[..good.len() - 1], "truncated"),
            ("[]", "another shape"),
            (r#"{"Pod":{},"Nodes":null,"NodeNames":null}"#, "neither form"),
            (r#"{"Pod":{},"Nodes":{"items":[]},"NodeNames":[]}"#, "both forms"),
            (r#"{"Pod":null,"Nodes":null,"NodeNames":[]}"#, "no pod"),
            (r#"{"Pod":{},"Nodes":null,"NodeNames":7}"#, "no list"),
            (
                r#"{"Pod":{"spec":{"volumes":[{"persistentVolumeClaim":{"claimName":"c"}}]}},"NodeNames":[7]}"#,
                "no names",
            ),
        ] {
            let (status, text) = request(rig.address, "POST", path, body.as_bytes());
            assert_eq!(status, 400, "{path} {why}: {text}");
        }
        let deep = format!("{{\"Pod\":{}{},\"NodeNames\":[]}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(request(rig.address, "POST", path, deep.as_bytes()).0, 400, "nested without end");
        let huge = format!("{{\"Pod\":{{}},\"NodeNames\":[\"{}\"]}}", "n".repeat(2 << 20));
        assert_eq!(request(rig.address, "POST", path, huge.as_bytes()).0, 413);
        assert_eq!(request(rig.address, "GET", path, b"").0, 405);
        let slow = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{{");
        assert_eq!(send(rig.address, slow.as_bytes()).0, 408, "a body that never comes");
    }
    assert_eq!(request(rig.address, "POST", "/bind", b"{}").0, 404);
    let answer = ask(&rig, "/filter", r#"{"Pod":{},"Nodes":null,"NodeNames":[]}"#);
    assert_eq!(answer["NodeNames"], json!([]), "no nodes is no error");
    assert_eq!(ask(&rig, "/filter", &good)["NodeNames"], json!(["n0"]));
}

#[test]
fn a_body_as_large_as_the_largest_cluster_is_no_problem() {
    let rig = rig();
    claim(&rig.index, "data", "ssd", 1);
    let names: Vec<String> = (0..400_000).map(|i| format!("ip-10-0-{i}.eu-central-1.compute.internal")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["n1"]).collect();
    let body = arguments(&pod("p", &["data"]), &names);
    assert!(body.len() > 16 << 20);
    assert_eq!(ask(&rig, "/filter", &body)["NodeNames"], json!(["n1"]));
}

#[test]
fn it_is_ready_when_the_index_is_complete() {
    let rig = rig_with(Config::default(), false);
    assert_eq!(request(rig.address, "GET", "/healthz", b"").0, 200);
    assert_eq!(request(rig.address, "GET", "/readyz", b"").0, 503);
    complete(&rig.index);
    assert_eq!(request(rig.address, "GET", "/readyz", b"").0, 200);
}

#[test]
fn a_crowd_of_requests_is_served_and_counted_right() {
    let rig = rig();
    let begun: Vec<_> = (0..64)
        .map(|i| {
            claim(&rig.index, &format!("c{i}"), "ssd", 1);
            let (address, body) = (rig.address, arguments(&pod(&format!("p{i}"), &[&format!("c{i}")]), &["n1"]));
            std::thread::spawn(move || {
                let (status, body) = request(address, "POST", "/filter", body.as_bytes());
                assert_eq!(status, 200, "{body}");
                serde_json::from_str::<Value>(&body).unwrap()["NodeNames"].as_array().unwrap().len()
            })
        })
        .collect();
    let fits: usize = begun.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(fits, 10, "ten gibibytes for ten pods, whoever came first");
}
