//! Who owns which field: server-side apply, and the bookkeeping that every other write leaves in
//! `metadata.managedFields`. Pure: old object, what is asked, who asks and when are arguments.

use serde_json::{Value, json};

use super::fields::{self, Fields};
use super::refusal::Refusal;
use super::shape::{Merge, Shape, same_item};
use super::values::{list, meta, text};

/// Metadata that nobody owns.
const UNOWNED: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generateName",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Who writes, where, when.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub manager: String,
    /// "" or "status".
    pub subresource: String,
    pub api_version: String,
    pub time: String,
}

/// One entry of managedFields.
#[derive(Debug, Clone)]
struct Share {
    manager: String,
    apply: bool,
    subresource: String,
    entry: Value,
    fields: Fields,
}

fn shares(value: &Value) -> Vec<Share> {
    let entries = value.pointer("/metadata/managedFields").map_or(&[][..], list);
    entries
        .iter()
        .map(|entry| Share {
            manager: text(entry, "/manager").to_owned(),
            apply: text(entry, "/operation") == "Apply",
            subresource: text(entry, "/subresource").to_owned(),
            fields: fields::from_tree(&entry["fieldsV1"]),
            entry: entry.clone(),
        })
        .collect()
}

impl Share {
    fn is(&self, writer: &Writer, apply: bool) -> bool {
        self.manager == writer.manager && self.apply == apply && self.subresource == writer.subresource
    }

    fn title(&self) -> String {
        match self.subresource.as_str() {
            "" => format!("\"{}\"", self.manager),
            subresource => format!("\"{}\" with subresource \"{subresource}\"", self.manager),
        }
    }
}

/// Writes the shares back; the writer's gets `mine` (gone if empty) and, if that changed, the time.
fn record(value: &mut Value, mut shares: Vec<Share>, writer: &Writer, apply: bool, mine: Fields) {
    if let Some(share) = shares.iter_mut().find(|share| share.is(writer, apply)) {
        if share.fields != mine {
            share.entry["time"] = json!(writer.time);
        }
        share.fields = mine;
    } else {
        let mut entry = json!({
            "manager": writer.manager, "operation": if apply { "Apply" } else { "Update" },
            "apiVersion": writer.api_version, "time": writer.time, "fieldsType": "FieldsV1",
        });
        if !writer.subresource.is_empty() {
            entry["subresource"] = json!(writer.subresource);
        }
        let (manager, subresource) = (writer.manager.clone(), writer.subresource.clone());
        shares.push(Share { manager, apply, subresource, entry, fields: mine });
    }
    shares.retain(|share| !share.fields.is_empty());
    shares.sort_by_key(|share| !share.apply); // stable: appliers stand before updaters
    let entries = shares.into_iter().map(|mut share| {
        share.entry["fieldsV1"] = fields::to_tree(&share.fields);
        share.entry
    });
    let entries: Vec<_> = entries.collect();
    meta(value).insert("managedFields".to_owned(), Value::Array(entries));
}

/// The fields of an object that can be owned, through a subresource or not.
fn ownable(value: &Value, shape: Shape) -> Fields {
    let unowned = |path: &[String]| match path {
        [first, second, ..] if first == "f:metadata" => UNOWNED.iter().any(|name| second[2..] == **name),
        [first] => first == "f:metadata",
        _ => false,
    };
    fields::of(value, shape).into_iter().filter(|path| !unowned(path)).collect()
}

/// After an ordinary write: who changed a field owns it now, alone; what is gone belongs to nobody.
pub(super) fn updated(old: Option<&Value>, new: &mut Value, shape: Shape, writer: &Writer) {
    let nothing = Value::Null;
    let before = old.unwrap_or(&nothing);
    let mut shares = shares(before);
    let now = ownable(new, shape);
    let changed: Fields = now.iter().filter(|path| !fields::same(before, new, path)).cloned().collect();
    for share in &mut shares {
        share.fields.retain(|path| !changed.contains(path) && fields::get(new, path).is_some());
    }
    let mut mine: Fields =
        shares.iter().find(|share| share.is(writer, false)).map(|share| share.fields.clone()).unwrap_or_default();
    mine.extend(changed);
    record(new, shares, writer, false, mine);
}

/// The object after `wanted` is applied to it, or the conflicts with other owners.
pub(super) fn applied(
    live: &Value,
    wanted: &Value,
    shape: Shape,
    writer: &Writer,
    force: bool,
) -> Result<Value, Refusal> {
    let mut shares = shares(live);
    let mine = ownable(wanted, shape);
    let changed: Fields = mine.iter().filter(|path| !fields::same(live, wanted, path)).cloned().collect();
    let mut conflicts = Vec::new();
    for share in shares.iter_mut().filter(|share| !share.is(writer, true)) {
        // The same program that once updated and now applies is not in conflict with itself.
        let hit = share.fields.intersection(&changed).filter(|path| fields::get(live, path).is_some());
        conflicts.extend(hit.map(|path| (share.title(), fields::display(path))));
        share.fields.retain(|path| !changed.contains(path));
    }
    if !conflicts.is_empty() && !force {
        return Err(Refusal::owned(&conflicts));
    }
    let mut new = live.clone();
    merge(&mut new, wanted, shape);
    let before = shares.iter().find(|share| share.is(writer, true)).map(|share| share.fields.clone());
    let others: Vec<&Fields> =
        shares.iter().filter(|share| !share.is(writer, true)).map(|share| &share.fields).collect();
    let kept = |path: &[String]| {
        let below = |set: &Fields| set.iter().any(|owned| owned.starts_with(path));
        below(&mine) || others.iter().any(|set| below(set))
    };
    for path in before.unwrap_or_default().difference(&mine).filter(|path| !kept(path)) {
        // The keys of an item that stays are part of it.
        let key_of_item = matches!(path.as_slice(), [.., item, field] if item.starts_with("k:")
            && item.contains(&format!("\"{}\":", &field[2..])) && fields::get(&new, &path[..path.len() - 1]).is_some());
        if !key_of_item {
            fields::remove(&mut new, path, &kept);
        }
    }
    record(&mut new, shares, writer, true, mine);
    Ok(new)
}

/// Lays `wanted` over `target`: maps and keyed lists merge, sets unite, everything else is replaced.
fn merge(target: &mut Value, wanted: &Value, shape: Shape) {
    match (&mut *target, wanted, shape.merge()) {
        (Value::Object(map), Value::Object(fields), _) if !shape.atomic_map() => {
            for (name, field) in fields {
                match map.get_mut(name) {
                    Some(old) => merge(old, field, shape.field(name)),
                    None => drop(map.insert(name.clone(), field.clone())),
                }
            }
        }
        (Value::Array(items), Value::Array(wanted), Merge::Set) => {
            for item in wanted {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
        }
        (Value::Array(items), Value::Array(wanted), Merge::Keyed(keys)) => {
            for item in wanted {
                match items.iter_mut().find(|old| same_item(&keys, old, item)) {
                    Some(old) => merge(old, item, shape.item()),
                    None => items.push(item.clone()),
                }
            }
        }
        _ => *target = wanted.clone(),
    }
}
