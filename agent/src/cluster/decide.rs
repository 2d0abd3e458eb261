//! What is to be done about one LocalVolume: the ledger's word against the object's. Pure.
//!
//! The ledger decides, not the API (G8). A volume is made only if its status never had a phase, the ledger never saw its
//! name and `spec.ledgerID` is its own; otherwise it is Lost, for ever. A wipe needs `spec.release` of the volume's own
//! claim; a deletionTimestamp, a missing object or an empty list is never one.

use bedplate_api::LocalVolume;
use bedplate_api::local_volume::{Phase, ReleaseKind};
use bedplate_core::ids::{LedgerId, VolumeId};
use bedplate_core::volume as core;
use bedplate_provisioner::engine::{CreateVolume, Known, Outline};

use super::convert::wish;

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Order {
    /// Make it.
    Create(Box<CreateVolume>),
    /// Journal that it may be wiped, then tell.
    Release(VolumeId, core::ReleaseKind),
    /// Keep its bytes without an owner.
    Retain(VolumeId),
    /// Tell what the ledger has; the sentence, where there is one, goes before it.
    Report(Option<String>),
    /// Tell that it is lost, and why.
    Lost(String),
    /// Tell that it is not made, and why.
    Refuse(String),
    /// Tell that it never held a byte and is gone.
    Discard(String),
    /// Nothing: what its status says stands.
    Leave,
}

/// Decide.
pub fn decide(own: LedgerId, known: &Known, object: &LocalVolume) -> Order {
    let spec = &object.spec;
    let told = object.phase();
    let foreign = spec.ledger_id != own.to_string();
    match known {
        Known::Volume(volume) if volume.claim.uid != spec.claim_uid => Order::Lost(format!(
            "this node's ledger knows the name for a claim with uid {:?}, not {:?}; nothing is given to another claim",
            volume.claim.uid, spec.claim_uid
        )),
        Known::Volume(_) if foreign => Order::Lost(other_ledger(own, &spec.ledger_id)),
        Known::Volume(volume) => known_volume(volume, object, told),
        Known::Never | Known::UsedUp if told.is_some_and(|phase| phase.is_over() || phase == Phase::Lost) => {
            Order::Leave
        }
        Known::Never if told.is_some() => Order::Lost(
            "it was made once, but this node's ledger knows nothing of it: a restored ledger or another machine under \
             this name; it is never made again, restore its data into a new claim"
                .to_owned(),
        ),
        Known::UsedUp => Order::Lost(
            "this node's ledger has wiped and forgotten a volume of this name: the object comes from a backup; it is \
             never made again, restore its data into a new claim"
                .to_owned(),
        ),
        Known::Never if foreign => Order::Lost(other_ledger(own, &spec.ledger_id)),
        Known::Never if spec.release.is_some() => Order::Discard("it was given up before it was made".to_owned()),
        Known::Never if object.metadata.deletion_timestamp.is_some() => {
            Order::Refuse("it is being deleted, and was never made".to_owned())
        }
        Known::Never => match wish(object.metadata.name.as_deref().unwrap_or_default(), spec) {
            Ok(wish) => Order::Create(Box::new(wish)),
            Err(why) => Order::Refuse(why),
        },
    }
}

fn other_ledger(own: LedgerId, asked: &str) -> String {
    format!(
        "it was admitted against ledger {asked}, this node's ledger is {own}: other disks stand under this node's name; \
         it is never made here"
    )
}

/// A volume that the ledger knows by this name and for this claim.
fn known_volume(volume: &Outline, object: &LocalVolume, told: Option<Phase>) -> Order {
    let release = object.spec.release.as_ref();
    match volume.phase {
        // Over in the ledger, alive in the object: one of the two comes from a backup, and the ledger does not.
        // Told Lost it stays so, or the claim's owner would read that all is well. A release ends it.
        "Freed"
            if release.is_none()
                && told.is_none_or(|phase| matches!(phase, Phase::Reserved | Phase::Ready | Phase::Lost)) =>
        {
            Order::Lost(
                "this node has wiped it, with a receipt: the object comes from a backup; it is never made again, \
                 restore its data into a new claim"
                    .to_owned(),
            )
        }
        "Discarded" if matches!(told, Some(phase) if !phase.is_over() && phase != Phase::Reserved) => {
            Order::Lost("this node's ledger never finished making it; it is never made again".to_owned())
        }
        // A refusal says more than the tombstone.
        "Discarded" if told == Some(Phase::Refused) => Order::Leave,
        "Ready" => match release {
            None => Order::Report(None),
            Some(release) if release.claim_uid != object.spec.claim_uid => Order::Report(Some(format!(
                "spec.release names the claim uid {:?}, this volume is of {:?}: nothing is wiped",
                release.claim_uid, object.spec.claim_uid
            ))),
            Some(release) => match release.kind {
                ReleaseKind::Reclaimed => Order::Release(volume.id.clone(), core::ReleaseKind::Reclaimed),
                ReleaseKind::NeverBound if volume.ever_staged => Order::Report(Some(
                    "spec.release says never-bound, yet this volume was handed out: nothing is wiped; release it by \
                     hand with `bedplate volumes release` once its data is not needed"
                        .to_owned(),
                )),
                ReleaseKind::NeverBound => Order::Release(volume.id.clone(), core::ReleaseKind::NeverBound),
                ReleaseKind::Retained => Order::Retain(volume.id.clone()),
            },
        },
        _ => Order::Report(None),
    }
}

#[cfg(test)]
mod tests;
