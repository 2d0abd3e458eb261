//! How objects end, and what holds others: deletion with grace and finalizers, namespaces and custom resource
//! definitions, which take what is in them along and go last. The rules are those of the API server and of the namespace
//! and CRD controllers; here they act at once.

use std::sync::Arc;

use serde_json::{Value, json};

use super::call::Call;
use super::refusal::Refusal;
use super::resources::Resource;
use super::store::{DEFINITIONS, Key, Object, Store};
use super::values::{list, meta, object, text};
use super::write;

const NAMESPACES: &str = "/namespaces";
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// True once somebody asked for an object's deletion.
pub(super) fn deleting(value: &Value) -> bool {
    !text(value, "/metadata/deletionTimestamp").is_empty()
}

/// True if nothing holds an object any more whose deletion was asked for.
pub(super) fn finished(storage: &str, value: &Value) -> bool {
    deleting(value) && !held(storage, value) && value["metadata"]["deletionGracePeriodSeconds"].as_i64() == Some(0)
}

fn held(storage: &str, value: &Value) -> bool {
    !list(&value["metadata"]["finalizers"]).is_empty()
        || storage == NAMESPACES && !list(&value["spec"]["finalizers"]).is_empty()
}

/// Refuses a create in a namespace or under a definition that is absent or going.
pub(super) fn may_create(store: &Store, res: &Resource, namespace: &str, name: &str) -> Result<(), Refusal> {
    if res.namespaced {
        let Some(home) = store.get(NAMESPACES, &(String::new(), namespace.to_owned())) else {
            let row = Resource { plural: "namespaces".to_owned(), ..Resource::default() };
            return Err(Refusal::not_found(&row, namespace));
        };
        if deleting(&home.value) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            return Err(Refusal::forbidden(res, name, &why));
        }
    }
    match store.definition(&res.storage) {
        Some(definition) if deleting(&definition.value) => Err(Refusal::method()),
        _ => Ok(()),
    }
}

/// What the control plane adds to a new object of the few kinds that hold others, or that have a time of phase.
pub(super) fn created(call: &Call, new: &mut Value) -> Result<(), Refusal> {
    match call.res.storage.as_str() {
        NAMESPACES => {
            let name = text(new, "/metadata/name").to_owned();
            object(meta(new).entry("labels").or_insert(Value::Null))
                .insert("kubernetes.io/metadata.name".to_owned(), json!(name));
        }
        DEFINITIONS => establish(call, new)?,
        _ => stamp_phase(call, &Value::Null, new),
    }
    Ok(())
}

/// The same after a change.
pub(super) fn changed(call: &Call, old: &Value, new: &mut Value) -> Result<(), Refusal> {
    if call.res.storage == DEFINITIONS && call.sub.is_empty() {
        return establish(call, new);
    }
    stamp_phase(call, old, new);
    Ok(())
}

fn stamp_phase(call: &Call, old: &Value, new: &mut Value) {
    if call.res.storage == "/persistentvolumes" && old["status"]["phase"] != new["status"]["phase"] {
        new["status"]["lastPhaseTransitionTime"] = json!(call.writer.time);
    }
}

