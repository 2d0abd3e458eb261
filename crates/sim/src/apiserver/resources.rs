//! The table of what is served: one row for each built-in resource, one more for each version of a custom resource.
//!
//! What differs between kinds is data here (subresources, generation, defaults, immutable fields), never code elsewhere.
//! Two views of one store (core events and events.k8s.io) are rows that share `storage` and rename top-level fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::values::{list, text};

/// `group/version plural Kind scope flags short-names`. Flags: `s` has a status, `k` keeps it at create, `g` counts
/// generations, `v` a replace needs a resourceVersion, `d` a delete answers with the object, `b` no deletecollection.
const BUILT_IN: &str = "
v1 configmaps ConfigMap ns - cm
v1 endpoints Endpoints ns - ep
v1 events Event ns - ev
v1 limitranges LimitRange ns - limits
v1 namespaces Namespace - sb ns
v1 nodes Node - sk no
v1 persistentvolumeclaims PersistentVolumeClaim ns sd pvc
v1 persistentvolumes PersistentVolume - sd pv
v1 pods Pod ns sd po
v1 podtemplates PodTemplate ns gd -
v1 replicationcontrollers ReplicationController ns sg rc
v1 resourcequotas ResourceQuota ns sd quota
v1 secrets Secret ns - -
v1 serviceaccounts ServiceAccount ns d sa
v1 services Service ns sd svc
admissionregistration.k8s.io/v1 validatingadmissionpolicies ValidatingAdmissionPolicy - sgv -
admissionregistration.k8s.io/v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding - gv -
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition - sgv crd,crds
apps/v1 controllerrevisions ControllerRevision ns v -
apps/v1 daemonsets DaemonSet ns sg ds
apps/v1 deployments Deployment ns sg deploy
apps/v1 replicasets ReplicaSet ns sg rs
apps/v1 statefulsets StatefulSet ns sg sts
batch/v1 cronjobs CronJob ns sg cj
batch/v1 jobs Job ns sg -
coordination.k8s.io/v1 leases Lease ns v -
discovery.k8s.io/v1 endpointslices EndpointSlice ns g -
events.k8s.io/v1 events Event ns - ev
networking.k8s.io/v1 networkpolicies NetworkPolicy ns g netpol
policy/v1 poddisruptionbudgets PodDisruptionBudget ns sgv pdb
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding - - -
rbac.authorization.k8s.io/v1 clusterroles ClusterRole - - -
rbac.authorization.k8s.io/v1 rolebindings RoleBinding ns - -
rbac.authorization.k8s.io/v1 roles Role ns - -
scheduling.k8s.io/v1 priorityclasses PriorityClass - g pc
storage.k8s.io/v1 csidrivers CSIDriver - gdv -
storage.k8s.io/v1 csinodes CSINode - dv -
storage.k8s.io/v1 csistoragecapacities CSIStorageCapacity ns v -
storage.k8s.io/v1 storageclasses StorageClass - d sc
storage.k8s.io/v1 volumeattachments VolumeAttachment - sgdv -
storage.k8s.io/v1 volumeattributesclasses VolumeAttributesClass - d vac
";

/// What a real server fills in where a client left it out, as far as our programs look at it.
const DEFAULTS: &[(&str, &str)] = &[
    ("/events", r#"{"source":{},"firstTimestamp":null,"lastTimestamp":null}"#),
    ("/namespaces", r#"{"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}"#),
    (
        "/nodes",
        r#"{"spec":{},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"machineID":"",
        "systemUUID":"","bootID":"","kernelVersion":"","osImage":"","containerRuntimeVersion":"","kubeletVersion":"",
        "kubeProxyVersion":"","operatingSystem":"","architecture":""}}}"#,
    ),
    ("/persistentvolumeclaims", r#"{"spec":{"volumeMode":"Filesystem"},"status":{"phase":"Pending"}}"#),
    (
        "/persistentvolumes",
        r#"{"spec":{"volumeMode":"Filesystem","persistentVolumeReclaimPolicy":"Retain"},"status":{"phase":"Pending"}}"#,
    ),
    (
        "/pods",
        r#"{"spec":{"restartPolicy":"Always","schedulerName":"default-scheduler","terminationGracePeriodSeconds":30,
        "dnsPolicy":"ClusterFirst","serviceAccountName":"default","securityContext":{},"enableServiceLinks":true},
        "status":{"phase":"Pending"}}"#,
    ),
    ("apps/deployments", r#"{"spec":{"replicas":1},"status":{}}"#),
    (
        "apps/statefulsets",
        r#"{"spec":{"replicas":1,"podManagementPolicy":"OrderedReady","revisionHistoryLimit":10,"updateStrategy":
        {"type":"RollingUpdate"},"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Retain","whenScaled":"Retain"}},
        "status":{"replicas":0}}"#,
    ),
    (
        "storage.k8s.io/csidrivers",
        r#"{"spec":{"attachRequired":true,"podInfoOnMount":false,"storageCapacity":false,"requiresRepublish":false,
        "fsGroupPolicy":"ReadWriteOnceWithFSType","seLinuxMount":false,"volumeLifecycleModes":["Persistent"]}}"#,
    ),
    ("storage.k8s.io/storageclasses", r#"{"reclaimPolicy":"Delete","volumeBindingMode":"Immediate"}"#),
];

