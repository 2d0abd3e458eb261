//! Whether what live reads show allows what cannot be undone. Pure; the last word before a release, a finalizer or a
//! selected-node goes.
//!
//! Every rule needs something that is there and says so: a claim that is not found is only ever one half of a proof (G8).

use bedplate_api::local_volume::{Phase, ReleaseKind};
use bedplate_api::wipe_receipt::WipeReceiptSpec;

use crate::cluster::objects::{Claim, Local, Mark, Policy, Volume, VolumePhase};

/// Why it must not be done now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("live reads do not allow it: {0}")]
pub struct Denied(pub &'static str);

fn ensure(holds: bool, why: &'static str) -> Result<(), Denied> {
    if holds { Ok(()) } else { Err(Denied(why)) }
}

/// Whether `local` may be released. `claim` is what stands under its claim's name, `volume` under its PersistentVolume's.
///
/// # Errors
/// What speaks against it.
pub fn release(kind: ReleaseKind, local: &Local, volume: Option<&Volume>, claim: Option<&Claim>) -> Result<(), Denied> {
    ensure(local.release.is_none(), "it has a release already")?;
    let claim = claim.filter(|claim| claim.meta.uid == local.claim_uid);
    let its_volume = volume.filter(|volume| volume.local == local.meta.name);
    if kind == ReleaseKind::NeverBound {
        ensure(local.mark == Mark::Unbound, "a PersistentVolume was made or may have been")?;
        return ensure(its_volume.is_none(), "a PersistentVolume names it");
    }
    let volume = its_volume.ok_or(Denied("no PersistentVolume says that it was released"))?;
    ensure(volume.ours, "its PersistentVolume is not ours")?;
    ensure(
        volume.claim.as_ref().is_some_and(|(_, _, uid)| *uid == local.claim_uid),
        "the PersistentVolume is another claim's",
    )?;
    ensure(
        local.handle.as_deref().is_none_or(|handle| handle == volume.handle),
        "the PersistentVolume names another volume",
    )?;
    ensure(claim.is_none(), "its claim is there")?;
    match kind {
        ReleaseKind::Reclaimed => {
            ensure(volume.policy == Policy::Delete, "the reclaim policy is not Delete")?;
            ensure(volume.phase == VolumePhase::Released || volume.deleting, "the PersistentVolume is not released")
        }
        ReleaseKind::Retained => {
            ensure(volume.policy == Policy::Retain, "the reclaim policy is not Retain")?;
            ensure(volume.deleting, "the PersistentVolume is not being deleted")
        }
        ReleaseKind::NeverBound => Ok(()),
    }
}

/// Whether our finalizer may leave a PersistentVolume: a durable record says that its bytes are gone, or policy Retain left
/// them in the ledger's keeping.
///
/// # Errors
/// What speaks against it.
pub fn drop_volume(volume: &Volume, local: Option<&Local>) -> Result<(), Denied> {
    let local = local.ok_or(Denied("its LocalVolume is not there, so nothing says that it was wiped"))?;
    ensure(volume.ours && volume.local == local.meta.name, "the LocalVolume is not its own")?;
    ensure(volume.meta.name == crate::cluster::template::volume_name(&local.claim_uid), "the claims differ")?;
    let gone = matches!(local.phase, Some(Phase::Freed | Phase::Discarded));
    let kept = volume.deleting && volume.policy == Policy::Retain && local.release == Some(ReleaseKind::Retained);
    ensure(gone || kept, "no record says that it was wiped")
}

/// The same where the LocalVolume was torn out by hand: a receipt of exactly this volume says that it was wiped. Only the
/// volume's own node can have written it.
///
/// # Errors
/// What speaks against it.
pub fn drop_volume_by(receipt: Option<&WipeReceiptSpec>, volume: &Volume) -> Result<(), Denied> {
    let receipt = receipt
        .ok_or(Denied("neither its LocalVolume nor a WipeReceipt is there, so nothing says that it was wiped"))?;
    ensure(volume.ours && !volume.handle.is_empty(), "it is not ours")?;
    ensure(receipt.volume == volume.handle && receipt.local_volume == volume.local, "the receipt is another volume's")?;
    ensure(volume.meta.name == crate::cluster::template::volume_name(&receipt.claim_uid), "the claims differ")?;
    ensure(volume.node.as_deref() == Some(&receipt.node), "the receipt is another node's")
}

/// Whether our finalizer may leave a LocalVolume.
///
/// # Errors
/// What speaks against it.
pub fn drop_local(local: &Local, volume: Option<&Volume>, claim: Option<&Claim>) -> Result<(), Denied> {
    ensure(local.may_go(), "its node has not said that nothing of it is left")?;
    ensure(volume.is_none_or(|volume| volume.local != local.meta.name), "its PersistentVolume still needs the record")?;
    let claim = claim.filter(|claim| claim.meta.uid == local.claim_uid);
    let counted =
        claim.is_none_or(|claim| claim.attempt > local.attempt || claim.volume_name.is_some() || claim.deleting);
    ensure(counted || volume.is_some(), "the claim does not remember the attempt yet")
}

/// Whether a claim may be sent back to the scheduler from `node`.
///
/// # Errors
/// What speaks against it.
pub fn bounce(claim: &Claim, node: &str, volume: Option<&Volume>) -> Result<(), Denied> {
    ensure(claim.selected_node.as_deref() == Some(node), "its selected-node is another one by now")?;
    ensure(claim.volume_name.is_none(), "it is bound")?;
    ensure(volume.is_none(), "its PersistentVolume is there")
}

#[cfg(test)]
mod tests;
