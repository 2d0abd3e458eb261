//! Whether an answer agrees with a recorded one. Pure; what is left out of the comparison is listed here and nowhere else.

use serde_json::{Map, Value, json};

use crate::golden::Step;
use crate::setup::Kind;

/// Fields whose wording or bookkeeping may differ.
const LEFT_OUT: &[&str] = &["managedFields", "message", "serverAddressByClientCIDRs", "storageVersionHash"];

/// Subresources that the embedded server does not have: nothing of ours asks a kubelet through the API server.
const NOT_EMBEDDED: &[&str] = &[
    "nodes/proxy",
    "pods/attach",
    "pods/ephemeralcontainers",
    "pods/exec",
    "pods/log",
    "pods/portforward",
    "pods/proxy",
    "pods/resize",
];

/// A field manager that only a cluster with its controllers has.
const CONTROLLERS: &str = "kube-controller-manager";

/// What a server answered.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    /// A string if it was no JSON.
    pub body: Value,
    pub events: Vec<Value>,
}

/// Every way in which an answer disagrees with the recorded one; none if it agrees. `names` are the objects that belong
/// to the case: lists of names are recorded of these alone.
pub fn differences(step: &Step, live: &Answer, kind: Kind, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    if step.status != live.status {
        found.push(format!("status {}, recorded {}: {}", live.status, step.status, live.body));
    }
    let (wanted, got) =
        (normal(&served(&step.response, kind)), normal(&reduced(&step.response, &live.body, kind, names)));
    if wanted != got {
        found.push(format!("answer\n  {got}\nrecorded\n  {wanted}"));
    }
    let events = |events: &[Value]| events.iter().map(normal).collect::<Vec<_>>();
    let (wanted, got) = (events(&step.events), events(&live.events));
    if wanted != got {
        found.push(format!("events\n  {}\nrecorded\n  {}", json!(live.events), json!(wanted)));
    }
    found
}

/// Placeholders where values differ from run to run; what is left out goes; sets are sorted.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
            Value::Object(fields.map(|(name, field)| (name.clone(), normal_field(name, field))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        Value::String(text) if uuid::Uuid::parse_str(text).is_ok() => json!("<uid>"),
        Value::String(text) if text.parse::<jiff::Timestamp>().is_ok() => json!("<time>"),
        other => other.clone(),
    }
}

fn normal_field(name: &str, field: &Value) -> Value {
    let mut field = normal(field);
    match (name, &mut field) {
        ("resourceVersion", Value::String(text)) if text.parse::<u64>().is_ok() => "<rv>".clone_into(text),
        ("verbs" | "causes", Value::Array(items)) => {
            items.sort_by_key(Value::to_string);
            items.dedup(); // a real server names some causes twice
        }
        ("managers", Value::Array(managers)) => managers.retain(|manager| manager[0] != CONTROLLERS),
        _ => {}
    }
    field
}

/// The recorded answer as far as this kind of server gives it.
fn served(golden: &Value, kind: Kind) -> Value {
    let mut golden = golden.clone();
    if let Some(Value::Array(resources)) = golden.get_mut("resources").filter(|_| kind == Kind::Embedded) {
        resources.retain(|resource| !NOT_EMBEDDED.iter().any(|name| resource["name"] == *name));
    }
    if golden.get("deleting").is_some() {
        golden["finalizers"] = unprotected(&golden["finalizers"]);
    }
    golden
}

/// Without what the control plane takes off a volume that is being deleted and not bound, in its own time.
fn unprotected(finalizers: &Value) -> Value {
    let kept = finalizers.as_array().into_iter().flatten().filter(|one| **one != "kubernetes.io/pv-protection");
    kept.cloned().collect()
}

fn pick(value: &Value, like: &Map<String, Value>) -> Value {
    let picked = like.keys().filter_map(|key| value.get(key).map(|field| (key.clone(), field.clone())));
    Value::Object(picked.collect())
}

