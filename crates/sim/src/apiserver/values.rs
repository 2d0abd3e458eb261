//! Small readers and writers of JSON trees that every part of the server uses. No knowledge of Kubernetes but where
//! metadata lies.

use serde_json::{Map, Value};

/// The string at a JSON pointer, or "".
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The name of an object.
pub(super) fn name_of(value: &Value) -> &str {
    text(value, "/metadata/name")
}

/// The elements of a list; none if it is not one.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The object behind a value, made one if it is not.
pub(super) fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

/// The metadata of an object, made if there is none.
pub(super) fn meta(value: &mut Value) -> &mut Map<String, Value> {
    object(object(value).entry("metadata").or_insert(Value::Null))
}

/// Sets a top-level or metadata field to what another object has there: a copy, or nothing.
pub(super) fn copy(from: Option<&Value>, to: &mut Map<String, Value>, field: &str) {
    match from {
        Some(value) if !value.is_null() => to.insert(field.to_owned(), value.clone()),
        _ => to.remove(field),
    };
}

/// Fills in what is missing; never changes what is there.
pub(super) fn fill(value: &mut Value, defaults: &Value) {
    let (Some(fields), Some(defaults)) = (value.as_object_mut(), defaults.as_object()) else { return };
    for (name, default) in defaults {
        match fields.get_mut(name) {
            Some(field) => fill(field, default),
            None => drop(fields.insert(name.clone(), default.clone())),
        }
    }
}

/// Takes out fields that are null, as a typed decoder does.
pub(super) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
