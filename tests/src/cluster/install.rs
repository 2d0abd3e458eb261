//! What `deploy/` puts into a cluster besides programs: CRDs, CSIDriver, StorageClasses, the namespace and what lies in it.
//!
//! Read from the files that people apply, so that a story fails where they would. RBAC and admission policies are left to
//! real API servers (ring 6); the embedded one judges nobody.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::Config;
use kube::{Api, Client};
use serde_json::Value;

use super::wait::{SOON, until};
use crate::manifests::{Document, kustomization};

/// The namespace that `deploy/` makes for Bedplate's own objects.
pub const NAMESPACE: &str = "bedplate-system";
/// Where all of it is.
const BASE: &str = "kustomize/base";
/// What is put into a cluster whose programs the test starts itself, in this order.
const KINDS: [&str; 5] = ["Namespace", "CustomResourceDefinition", "CSIDriver", "StorageClass", "CSIStorageCapacity"];

/// Puts all of it into a cluster.
pub async fn everything(client: &Client) -> Result<()> {
    let (documents, _) = kustomization(Path::new(BASE))?;
    for kind in KINDS {
        for document in documents.iter().filter(|document| document.kind() == kind) {
            apply(client, document).await?;
        }
    }
    established(client).await
}

/// Puts the CRDs into a cluster.
pub async fn crds(client: &Client) -> Result<()> {
    let (documents, _) = kustomization(&Path::new(BASE).join("crds"))?;
    for document in &documents {
        apply(client, document).await?;
    }
    established(client).await
}

async fn established(client: &Client) -> Result<()> {
    let wanted = bedplate_api::crds::all().len();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    until(api, Config::default(), "all CRDs established", SOON, |there| {
        let ours = there.values().filter(|crd| crd.spec.group == bedplate_api::names::GROUP);
        let stands = |crd: &&CustomResourceDefinition| {
            let conditions = crd.status.iter().flat_map(|status| status.conditions.iter().flatten());
            crd.metadata.deletion_timestamp.is_none()
                && conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True")
        };
        (ours.filter(stands).count() == wanted).then_some(())
    })
    .await
}

async fn apply(client: &Client, document: &Document) -> Result<()> {
    let value = &document.value;
    let word = |name: &str| value[name].as_str().unwrap_or_default();
    let (group, version) = word("apiVersion").rsplit_once('/').unwrap_or(("", word("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, word("kind")));
    let resource = ApiResource { plural: plural(word("kind")), ..resource };
    let api: Api<DynamicObject> = match value["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let value: Value = value.clone();
    api.patch(document.name(), &PatchParams::apply("installer").force(), &Patch::Apply(value))
        .await
        .with_context(|| format!("deploy/{}: {} {}", document.file.display(), document.kind(), document.name()))?;
    Ok(())
}

/// The plural of one of [`KINDS`]. Only one of them does not follow the simple rule.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y').or(kind.strip_suffix("ss")) {
        Some(stem) if kind.ends_with('y') => format!("{stem}ies"),
        Some(_) => format!("{kind}es"),
        None => format!("{kind}s"),
    }
}