/// Some answers were recorded reduced: an answer in the same form.
fn reduced(golden: &Value, live: &Value, kind: Kind, names: &[&str]) -> Value {
    let meta = &live["metadata"];
    let items = live["items"].as_array().map_or(&[][..], Vec::as_slice);
    match golden {
        Value::Null => Value::Null,
        _ if live.is_string() => live.clone(),
        Value::String(_) => live["kind"].clone(),
        Value::Array(_) => {
            let found = items.iter().map(|item| &item["metadata"]["name"]);
            found.filter(|name| name.as_str().is_some_and(|name| names.contains(&name))).cloned().collect()
        }
        Value::Object(fields) => {
            let has = |name: &str| fields.contains_key(name);
            if has("nameMatches") {
                let prefix = meta["generateName"].as_str().unwrap_or("no prefix");
                let rest = meta["name"].as_str().and_then(|name| name.strip_prefix(prefix)).unwrap_or_default();
                json!({"kind": live["kind"], "generateName": prefix, "nameMatches": rest.len() == 5})
            } else if has("labels") {
                let managers = meta["managedFields"].as_array().into_iter().flatten();
                let managers: Vec<_> =
                    managers.map(|one| json!([one["manager"], one["operation"], one["subresource"]])).collect();
                pick(&json!({"labels": meta["labels"], "managers": managers}), fields)
            } else if has("nodeInfo") {
                pick(&live["status"], fields)
            } else if has("hasContinue") {
                let more = meta["continue"].as_str().is_some_and(|token| !token.is_empty());
                let remaining = !meta["remainingItemCount"].is_null();
                pick(&json!({"n": items.len(), "hasContinue": more, "remaining": remaining}), fields)
            } else if has("nodeName") {
                let conditions = live["status"]["conditions"].as_array().into_iter().flatten();
                let conditions: Vec<_> = conditions.map(|one| json!([one["type"], one["status"]])).collect();
                json!({"nodeName": live["spec"]["nodeName"], "conditions": conditions})
            } else if has("deleting") {
                let finalizers = unprotected(&meta["finalizers"]);
                json!({"deleting": meta["deletionTimestamp"].is_string(), "finalizers": finalizers})
            } else if has("resources") {
                let mut all = live.clone();
                let wanted = served(golden, kind)["resources"].as_array().cloned().unwrap_or_default();
                let found = |name: &Value| {
                    live["resources"].as_array().into_iter().flatten().find(|one| one["name"] == *name).cloned()
                };
                all["resources"] = wanted.iter().map(|one| found(&one["name"]).unwrap_or_default()).collect();
                all
            } else if !has("kind") || live["kind"] == "Status" && !has("metadata") {
                pick(live, fields)
            } else {
                live.clone()
            }
        }
        _ => live.clone(),
    }
}

/// Answers that differ from a recorded one in one thing that must agree: another status, another value at a leaf, an
/// element or an event too few.
pub fn altered(step: &Step, kind: Kind) -> Vec<Step> {
    let mut steps = vec![Step { status: step.status + 1, ..step.clone() }];
    let bodies = alter(&served(&step.response, kind));
    steps.extend(bodies.into_iter().map(|response| Step { response, ..step.clone() }));
    let events = alter(&Value::Array(step.events.clone()));
    let events = events.into_iter().filter_map(|events| events.as_array().cloned());
    steps.extend(events.map(|events| Step { events, ..step.clone() }));
    steps
}

fn alter(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Bool(flag) => vec![json!(!flag)],
        Value::Number(number) => vec![json!(number.as_f64().unwrap_or_default() + 1.0)],
        Value::String(text) => vec![json!(format!("{text}-changed"))],
        Value::Array(items) => {
            let mut altered: Vec<_> = (0..items.len())
                .filter(|place| items[*place][0] != CONTROLLERS)
                .flat_map(|place| {
                    alter(&items[place]).into_iter().map(move |item| {
                        let mut items = items.clone();
                        items[place] = item;
                        Value::Array(items)
                    })
                })
                .collect();
            // Lists that were recorded in part (resources, managers) may be longer; names may be said twice.
            if let Some((last, rest)) = items.split_last()
                && !rest.contains(last)
                && last.get("verbs").is_none()
                && last[0] != CONTROLLERS
            {
                altered.push(json!(rest));
            }
            altered
        }
        Value::Object(fields) => {
            let judged = fields.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str()));
            judged
                .flat_map(|(name, field)| {
                    alter(field).into_iter().map(move |field| {
                        let mut fields = fields.clone();
                        fields.insert(name.clone(), field);
                        Value::Object(fields)
                    })
                })
                .collect()
        }
    }
}
