//! What clients ask before anything else: versions, groups, resources. Read off the catalogue.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::refusal::Refusal;
use super::resources::{Resource, subresources};
use super::store::Store;

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The answer to a path above the resources, if it is one.
pub(super) fn answer(store: &Store, path: &[&str], address: &str) -> Option<Result<Value, Refusal>> {
    Some(match path {
        ["version"] => Ok(json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0-bedplate", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2026-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux",
        })),
        ["api"] => Ok(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        })),
        ["apis"] => {
            let groups: Vec<_> = groups(store).into_iter().map(|(name, versions)| group(&name, &versions)).collect();
            Ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => groups(store).get(*name).map_or(Err(Refusal::no_path()), |versions| {
            let mut group = group(name, versions);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            Ok(group)
        }),
        ["api", version] => resources(store, "", version),
        ["apis", group, version] => resources(store, group, version),
        _ => return None,
    })
}

fn groups(store: &Store) -> BTreeMap<String, Vec<String>> {
    let mut groups = BTreeMap::<_, Vec<String>>::new();
    for (group, version, _) in store.catalogue.keys().filter(|(group, ..)| !group.is_empty()) {
        let versions = groups.entry(group.clone()).or_default();
        if !versions.contains(version) {
            versions.push(version.clone());
        }
    }
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<_> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn resources(store: &Store, group: &str, version: &str) -> Result<Value, Refusal> {
    let rows = store.catalogue.iter().filter(|((g, v, _), _)| g == group && v == version);
    let list: Vec<_> = rows.flat_map(|(_, row)| entries(row)).collect();
    if list.is_empty() {
        return Err(Refusal::no_path());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut answer = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": list});
    if !group.is_empty() {
        answer["apiVersion"] = json!("v1");
    }
    Ok(answer)
}

fn entries(res: &Resource) -> Vec<Value> {
    let verbs: Vec<_> = VERBS.iter().filter(|verb| !(res.no_collection && **verb == "deletecollection")).collect();
    let mut main = json!({
        "name": res.plural, "singularName": res.singular, "namespaced": res.namespaced, "kind": res.kind,
        "verbs": verbs,
    });
    for (field, names) in [("shortNames", &res.short), ("categories", &res.categories)] {
        if !names.is_empty() {
            main[field] = json!(names);
        }
    }
    let mut entries = vec![main];
    let sub = |name: &str, kind: &str, verbs: &[&str]| {
        json!({"name": format!("{}/{name}", res.plural), "singularName": "", "namespaced": res.namespaced,
            "kind": kind, "verbs": verbs})
    };
    for (_, name, kind, group, version, verb) in subresources(&res.plural) {
        let mut entry = sub(name, kind, &[verb.as_str()]);
        if !group.is_empty() {
            entry["group"] = json!(group);
            entry["version"] = json!(version);
        }
        entries.push(entry);
    }
    if res.status {
        entries.push(sub("status", &res.kind, &["get", "patch", "update"]));
    }
    entries
}
