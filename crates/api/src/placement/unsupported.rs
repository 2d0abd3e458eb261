//! What a claim may ask for that Bedplate does not do: the provisioner refuses it in words, the extender sends its pod nowhere.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;

/// The first thing in a claim that is not supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// To be filled from the snapshot of that name.
    Snapshot(String),
    /// To be filled from the claim of that name.
    Clone(String),
    /// To choose among volumes by label.
    Selector,
    /// A VolumeAttributesClass of that name.
    AttributesClass(String),
    /// An access mode for more than one node.
    AccessMode(String),
}

impl Unsupported {
    /// What is not supported in a claim.
    #[must_use]
    pub fn of(spec: &PersistentVolumeClaimSpec) -> Option<Self> {
        match source(spec) {
            Some((Some("snapshot.storage.k8s.io"), "VolumeSnapshot", name)) => {
                return Some(Self::Snapshot(name.to_owned()));
            }
            Some((None | Some(""), "PersistentVolumeClaim", name)) => return Some(Self::Clone(name.to_owned())),
            _ => {}
        }
        if spec.selector.as_ref().is_some_and(|s| s.match_labels.is_some() || s.match_expressions.is_some()) {
            return Some(Self::Selector);
        }
        if let Some(name) = spec.volume_attributes_class_name.as_ref().filter(|name| !name.is_empty()) {
            return Some(Self::AttributesClass(name.clone()));
        }
        let mut modes = spec.access_modes.iter().flatten();
        let mode = modes.find(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
        mode.map(|mode| Self::AccessMode(mode.clone()))
    }
}

/// Whether a claim is to be filled from a kind that only a populator knows. Its volume is made for the populator's own claim.
#[must_use]
pub fn is_populated(spec: &PersistentVolumeClaimSpec) -> bool {
    source(spec).is_some() && !matches!(Unsupported::of(spec), Some(Unsupported::Snapshot(_) | Unsupported::Clone(_)))
}

/// Group, kind and name of what a claim is to be filled from.
fn source(spec: &PersistentVolumeClaimSpec) -> Option<(Option<&str>, &str, &str)> {
    if let Some(source) = &spec.data_source_ref {
        return Some((source.api_group.as_deref(), &source.kind, &source.name));
    }
    let source = spec.data_source.as_ref()?;
    Some((source.api_group.as_deref(), &source.kind, &source.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(spec: Value) -> PersistentVolumeClaimSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
        for (asked, expected) in [
            (json!({}), None),
            (json!({"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"], "selector": {}}), None),
            (json!({"volumeAttributesClassName": ""}), None),
            (json!({"dataSource": snapshot}), Some(Unsupported::Snapshot("s".into()))),
            (json!({"dataSourceRef": snapshot}), Some(Unsupported::Snapshot("s".into()))),
            (
                json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "c"}}),
                Some(Unsupported::Clone("c".into())),
            ),
            (json!({"selector": {"matchLabels": {"a": "b"}}}), Some(Unsupported::Selector)),
            (json!({"volumeAttributesClassName": "gold"}), Some(Unsupported::AttributesClass("gold".into()))),
            (
                json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}),
                Some(Unsupported::AccessMode("ReadWriteMany".into())),
            ),
        ] {
            let asked = spec(asked);
            assert_eq!(Unsupported::of(&asked), expected, "{asked:?}");
            assert!(!is_populated(&asked), "{asked:?}");
        }
    }

    #[test]
    fn a_kind_that_only_a_populator_knows_is_no_reason_to_refuse() {
        let import = json!({"apiGroup": "populators.example", "kind": "Import", "name": "x"});
        let asked = spec(json!({"dataSourceRef": import}));
        assert_eq!((Unsupported::of(&asked), is_populated(&asked)), (None, true));
        let asked = spec(json!({"dataSourceRef": import, "accessModes": ["ReadWriteMany"]}));
        assert_eq!(Unsupported::of(&asked), Some(Unsupported::AccessMode("ReadWriteMany".into())));
        assert!(is_populated(&asked));
    }
}