/// Names, status and conditions of a definition that is served at once.
fn establish(call: &Call, new: &mut Value) -> Result<(), Refusal> {
    let spec = &mut new["spec"];
    let name = format!("{}.{}", text(spec, "/names/plural"), text(spec, "/group"));
    let versions: Vec<_> = list(&spec["versions"]).iter().map(|version| version["name"].clone()).collect();
    let kind = text(spec, "/names/kind").to_owned();
    let names = object(&mut spec["names"]);
    names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
    names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
    let names = Value::Object(names.clone());
    object(spec).entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    if text(new, "/metadata/name") != name || versions.is_empty() || kind.is_empty() {
        let why = format!("Invalid value: must be spec.names.plural+\".\"+spec.group: {name}");
        let cause = ("FieldValueInvalid", "metadata.name".to_owned(), why);
        return Err(Refusal::invalid(&call.res, text(new, "/metadata/name"), &[cause]));
    }
    if new["status"].is_null() {
        let condition = |kind: &str, reason: &str| {
            json!({"type": kind, "status": "True", "lastTransitionTime": call.writer.time, "reason": reason,
                "message": "the name is served"})
        };
        new["status"]["conditions"] =
            json!([condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")]);
    }
    new["status"]["acceptedNames"] = names;
    new["status"]["storedVersions"] = Value::Array(versions);
    Ok(())
}

/// Deletes an object or begins to. The answer's flag: it is gone.
pub(super) fn delete(store: &mut Store, call: &Call, options: &Value) -> Result<(Arc<Object>, bool), Refusal> {
    let old = call.find(store)?;
    let (uid, version) = (text(options, "/preconditions/uid"), text(options, "/preconditions/resourceVersion"));
    let actual = text(&old.value, "/metadata/uid");
    if !uid.is_empty() && uid != actual {
        let why = format!("the UID in the precondition ({uid}) does not match the UID in record ({actual})");
        return Err(Refusal::precondition(&call.res, call.name(), &why));
    }
    if !version.is_empty() && version != old.revision.to_string() {
        let why = format!("the ResourceVersion in the precondition ({version}) does not match the one in record");
        return Err(Refusal::precondition(&call.res, call.name(), &why));
    }
    if call.res.storage == NAMESPACES && ["default", "kube-public", "kube-system"].contains(&call.name()) {
        return Err(Refusal::forbidden(&call.res, call.name(), "this namespace may not be deleted"));
    }
    let asked = options["gracePeriodSeconds"].as_i64().or_else(|| call.param("gracePeriodSeconds").parse().ok());
    let dry = call.param("dryRun") == "All" || list(&options["dryRun"]).contains(&json!("All"));
    if dry {
        let gone = !held(&call.res.storage, &old.value);
        return Ok((old, gone));
    }
    let ended = end(store, &call.res.storage, &call.key(), &old, asked, &call.writer.time);
    after(store, &call.res.storage, &call.writer.time);
    Ok(ended)
}

/// Seconds that an object is left to end by itself: pods on a node, until their kubelet deletes them with 0.
fn grace(storage: &str, value: &Value, asked: Option<i64>) -> i64 {
    let ended = ["Failed", "Succeeded"].contains(&text(value, "/status/phase"));
    if storage != "/pods" || text(value, "/spec/nodeName").is_empty() || ended {
        return 0;
    }
    asked.or_else(|| value["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30)
}

fn end(
    store: &mut Store,
    storage: &str,
    key: &Key,
    old: &Arc<Object>,
    asked: Option<i64>,
    now: &str,
) -> (Arc<Object>, bool) {
    let grace = grace(storage, &old.value, asked);
    let left = old.value["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if deleting(&old.value) && left.is_some_and(|left| left <= grace) {
        return (Arc::clone(old), false);
    }
    if grace == 0 && !held(storage, &old.value) {
        return (store.remove(storage, key).unwrap_or_else(|| Arc::clone(old)), true);
    }
    let mut new = old.value.clone();
    let at = now.parse().map_or_else(
        |_| now.to_owned(),
        |now: jiff::Timestamp| (now + jiff::SignedDuration::from_secs(grace)).to_string(),
    );
    meta(&mut new).insert("deletionTimestamp".to_owned(), json!(at));
    meta(&mut new).insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    if let Some(generation) = old.value["metadata"]["generation"].as_i64() {
        meta(&mut new).insert("generation".to_owned(), json!(generation + 1));
    }
    if storage == NAMESPACES {
        new["status"]["phase"] = json!("Terminating");
    }
    (store.put(storage, key, new), false)
}

/// After every write: what is served follows the definitions, and what is going takes along what is in it.
pub(super) fn after(store: &mut Store, storage: &str, now: &str) {
    let mut redefined = storage == DEFINITIONS;
    let going = |store: &Store, storage: &str| -> Vec<(Key, Arc<Object>)> {
        let all = store.table(storage).map(|table| table.objects.iter()).into_iter().flatten();
        let going = all.filter(|(_, object)| deleting(&object.value));
        going.map(|(key, object)| (key.clone(), Arc::clone(object))).collect()
    };
    for (key, definition) in going(store, DEFINITIONS) {
        let spec = &definition.value["spec"];
        let table = format!("{}/{}", text(spec, "/group"), text(spec, "/names/plural"));
        if empty(store, &table, None, now)
            && list(&definition.value["metadata"]["finalizers"]).contains(&json!(CLEANUP))
        {
            release(store, DEFINITIONS, &key, &definition);
            redefined = true;
        }
    }
    for (key, namespace) in going(store, NAMESPACES) {
        let tables = store.catalogue.values().filter(|res| res.namespaced).map(|res| res.storage.clone());
        let left = tables.collect::<Vec<_>>().iter().filter(|table| !empty(store, table, Some(&key.1), now)).count();
        if left == 0 && !list(&namespace.value["spec"]["finalizers"]).is_empty() {
            release(store, NAMESPACES, &key, &namespace);
        }
    }
    if redefined {
        store.refresh_catalogue();
    }
}

/// Asks for the deletion of everything in a table (of one namespace); true once nothing is left.
fn empty(store: &mut Store, storage: &str, namespace: Option<&str>, now: &str) -> bool {
    let contents = store.table(storage).map(|table| table.scan(namespace)).into_iter().flatten();
    let mut left: Vec<_> = contents.map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
    left.retain(|(key, object)| deleting(&object.value) || !end(store, storage, key, object, None, now).1);
    left.is_empty()
}

/// Takes off what held a namespace or definition for the sake of its contents; removes it if nothing else does.
fn release(store: &mut Store, storage: &str, key: &Key, holder: &Object) {
    let mut new = holder.value.clone();
    if let Some(finalizers) = new.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| finalizer != CLEANUP);
    }
    if storage == NAMESPACES {
        new["spec"]["finalizers"] = json!([]);
    }
    if finished(storage, &new) {
        store.remove(storage, key);
    } else {
        store.put(storage, key, new);
    }
}

/// Creates what every cluster has.
pub(super) fn furnish(store: &mut Store) {
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        if let Ok(call) = Call::parse(store, "", "v1", &["namespaces"]) {
            let created = write::create(store, &call, json!({"metadata": {"name": name}}));
            debug_assert!(created.is_ok());
        }
    }
}
