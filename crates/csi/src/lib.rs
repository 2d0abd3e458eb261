//! The Container Storage Interface (CSI) and kubelet plugin registration, as Rust types and a Unix-socket server.
//!
//! Owns: the generated bindings ([`v1`], [`registration`]), how a socket is bound and served ([`server`]), how one is
//! dialled ([`client`]), and the shim that makes every client's `:authority` acceptable ([`authority`]).
//! Never does: anything with volumes. What the calls mean stands in the provisioner.

pub mod authority;
pub mod client;
pub mod server;
pub mod transport;

/// CSI, package `csi.v1`: messages, clients and server traits, generated from `proto/csi.proto`.
#[allow(missing_docs, clippy::pedantic, clippy::unwrap_used, clippy::expect_used)]
pub mod v1 {
    tonic::include_proto!("csi.v1");
}

/// Kubelet plugin registration, package `pluginregistration`, generated from `proto/pluginregistration.proto`.
#[allow(missing_docs, clippy::pedantic, clippy::unwrap_used, clippy::expect_used)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
