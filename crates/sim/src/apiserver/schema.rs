//! Structural schemas of custom resources: pruning, defaults and validation, as pure functions.
//!
//! Of CEL only the transition rules are known that hold a field fast (`self.x == oldSelf.x`); other rules are not
//! evaluated here but on real servers.

use regex::Regex;
use serde_json::{Map, Value};

use super::refusal::Cause;
use super::values::{list, text};

const RULES: &str = "x-kubernetes-validations";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// Takes out what the schema does not name; returns the paths.
pub(super) fn prune(value: &mut Value, schema: &Value) -> Vec<String> {
    let mut pruned = Vec::new();
    if let Some(fields) = value.as_object_mut() {
        for (name, field) in fields.iter_mut().filter(|(name, _)| *name != "metadata") {
            match schema["properties"].get(name) {
                Some(below) => prune_at(field, below, name, &mut pruned),
                None if schema[PRESERVE] == true => {}
                None => pruned.push(name.clone()),
            }
        }
        fields.retain(|name, _| !pruned.contains(name));
    }
    pruned
}

fn prune_at(value: &mut Value, schema: &Value, path: &str, pruned: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let (known, others) = (&schema["properties"], &schema["additionalProperties"]);
            let open = schema[PRESERVE] == true || *others == true;
            let embedded = schema["x-kubernetes-embedded-resource"] == true;
            fields.retain(|name, field| {
                let here = format!("{path}.{name}");
                if let Some(below) = known.get(name).or_else(|| others.is_object().then_some(others)) {
                    prune_at(field, below, &here, pruned);
                    return true;
                }
                let keep = open || embedded && ["apiVersion", "kind", "metadata"].contains(&name.as_str());
                if !keep {
                    pruned.push(here);
                }
                keep
            });
        }
        Value::Array(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                prune_at(item, &schema["items"], &format!("{path}[{place}]"), pruned);
            }
        }
        _ => {}
    }
}

/// Fills in the schema's defaults. A null where null is not allowed gives way to the default.
pub(super) fn fill_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(known) = schema["properties"].as_object() {
                for (name, below) in known {
                    if let Some(default) = below.get("default")
                        && (!fields.contains_key(name) || fields[name].is_null() && below["nullable"] != true)
                    {
                        fields.insert(name.clone(), default.clone());
                    }
                    if let Some(field) = fields.get_mut(name) {
                        fill_defaults(field, below);
                    }
                }
            }
            if schema["additionalProperties"].is_object() {
                fields.values_mut().for_each(|field| fill_defaults(field, &schema["additionalProperties"]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill_defaults(item, &schema["items"])),
        _ => {}
    }
}

/// What is wrong with a value; `old` is what it was, for immutable fields.
pub(super) fn validate(value: &Value, old: Option<&Value>, schema: &Value) -> Vec<Cause<'static>> {
    let mut causes = Vec::new();
    check(value, schema, "", &mut causes);
    if !causes.is_empty() && schema.to_string().contains(RULES) {
        let why = "Invalid value: null: some validation rules were not checked because the object was invalid";
        causes.push(("FieldValueInvalid", "<nil>".to_owned(), why.to_owned()));
    }
    if causes.is_empty()
        && let Some(old) = old
    {
        transitions(value, old, schema, "", &mut causes);
    }
    causes
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn invalid(path: &str, value: &Value, why: &str) -> Cause<'static> {
    ("FieldValueInvalid", path.to_owned(), format!("Invalid value: {value}: {path} in body {why}"))
}

fn has_type(value: &Value, schema: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match text(schema, "/type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => true,
    }
}

