//! The embedded API server through the client that our programs use: typed objects, watchers of both kinds, apply.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use bedplate_sim::apiserver::{ApiServer, Fault, Interruption, Options};
use futures::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

fn server() -> (ApiServer, Client) {
    let server = ApiServer::start(Options::default()).unwrap();
    let client = server.client().unwrap();
    (server, client)
}

fn config_map(name: &str, label: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("l".to_owned(), label.to_owned())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("a".to_owned(), "1".to_owned())])),
        ..ConfigMap::default()
    }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.expect("in time")
}

/// The next thing that a watcher tells, in words.
async fn told(stream: &mut (impl Stream<Item = Result<Event<ConfigMap>, watcher::Error>> + Unpin)) -> String {
    loop {
        return match within(stream.try_next()).await {
            Ok(Some(Event::Init)) => "init".to_owned(),
            Ok(Some(Event::InitApply(object))) => format!("initial {}", object.name_any()),
            Ok(Some(Event::InitDone)) => "ready".to_owned(),
            Ok(Some(Event::Apply(object))) => format!("apply {}", object.name_any()),
            Ok(Some(Event::Delete(object))) => format!("delete {}", object.name_any()),
            Ok(None) => "end".to_owned(),
            Err(_) => continue,
        };
    }
}

#[tokio::test]
async fn an_object_lives_through_the_typed_client() {
    let (_server, client) = server();
    let api = Api::<ConfigMap>::namespaced(client, "default");
    let made = api.create(&PostParams::default(), &config_map("one", "x")).await.unwrap();
    assert!(made.uid().is_some() && made.metadata.creation_timestamp.is_some());
    let mut newer = made.clone();
    newer.data = None;
    let newer = api.replace("one", &PostParams::default(), &newer).await.unwrap();
    assert!(newer.data.is_none());
    let error = api.replace("one", &PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"));
    assert_eq!(api.list(&ListParams::default().labels("l=x")).await.unwrap().items.len(), 1);
    assert_eq!(api.list(&ListParams::default().labels("l=y")).await.unwrap().items.len(), 0);
    api.delete("one", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("one").await.unwrap().is_none());
}

#[tokio::test]
async fn a_watcher_sees_the_same_by_list_and_watch_and_by_streaming_list_and_survives_a_broken_or_expired_watch() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let (server, client) = server();
        let api = Api::<ConfigMap>::namespaced(client, "default");
        api.create(&PostParams::default(), &config_map("one", "x")).await.unwrap();
        api.create(&PostParams::default(), &config_map("other", "y")).await.unwrap();
        let mut stream = pin!(watcher(api.clone(), config.labels("l=x")));
        for expected in ["init", "initial one", "ready"] {
            assert_eq!(told(&mut stream).await, expected);
        }
        let relabel = |to: &str| Patch::Merge(json!({"metadata": {"labels": {"l": to}}}));
        api.patch("other", &PatchParams::default(), &relabel("x")).await.unwrap();
        assert_eq!(told(&mut stream).await, "apply other");
        api.patch("other", &PatchParams::default(), &relabel("y")).await.unwrap();
        assert_eq!(told(&mut stream).await, "delete other");

        server.interrupt_watches(Interruption::Close);
        api.patch("other", &PatchParams::default(), &relabel("x")).await.unwrap();
        assert_eq!(told(&mut stream).await, "apply other", "resumed where it was");

        server.interrupt_watches(Interruption::Expire);
        assert_eq!(told(&mut stream).await, "init", "410 in the stream: everything anew");
        for expected in ["initial one", "initial other", "ready"] {
            assert_eq!(told(&mut stream).await, expected);
        }
    }
}

#[tokio::test]
async fn history_that_was_compacted_expires_a_watch_and_a_page_but_not_a_live_watch() {
    let (server, client) = server();
    let api = Api::<ConfigMap>::namespaced(client, "default");
    let first = api.create(&PostParams::default(), &config_map("one", "x")).await.unwrap();
    let mut live = pin!(api.watch(&WatchParams::default(), &first.resource_version().unwrap()).await.unwrap());
    api.create(&PostParams::default(), &config_map("two", "x")).await.unwrap();
    assert!(matches!(within(live.try_next()).await.unwrap(), Some(WatchEvent::Added(_))));
    let page = api.list(&ListParams::default().limit(1)).await.unwrap();
    let token = page.metadata.continue_.unwrap();
    api.delete("two", &DeleteParams::default()).await.unwrap();
    let rest = api.list(&ListParams::default().limit(5).continue_token(&token)).await.unwrap();
    assert_eq!(rest.items.len(), 1, "a page is of its list's revision, whatever was deleted since");

    server.compact();
    let error = api.list(&ListParams::default().continue_token(&token)).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 410));
    let mut old = pin!(api.watch(&WatchParams::default(), &first.resource_version().unwrap()).await.unwrap());
    assert!(matches!(within(old.try_next()).await.unwrap(), Some(WatchEvent::Error(status)) if status.code == 410));
    assert!(matches!(within(live.try_next()).await.unwrap(), Some(WatchEvent::Deleted(_))));
    api.create(&PostParams::default(), &config_map("three", "x")).await.unwrap();
    assert!(matches!(within(live.try_next()).await.unwrap(), Some(WatchEvent::Added(_))));
}

