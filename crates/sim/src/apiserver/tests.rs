//! The pure parts: selectors, patches, schemas, sets of fields, the table of resources.

use serde_json::{Value, json};

use super::fields;
use super::patch;
use super::resources::{self, Resource};
use super::schema;
use super::selector::Selector;
use super::shape::Shape;

#[test]
fn the_table_of_resources_is_read_whole() {
    let table = resources::built_in();
    assert!(table.len() > 40);
    let pods = &table[&(String::new(), "v1".to_owned(), "pods".to_owned())];
    assert!(pods.namespaced && pods.status && pods.rules.selectable.contains(&"spec.nodeName".to_owned()));
    let events = &table[&("events.k8s.io".to_owned(), "v1".to_owned(), "events".to_owned())];
    assert_eq!(events.storage, "/events", "two views of one table");
}

fn selects(selector: &str, labels: &Value) -> bool {
    let object = json!({"metadata": {"labels": labels}});
    Selector::parse(&Resource::default(), Some(selector), None).unwrap().matches(&object)
}

#[test]
fn label_selectors_follow_the_grammar_of_the_reference() {
    let labels = json!({"a": "1", "n": "7", "e": ""});
    let cases = [
        ("", true),
        ("a", true),
        ("!a", false),
        ("a=1", true),
        ("a==1,n!=8", true),
        ("a != 1", false),
        ("x!=1", true),
        ("a in (0, 1)", true),
        ("a notin (0,1)", false),
        ("x notin (0)", true),
        ("e=", true),
        ("e in ()", true),
        ("n>6,n<8", true),
    ];
    for (selector, expected) in cases {
        assert_eq!(selects(selector, &labels), expected, "{selector}");
    }
    for bad in ["a b", "a in 1", "=1", "a,,b", "a in (1", "a>x", "!"] {
        assert!(Selector::parse(&Resource::default(), Some(bad), None).is_err(), "{bad}");
    }
}

#[test]
fn a_strategic_patch_merges_by_key_deletes_by_key_and_unites_sets() {
    let old = json!({"metadata": {"finalizers": ["a", "b"]}, "status": {"conditions": [{"type": "A", "status": "1"}]}});
    let change = json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]},
        "status": {"conditions": [{"type": "B"}, {"type": "A", "status": "2"}]}});
    let new = patch::strategic(&old, &change);
    assert_eq!(new["status"]["conditions"], json!([{"type": "B"}, {"type": "A", "status": "2"}]));
    let finalizers = new["metadata"]["finalizers"].as_array().unwrap();
    assert!(finalizers.contains(&json!("b")) && finalizers.contains(&json!("c")) && !finalizers.contains(&json!("a")));
    let gone = patch::strategic(&new, &json!({"status": {"conditions": [{"type": "A", "$patch": "delete"}]}}));
    assert_eq!(gone["status"]["conditions"], json!([{"type": "B"}]));
}

#[test]
fn a_schema_prunes_fills_in_and_says_every_fault() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
        "kind": {"type": "string", "enum": ["x", "y"]},
        "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {"type": "string"}}}},
        "amount": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    }}}});
    let mut value = json!({"metadata": {"kept": 1}, "spec": {"name": "a", "other": 1, "open": {"any": [1]},
        "map": {"m": {"k": "v", "other": 1}}}});
    assert_eq!(schema::prune(&mut value, &schema), ["spec.map.m.other", "spec.other"]);
    schema::fill_defaults(&mut value, &schema);
    assert_eq!(
        value,
        json!({"metadata": {"kept": 1}, "spec": {"name": "a", "size": 3, "open": {"any": [1]},
        "map": {"m": {"k": "v"}}}})
    );
    assert!(schema::validate(&value, None, &schema).is_empty());
    let bad = json!({"spec": {"name": "A", "size": 10, "kind": "z", "amount": true, "map": {"m": {"k": 1}}}});
    let faults: Vec<_> = schema::validate(&bad, None, &schema).into_iter().map(|(_, field, _)| field).collect();
    for field in ["spec.name", "spec.size", "spec.kind", "spec.amount", "spec.map.m.k"] {
        assert!(faults.contains(&field.to_owned()), "{field} in {faults:?}");
    }
    assert_eq!(schema::validate(&json!({"spec": {}}), None, &schema)[0].0, "FieldValueRequired");
}

#[test]
fn rules_that_hold_a_field_fast_are_kept_and_others_are_left_to_real_servers() {
    let held = |rule: &str, old: Value, new: Value| {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]});
        schema::validate(&new, Some(&old), &schema).len() == 1
    };
    assert!(held("self == oldSelf", json!({"a": 1}), json!({"a": 2})));
    assert!(held("self.a.b == oldSelf.a.b", json!({"a": {"b": 1}}), json!({"a": {}})));
    assert!(!held("self.a == oldSelf.a", json!({"a": 1, "b": 1}), json!({"a": 1, "b": 2})));
    let both = "has(self.a) == has(oldSelf.a) && has(self.b) == has(oldSelf.b)";
    assert!(held(both, json!({}), json!({"b": 1})));
    assert!(!held(both, json!({"b": 1}), json!({"b": 2})));
    assert!(!held("has(self.a) || !has(oldSelf.a)", json!({"a": 1}), json!({})));
}

#[test]
fn a_set_of_fields_survives_its_tree_and_finds_and_removes_what_it_names() {
    let mut value = json!({"metadata": {"labels": {"a/b.c": "1"}, "finalizers": ["x", "y"]}, "empty": {},
        "status": {"conditions": [{"type": "A", "status": "1"}, {"type": "B"}], "list": [1, 2]}});
    let set = fields::of(&value, Shape::root(None));
    assert_eq!(fields::from_tree(&fields::to_tree(&set)), set);
    assert!(set.iter().all(|path| fields::get(&value, path).is_some()));
    let shown: Vec<_> = set.iter().map(|path| fields::display(path)).collect();
    assert!(shown.contains(&r#".status.conditions[{"type":"A"}].status"#.to_owned()), "{shown:?}");
    for path in &set {
        fields::remove(&mut value, path, &|_| false);
    }
    assert_eq!(value, json!({}), "nothing is left, not even empty maps");
}
