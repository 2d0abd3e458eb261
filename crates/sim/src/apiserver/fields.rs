//! Sets of fields, as `metadata.managedFields` writes them: which fields an object has, how they are read and compared.
//! Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::shape::{Merge, Shape, same_item};
use super::values::list;

/// From the root down: `f:name` of a map, `k:{..}` an item by its keys, `v:..` an item of a set.
pub(super) type Path = Vec<String>;

/// Fields that somebody owns. A path that ends at a map or an item stands for its being there, not for what it holds.
pub(super) type Fields = BTreeSet<Path>;

/// Every field of a value that can be owned on its own.
pub(super) fn of(value: &Value, shape: Shape) -> Fields {
    let mut fields = Fields::new();
    collect(value, shape, &mut Vec::new(), &mut fields);
    fields.remove(&Vec::new());
    fields
}

fn collect(value: &Value, shape: Shape, path: &mut Path, into: &mut Fields) {
    match (value, shape.merge()) {
        (Value::Object(map), _) if !map.is_empty() && !shape.atomic_map() => {
            for (name, field) in map {
                path.push(format!("f:{name}"));
                collect(field, shape.field(name), path, into);
                path.pop();
            }
        }
        (Value::Array(items), Merge::Set) if !items.is_empty() => {
            for item in items {
                path.push(format!("v:{item}"));
                into.insert(path.clone());
                path.pop();
            }
        }
        (Value::Array(items), Merge::Keyed(keys)) if !items.is_empty() => {
            for item in items {
                path.push(item_step(item, &keys));
                into.insert(path.clone());
                collect(item, shape.item(), path, into);
                path.pop();
            }
        }
        _ => drop(into.insert(path.clone())),
    }
}

fn item_step(item: &Value, keys: &[String]) -> String {
    let keys: Map<_, _> =
        keys.iter().filter_map(|key| item.get(key).map(|value| (key.clone(), value.clone()))).collect();
    format!("k:{}", Value::Object(keys))
}

fn keys_of(step: &str) -> Option<Value> {
    serde_json::from_str(step.strip_prefix("k:")?).ok()
}

fn is_item(item: &Value, keys: &Value) -> bool {
    let names: Vec<_> = keys.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    same_item(&names, item, keys)
}

/// True if an item of a set is the one that a step names.
fn is_scalar(item: &Value, json: &str) -> bool {
    serde_json::from_str(json).is_ok_and(|named: Value| named == *item)
}

/// What stands at a path.
pub(super) fn get<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| {
        if let Some(name) = step.strip_prefix("f:") {
            return value.get(name);
        }
        if let Some(scalar) = step.strip_prefix("v:") {
            return list(value).iter().find(|item| is_scalar(item, scalar));
        }
        let keys = keys_of(step)?;
        list(value).iter().find(|item| is_item(item, &keys))
    })
}

/// True if a path means the same in both: there or not there for an item, equal for anything else.
pub(super) fn same(one: &Value, other: &Value, path: &[String]) -> bool {
    let (one, other) = (get(one, path), get(other, path));
    match path.last() {
        Some(step) if step.starts_with("f:") => one == other,
        _ => one.is_some() == other.is_some(),
    }
}

/// Takes out what stands at a path, and the maps and lists above it that this leaves empty and `keep` does not name.
pub(super) fn remove(value: &mut Value, path: &[String], keep: &dyn Fn(&[String]) -> bool) {
    remove_at(value, path, 0, keep);
}

fn remove_at(value: &mut Value, path: &[String], depth: usize, keep: &dyn Fn(&[String]) -> bool) {
    let Some(step) = path.get(depth) else { return };
    let last = depth + 1 == path.len();
    match value {
        Value::Object(map) => {
            let Some(name) = step.strip_prefix("f:") else { return };
            if last {
                map.remove(name);
            } else if let Some(field) = map.get_mut(name) {
                remove_at(field, path, depth + 1, keep);
                let empty = field.as_object().is_some_and(Map::is_empty) || field.as_array().is_some_and(Vec::is_empty);
                if empty && !keep(&path[..=depth]) {
                    map.remove(name);
                }
            }
        }
        Value::Array(items) => {
            let keys = keys_of(step);
            let place = items.iter().position(|item| match &keys {
                Some(keys) => is_item(item, keys),
                None => step.strip_prefix("v:").is_some_and(|json| is_scalar(item, json)),
            });
            let Some(place) = place else { return };
            if last {
                items.remove(place);
            } else {
                remove_at(&mut items[place], path, depth + 1, keep);
            }
        }
        _ => {}
    }
}

/// The tree that `fieldsV1` holds.
pub(super) fn to_tree(fields: &Fields) -> Value {
    let mut tree = Map::new();
    for path in fields {
        let mut here = &mut tree;
        for (depth, step) in path.iter().enumerate() {
            // A path that was there before and now gets children keeps its own place as ".".
            let owned = depth + 1 < path.len() && fields.contains(&path[..=depth]);
            let Value::Object(next) = here.entry(step.as_str()).or_insert_with(|| Value::Object(Map::new())) else {
                return Value::Null;
            };
            if owned {
                next.entry(".").or_insert_with(|| Value::Object(Map::new()));
            }
            here = next;
        }
    }
    Value::Object(tree)
}

/// The set that a `fieldsV1` tree stands for.
pub(super) fn from_tree(tree: &Value) -> Fields {
    fn walk(tree: &Value, path: &mut Path, into: &mut Fields) {
        let Some(steps) = tree.as_object() else { return };
        if steps.is_empty() || steps.contains_key(".") {
            into.insert(path.clone());
        }
        for (step, below) in steps.iter().filter(|(step, _)| *step != ".") {
            path.push(step.clone());
            walk(below, path, into);
            path.pop();
        }
    }
    let mut fields = Fields::new();
    walk(tree, &mut Vec::new(), &mut fields);
    fields.remove(&Vec::new());
    fields
}

/// A path as messages write it: `.data.a`, `.spec.list[{"name":"x"}]`.
pub(super) fn display(path: &[String]) -> String {
    path.iter()
        .map(|step| match step.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some((_, rest)) => format!("[{rest}]"),
            None => step.clone(),
        })
        .collect()
}