#[tokio::test]
async fn a_restored_server_knows_nothing_of_what_came_after_its_backup() {
    let (server, client) = server();
    let api = Api::<ConfigMap>::namespaced(client, "default");
    api.create(&PostParams::default(), &config_map("before", "x")).await.unwrap();
    let (backup, revision) = (server.snapshot(), server.revision());
    api.create(&PostParams::default(), &config_map("after", "x")).await.unwrap();
    let latest = server.revision().to_string();
    let mut live = pin!(api.watch(&WatchParams::default(), &latest).await.unwrap());
    server.restore(backup);
    assert!(within(live.try_next()).await.unwrap().is_none(), "watches end");
    assert_eq!(server.revision(), revision);
    assert!(api.get_opt("after").await.unwrap().is_none());
    assert!(api.get_opt("before").await.unwrap().is_some());
}

#[tokio::test]
async fn injected_faults_refuse_break_delay_and_lose_answers() {
    let (server, client) = server();
    let api = Api::<ConfigMap>::namespaced(client, "default");
    let create = async |name: &str| api.create(&PostParams::default(), &config_map(name, "x")).await;
    let posts = |method: &axum::http::Method, path: &str| method == "POST" && path.contains("configmaps");
    server.inject(1, Fault::Refuse(500), posts);
    assert!(matches!(create("a").await, Err(kube::Error::Api(status)) if status.code == 500));
    server.inject(1, Fault::Drop, posts);
    assert!(create("a").await.is_err());
    assert!(api.get_opt("a").await.unwrap().is_none(), "a dropped request did nothing");
    server.inject(1, Fault::LoseAnswer, posts);
    assert!(create("a").await.is_err());
    assert!(api.get_opt("a").await.unwrap().is_some(), "a lost answer's request was carried out");
    server.inject(1, Fault::Delay(Duration::from_millis(20)), posts);
    create("b").await.unwrap();
}

fn definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": "things.t.test"},
        "spec": {
            "group": "t.test", "scope": "Cluster",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"n": {"type": "integer"}}},
                    "status": {"type": "object", "properties": {
                        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {
                                "name": {"type": "string"}, "size": {"type": "integer"}}}}}},
                }}},
            }],
        },
    }))
    .unwrap()
}

fn things(client: &Client) -> Api<DynamicObject> {
    let resource = kube::core::ApiResource {
        group: "t.test".to_owned(),
        version: "v1".to_owned(),
        api_version: "t.test/v1".to_owned(),
        kind: "Thing".to_owned(),
        plural: "things".to_owned(),
    };
    Api::all_with(client.clone(), &resource)
}

fn thing(value: &Value) -> Value {
    let mut thing = json!({"apiVersion": "t.test/v1", "kind": "Thing", "metadata": {"name": "t"}});
    thing.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    thing
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects_and_waits_for_their_finalizers() {
    let (_server, client) = server();
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    let api = things(&client);
    let held = json!({"apiVersion": "t.test/v1", "kind": "Thing",
        "metadata": {"name": "held", "finalizers": ["t.test/hold"]}, "spec": {"n": 1}});
    api.create(&PostParams::default(), &serde_json::from_value(thing(&json!({}))).unwrap()).await.unwrap();
    api.create(&PostParams::default(), &serde_json::from_value(held).unwrap()).await.unwrap();

    definitions.delete("things.t.test", &DeleteParams::default()).await.unwrap();
    let left = api.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["held"]);
    assert!(left[0].metadata.deletion_timestamp.is_some());
    assert!(definitions.get("things.t.test").await.unwrap().metadata.deletion_timestamp.is_some());

    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("held", &PatchParams::default(), &free).await.unwrap();
    assert!(definitions.get_opt("things.t.test").await.unwrap().is_none());
    let error = api.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 404));
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_definition_with_a_thousand_held_objects_goes_in_one_step_and_leaves_when_the_last_is_let_go() {
    let (_server, client) = server();
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    let api = things(&client);
    for n in 0..1000 {
        let held = json!({"apiVersion": "t.test/v1", "kind": "Thing",
            "metadata": {"name": format!("t{n}"), "finalizers": ["t.test/hold"]}});
        api.create(&PostParams::default(), &serde_json::from_value(held).unwrap()).await.unwrap();
    }
    definitions.delete("things.t.test", &DeleteParams::default()).await.unwrap();
    let all = api.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(all.iter().filter(|thing| thing.metadata.deletion_timestamp.is_some()).count(), 1000);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for n in 0..1000 {
        assert!(definitions.get_opt("things.t.test").await.unwrap().is_some(), "{n} are gone");
        api.patch(&format!("t{n}"), &PatchParams::default(), &free).await.unwrap();
    }
    assert!(definitions.get_opt("things.t.test").await.unwrap().is_none());
}

