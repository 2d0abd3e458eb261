//! Kubernetes-facing types: custom resources, label and annotation names, StorageClass parameters.
