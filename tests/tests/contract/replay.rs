//! Plays a case against a server: sets up, asks step by step, puts live values where recorded ones differ from run to
//! run, and fails with every difference.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::compare::{Answer, altered, differences};
use crate::golden::{Case, Step};
use crate::setup::{self, Kind, NAMES, http};

/// How long controllers, and a real server, are given.
const PATIENCE: Duration = Duration::from_secs(30);

/// A replay under way.
pub struct Replay {
    client: Client,
    kind: Kind,
    /// Also try changed recordings on every answer: each must be noticed.
    control: bool,
    /// Changed recordings that were noticed.
    pub noticed: usize,
    /// Recorded resourceVersion → what it is here.
    versions: HashMap<String, String>,
    /// The last list's continue token.
    token: String,
    /// The last object's resourceVersion.
    version: Value,
}

impl Replay {
    pub fn new(client: Client, kind: Kind, control: bool) -> Self {
        let (versions, token, version) = (HashMap::new(), String::new(), Value::Null);
        Self { client, kind, control, noticed: 0, versions, token, version }
    }

    /// Plays a case from its set-up to its end.
    pub async fn case(&mut self, case: &Case) {
        self.prepare(&case.name).await;
        for (place, step) in case.steps.iter().enumerate() {
            let step = self.fitted(step).await;
            let begun = Instant::now();
            let (live, found) = loop {
                let live = self.play(&step).await;
                let found = differences(&step, &live, self.kind, NAMES);
                // What controllers do takes its time; everything else is so at once.
                let patient = case.needs_controllers() && step.method == "GET" && begun.elapsed() < PATIENCE;
                if found.is_empty() || !patient {
                    break (live, found);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            if let Some(why) = excused(&step, &live).filter(|_| self.kind == Kind::Real) {
                println!("contract: not judged: {} {}: {why}", step.method, step.path);
                continue;
            }
            let what = format!("{}, step {place}: {} {} ({})", case.name, step.method, step.path, step.note);
            assert!(found.is_empty(), "{what}\n{}", found.join("\n"));
            if step.same_resource_version_as_before {
                assert_eq!(live.body["metadata"]["resourceVersion"], self.version, "{what}: the version stays");
            }
            self.version = live.body["metadata"]["resourceVersion"].clone();
            if self.control {
                for changed in altered(&step, self.kind) {
                    let found = differences(&changed, &live, self.kind, NAMES);
                    assert!(!found.is_empty(), "{what}: not noticed: {} {:?}", changed.response, changed.events);
                    self.noticed += 1;
                }
            }
        }
    }

    async fn prepare(&self, case: &str) {
        for path in setup::leftovers() {
            let begun = Instant::now();
            while self.ask("DELETE", &format!("{path}?gracePeriodSeconds=0"), "", &Value::Null).await.status != 404 {
                let free = json!({"metadata": {"finalizers": null}});
                self.ask("PATCH", &path, "application/merge-patch+json", &free).await;
                assert!(begun.elapsed() < PATIENCE, "{path} does not go");
            }
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "contract"}});
        self.ask("POST", "/api/v1/namespaces", "application/json", &namespace).await;
        for (method, path, content_type, body) in setup::present(case) {
            let begun = Instant::now();
            // A new namespace's service account comes a moment later.
            while let answer = self.ask(method, &path, content_type, &body).await
                && answer.status >= 300
            {
                assert!(begun.elapsed() < PATIENCE, "set-up of {case}: {path}: {answer:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// A recorded step with this run's values.
    async fn fitted(&mut self, step: &Step) -> Step {
        let mut step = step.clone();
        if step.path.contains("<rv>") {
            let collection = step.path.split('?').next().unwrap_or_default();
            let list = self.ask("GET", collection, "", &Value::Null).await;
            step.path = step.path.replace("<rv>", list.body["metadata"]["resourceVersion"].as_str().unwrap_or("none"));
        }
        step.path = step.path.replace("<token>", &self.token);
        let recorded = step.body["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        if let Some(recorded) = recorded.filter(|_| step.method == "PUT") {
            let now = self.ask("GET", &step.path, "", &Value::Null).await.body["metadata"].clone();
            // The same recorded version is the same version here, so what was stale then is stale now.
            let current = now["resourceVersion"].as_str().unwrap_or_default().to_owned();
            let version = self.versions.entry(recorded).or_insert(current);
            step.body["metadata"]["resourceVersion"] = json!(version);
            step.body["metadata"]["uid"] = now["uid"].clone();
            step.body["metadata"]["creationTimestamp"] = now["creationTimestamp"].clone();
            step.body["metadata"]["managedFields"] = now["managedFields"].clone();
        }
        if step.path.ends_with("/leases/lead") && step.status == 200 {
            // The recorder changed this body for the next step before it wrote it down.
            step.body["spec"]["holderIdentity"] = step.response["spec"]["holderIdentity"].clone();
        }
        if step.body["spec"]["claimRef"].is_object() {
            let claim = "/api/v1/namespaces/contract/persistentvolumeclaims/c1";
            let claim = self.ask("GET", claim, "", &Value::Null).await.body;
            step.body["spec"]["claimRef"]["uid"] = claim["metadata"]["uid"].clone();
        }
        step
    }

    async fn play(&mut self, step: &Step) -> Answer {
        if step.method == "WATCH" {
            return self.watch(step).await;
        }
        let content_type = if step.content_type.is_empty() { "application/json" } else { &step.content_type };
        let answer = self.ask(&step.method, &step.path, content_type, &step.body).await;
        if let Some(token) = answer.body["metadata"]["continue"].as_str() {
            self.token = token.replace('+', "%2B").replace('=', "%3D");
        }
        if let Some(path) = setup::served_after(&step.path) {
            let begun = Instant::now();
            while self.ask("GET", path, "", &Value::Null).await.status != 200 {
                assert!(begun.elapsed() < PATIENCE, "{path} is not served");
            }
        }
        answer
    }

    /// Opens the watch, lets happen what happens beside it, and reads until the server ends it.
    async fn watch(&self, step: &Step) -> Answer {
        let response = self.client.send(http("GET", &step.path, "", &Value::Null)).await.expect("a watch");
        let status = response.status().as_u16();
        for (method, path, content_type, body) in setup::beside(&step.path) {
            let answer = self.ask(method, &path, content_type, &body).await;
            assert!(answer.status < 300, "{method} {path} beside the watch: {answer:?}");
        }
        let text = text(response).await;
        let events = text.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
        Answer { status, body: Value::Null, events }
    }

    async fn ask(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Answer {
        let response = self.client.send(http(method, path, content_type, body)).await;
        let response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let status = response.status().as_u16();
        let text = text(response).await;
        let body = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        Answer { status, body, events: Vec::new() }
    }
}

/// Why a real server's watch cannot be judged, if it cannot.
fn excused(step: &Step, live: &Answer) -> Option<String> {
    let first = live.events.first()?;
    if first["object"]["code"].as_u64() >= Some(500) {
        // On an etcd before 3.4.25 the server cannot know how far its watches have come.
        return Some(format!("the server cannot: {}", first["object"]["message"]));
    }
    let young = step.path.contains("resourceVersion=1&") && first["type"] != "ERROR";
    young.then(|| "this server is young enough to know its whole history".to_owned())
}

async fn text(response: axum::http::Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}