#[tokio::test]
async fn applied_keyed_lists_merge_by_key_and_drop_what_their_owner_no_longer_names() {
    let (_server, client) = server();
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.unwrap();
    let api = things(&client);
    api.create(&PostParams::default(), &serde_json::from_value(thing(&json!({}))).unwrap()).await.unwrap();
    let apply = async |manager: &str, parts: Value| {
        let status = Patch::Apply(thing(&json!({"status": {"parts": parts}})));
        api.patch_status("t", &PatchParams::apply(manager), &status).await.map(|thing| thing.data["status"].clone())
    };
    apply("one", json!([{"name": "a", "size": 1}, {"name": "b", "size": 1}])).await.unwrap();
    let both = apply("two", json!([{"name": "c", "size": 2}])).await.unwrap();
    assert_eq!(both["parts"].as_array().unwrap().len(), 3);
    let refused = apply("two", json!([{"name": "a", "size": 2}])).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 409));
    let left = apply("one", json!([{"name": "b", "size": 1}])).await.unwrap();
    assert_eq!(left, json!({"parts": [{"name": "b", "size": 1}, {"name": "c", "size": 2}]}));
    let none = apply("one", json!([])).await.unwrap();
    assert_eq!(none, json!({"parts": [{"name": "c", "size": 2}]}));
}

#[tokio::test]
async fn a_namespace_takes_its_objects_along_and_waits_for_finalizers_and_for_pods_on_nodes() {
    let (_server, client) = server();
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace =
        Namespace { metadata: ObjectMeta { name: Some("n".into()), ..Default::default() }, ..Default::default() };
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let pods = Api::<Pod>::namespaced(client.clone(), "n");
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "n");
    maps.create(&PostParams::default(), &config_map("one", "x")).await.unwrap();
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}})).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "node"}});
    let _: Value = pods.create_subresource("binding", "p", &PostParams::default(), &binding).await.unwrap();

    namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("one").await.unwrap().is_none());
    let going = pods.get("p").await.unwrap();
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30), "the kubelet has to end it first");
    let phase = namespaces.get("n").await.unwrap().status.unwrap().phase;
    assert_eq!(phase.as_deref(), Some("Terminating"));
    let error = maps.create(&PostParams::default(), &config_map("two", "x")).await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 403));

    pods.delete("p", &DeleteParams { grace_period_seconds: Some(0), ..Default::default() }).await.unwrap();
    assert!(namespaces.get_opt("n").await.unwrap().is_none());
}

#[tokio::test]
async fn five_thousand_nodes_and_fifty_thousand_objects_are_carried_with_a_watcher_on_them() {
    let (server, client) = server();
    let (nodes, maps) = (Api::<Node>::all(client.clone()), Api::<ConfigMap>::namespaced(client.clone(), "default"));
    let many = if std::env::var_os("BEDPLATE_LONG").is_some() { 50_000 } else { 5_000 };
    let began = std::time::Instant::now();
    let node = |n: usize| Node {
        metadata: ObjectMeta { name: Some(format!("n{n}")), ..Default::default() },
        ..Default::default()
    };
    for n in 0..many / 10 {
        nodes.create(&PostParams::default(), &node(n)).await.unwrap();
    }
    let mut stream = pin!(watcher(maps.clone(), watcher::Config::default()));
    assert_eq!(told(&mut stream).await, "init");
    assert_eq!(told(&mut stream).await, "ready");
    let writer = tokio::spawn(async move {
        for n in 0..many {
            maps.create(&PostParams::default(), &config_map(&format!("m{n}"), "x")).await.unwrap();
        }
        maps
    });
    for n in 0..many {
        assert_eq!(told(&mut stream).await, format!("apply m{n}"), "in order, none missing");
    }
    let maps = writer.await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), many);
    assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), many / 10);
    println!("{} writes in {:?}, revision {}", many + many / 10, began.elapsed(), server.revision());
}
