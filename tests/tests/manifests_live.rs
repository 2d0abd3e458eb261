//! `deploy/` as an API server takes it: the embedded one, and a real one where its programs are on this machine. What only a
//! real one can judge (expressions, roles, admission) is tested there alone.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::Path as AxumPath;
use bedplate_api::{DiskPool, LocalVolume, LocalVolumeSpec, names};
use bedplate_sim::apiserver::{ApiServer, Options};
use bedplate_tests::control_plane::{ControlPlane, apply, base, client, programs, token};
use bedplate_tests::loopfs::real_dir;
use bedplate_tests::manifests::{Document, files, read};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

async fn apply_all(client: &Client, documents: &[Document]) {
    for document in documents {
        let applied = apply(client, &document.value, "manifests").await;
        applied.unwrap_or_else(|e| panic!("{} {}: {e}", document.kind(), document.name()));
    }
}

fn everything() -> Vec<Document> {
    let mut all = base().unwrap();
    for below in ["examples", "scheduler"] {
        for file in files(Path::new(below)).unwrap() {
            all.extend(read(&file).unwrap().into_iter().filter(|d| d.kind() != "KubeSchedulerConfiguration"));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_applies_to_the_embedded_api_server() {
    let server = ApiServer::start(Options::default()).unwrap();
    let client = server.client().unwrap();
    apply_all(&client, &everything()).await;
    // Applying again changes nothing.
    let revision = server.revision();
    apply_all(&client, &everything()).await;
    assert_eq!(server.revision(), revision);
}

#[test]
fn all_of_it_applies_to_a_real_api_server_and_keeps_agents_to_their_nodes() {
    let Some(programs) = programs() else {
        println!("no kube-apiserver on this machine: only the embedded one was asked");
        return;
    };
    let scratch = real_dir().unwrap();
    let plane = ControlPlane::start(&programs, scratch.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let admin = client(&plane.admin().unwrap()).await.unwrap();
        // The controllers would make it; a pod needs one.
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        apply(&admin, &account, "controllers").await.unwrap();
        apply_all(&admin, &everything()).await;
        no_policy_is_misread(&admin).await;
        for name in ["one", "two"] {
            let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": { "theirs": "1" } } });
            apply(&admin, &node, "kubelet").await.unwrap();
        }
        let bound = token(&admin, "bedplate-agent", Some("one")).await.unwrap();
        let unbound = token(&admin, "bedplate-agent", None).await.unwrap();
        let agent = client(&plane.kubeconfig_with("agent", &bound).unwrap()).await.unwrap();
        let nobody = client(&plane.kubeconfig_with("nobody", &unbound).unwrap()).await.unwrap();
        the_policies_are_in_force(&nobody).await;
        an_agent_writes_of_its_own_node(&admin, &agent, &nobody).await;
        let token = token(&admin, "bedplate-provisioner", None).await.unwrap();
        let provisioner = client(&plane.kubeconfig_with("provisioner", &token).unwrap()).await.unwrap();
        a_release_is_the_provisioners(&admin, &agent, &provisioner).await;
    });
}

/// The API server's own type check of the expressions has nothing to say.
async fn no_policy_is_misread(admin: &Client) {
    use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
    let policies = Api::<ValidatingAdmissionPolicy>::all(admin.clone()).list(&ListParams::default()).await.unwrap();
    let ours: Vec<_> = policies.items.iter().filter(|p| p.name_any().ends_with(names::GROUP)).collect();
    assert_eq!(ours.len(), 5);
    for policy in ours {
        let warnings = policy.status.as_ref().and_then(|s| s.type_checking.as_ref()?.expression_warnings.clone());
        assert_eq!(warnings.unwrap_or_default(), [], "{}", policy.name_any());
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, kube::Error>, why: &str) {
    match answer {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 403, "{status:?}");
            assert!(status.message.contains(why), "{why:?} expected: {}", status.message);
        }
        other => panic!("{why:?} expected, but {other:?}"),
    }
}

fn storage_node(name: &str, note: &str) -> Value {
    json!({
        "apiVersion": "bedplate.dev/v1alpha1", "kind": "StorageNode",
        "metadata": { "name": name, "labels": { "note": note } }, "spec": {},
    })
}

/// A policy takes a moment to come into force.
async fn the_policies_are_in_force(nobody: &Client) {
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut round = 0;
    while apply(nobody, &storage_node("one", &round.to_string()), "nobody").await.is_ok() {
        assert!(Instant::now() < deadline, "no policy comes into force");
        round += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn an_agent_writes_of_its_own_node(admin: &Client, agent: &Client, nobody: &Client) {
    refused(apply(nobody, &storage_node("one", "x"), "nobody").await, "names no node");
    let force = |manager: &str| PatchParams::apply(manager).force();
    apply(agent, &storage_node("one", "agent"), "nobody").await.unwrap();
    refused(apply(agent, &storage_node("two", "agent"), "agent").await, "of its own node, one");

    // Labels with our prefix come and go; nothing else of a Node moves.
    let nodes: Api<Node> = Api::all(agent.clone());
    let label = format!("{}ssd", names::LABEL_PREFIX);
    let node = |name: &str, labels: Value| json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
    nodes
        .patch("one", &force(names::MANAGER_AGENT), &Patch::Apply(node("one", json!({ &label: "true" }))))
        .await
        .unwrap();
    nodes.patch("one", &force(names::MANAGER_AGENT), &Patch::Apply(node("one", json!({})))).await.unwrap();
    let foreign = [
        json!({ "metadata": { "labels": { "zone": "mine" } } }),
        json!({ "metadata": { "labels": { "theirs": "2" } } }),
        json!({ "metadata": { "labels": { "theirs": null } } }),
        json!({ "metadata": { "annotations": { "a": "b" } } }),
        json!({ "metadata": { "finalizers": ["a.example/b"] } }),
        json!({ "spec": { "unschedulable": true } }),
        json!({ "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] } }),
    ];
    for change in foreign {
        refused(
            nodes.patch("one", &PatchParams::default(), &Patch::Merge(&change)).await,
            "but labels that begin with",
        );
    }
    let other = node("two", json!({ &label: "true" }));
    refused(apply(agent, &other, names::MANAGER_AGENT).await, "its own node, one");

    // A DiskPool is answered for one's own node; the others' answers stay.
    let pools: Api<DiskPool> = Api::all(admin.clone());
    let answers = |entries: Value| {
        json!({ "apiVersion": "bedplate.dev/v1alpha1", "kind": "DiskPool", "metadata": { "name": "local" },
            "status": { "nodes": entries } })
    };
    let ready = |node: &str| json!({ "node": node, "state": "Ready", "message": "", "observedGeneration": 1 });
    let own = answers(json!([ready("two")]));
    pools.patch_status("local", &force("two"), &Patch::Apply(&own)).await.unwrap();
    let pools: Api<DiskPool> = Api::all(agent.clone());
    pools.patch_status("local", &force("one"), &Patch::Apply(&answers(json!([ready("one")])))).await.unwrap();
    let theirs = json!([{ "node": "two", "state": "Refused", "message": "", "observedGeneration": 1 }]);
    refused(pools.patch_status("local", &force("one"), &Patch::Apply(&answers(theirs))).await, "own node, one");
    let more = json!([ready("one"), ready("three")]);
    refused(pools.patch_status("local", &force("one"), &Patch::Apply(&answers(more))).await, "own node, one");

    let event = |reporter: &str| {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": format!("by-{reporter}"), "namespace": "default" },
            "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Wipe", "reason": "Wiped", "type": "Normal",
            "reportingController": names::MANAGER_AGENT, "reportingInstance": reporter,
            "regarding": { "apiVersion": "v1", "kind": "Node", "name": reporter },
        })
    };
    apply(agent, &event("one"), "agent").await.unwrap();
    refused(apply(agent, &event("two"), "agent").await, "as its own node, one");
}

async fn a_release_is_the_provisioners(admin: &Client, agent: &Client, provisioner: &Client) {
    let volume = |node: &str| {
        let spec = LocalVolumeSpec {
            node_name: node.to_owned(),
            ledger_id: uuid::Uuid::nil().to_string(),
            pool: "local".to_owned(),
            bytes: 1 << 30,
            claim_uid: "u".to_owned(),
            ..LocalVolumeSpec::default()
        };
        serde_json::to_value(LocalVolume::new(&format!("pvc-u-{node}"), spec)).unwrap()
    };
    let released = |node: &str| {
        let mut value = volume(node);
        value["spec"]["release"] = json!({ "claimUID": "u", "kind": "reclaimed" });
        value
    };
    refused(apply(admin, &released("one"), "admin").await, "by the provisioner alone");
    for node in ["one", "two"] {
        apply(provisioner, &volume(node), names::MANAGER_PROVISIONER).await.unwrap();
    }
    // Not even an administrator, and an agent may not write a spec at all.
    let volumes = |client: &Client| Api::<LocalVolume>::all(client.clone());
    let release = json!({ "spec": { "release": { "claimUID": "u", "kind": "reclaimed" } } });
    let merge = PatchParams::default();
    refused(volumes(admin).patch("pvc-u-one", &merge, &Patch::Merge(&release)).await, "by the provisioner alone");
    refused(volumes(agent).patch("pvc-u-one", &merge, &Patch::Merge(&release)).await, "cannot patch resource");

    let phase = |name: &str| json!({ "apiVersion": "bedplate.dev/v1alpha1", "kind": "LocalVolume", "metadata": { "name": name }, "status": { "phase": "Ready" } });
    let manager = PatchParams::apply(names::MANAGER_AGENT).force();
    volumes(agent).patch_status("pvc-u-one", &manager, &Patch::Apply(phase("pvc-u-one"))).await.unwrap();
    refused(
        volumes(agent).patch_status("pvc-u-two", &manager, &Patch::Apply(phase("pvc-u-two"))).await,
        "of its own node, one",
    );
    refused(volumes(agent).delete("pvc-u-one", &DeleteParams::default()).await, "cannot delete resource");

    volumes(provisioner).patch("pvc-u-one", &merge, &Patch::Merge(&release)).await.unwrap();
    // With the release in place others may still touch what is theirs.
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    volumes(admin).patch("pvc-u-one", &merge, &Patch::Merge(&label)).await.unwrap();
}

/// What a real kube-scheduler sends an extender when it is configured as `deploy/scheduler` says.
#[test]
fn a_real_scheduler_asks_with_names_only_and_goes_on_without_an_answer() {
    let Some(programs) = programs().filter(|folder| folder.join("kube-scheduler").is_file()) else {
        println!("no kube-scheduler on this machine: the configuration's fields are checked, nobody reads it");
        return;
    };
    let scratch = real_dir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (seen, url) = runtime.block_on(an_extender());
    let configuration = read(Path::new("scheduler/kubeadm.yaml")).unwrap().remove(0);
    let mut configuration = configuration.value;
    assert_eq!(configuration["extenders"][0]["urlPrefix"], "http://127.0.0.1:9817");
    configuration["extenders"][0]["urlPrefix"] = json!(url);
    configuration["clientConnection"]["kubeconfig"] = json!("$KUBECONFIG");
    configuration["leaderElection"]["leaderElect"] = json!(false);
    let plane = ControlPlane::start(&programs, scratch.path()).unwrap();
    let plane = plane.with_scheduler(&configuration.to_string()).unwrap();
    runtime.block_on(async {
        let admin = client(&plane.admin().unwrap()).await.unwrap();
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        apply(&admin, &account, "controllers").await.unwrap();
        for name in ["one", "two", "three"] {
            let mut node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
            apply(&admin, &node, "kubelet").await.unwrap();
            node["status"] = json!({
                "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" },
                "conditions": [{ "type": "Ready", "status": "True", "reason": "Ready", "message": "" }],
            });
            let nodes = Api::<Node>::all(admin.clone());
            nodes.patch_status(name, &PatchParams::apply("kubelet"), &Patch::Apply(&node)).await.unwrap();
        }
        apply(&admin, &pod("first"), "test").await.unwrap();
        // The extender leaves two of three and prefers one of them: that one it is.
        assert_eq!(bound(&admin, "first").await, "two");
    });
    let seen = seen.lock().unwrap().clone();
    let verbs: Vec<_> = seen.iter().map(|(verb, _)| verb.as_str()).collect();
    assert_eq!(verbs, ["filter", "prioritize"]);
    for (_, asked) in &seen {
        assert_eq!(asked["Pod"]["metadata"]["name"], "first");
        assert!(asked["Nodes"].is_null(), "full nodes are sent");
    }
    let mut names: Vec<_> = seen[0].1["NodeNames"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "three", "two"]);

    // Nobody answers any more: pods go on being scheduled.
    runtime.block_on(async {
        let admin = client(&plane.admin().unwrap()).await.unwrap();
        apply(&admin, &pod("unanswered"), "test").await.unwrap();
        bound(&admin, "unanswered").await;
    });
}

/// It tolerates everything: no controller is there to take a new node's taint off.
fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "i" }], "tolerations": [{ "operator": "Exists" }] },
    })
}

