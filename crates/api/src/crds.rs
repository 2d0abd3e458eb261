//! The CRDs, for `make generate` and for the embedded cluster.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{DiskPool, LocalVolume, StorageNode, WipeReceipt};

/// Every CRD, in the order of their names.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![DiskPool::crd(), LocalVolume::crd(), StorageNode::crd(), WipeReceipt::crd()]
}

/// File name and content of each, as they stand below `deploy/`.
///
/// # Errors
/// A CRD cannot be written as YAML.
pub fn files() -> Result<Vec<(String, String)>, serde_saphyr::ser::Error> {
    let head = "# Generated from crates/api by `make generate`; do not edit.\n";
    let file = |crd: CustomResourceDefinition| {
        let text = serde_saphyr::to_string(&crd)?;
        Ok((format!("{}.yaml", crd.spec.names.plural), format!("{head}{text}")))
    };
    all().into_iter().map(file).collect()
}