fn check(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause<'static>>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if !has_type(value, schema) {
        let why = format!("must be of type {}: {value}", text(schema, "/type"));
        causes.push(("FieldValueTypeInvalid", path.to_owned(), format!("Invalid value: {why}")));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        let why = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
        causes.push(("FieldValueNotSupported", path.to_owned(), why));
    }
    let number = |key: &str| schema[key].as_f64();
    let size = |key: &str| schema[key].as_u64();
    let mut range = |length: usize, least: &str, most: &str| {
        if size(least).is_some_and(|bound| (length as u64) < bound) {
            causes.push(invalid(path, value, &format!("should have at least {} ({least})", schema[least])));
        }
        if size(most).is_some_and(|bound| length as u64 > bound) {
            causes.push(invalid(path, value, &format!("should have at most {} ({most})", schema[most])));
        }
    };
    match value {
        Value::Number(_) => {
            let figure = value.as_f64().unwrap_or_default();
            if number("minimum").is_some_and(|least| figure < least) {
                let why = format!("should be greater than or equal to {}", schema["minimum"]);
                causes.push(invalid(path, value, &why));
            }
            if number("maximum").is_some_and(|most| figure > most) {
                causes.push(invalid(path, value, &format!("should be less than or equal to {}", schema["maximum"])));
            }
        }
        Value::String(text) => {
            range(text.chars().count(), "minLength", "maxLength");
            if let Some(pattern) = schema["pattern"].as_str()
                && Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text))
            {
                causes.push(invalid(path, value, &format!("should match '{pattern}'")));
            }
        }
        Value::Array(items) => {
            range(items.len(), "minItems", "maxItems");
            for (place, item) in items.iter().enumerate() {
                check(item, &schema["items"], &format!("{path}[{place}]"), causes);
            }
        }
        Value::Object(fields) => {
            range(fields.len(), "minProperties", "maxProperties");
            check_fields(fields, schema, path, causes);
        }
        _ => {}
    }
    alternatives(value, schema, path, causes);
}

fn check_fields(fields: &Map<String, Value>, schema: &Value, path: &str, causes: &mut Vec<Cause<'static>>) {
    for name in list(&schema["required"]).iter().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            causes.push(("FieldValueRequired", child(path, name), "Required value".to_owned()));
        }
    }
    for (name, field) in fields.iter().filter(|(name, _)| !path.is_empty() || *name != "metadata") {
        let others = &schema["additionalProperties"];
        if let Some(below) = schema["properties"].get(name).or_else(|| others.is_object().then_some(others)) {
            check(field, below, &child(path, name), causes);
        }
    }
}

fn alternatives(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause<'static>>) {
    let fits = |one: &&Value| {
        let mut found = Vec::new();
        check(value, one, path, &mut found);
        found.is_empty()
    };
    let count = |key: &str| schema[key].as_array().map(|all| (all.iter().filter(fits).count(), all.len()));
    let wrong = count("anyOf").is_some_and(|(fit, _)| fit == 0)
        || count("oneOf").is_some_and(|(fit, _)| fit != 1)
        || count("allOf").is_some_and(|(fit, all)| fit != all)
        || schema.get("not").is_some_and(|not| fits(&not));
    if wrong {
        causes.push(invalid(path, value, "must validate the schema's anyOf, oneOf, allOf and not"));
    }
}

/// What a rule holds fast: of terms joined by `&&`, the field of each `self.a == oldSelf.a` (true: its value) and
/// `has(self.a) == has(oldSelf.a)` (false: whether it is there). Other rules are not evaluated here.
fn held_fast(rule: &str) -> Vec<(&str, bool)> {
    let terms = if rule.contains("||") { "" } else { rule };
    terms
        .split("&&")
        .filter_map(|term| {
            let (new, old) = term.split_once("==")?;
            let (new, old) = (new.trim(), old.trim());
            let presence = |side: &str| side.starts_with("has(") && side.ends_with(')');
            let inner = |side| if presence(side) { &side[4..side.len() - 1] } else { side };
            let (field, before) = (inner(new).strip_prefix("self")?, inner(old).strip_prefix("oldSelf")?);
            let plain = field.chars().all(|c| c.is_alphanumeric() || c == '.' || c == '_');
            (field == before && plain && presence(new) == presence(old)).then_some((field, !presence(new)))
        })
        .collect()
}

fn transitions(value: &Value, old: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause<'static>>) {
    for rule in list(&schema[RULES]) {
        let broken = held_fast(text(rule, "/rule")).iter().any(|(field, by_value)| {
            let pointer = field.replace('.', "/");
            let (now, before) = (value.pointer(&pointer), old.pointer(&pointer));
            if *by_value { now != before } else { now.is_some() != before.is_some() }
        });
        if broken {
            let why = match text(rule, "/message") {
                "" => format!("failed rule: {}", text(rule, "/rule")),
                message => message.to_owned(),
            };
            causes.push(("FieldValueInvalid", path.to_owned(), format!("Invalid value: {why}")));
        }
    }
    let (Some(known), Some(fields)) = (schema["properties"].as_object(), value.as_object()) else { return };
    for (name, below) in known {
        if let (Some(field), Some(old)) = (fields.get(name), old.get(name)) {
            transitions(field, old, below, &child(path, name), causes);
        }
    }
}
