//! Create, replace, patch and apply: from what a client sends to the state that is stored. One way through for every
//! resource: what the server owns in metadata is restored, status and spec are kept apart, defaults and schema applied,
//! ownership of fields recorded; an object that did not change is not written.

use std::sync::{Arc, LazyLock};

use rand::Rng;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::apply::{self, Writer};
use super::call::Call;
use super::refusal::{Cause, Refusal};
use super::schema;
use super::shape::Shape;
use super::store::{Key, Object, Store};
use super::values::{copy, fill, list, meta, name_of, object, strip_nulls, text};
use super::{lifecycle, patch};

/// Metadata that only the server sets.
const SERVER_OWNED: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
];

/// How an existing object is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Replace,
    Patch,
    Apply,
}

/// Stores a new object.
pub(super) fn create(store: &mut Store, call: &Call, body: Value) -> Result<Arc<Object>, Refusal> {
    let mut new = call.decode(body)?;
    let namespace = call.namespace.clone().unwrap_or_default();
    let sent = text(&new, "/metadata/namespace").to_owned();
    if call.res.namespaced && !sent.is_empty() && sent != namespace {
        return Err(Refusal::bad(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !text(&new, "/metadata/resourceVersion").is_empty() {
        return Err(Refusal::bad("resourceVersion should not be set on objects to be created"));
    }
    let name = name_for(call, &new)?;
    lifecycle::may_create(store, &call.res, &namespace, &name)?;
    let key: Key = (namespace.clone(), name.clone());
    if let Some(old) = store.get(&call.res.storage, &key) {
        return Err(Refusal::exists(&call.res, &name, lifecycle::deleting(&old.value)));
    }
    let metadata = meta(&mut new);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.remove(field);
    }
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".to_owned(), json!(call.writer.time));
    if call.res.namespaced {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    if call.res.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
    if let Some(finalizer) = &call.res.rules.protection
        && let Value::Array(finalizers) = metadata.entry("finalizers").or_insert_with(|| json!([]))
        && !finalizers.contains(&json!(finalizer))
    {
        finalizers.push(json!(finalizer));
    }
    if call.res.status && !call.res.keeps_status {
        object(&mut new).remove("status");
    }
    settle(call, None, &mut new)?;
    lifecycle::created(call, &mut new)?;
    // An applied object brings its own bookkeeping; anything else a client put there is not believed.
    if call.content_type != APPLY {
        meta(&mut new).remove("managedFields");
        apply::updated(None, &mut new, Shape::root(call.res.schema.as_ref()), &call.writer);
    }
    Ok(commit(store, call, &key, new))
}

/// The content type of server-side apply.
pub(super) const APPLY: &str = "application/apply-patch+yaml";

fn name_for(call: &Call, new: &Value) -> Result<String, Refusal> {
    let (name, prefix) = (name_of(new), text(new, "/metadata/generateName"));
    let invalid =
        |reason, why: String| Err(Refusal::invalid(&call.res, name, &[(reason, "metadata.name".to_owned(), why)]));
    if name.is_empty() && prefix.is_empty() {
        return invalid("FieldValueRequired", "Required value: name or generateName is required".to_owned());
    }
    let name_or_generated = if name.is_empty() { format!("{prefix}{}", suffix()) } else { name.to_owned() };
    // RFC 1123 subdomain. Role names of RBAC may also hold colons.
    let form = if call.res.group.starts_with("rbac") { r"^[^/%]+$" } else { r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" };
    let fits = Regex::new(form).is_ok_and(|form| form.is_match(&name_or_generated)) && name_or_generated.len() <= 253;
    if !fits {
        return invalid("FieldValueInvalid", format!("Invalid value: \"{name}\": a lowercase RFC 1123 subdomain"));
    }
    Ok(name_or_generated)
}

/// Five characters as a real server draws them.
fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

/// Replaces an object by the body.
pub(super) fn replace(store: &mut Store, call: &Call, body: Value) -> Result<Arc<Object>, Refusal> {
    let new = call.decode(body)?;
    let old = call.find(store)?;
    change(store, call, &old, new, Change::Replace)
}

/// Patches an object, by the content type of the request. Apply creates what is not there: the answer's flag.
pub(super) fn patch(store: &mut Store, call: &Call, body: &Value) -> Result<(Arc<Object>, bool), Refusal> {
    if call.content_type == APPLY {
        return apply(store, call, body.clone());
    }
    let patched: fn(&Value, &Value) -> Result<Value, Refusal> = match call.content_type.as_str() {
        "application/json-patch+json" => patch::json,
        "application/merge-patch+json" => |old, body| Ok(patch::merge(old, body)),
        "application/strategic-merge-patch+json" if !call.res.custom() => |old, body| Ok(patch::strategic(old, body)),
        _ => return Err(Refusal::media_type()),
    };
    let old = call.find(store)?;
    let new = call.decode(patched(&call.serve(&old.value), body)?)?;
    Ok((change(store, call, &old, new, Change::Patch)?, false))
}

fn apply(store: &mut Store, call: &Call, body: Value) -> Result<(Arc<Object>, bool), Refusal> {
    if call.param("fieldManager").is_empty() {
        let cause =
            ("FieldValueRequired", "fieldManager".to_owned(), "Required value: is required for apply patch".to_owned());
        return Err(Refusal::invalid_as("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    let mut wanted = call.decode(body)?;
    strip_nulls(&mut wanted);
    // Neither way of writing may own what only the other can change.
    if call.sub == "status" {
        object(&mut wanted).retain(|field, _| ["metadata", "status"].contains(&field.as_str()));
    } else if call.res.status {
        object(&mut wanted).remove("status");
    }
    if let Some(schema) = &call.res.schema {
        schema::prune(&mut wanted, schema);
    }
    let shape = Shape::root(call.res.schema.as_ref());
    let apply_to = |live: &Value| apply::applied(live, &wanted, shape, &call.writer, call.flag("force"));
    match call.find(store) {
        Ok(old) => {
            let mut new = apply_to(&old.value)?;
            for field in ["resourceVersion", "uid", "name", "namespace"] {
                if let Some(sent) = wanted.pointer(&format!("/metadata/{field}")) {
                    meta(&mut new).insert(field.to_owned(), sent.clone());
                }
            }
            Ok((change(store, call, &old, new, Change::Apply)?, false))
        }
        Err(absent) if !call.sub.is_empty() => Err(absent),
        Err(_) => {
            let named = name_of(&wanted);
            if !named.is_empty() && named != call.name() {
                return Err(Refusal::bad(format!(
                    "the name of the object ({named}) does not match the name on the URL"
                )));
            }
            let mut new = apply_to(&json!({"metadata": {"name": call.name()}}))?;
            object(&mut new).insert("kind".to_owned(), json!(call.res.kind));
            object(&mut new).insert("apiVersion".to_owned(), json!(call.res.group_version()));
            call.res.rename(&mut new, true);
            Ok((create(store, call, new)?, true))
        }
    }
}

/// Stores the new state of an existing object, if it may be and if it differs.
pub(super) fn change(
    store: &mut Store,
    call: &Call,
    old: &Arc<Object>,
    mut new: Value,
    how: Change,
) -> Result<Arc<Object>, Refusal> {
    preconditions(call, old, &new, how)?;
    restore_owned(call, &old.value, &mut new, how);
    settle(call, Some(&old.value), &mut new)?;
    lifecycle::changed(call, &old.value, &mut new)?;
    if how != Change::Apply {
        apply::updated(Some(&old.value), &mut new, Shape::root(call.res.schema.as_ref()), &call.writer);
    }
    if new == old.value {
        return Ok(Arc::clone(old));
    }
    Ok(commit(store, call, &call.key(), new))
}

fn preconditions(call: &Call, old: &Object, new: &Value, how: Change) -> Result<(), Refusal> {
    let sent = |field: &str| text(new, &format!("/metadata/{field}"));
    let mismatch = |field, sent: &str, path: &str| {
        Err(Refusal::bad(format!("the {field} of the object ({sent}) does not match the {field} on the URL ({path})")))
    };
    if how == Change::Replace && sent("name").is_empty() {
        return Err(Refusal::bad("name must be provided"));
    }
    if sent("name") != call.name() && !sent("name").is_empty() {
        return mismatch("name", sent("name"), call.name());
    }
    let namespace = call.namespace.as_deref().unwrap_or_default();
    if sent("namespace") != namespace && !sent("namespace").is_empty() {
        return mismatch("namespace", sent("namespace"), namespace);
    }
    let uid = sent("uid");
    if !uid.is_empty() && uid != text(&old.value, "/metadata/uid") {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: other");
        return Err(Refusal::conflict(&call.res, call.name(), &why));
    }
    match sent("resourceVersion") {
        "" if how == Change::Replace && call.res.needs_version => {
            let why = "Invalid value: 0: must be specified for an update".to_owned();
            let cause = ("FieldValueInvalid", "metadata.resourceVersion".to_owned(), why);
            Err(Refusal::invalid_as(&call.res.group, &call.res.plural, call.name(), &[cause]))
        }
        "" => Ok(()),
        version if version != old.revision.to_string() => Err(Refusal::stale(&call.res, call.name())),
        _ => Ok(()),
    }
}

/// Puts back what this way of writing cannot change.
fn restore_owned(call: &Call, old: &Value, new: &mut Value, how: Change) {
    let metadata = meta(new);
    for field in SERVER_OWNED.iter().filter(|field| how != Change::Apply || **field != "managedFields") {
        copy(old.pointer(&format!("/metadata/{field}")), metadata, field);
    }
    if call.sub == "status" {
        let (mut kept, fields) = (old.as_object().cloned().unwrap_or_default(), object(new));
        copy(fields.get("status"), &mut kept, "status");
        let mut metadata = fields.remove("metadata").unwrap_or_default();
        if call.res.custom() {
            let managed = metadata.get("managedFields").cloned();
            metadata = old["metadata"].clone();
            copy(managed.as_ref(), object(&mut metadata), "managedFields");
        }
        kept.insert("metadata".to_owned(), metadata);
        *new = Value::Object(kept);
    } else if call.res.status {
        copy(old.get("status"), object(new), "status");
    }
}

/// Defaults, schema, immutable fields, generation: what holds for every write.
fn settle(call: &Call, old: Option<&Value>, new: &mut Value) -> Result<(), Refusal> {
    let (res, name) = (&call.res, name_of(new).to_owned());
    let invalid = |causes: &[Cause]| Err(Refusal::invalid(res, &name, causes));
    strip_nulls(if res.custom() { object(new).entry("metadata").or_insert(Value::Null) } else { &mut *new });
    meta(new).retain(|field, value| {
        !(["annotations", "finalizers", "labels", "ownerReferences"].contains(&field.as_str())
            && (value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)))
    });
    fill(new, &res.rules.defaults);
    if let Some(schema) = &res.schema {
        let pruned = schema::prune(new, schema);
        if call.param("fieldValidation") == "Strict" && !pruned.is_empty() {
            let unknown: Vec<_> = pruned.iter().map(|field| format!("unknown field \"{field}\"")).collect();
            return Err(Refusal::bad(format!("strict decoding error: {}", unknown.join(", "))));
        }
        schema::fill_defaults(new, schema);
        let causes = schema::validate(new, old, schema);
        if !causes.is_empty() {
            return invalid(&causes);
        }
    }
    bad_label(new).map_or(Ok(()), |cause| invalid(&[cause]))?;
    let Some(old) = old else {
        let absent = |pointer: &str| new.pointer(pointer).is_none_or(|value| value.is_null() || *value == json!([]));
        let missing = res.rules.required.iter().filter(|(pointer, _)| absent(pointer));
        let causes: Vec<_> = missing
            .map(|(pointer, reason)| (reason.as_str(), pointer[1..].replace('/', "."), "Required value".to_owned()))
            .collect();
        return if causes.is_empty() { Ok(()) } else { invalid(&causes) };
    };
    for pointer in &res.rules.immutable {
        // With "!" it cannot be set either.
        let (pointer, always) = pointer.strip_prefix('!').map_or((pointer.as_str(), false), |pointer| (pointer, true));
        let before = old.pointer(pointer).filter(|value| !value.is_null());
        if (always || before.is_some()) && before != new.pointer(pointer) {
            let field = pointer[1..].replace('/', ".");
            return invalid(&[("FieldValueInvalid", field, "Invalid value: field is immutable".to_owned())]);
        }
    }
    if lifecycle::deleting(old) {
        let had = list(&old["metadata"]["finalizers"]);
        let added: Vec<_> =
            list(&new["metadata"]["finalizers"]).iter().filter(|finalizer| !had.contains(finalizer)).collect();
        if !added.is_empty() {
            let why =
                format!("Forbidden: no new finalizers can be added if the object is being deleted, found {added:?}");
            return invalid(&[("FieldValueForbidden", "metadata.finalizers".to_owned(), why)]);
        }
    }
    let spec_of = |value: &Value| {
        let mut spec = value.as_object().cloned().unwrap_or_default();
        spec.remove("metadata");
        if res.status {
            spec.remove("status");
        }
        spec
    };
    if res.generation && spec_of(old) != spec_of(new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        meta(new).insert("generation".to_owned(), json!(generation));
    }
    Ok(())
}

/// The first label that has not the form of one.
fn bad_label(new: &Value) -> Option<Cause<'static>> {
    static NAME: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new("^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$").ok());
    let named = |text: &str| NAME.as_ref().is_none_or(|form| form.is_match(text));
    let labels = new["metadata"]["labels"].as_object().into_iter().flatten();
    let mut labels = labels.map(|(key, value)| (key, value.as_str()));
    let fits = |key: &str, value: Option<&str>| {
        named(key.rsplit_once('/').map_or(key, |(_, name)| name))
            && value.is_some_and(|text| text.is_empty() || named(text))
    };
    let (key, value) = labels.find(|(key, value)| !fits(key, *value))?;
    let why = format!("Invalid value: {key}={}: a label", value.unwrap_or("no string"));
    Some(("FieldValueInvalid", "metadata.labels".to_owned(), why))
}

/// Writes, unless it is a dry run; an object whose last finalizer went while it is being deleted is removed instead.
pub(super) fn commit(store: &mut Store, call: &Call, key: &Key, new: Value) -> Arc<Object> {
    if call.param("dryRun") == "All" {
        return Arc::new(Object::new(store.revision, new));
    }
    let storage = &call.res.storage;
    let object = if lifecycle::finished(storage, &new) {
        store.remove(storage, key);
        Arc::new(Object::new(store.revision, new))
    } else {
        store.put(storage, key, new)
    };
    lifecycle::after(store, storage, &call.writer.time);
    object
}

/// Binds a pod to a node: what a scheduler does.
pub(super) fn bind(store: &mut Store, call: &Call, binding: &Value) -> Result<(), Refusal> {
    let old = call.find(store)?;
    let refuse = |why: &str| {
        let mut refusal = Refusal::conflict(&call.res, call.name(), why);
        refusal.details = Some(json!({"name": call.name(), "kind": "pods/binding"}));
        Err(refusal)
    };
    let uid = text(binding, "/metadata/uid");
    if !uid.is_empty() && uid != text(&old.value, "/metadata/uid") {
        return refuse(&format!("Precondition failed: UID in precondition: {uid}, UID in object meta: other"));
    }
    if lifecycle::deleting(&old.value) {
        return refuse(&format!("pod {} is being deleted, cannot be assigned to a host", call.name()));
    }
    let (node, now) = (text(&old.value, "/spec/nodeName"), &call.writer.time);
    if !node.is_empty() {
        return refuse(&format!("pod {} is already assigned to node \"{node}\"", call.name()));
    }
    let mut new = old.value.clone();
    new["spec"]["nodeName"] = binding["target"]["name"].clone();
    if let Some(annotations) = binding["metadata"].get("annotations") {
        new = patch::merge(&new, &json!({"metadata": {"annotations": annotations}}));
    }
    let status = object(&mut new["status"]);
    status.remove("nominatedNodeName");
    let mut conditions = status.remove("conditions").map_or_else(Vec::new, |conditions| list(&conditions).to_vec());
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions
        .push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    status.insert("conditions".to_owned(), Value::Array(conditions));
    let writer = Writer { subresource: "binding".to_owned(), ..call.writer.clone() };
    apply::updated(Some(&old.value), &mut new, Shape::root(None), &writer);
    commit(store, call, &call.key(), new);
    Ok(())
}
