//! The types say what the CRDs say, the files under `deploy/` are what the types generate, and nothing is lost on the way
//! through JSON.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::disk_pool::*;
use crate::local_volume::*;
use crate::storage_node::*;
use crate::{crds, names};

#[test]
fn the_files_under_deploy_are_what_the_types_generate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kustomize/base/crds");
    let mut there: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    there.retain(|name| name != "kustomization.yaml");
    there.sort();
    let files = crds::files().unwrap();
    assert_eq!(there, files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    for (name, text) in files {
        let on_disk = std::fs::read_to_string(folder.join(&name)).unwrap();
        assert!(on_disk == text, "{name} is not what crates/api generates: run `make generate` and commit the result");
    }
}

fn schema(kind: &str) -> Value {
    let crd = crds::all().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    serde_json::to_value(&crd.spec.versions[0]).unwrap()
}

#[test]
fn every_kind_is_cluster_scoped_and_in_our_group() {
    for crd in crds::all() {
        assert_eq!(crd.spec.scope, "Cluster", "{}", crd.name_any());
        assert_eq!(crd.spec.group, names::GROUP);
        assert_eq!(crd.spec.versions[0].name, names::VERSION);
    }
}

#[test]
fn nothing_of_a_volume_but_its_release_may_change() {
    let volume = schema("LocalVolume");
    let spec = &volume["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for (field, schema) in spec["properties"].as_object().unwrap() {
        let rules = schema["x-kubernetes-validations"].as_array();
        let fixed = rules.is_some_and(|rules| rules.iter().any(|rule| rule["rule"] == "self == oldSelf"));
        assert!(fixed, "spec.{field} may be changed after the volume was asked for");
    }
    let optional = ["wipe", "fsType", "demand", "disk", "parameters", "release"];
    let whole = spec["x-kubernetes-validations"].to_string();
    for field in optional {
        assert!(whole.contains(&format!("has(oldSelf.{field})")), "spec.{field} may be added or removed later");
    }
    assert_eq!(volume["selectableFields"], json!([{ "jsonPath": ".spec.nodeName" }]));
    assert!(volume["subresources"]["status"].is_object());
}

#[test]
fn a_receipt_cannot_be_changed() {
    let text = schema("WipeReceipt").to_string();
    assert!(text.contains("self.spec == oldSelf.spec"), "{text}");
}

/// CEL budgets need bounds: every string and list that a rule reads has one.
#[test]
fn what_a_rule_compares_is_bounded() {
    fn unbounded(at: &str, schema: &Value, inside: bool, found: &mut Vec<String>) {
        let inside = inside || schema.get("x-kubernetes-validations").is_some();
        let kind = schema["type"].as_str().unwrap_or("");
        if inside && kind == "string" && schema["maxLength"].is_null() && schema["enum"].is_null() {
            found.push(format!("{at}: string without maxLength"));
        }
        if inside && kind == "array" && schema["maxItems"].is_null() {
            found.push(format!("{at}: list without maxItems"));
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            // Rules on the whole spec of a volume only ask whether fields are there.
            unbounded(&format!("{at}.{name}"), inner, inside && at != "spec", found);
        }
        if schema["additionalProperties"].is_object() {
            unbounded(&format!("{at}.*"), &schema["additionalProperties"], inside, found);
        }
    }
    let mut found = Vec::new();
    unbounded("spec", &schema("LocalVolume")["schema"]["openAPIV3Schema"]["properties"]["spec"], false, &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_pool_is_for_the_nodes_its_selector_matches() {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let pool = |selector: Option<LabelSelector>| DiskPoolSpec { node_selector: selector, ..DiskPoolSpec::default() };
    assert_eq!(pool(None).selects(&labels(&[])), Ok(true));
    let requirement = |operator: &str, values: &[&str]| LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "zone".to_owned(),
            operator: operator.to_owned(),
            values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
        }]),
        ..LabelSelector::default()
    };
    let (a, none) = (labels(&[("zone", "a")]), labels(&[]));
    for (operator, values, on_a, on_none) in [
        ("In", &["a", "b"][..], true, false),
        ("In", &["b"], false, false),
        ("NotIn", &["a"], false, true),
        ("Exists", &[], true, false),
        ("DoesNotExist", &[], false, true),
    ] {
        let pool = pool(Some(requirement(operator, values)));
        assert_eq!((pool.selects(&a), pool.selects(&none)), (Ok(on_a), Ok(on_none)), "{operator} {values:?}");
    }
    assert!(pool(Some(requirement("Near", &["a"]))).selects(&a).is_err());
    let both = LabelSelector { match_labels: Some(labels(&[("disk", "ssd")])), ..requirement("In", &["a"]) };
    assert_eq!(pool(Some(both.clone())).selects(&a), Ok(false));
    assert_eq!(pool(Some(both)).selects(&labels(&[("zone", "a"), ("disk", "ssd")])), Ok(true));
}

