use serde_json::json;

use super::*;
use crate::cluster::testing::{claim, class};

fn judged(claim: &Claim, class: &Class) -> String {
    match judge(claim, Some(class)) {
        Judgement::Leave => "leave".to_owned(),
        Judgement::Refuse(refusal) => format!("{}: {}", refusal.reason, refusal.message),
        Judgement::Doubt(refusal) => format!("doubt, {}: {}", refusal.reason, refusal.message),
        Judgement::Make(order) => format!("make {} {}", order.demand.bytes, order.demand.mode),
    }
}

#[test]
fn sizes_are_those_that_the_node_will_make() {
    let sized = |size: &str| claim("c", json!({"spec": {"resources": {"requests": {"storage": size}}}}));
    let plain = class("ssd", &[]);
    assert_eq!(judged(&sized("10Mi"), &plain), format!("make {} ext4", 10 << 20));
    assert_eq!(judged(&sized("1"), &plain), format!("make {} ext4", 1 << 20));
    assert_eq!(judged(&sized("1500k"), &plain), format!("make {} ext4", 2 << 20));
    let xfs = class("xfs", &[(names::PARAMETER_FSTYPE, "xfs")]);
    assert_eq!(judged(&sized("1Mi"), &xfs), format!("make {} xfs", 300 << 20));
    assert!(judged(&sized("10E"), &plain).starts_with("BadSize: spec.resources.requests.storage"));
}

#[test]
fn options_for_mkfs_are_read_for_the_filesystem_that_is_made() {
    let class = class("odd", &[(names::PARAMETER_MKFS_OPTIONS, "-T news")]);
    assert!(judged(&claim("c", json!({})), &class).starts_with("make"));
    let block = judged(&claim("c", json!({"spec": {"volumeMode": "Block"}})), &class);
    assert!(block.starts_with("BadParameter") && block.contains("Block"), "{block}");
}

#[test]
fn mount_options_are_checked_before_anything_is_made() {
    let class = Class { mount_options: vec!["suid=maybe".into()], ..class("odd", &[]) };
    let said = judged(&claim("c", json!({})), &class);
    assert!(said.starts_with("BadParameter") && said.contains("mountOptions") && said.contains("suid=maybe"), "{said}");
}

#[test]
fn a_claim_with_a_volume_name_is_never_provisioned() {
    assert_eq!(judged(&claim("c", json!({"spec": {"volumeName": "v"}})), &class("ssd", &[])), "leave");
}

#[test]
fn the_older_annotation_counts_and_anothers_does_not() {
    let beta = json!({"metadata": {"annotations": {
        names::ANNOTATION_PROVISIONER: "", names::ANNOTATION_PROVISIONER_BETA: names::DRIVER,
    }}});
    assert!(judged(&claim("c", beta), &class("ssd", &[])).starts_with("make"));
    let other = json!({"metadata": {"annotations": { names::ANNOTATION_PROVISIONER: "other" }}});
    assert_eq!(judged(&claim("c", other), &class("ssd", &[])), "leave");
}

#[test]
fn a_class_that_cannot_be_read_is_told_of_before_any_node_is_chosen() {
    let early = claim(
        "c",
        json!({"metadata": {"annotations": {
            names::ANNOTATION_PROVISIONER: "", names::ANNOTATION_SELECTED_NODE: "",
        }}}),
    );
    let said = judged(&early, &class("odd", &[("bedplate.dev/medium", "ssd")]));
    assert!(said.starts_with("doubt, BadParameter") && said.contains("bedplate.dev/medium"), "{said}");
    assert_eq!(judged(&early, &class("ssd", &[])), "leave");
}

#[test]
fn what_is_not_supported_is_told_of_though_no_node_will_ever_be_chosen() {
    // The control plane names a claim's provisioner together with its node; with an extender that refuses it, it has neither.
    let none = json!({ names::ANNOTATION_PROVISIONER: "", names::ANNOTATION_SELECTED_NODE: "" });
    let ours = json!({ names::ANNOTATION_SELECTED_NODE: "" });
    let plain = class("ssd", &[]);
    for annotations in [none, ours] {
        let asks = |spec| claim("c", json!({"metadata": {"annotations": annotations}, "spec": spec}));
        let said = judged(&asks(json!({"accessModes": ["ReadWriteMany"]})), &plain);
        assert!(said.starts_with("doubt, UnsupportedAccessMode"), "{said}");
        let said = judged(&asks(json!({"resources": {"requests": {"storage": "10E"}}})), &plain);
        assert!(said.starts_with("doubt, BadSize"), "{said}");
        assert_eq!(judged(&asks(json!({})), &plain), "leave", "somebody will choose a node");
        let import = json!({"apiGroup": "populators.example", "kind": "Import", "name": "x"});
        assert_eq!(judged(&asks(json!({"dataSourceRef": import})), &plain), "leave", "a populator's");
        // Which the extender refuses all the same.
        let said = judged(&asks(json!({"dataSourceRef": import, "accessModes": ["ReadWriteMany"]})), &plain);
        assert!(said.starts_with("doubt, UnsupportedAccessMode"), "{said}");
    }
}

#[test]
fn read_only_many_is_refused_like_read_write_many() {
    let said = judged(&claim("c", json!({"spec": {"accessModes": ["ReadOnlyMany"]}})), &class("ssd", &[]));
    assert!(said.starts_with("UnsupportedAccessMode") && said.contains("ReadOnlyMany"), "{said}");
}