async fn bound(client: &Client, name: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let pod = pods.get(name).await.unwrap();
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
            return node;
        }
        assert!(Instant::now() < deadline, "{name} is not scheduled: {:?}", pod.status);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An extender that keeps what it is asked, drops node `three`, prefers `two`, and never answers for a pod `unanswered`.
async fn an_extender() -> (Asked, String) {
    let seen = Asked::default();
    let keep = Arc::clone(&seen);
    let answer = async move |verb: AxumPath<String>, body: Json<Value>| {
        let (AxumPath(verb), Json(asked)) = (verb, body);
        if asked["Pod"]["metadata"]["name"] == "unanswered" {
            std::future::pending::<()>().await;
        }
        let names: Vec<Value> = asked["NodeNames"].as_array().cloned().unwrap_or_default();
        keep.lock().unwrap().push((verb.clone(), asked));
        if verb == "filter" {
            let (out, left): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name == "three");
            let out: serde_json::Map<_, _> =
                out.iter().map(|name| (name.as_str().unwrap().to_owned(), json!("not fast enough"))).collect();
            return Json(json!({ "NodeNames": left, "FailedAndUnresolvableNodes": out }));
        }
        Json(names.iter().map(|name| json!({ "Host": name, "Score": if name == "two" { 10 } else { 0 } })).collect())
    };
    let router = axum::Router::new().route("/{verb}", axum::routing::post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (seen, url)
}