/// Finalizers that admission adds at create.
const PROTECTION: &[(&str, &str)] = &[
    ("/persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("/persistentvolumes", "kubernetes.io/pv-protection"),
    ("apiextensions.k8s.io/customresourcedefinitions", "customresourcecleanup.apiextensions.k8s.io"),
];

/// Fields that may not change once they are set.
const IMMUTABLE: &[(&str, &[&str])] = &[
    (
        "/persistentvolumeclaims",
        &["/spec/volumeName", "/spec/storageClassName", "/spec/accessModes", "/spec/volumeMode"],
    ),
    ("/persistentvolumes", &["/spec/csi", "/spec/volumeMode", "/spec/nodeAffinity"]),
    ("/pods", &["/spec/nodeName", "/spec/volumes", "/spec/schedulerName"]),
    ("apps/statefulsets", &["/spec/volumeClaimTemplates", "/spec/serviceName", "/spec/selector"]),
    ("storage.k8s.io/csistoragecapacities", &["/nodeTopology", "/storageClassName"]),
    ("storage.k8s.io/storageclasses", &["/provisioner", "/parameters", "/reclaimPolicy", "/volumeBindingMode"]),
];

/// Fields beside name and namespace by which a built-in resource can be selected.
const SELECTABLE: &[(&str, &[&str])] = &[
    (
        "/pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    ("/nodes", &["spec.unschedulable"]),
    ("/namespaces", &["status.phase"]),
    ("/secrets", &["type"]),
    (
        "/events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
];

/// Core field name → name in events.k8s.io.
const EVENT_NAMES: &[(&str, &str)] = &[
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Subresources beside status: plural, name, kind, its group and version if another, verb.
pub(super) const SUBRESOURCES: &[(&str, &str, &str, &str, &str, &str)] = &[
    ("namespaces", "finalize", "Namespace", "", "", "update"),
    ("pods", "binding", "Binding", "", "", "create"),
    ("pods", "eviction", "Eviction", "policy", "v1", "create"),
];

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
    /// Dotted paths.
    pub selectable: Vec<String>,
    /// The structural schema; custom resources only.
    pub schema: Option<Value>,
    /// Key of the table that holds the objects: `group/plural`.
    pub storage: String,
    /// (stored, served) names of top-level fields.
    pub renames: &'static [(&'static str, &'static str)],
    pub defaults: Option<Value>,
    pub protection: Option<&'static str>,
    pub immutable: &'static [&'static str],
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
        let Some(fields) = value.as_object_mut().filter(|_| !self.renames.is_empty()) else { return };
        for (stored, served) in self.renames {
            let (from, to) = if serving { (stored, served) } else { (served, stored) };
            if let Some(field) = fields.remove(*from) {
                fields.insert((*to).to_owned(), field);
            }
        }
    }
}

/// Everything that is served, by group, version and plural.
pub(super) type Catalogue = BTreeMap<(String, String, String), Arc<Resource>>;

/// The rows of the table above.
pub(super) fn built_in() -> Catalogue {
    BUILT_IN.lines().filter_map(row).map(|row| (place(&row), Arc::new(row))).collect()
}

fn place(row: &Resource) -> (String, String, String) {
    (row.group.clone(), row.version.clone(), row.plural.clone())
}

fn row(line: &str) -> Option<Resource> {
    let [place, plural, kind, scope, flags, short] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
    let (group, version) = place.split_once('/').unwrap_or(("", place));
    let alias = group == "events.k8s.io";
    let storage = if alias { "/events".to_owned() } else { format!("{group}/{plural}") };
    let of = |table: &'static [(&str, &'static [&'static str])]| {
        table.iter().find(|(key, _)| *key == storage).map_or(&[][..], |(_, paths)| paths)
    };
    Some(Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        kind: kind.to_owned(),
        namespaced: scope == "ns",
        short: short.split(',').filter(|name| *name != "-").map(str::to_owned).collect(),
        categories: ["pods", "deployments", "statefulsets", "daemonsets", "services", "jobs"]
            .contains(&plural)
            .then(|| "all".to_owned())
            .into_iter()
            .collect(),
        status: flags.contains('s'),
        keeps_status: flags.contains('k'),
        generation: flags.contains('g'),
        needs_version: flags.contains('v'),
        returns_deleted: flags.contains('d'),
        no_collection: flags.contains('b'),
        selectable: of(SELECTABLE).iter().map(|path| (*path).to_owned()).collect(),
        schema: None,
        renames: if alias { EVENT_NAMES } else { &[] },
        defaults: DEFAULTS
            .iter()
            .find(|(key, _)| *key == storage)
            .and_then(|(_, text)| serde_json::from_str(text).ok()),
        protection: PROTECTION.iter().find(|(key, _)| *key == storage).map(|(_, name)| *name),
        immutable: of(IMMUTABLE),
        storage,
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
            selectable: list(&version["selectableFields"])
                .iter()
                .map(|field| text(field, "/jsonPath").trim_start_matches('.').to_owned())
                .collect(),
            schema: Some(version["schema"]["openAPIV3Schema"].clone()),
            storage: format!("{group}/{plural}"),
            ..Resource::default()
        })
        .collect()
}
