//! JSON, merge and strategic merge patches, as pure functions on values. Server-side apply stands in `apply`.

use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::shape::{Merge, Shape, same_item};
use super::values::{list, text};

/// The object after a JSON patch.
pub(super) fn json(old: &Value, patch: &Value) -> Result<Value, Refusal> {
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| Refusal::bad(error.to_string()))?;
    let mut new = old.clone();
    json_patch::patch(&mut new, &patch).map_err(|_| Refusal::unfit_patch())?;
    Ok(new)
}

/// The object after a merge patch.
pub(super) fn merge(old: &Value, patch: &Value) -> Value {
    let mut new = old.clone();
    json_patch::merge(&mut new, patch);
    new
}

/// The object after a strategic merge patch of a built-in resource.
pub(super) fn strategic(old: &Value, patch: &Value) -> Value {
    let mut new = old.clone();
    strategic_at(&mut new, patch, Shape::Known(""));
    new
}

fn strategic_at(target: &mut Value, patch: &Value, shape: Shape) {
    match (patch, shape.merge()) {
        (Value::Object(fields), _) => {
            if text(patch, "/$patch") == "replace" || !target.is_object() {
                *target = Value::Object(Map::new());
            }
            let Some(map) = target.as_object_mut() else { return };
            for (name, field) in fields {
                if let Some(list_name) = name.strip_prefix("$deleteFromPrimitiveList/") {
                    if let Some(Value::Array(items)) = map.get_mut(list_name) {
                        items.retain(|item| !list(field).contains(item));
                    }
                } else if field.is_null() {
                    map.remove(name);
                } else if !name.starts_with('$') {
                    strategic_at(map.entry(name.as_str()).or_insert(Value::Null), field, shape.field(name));
                }
            }
        }
        (Value::Array(changes), Merge::Set) => {
            let mut items = list(target).to_vec();
            items.extend(changes.iter().filter(|item| !list(target).contains(item)).cloned());
            *target = Value::Array(items);
        }
        (Value::Array(changes), Merge::Keyed(keys)) => *target = Value::Array(keyed(target, changes, &keys, shape)),
        _ => *target = patch.clone(),
    }
}

fn keyed(target: &Value, changes: &[Value], keys: &[String], shape: Shape) -> Vec<Value> {
    let replace = changes.iter().any(|change| change.get("$patch").is_some_and(|mode| mode == "replace"));
    let mut items = if replace { Vec::new() } else { list(target).to_vec() };
    // Strategic merge identifies by the first key alone.
    let keys = &keys[..keys.len().min(1)];
    let mut new = Vec::new();
    for change in changes {
        let place = items.iter().position(|item| same_item(keys, item, change));
        match (text(change, "/$patch"), place) {
            ("delete", Some(place)) => drop(items.remove(place)),
            ("replace", _) | ("delete", None) => {}
            (_, Some(place)) => strategic_at(&mut items[place], change, shape.item()),
            (_, None) => new.push(change.clone()),
        }
    }
    new.append(&mut items); // new ones come first, as on a real server
    new
}
