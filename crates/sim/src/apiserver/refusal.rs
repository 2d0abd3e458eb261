//! Why a request is refused: HTTP code, reason and details, and the Status object that says so. Wording follows a real
//! server where a client may look at it.

use serde_json::{Map, Value, json};

use super::resources::Resource;

/// A refused request. `thiserror` gives it a Display for logs; clients get [`Refusal::body`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code} {reason}: {message}")]
pub(super) struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Value>,
}

/// A field that is wrong: reason, path, message.
pub(super) type Cause<'a> = (&'a str, String, String);

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>, details: Option<Value>) -> Self {
        Self { code, reason, message: message.into(), details }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message, None)
    }

    pub fn not_found(res: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", res.qualified());
        Self::new(404, "NotFound", message, Some(about(res, name, &res.plural)))
    }

    pub fn no_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource", Some(json!({})))
    }

    /// Answered as plain text, as a server does that has no such path at all.
    pub fn no_path() -> Self {
        Self::new(404, "", "404 page not found\n", None)
    }

    pub fn exists(res: &Resource, name: &str, deleting: bool) -> Self {
        let prefix = if deleting { "object is being deleted: " } else { "" };
        let message = format!("{prefix}{} \"{name}\" already exists", res.qualified());
        Self::new(409, "AlreadyExists", message, Some(about(res, name, &res.plural)))
    }

    pub fn conflict(res: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", res.qualified());
        Self::new(409, "Conflict", message, Some(about(res, name, &res.plural)))
    }

    pub fn stale(res: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(res, name, why)
    }

    /// A precondition of a delete does not hold; a real server names the kind here, not the resource.
    pub fn precondition(res: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", res.kind);
        Self::new(409, "Conflict", message, Some(about(res, name, &res.kind)))
    }

    /// Somebody else applied these fields: (manager as messages name it, path).
    pub fn owned(conflicts: &[(String, String)]) -> Self {
        let causes: Vec<_> = conflicts
            .iter()
            .map(|(who, field)| {
                json!({"reason": "FieldManagerConflict", "message": format!("conflict with {who}"), "field": field})
            })
            .collect();
        let lines: Vec<_> = conflicts.iter().map(|(who, field)| format!("conflict with {who}: {field}")).collect();
        let message = format!("Apply failed with {} conflict(s): {}", conflicts.len(), lines.join("; "));
        Self::new(409, "Conflict", message, Some(json!({"causes": causes})))
    }

    pub fn invalid(res: &Resource, name: &str, causes: &[Cause]) -> Self {
        // The kind is that of the storage, whose group an alias does not share.
        let group = res.storage.split_once('/').map_or("", |(group, _)| group);
        Self::invalid_as(group, &res.kind, name, causes)
    }

    pub fn invalid_as(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let lines: Vec<_> = causes.iter().map(|(_, field, why)| format!("{field}: {why}")).collect();
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let list: Vec<_> = causes
            .iter()
            .map(|(reason, field, why)| json!({"reason": reason, "message": why, "field": field}))
            .collect();
        let mut details = named(group, name, kind);
        details.insert("causes".to_owned(), Value::Array(list));
        let message = format!("{qualified} \"{name}\" is invalid: {}", lines.join(", "));
        Self::new(422, "Invalid", message, Some(Value::Object(details)))
    }

    pub fn unfit_patch() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message, Some(json!({})))
    }

    pub fn media_type() -> Self {
        Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type", Some(json!({})))
    }

    pub fn method() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message, Some(json!({})))
    }

    pub fn forbidden(res: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", res.qualified());
        Self::new(403, "Forbidden", message, Some(about(res, name, &res.plural)))
    }

    pub fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"), None)
    }

    pub fn future(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        Self::new(504, "Timeout", message, Some(json!({"retryAfterSeconds": 1})))
    }

    /// What a test asked for: any code, with the reason that belongs to it.
    pub fn injected(code: u16) -> Self {
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self::new(code, reason, "injected by a test", None)
    }

    /// The Status object.
    pub fn body(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

fn named(group: &str, name: &str, kind: &str) -> Map<String, Value> {
    let fields = [("name", name), ("group", group), ("kind", kind)];
    fields.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| ((*key).to_owned(), json!(value))).collect()
}

/// The details of a Status about one object.
pub(super) fn about(res: &Resource, name: &str, kind: &str) -> Value {
    Value::Object(named(&res.group, name, kind))
}
