//! Which lists are sets or have keys: by field name for what Kubernetes defines itself, by the schema for custom
//! resources. Strategic merge and server-side apply ask here; everything else in a list is replaced whole.

use serde_json::Value;

use super::values::{list, text};

/// Field → the fields that identify an item. No keys: a set of scalars.
const KNOWN: &[(&str, &[&str])] = &[
    ("addresses", &["type"]),
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("drivers", &["name"]),
    ("env", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("finalizers", &[]),
    ("imagePullSecrets", &["name"]),
    ("initContainers", &["name"]),
    ("ownerReferences", &["uid"]),
    ("taints", &["key", "effect"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("volumeDevices", &["devicePath"]),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
];

/// How a list merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Merge {
    /// Replaced whole.
    Atomic,
    /// Scalars, each once.
    Set,
    /// Items identified by these fields.
    Keyed(Vec<String>),
}

/// Where in an object's type we are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape<'a> {
    /// Below a field of this name of a type that Kubernetes defines.
    Known(&'a str),
    /// Described by this structural schema.
    Schema(&'a Value),
}

impl<'a> Shape<'a> {
    /// The root of a resource: `schema` if it is a custom one.
    pub fn root(schema: Option<&'a Value>) -> Self {
        schema.map_or(Self::Known(""), Self::Schema)
    }

    pub fn field(self, name: &'a str) -> Self {
        match self {
            Self::Schema(schema) if name != "metadata" => {
                Self::Schema(schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]))
            }
            _ => Self::Known(name),
        }
    }

    pub fn item(self) -> Self {
        match self {
            Self::Schema(schema) => Self::Schema(&schema["items"]),
            Self::Known(_) => Self::Known(""),
        }
    }

    /// How the list here merges.
    pub fn merge(self) -> Merge {
        match self {
            Self::Known(name) => match KNOWN.iter().find(|(field, _)| *field == name) {
                Some((_, [])) => Merge::Set,
                Some((_, keys)) => Merge::Keyed(keys.iter().map(|key| (*key).to_owned()).collect()),
                None => Merge::Atomic,
            },
            Self::Schema(schema) => match text(schema, "/x-kubernetes-list-type") {
                "set" => Merge::Set,
                "map" => Merge::Keyed(
                    list(&schema["x-kubernetes-list-map-keys"])
                        .iter()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect(),
                ),
                _ => Merge::Atomic,
            },
        }
    }

    /// True if the map here is owned and replaced as one.
    pub fn atomic_map(self) -> bool {
        match self {
            Self::Known(name) => ["claimRef", "involvedObject", "regarding", "required", "selector"].contains(&name),
            Self::Schema(schema) => text(schema, "/x-kubernetes-map-type") == "atomic",
        }
    }
}

/// True if two items of a keyed list are the same one.
pub(super) fn same_item(keys: &[String], one: &Value, other: &Value) -> bool {
    keys.iter().all(|key| one.get(key) == other.get(key))
}