fn text() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9./-]{0,20}"
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(text(), text(), 0..4)
}

fn phase() -> impl Strategy<Value = Phase> {
    use Phase::*;
    prop::sample::select(vec![
        Reserved,
        Ready,
        Refused,
        Lost,
        Released,
        Quarantined,
        Wiping,
        Verifying,
        Verified,
        Freed,
        Discarded,
        Retained,
        Stuck,
        Debt,
        Forgotten,
    ])
}

prop_compose! {
    fn volume_spec()(
        node_name in text(), ledger_id in text(), pool in text(), disk in proptest::option::of(text()),
        bytes in 1..i64::MAX, block in any::<bool>(), parameters in map(), labels in map(), uid in text(),
        attempt in 0..1000i64, wipe in proptest::option::of(prop::sample::select(vec![WipeLevel::Clear, WipeLevel::CryptoErase])),
        demand in proptest::option::of((0..i64::MAX, text())),
        release in proptest::option::of(prop::sample::select(vec![ReleaseKind::Reclaimed, ReleaseKind::NeverBound, ReleaseKind::Retained])),
    ) -> LocalVolumeSpec {
        LocalVolumeSpec {
            node_name, ledger_id, pool: pool.clone(), disk, bytes,
            mode: if block { VolumeMode::Block } else { VolumeMode::Filesystem },
            fs_type: (!block).then_some(FsType::Xfs),
            class_name: pool, parameters, wipe, attempt,
            demand: demand.map(|(iops, policy_hash)| ResolvedDemand { iops: Some(iops), bytes_per_second: None, policy_hash }),
            claim_uid: uid.clone(),
            claim: ClaimReference { namespace: "n".into(), name: "c".into(), labels },
            release: release.map(|kind| Release { claim_uid: uid, kind }),
        }
    }
}

proptest! {
    #[test]
    fn a_volume_comes_back_from_json_as_it_went(spec in volume_spec(), phase in phase(), message in text()) {
        let mut volume = LocalVolume::new(&LocalVolume::name_for(&spec.claim_uid, spec.attempt), spec);
        volume.status = Some(LocalVolumeStatus { phase: Some(phase), message, bytes: Some(7), ..LocalVolumeStatus::default() });
        let json = serde_json::to_value(&volume).unwrap();
        prop_assert_eq!(&json["spec"]["claimUID"], &Value::from(volume.spec.claim_uid.clone()));
        prop_assert_eq!(serde_json::from_value::<LocalVolume>(json).unwrap(), volume);
    }

    #[test]
    fn what_a_type_writes_its_schema_knows(spec in volume_spec(), phase in phase()) {
        fn unknown(at: &str, value: &Value, schema: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => for (name, inner) in fields {
                    let known = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
                    match known {
                        Some(known) => unknown(&format!("{at}.{name}"), inner, known, found),
                        None => found.push(format!("{at}.{name}")),
                    }
                },
                Value::Array(items) => for item in items { unknown(at, item, &schema["items"], found) },
                Value::String(text) => {
                    let allowed = schema["enum"].as_array();
                    if allowed.is_some_and(|allowed| !allowed.iter().any(|word| word == text)) {
                        found.push(format!("{at}: {text}"));
                    }
                }
                _ => {}
            }
        }
        let record = VolumeRecord {
            name: "pvc".into(), volume_handle: "v".into(), pool: spec.pool.clone(), bytes: spec.bytes, mode: spec.mode,
            fs_type: spec.fs_type, class_name: spec.class_name.clone(), parameters: spec.parameters.clone(),
            demand: spec.demand.clone(), wipe: spec.wipe, claim_uid: spec.claim_uid.clone(), claim: spec.claim.clone(),
            attempt: spec.attempt, phase,
        };
        let node = StorageNodeStatus { volumes: vec![record], ..StorageNodeStatus::default() };
        let mut found = Vec::new();
        let part = |kind: &str, part: &str| schema(kind)["schema"]["openAPIV3Schema"]["properties"][part].clone();
        unknown("spec", &serde_json::to_value(&spec).unwrap(), &part("LocalVolume", "spec"), &mut found);
        unknown("status", &serde_json::to_value(&node).unwrap(), &part("StorageNode", "status"), &mut found);
        prop_assert_eq!(found, Vec::<String>::new());
    }
}
