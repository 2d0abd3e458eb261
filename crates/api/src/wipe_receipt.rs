//! The evidence of a finished wipe (G3), as an object that people and auditors can list. Immutable.
//!
//! A copy: the node's own append-only log is the original, and keeps all. Objects are kept for a configurable time.

use std::collections::BTreeMap;

use bedplate_core::receipt::Receipt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::local_volume::{ClaimReference, WipeLevel};

/// The evidence.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "bedplate.dev",
    version = "v1alpha1",
    kind = "WipeReceipt",
    plural = "wipereceipts",
    shortname = "wr",
    category = "bedplate",
    derive = "PartialEq",
    selectable = ".spec.node",
    selectable = ".spec.localVolume",
    selectable = ".spec.claimUID",
    validation = ("self.spec == oldSelf.spec", "a receipt is evidence: it cannot be changed"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.claim.namespace"),
    printcolumn(name = "Claim", type_ = "string", json_path = ".spec.claim.name"),
    printcolumn(name = "Level", type_ = "string", json_path = ".spec.level"),
    printcolumn(name = "Ended", type_ = "date", json_path = ".spec.ended")
)]
#[serde(rename_all = "camelCase")]
pub struct WipeReceiptSpec {
    /// Its number in the node's chain, from 1.
    pub number: i64,
    /// The ledger that wrote it.
    #[serde(rename = "ledgerID")]
    pub ledger_id: String,
    /// On which node.
    pub node: String,
    /// The volume's id on the node.
    pub volume: String,
    /// Name of its LocalVolume.
    pub local_volume: String,
    /// Whose it was.
    pub claim: ClaimReference,
    /// Uid of that claim.
    #[serde(rename = "claimUID")]
    pub claim_uid: String,
    /// The class's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// In which pool.
    pub pool: String,
    /// Serial number of the disk, or null.
    pub serial: Option<String>,
    /// World-wide name of the disk, or null.
    pub wwn: Option<String>,
    /// Its model, or null.
    pub model: Option<String>,
    /// `strong` or `weak`.
    pub identity: String,
    /// Bytes wiped.
    pub bytes: i64,
    /// How many ranges they lay in; the ranges themselves are in the node's log.
    pub ranges: i64,
    /// How they were overwritten.
    pub method: String,
    /// Overwriting passes.
    pub passes: i64,
    /// What was read back: `full` or `sample`, bytes, and what could escape.
    pub verification: VerificationSummary,
    /// What the evidence carries.
    pub level: WipeLevel,
    /// Why not more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub level_losses: Vec<String>,
    /// When the wipe began.
    pub started: Time,
    /// When its verification ended.
    pub ended: Time,
    /// Version of the agent.
    pub agent: String,
    /// Hash of the receipt before.
    pub previous: String,
    /// Hash of this one, over the full receipt in the node's log.
    pub hash: String,
}

/// What was read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationSummary {
    /// `full` or `sample`.
    pub kind: String,
    /// Bytes read.
    pub bytes: i64,
    /// Share of unwiped blocks, in parts per million, that would escape with at most 5 % probability.
    pub bound_ppm: i64,
    /// Places derive from it; reproducible.
    pub seed: String,
}

/// The name of a receipt's object: one a receipt, and the same at every try to publish it.
#[must_use]
pub fn name_for(receipt: &Receipt) -> String {
    format!("{}-{}", receipt.volume, receipt.number)
}
