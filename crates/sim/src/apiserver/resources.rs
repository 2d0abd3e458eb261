//! The table of what is served: one row for each built-in resource, one more for each version of a custom resource.
//!
//! What differs between kinds is data (`resources.json`: subresources, generation, defaults, immutable fields), never
//! code elsewhere. Two views of one store (core events and events.k8s.io) share `storage` and rename top-level fields.
//!
//! A row of the file: `group/version plural Kind scope flags short-names`. Flags: `s` has a status, `k` keeps it at
//! create, `g` counts generations, `v` a replace needs a resourceVersion, `d` a delete answers with the object, `b` no
//! deletecollection, `a` belongs to the category `all`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::{Value, json};

use super::values::{list, text};

/// The file.
#[derive(Debug, Default, Deserialize)]
struct Tables {
    rows: Vec<String>,
    /// By `group/plural`.
    rules: HashMap<String, Rules>,
    subresources: Vec<Subresource>,
}

static TABLES: LazyLock<Tables> =
    LazyLock::new(|| serde_json::from_str(include_str!("resources.json")).unwrap_or_default());

/// A subresource beside status: plural, name, kind, its group and version if another, verb.
pub(super) type Subresource = (String, String, String, String, String, String);

/// The subresources beside status of a resource.
pub(super) fn subresources(plural: &str) -> impl Iterator<Item = &'static Subresource> {
    TABLES.subresources.iter().filter(move |row| row.0 == plural)
}

/// What the server does with some built-in resources.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rules {
    /// What a real server fills in where a client left it out, as far as our programs look at it.
    pub defaults: Value,
    /// A finalizer that admission adds at create.
    pub protection: Option<String>,
    /// Pointers to what may not change once it is set.
    pub immutable: Vec<String>,
    /// Pointers to what a new object must have, and the reason if it has not.
    pub required: Vec<(String, String)>,
    /// Dotted paths beside name and namespace by which objects can be selected.
    pub selectable: Vec<String>,
    /// (stored, served) names of top-level fields.
    pub renames: Vec<(String, String)>,
    /// The table that holds the objects, if it is another's.
    storage: Option<String>,
}

/// One resource in one version: its names and how the server treats it.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // each is an independent property of the row
pub(super) struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub namespaced: bool,
    pub short: Vec<String>,
    pub categories: Vec<String>,
    pub status: bool,
    pub keeps_status: bool,
    pub generation: bool,
    pub needs_version: bool,
    pub returns_deleted: bool,
    pub no_collection: bool,
    /// The structural schema; custom resources only.
    pub schema: Option<Value>,
    /// Key of the table that holds the objects: `group/plural`.
    pub storage: String,
    pub rules: Rules,
}

impl Resource {
    /// `v1` or `group/version`.
    pub fn group_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural` or `plural.group`, as messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn custom(&self) -> bool {
        self.schema.is_some()
    }

    /// From the form in which it is stored to the one in which this version serves it, or back.
    pub fn rename(&self, value: &mut Value, serving: bool) {
        let Some(fields) = value.as_object_mut().filter(|_| !self.rules.renames.is_empty()) else { return };
        for (stored, served) in &self.rules.renames {
            let (from, to) = if serving { (stored, served) } else { (served, stored) };
            if let Some(field) = fields.remove(from) {
                fields.insert(to.clone(), field);
            }
        }
    }
}

/// Everything that is served, by group, version and plural.
pub(super) type Catalogue = BTreeMap<(String, String, String), Arc<Resource>>;

/// The rows of the table above.
pub(super) fn built_in() -> Catalogue {
    TABLES.rows.iter().filter_map(|line| row(line)).map(|row| (place(&row), Arc::new(row))).collect()
}

fn place(row: &Resource) -> (String, String, String) {
    (row.group.clone(), row.version.clone(), row.plural.clone())
}

fn row(line: &str) -> Option<Resource> {
    let [place, plural, kind, scope, flags, short] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
    let (group, version) = place.split_once('/').unwrap_or(("", place));
    let rules = TABLES.rules.get(&format!("{group}/{plural}")).cloned().unwrap_or_default();
    Some(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        kind: kind.to_owned(),
        namespaced: scope == "ns",
        short: short.split(',').filter(|name| *name != "-").map(str::to_owned).collect(),
        categories: if flags.contains('a') { vec!["all".to_owned()] } else { Vec::new() },
        status: flags.contains('s'),
        keeps_status: flags.contains('k'),
        generation: flags.contains('g'),
        needs_version: flags.contains('v'),
        returns_deleted: flags.contains('d'),
        no_collection: flags.contains('b'),
        schema: None,
        storage: rules.storage.clone().unwrap_or_else(|| format!("{group}/{plural}")),
        rules,
    })
}

/// What a CustomResourceDefinition asks to be served: one resource for each served version.
pub(super) fn custom(definition: &Value) -> Vec<Resource> {
    let (spec, names) = (&definition["spec"], &definition["spec"]["names"]);
    let strings = |value: &Value| list(value).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let (group, plural) = (text(spec, "/group"), text(names, "/plural"));
    let served = list(&spec["versions"]).iter().filter(|version| version["served"] == json!(true));
    served
        .map(|version| Resource {
            group: group.to_owned(),
            version: text(version, "/name").to_owned(),
            plural: plural.to_owned(),
            singular: text(names, "/singular").to_owned(),
            kind: text(names, "/kind").to_owned(),
            namespaced: text(spec, "/scope") == "Namespaced",
            short: strings(&names["shortNames"]),
            categories: strings(&names["categories"]),
            status: version["subresources"]["status"].is_object(),
            generation: true,
            needs_version: true,
            schema: Some(version["schema"]["openAPIV3Schema"].clone()),
            storage: format!("{group}/{plural}"),
            rules: Rules {
                selectable: list(&version["selectableFields"])
                    .iter()
                    .map(|field| text(field, "/jsonPath").trim_start_matches('.').to_owned())
                    .collect(),
                ..Rules::default()
            },
            ..Resource::default()
        })
        .collect()
}
