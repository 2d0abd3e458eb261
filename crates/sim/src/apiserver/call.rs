//! One request about one resource: what the path, the query and the body say, before anything is done.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use serde_json::{Value, json};

use super::apply::Writer;
use super::refusal::Refusal;
use super::resources::{Resource, subresources};
use super::selector::Selector;
use super::store::{Key, Object, Store};
use super::values::{object, text};

/// A request whose path names a resource.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub res: Arc<Resource>,
    /// None: all namespaces, or a resource that has none.
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// "" or the subresource.
    pub sub: String,
    pub query: HashMap<String, String>,
    pub content_type: String,
    pub writer: Writer,
}

impl Call {
    /// Takes a path below `/api/v1` or `/apis/group/version` apart.
    pub fn parse(store: &Store, group: &str, version: &str, rest: &[&str]) -> Result<Self, Refusal> {
        let (namespace, rest) = match rest {
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
            _ => (None, rest),
        };
        let [plural, name @ ..] = rest else { return Err(Refusal::no_path()) };
        let known = store.catalogue.values().any(|row| row.group == group && row.version == version && !row.custom());
        let none = || if known { Refusal::no_resource() } else { Refusal::no_path() };
        let res = Arc::clone(store.resource(group, version, plural).ok_or_else(none)?);
        let (name, sub) = match name {
            [] => (None, ""),
            [name] => (Some((*name).to_owned()), ""),
            [name, sub] => (Some((*name).to_owned()), *sub),
            _ => return Err(Refusal::no_path()),
        };
        let served = subresources(plural).any(|row| row.1 == sub);
        let fits = res.namespaced == namespace.is_some() || res.namespaced && name.is_none();
        if !fits || !(sub.is_empty() || sub == "status" && res.status || served) {
            return Err(Refusal::no_resource());
        }
        let writer = Writer {
            manager: String::new(),
            subresource: if sub == "status" { sub.to_owned() } else { String::new() },
            api_version: res.group_version(),
            time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        };
        let (query, content_type) = (HashMap::new(), String::new());
        Ok(Self { res, namespace, name, sub: sub.to_owned(), query, content_type, writer })
    }

    pub fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), "true" | "1")
    }

    pub fn selector(&self) -> Result<Selector, Refusal> {
        let get = |name: &str| self.query.get(name).map(String::as_str);
        Selector::parse(&self.res, get("labelSelector"), get("fieldSelector"))
    }

    /// The name in the path; "" for a collection.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub fn key(&self) -> Key {
        (self.namespace.clone().unwrap_or_default(), self.name().to_owned())
    }

    /// The same request about one object of the collection.
    pub fn of(&self, (namespace, name): &Key) -> Self {
        let namespace = self.res.namespaced.then(|| namespace.clone());
        Self { namespace, name: Some(name.clone()), ..self.clone() }
    }

    /// True if an object of this key lies where the path looks.
    pub fn covers(&self, (namespace, name): &Key) -> bool {
        self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }

    /// The object that the path names.
    pub fn find(&self, store: &Store) -> Result<Arc<Object>, Refusal> {
        let found = store.get(&self.res.storage, &self.key());
        found.map(Arc::clone).ok_or_else(|| Refusal::not_found(&self.res, self.name()))
    }

    /// From what a client sends to the form that is stored: another kind is refused, kind and version come off.
    pub fn decode(&self, mut value: Value) -> Result<Value, Refusal> {
        let (res, version) = (&self.res, self.res.group_version());
        let (kind, sent) = (text(&value, "/kind").to_owned(), text(&value, "/apiVersion").to_owned());
        if (!kind.is_empty() && kind != res.kind) || (!sent.is_empty() && sent != version) {
            let message = format!("{kind} in version \"{sent}\" cannot be handled as a {}", res.kind);
            return Err(Refusal::bad(message));
        }
        if !value.is_object() || res.custom() && (kind.is_empty() || sent.is_empty()) {
            return Err(Refusal::bad("Object 'Kind' or 'apiVersion' is missing"));
        }
        object(&mut value).retain(|field, _| field != "kind" && field != "apiVersion");
        res.rename(&mut value, false);
        Ok(value)
    }

    /// The form that is served.
    pub fn serve(&self, value: &Value) -> Value {
        let mut value = value.clone();
        self.res.rename(&mut value, true);
        let fields = object(&mut value);
        fields.insert("kind".to_owned(), json!(self.res.kind));
        fields.insert("apiVersion".to_owned(), json!(self.res.group_version()));
        value
    }
}

/// A body as JSON; an empty one is null.
pub(super) fn parse_body(body: &Bytes) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("couldn't get version/kind; json parse error: {error}")))
}

/// Appends an object as it goes over the wire; `typed` with kind and apiVersion.
pub(super) fn encode(res: &Resource, object: &Object, typed: bool, into: &mut Vec<u8>) {
    let mut rest = object.json();
    if !res.rules.renames.is_empty() {
        let mut value = object.value.clone();
        res.rename(&mut value, true);
        rest = serde_json::to_vec(&value).unwrap_or_default().into();
    }
    if typed {
        let head = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", res.kind, res.group_version());
        into.extend_from_slice(head.as_bytes());
        rest = rest.slice(1..);
    }
    into.extend_from_slice(&rest);
}
