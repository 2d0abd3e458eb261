//! `deploy/` as this repository has it: read as the tools read it, document by document, following kustomizations.
//!
//! No tool and no cluster is needed for that; what only a real API server can say is asked there (`tests/manifests_live.rs`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, core::v1 as core, networking::v1 as networking,
    policy::v1 as policy, rbac::v1 as rbac, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// One document, and the file it stands in.
#[derive(Clone, Debug)]
pub struct Document {
    /// The file, below `deploy/`.
    pub file: PathBuf,
    /// What it says.
    pub value: Value,
}

impl Document {
    /// Its kind.
    pub fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Where `deploy/` is.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The documents of a file below `deploy/`.
pub fn read(file: &Path) -> Result<Vec<Document>> {
    let text = std::fs::read_to_string(folder().join(file)).with_context(|| format!("deploy/{}", file.display()))?;
    let values: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("deploy/{}", file.display()))?;
    ensure!(!values.is_empty(), "deploy/{} holds nothing", file.display());
    Ok(values.into_iter().map(|value| Document { file: file.to_owned(), value }).collect())
}

/// Every YAML file below a folder of `deploy/`.
pub fn files(below: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(dir) = folders.pop() {
        for entry in std::fs::read_dir(folder().join(&dir)).with_context(|| format!("deploy/{}", dir.display()))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What a kustomization leads to: its documents, and every file that was read for them.
pub fn kustomization(dir: &Path) -> Result<(Vec<Document>, BTreeSet<PathBuf>)> {
    let (mut documents, mut seen) = (Vec::new(), BTreeSet::new());
    let root = dir.join("kustomization.yaml");
    let [own] = &read(&root)?[..] else { bail!("deploy/{} holds more than one document", root.display()) };
    seen.insert(root);
    for resource in own.value["resources"].as_array().into_iter().flatten() {
        let path = dir.join(resource.as_str().context("a resource is a path")?);
        if folder().join(&path).is_dir() {
            let (more, files) = kustomization(&path)?;
            documents.extend(more);
            seen.extend(files);
        } else {
            documents.extend(read(&path)?);
            ensure!(seen.insert(path.clone()), "deploy/{} is named twice", path.display());
        }
    }
    Ok((documents, seen))
}

/// What an API server of the version our types are made from would not know: each field, by its path.
///
/// # Errors
/// The kind is none that `deploy/` is known to use, or the document is not of it.
pub fn unknown_fields(value: &Value) -> Result<Vec<String>> {
    fn through<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Value> {
        Ok(serde_json::to_value(serde_json::from_value::<T>(value.clone())?)?)
    }
    let kind = value["kind"].as_str().unwrap_or_default();
    let understood = match kind {
        "ClusterRole" => through::<rbac::ClusterRole>(value),
        "ClusterRoleBinding" => through::<rbac::ClusterRoleBinding>(value),
        "ConfigMap" => through::<core::ConfigMap>(value),
        "CSIDriver" => through::<storage::CSIDriver>(value),
        "CSIStorageCapacity" => through::<storage::CSIStorageCapacity>(value),
        "CustomResourceDefinition" => through::<CustomResourceDefinition>(value),
        "DaemonSet" => through::<apps::DaemonSet>(value),
        "Deployment" => through::<apps::Deployment>(value),
        "DiskPool" => through::<bedplate_api::DiskPool>(value),
        "Namespace" => through::<core::Namespace>(value),
        "NetworkPolicy" => through::<networking::NetworkPolicy>(value),
        "PersistentVolumeClaim" => through::<core::PersistentVolumeClaim>(value),
        "Pod" => through::<core::Pod>(value),
        "PodDisruptionBudget" => through::<policy::PodDisruptionBudget>(value),
        "Role" => through::<rbac::Role>(value),
        "RoleBinding" => through::<rbac::RoleBinding>(value),
        "Service" => through::<core::Service>(value),
        "ServiceAccount" => through::<core::ServiceAccount>(value),
        "StatefulSet" => through::<apps::StatefulSet>(value),
        "StorageClass" => through::<storage::StorageClass>(value),
        "ValidatingAdmissionPolicy" => through::<admission::ValidatingAdmissionPolicy>(value),
        "ValidatingAdmissionPolicyBinding" => through::<admission::ValidatingAdmissionPolicyBinding>(value),
        other => bail!("kind {other:?} is not known here"),
    }
    .with_context(|| format!("{kind} {}", value["metadata"]["name"]))?;
    let mut lost = Vec::new();
    compare(value, &understood, kind, &mut lost);
    Ok(lost)
}

/// Names what `given` has and `understood` has not.
fn compare(given: &Value, understood: &Value, at: &str, lost: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            for (key, value) in given {
                // An empty list and an absent one are the same to an API server.
                let nothing = value.as_array().is_some_and(Vec::is_empty);
                match understood.get(key) {
                    Some(other) => compare(value, other, &format!("{at}.{key}"), lost),
                    None if nothing => {}
                    None => lost.push(format!("{at}.{key}")),
                }
            }
        }
        (Value::Array(given), Value::Array(understood)) if given.len() == understood.len() => {
            for (index, (one, other)) in given.iter().zip(understood).enumerate() {
                compare(one, other, &format!("{at}[{index}]"), lost);
            }
        }
        (given, understood) if given == understood => {}
        _ => lost.push(at.to_owned()),
    }
}
