//! The CRDs, for `make generate` and for the embedded cluster.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{DiskPool, LocalVolume, StorageNode, WipeReceipt};

/// Every CRD, in the order of their names.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![DiskPool::crd(), LocalVolume::crd(), StorageNode::crd(), WipeReceipt::crd()]
}
