//! One claim through its life: what is to be done about it, its PersistentVolume and its LocalVolumes, as the view has
//! them. Pure.
//!
//! A claim without volume goes to [`admission`]. All others are decided here: what is released,
//! when an object may go, what people are told. Nothing is concluded from a missing object but to look again.

use std::time::Instant;

use bedplate_api::local_volume::{Phase, ReleaseKind};
use bedplate_api::names;

use crate::cluster::action::{Action, ClaimName, Decision, Kind, Notice};
use crate::cluster::admission;
use crate::cluster::config::Patience;
use crate::cluster::objects::{Claim, Local, Mark, Policy, Volume, VolumePhase};
use crate::cluster::template::{Terms, volume_name};
use crate::cluster::view::View;

/// Decide about the claim of that uid, there or gone.
#[must_use]
pub fn decide(view: &View, uid: &str, now: Instant, patience: &Patience) -> Decision {
    let mut decision = Decision::default();
    decision.holds.insert(uid.to_owned());
    let locals = view.locals_of(uid);
    let claim = view.claim(uid);
    for local in &locals {
        remark(local, claim, view.volume_of(uid), &mut decision);
    }
    match (view.volume_of(uid), claim) {
        (Some(volume), claim) => with_volume(view, volume, claim, &locals, &mut decision),
        (None, None) => orphaned(view, &locals, &mut decision),
        (None, Some(claim)) => without_volume(view, claim, &locals, now, patience, &mut decision),
    }
    decision
}

/// What people should know about a LocalVolume, whatever else is decided.
fn remark(local: &Local, claim: Option<&Claim>, volume: Option<&Volume>, decision: &mut Decision) {
    if local.deleting && local.release.is_none() && !local.is_over() {
        let message = format!(
            "LocalVolume {} was deleted without a release: it keeps serving and keeps its bytes. To give it up, delete \
             the claim {}/{}; to keep it, leave it: it is rebuilt when it is gone",
            local.meta.name, local.claim.namespace, local.claim.name
        );
        decision.say(Notice::on(Kind::Local, &local.meta, names::REASON_DELETED_WITHOUT_RELEASE, message));
    }
    if local.phase == Some(Phase::Lost) && volume.is_some_and(|volume| volume.local == local.meta.name) {
        let message = format!(
            "the volume is lost on node {} (LocalVolume {}): {}; it is never made again, restore from a copy into a new \
             claim",
            local.node, local.meta.name, local.message
        );
        decision
            .actions
            .extend(claim.map(|claim| Action::Say(Notice::on_claim(claim, names::REASON_LOST, message.clone()))));
        if let Some(volume) = volume {
            decision.say(Notice::on(Kind::Volume, &volume.meta, names::REASON_LOST, message));
        }
    }
}

fn with_volume(view: &View, volume: &Volume, claim: Option<&Claim>, locals: &[&Local], decision: &mut Decision) {
    let mut own = None;
    for local in locals {
        if local.meta.name == volume.local {
            own = Some(*local);
            continue;
        }
        if let Some(claim) = claim
            && local.mark != Mark::Unbound
            && local.release.is_none()
            && !local.is_over()
        {
            decision.say(Notice::on_claim(claim, names::REASON_OTHER_VOLUME, kept_elsewhere(local)));
        }
        settle(local, decision);
    }
    if let Some(local) = own.filter(|local| local.mark != Mark::Bound && volume.phase != VolumePhase::Pending) {
        decision.act(Action::Confirm { local: local.meta.clone() });
    }
    let ends = volume.deleting || (volume.phase == VolumePhase::Released && volume.policy == Policy::Delete);
    if !ends || claim.is_some() || !volume.held && volume.deleting {
        return;
    }
    let drop = Action::DropVolume { volume: volume.meta.clone(), local: volume.local.clone() };
    let Some(local) = own else {
        let message = format!(
            "PersistentVolume {}: its LocalVolume {} is not there; waiting for the node's agent to report the volume, \
             from which it is rebuilt, or for its WipeReceipt. Nothing is given up meanwhile",
            volume.meta.name, volume.local
        );
        decision.say(Notice::on(Kind::Volume, &volume.meta, names::REASON_NO_RECORD, message));
        // Torn out while it was wiped: the receipt, read live, is as good a record as the LocalVolume was.
        decision.act(drop);
        return;
    };
    if volume.claim.as_ref().is_none_or(|(_, _, uid)| *uid != local.claim_uid) {
        let message = format!(
            "PersistentVolume {}: spec.claimRef does not name claim {}/{} (uid {}) any more, for which it was made: nobody \
             can tell whose bytes these are, and nothing is wiped. Put the claimRef back, or release volume {} on node {} \
             by hand with `bedplate volumes`",
            volume.meta.name, local.claim.namespace, local.claim.name, local.claim_uid, volume.handle, local.node
        );
        decision.say(Notice::on(Kind::Volume, &volume.meta, names::REASON_CLAIM_REF, message));
        // What a person released on the node is gone whoever it belonged to, and what was retained is in its keeping.
        let kept = local.release == Some(ReleaseKind::Retained) && volume.policy == Policy::Retain && volume.deleting;
        if kept || matches!(local.phase, Some(Phase::Freed | Phase::Discarded)) {
            decision.act(drop);
        }
        return;
    }
    let release = |kind| Action::Release { local: local.meta.clone(), kind, claim: claim_name(local) };
    match (local.release, local.phase) {
        (Some(ReleaseKind::Retained), _) if volume.policy == Policy::Retain => decision.act(drop),
        (_, Some(Phase::Freed | Phase::Discarded)) => decision.act(drop),
        (None, _) if volume.policy == Policy::Delete => match view.shares(volume) {
            None => decision.act(release(ReleaseKind::Reclaimed)),
            Some(other) => {
                let message = format!(
                    "PersistentVolume {}: PersistentVolume {} names the same volume {} and may be in use, so nothing is \
                     wiped; delete that one when its data is not needed",
                    volume.meta.name, other.meta.name, volume.handle
                );
                decision.say(Notice::on(Kind::Volume, &volume.meta, names::REASON_SHARED, message));
            }
        },
        (None, _) if volume.policy == Policy::Retain && volume.deleting => decision.act(release(ReleaseKind::Retained)),
        (Some(_) | None, _) => {}
    }
}

/// No claim and no PersistentVolume.
fn orphaned(view: &View, locals: &[&Local], decision: &mut Decision) {
    for local in locals {
        if local.is_over() || local.release.is_some() || local.mark == Mark::Unbound {
            settle(local, decision);
            continue;
        }
        if local.mark == Mark::Binding && local.phase == Some(Phase::Ready) {
            // Its PersistentVolume was about to be made, or was made and is gone unseen: then somebody may have written, and
            // said Retain. Nobody is left whose wish Delete would be, so the new one keeps the bytes.
            let terms = Terms::kept(view.class(&local.class_name));
            decision.act(Action::Bind { local: local.meta.clone(), marked: true, terms });
            continue;
        }
        if matches!(local.phase, Some(Phase::Retained | Phase::Forgotten)) {
            continue;
        }
        let message = format!(
            "LocalVolume {}: its claim {}/{} and its PersistentVolume are gone without a release. Its bytes stay on node \
             {} until a person gives them up there with `bedplate volumes`",
            local.meta.name, local.claim.namespace, local.claim.name, local.node
        );
        decision.say(Notice::on(Kind::Local, &local.meta, names::REASON_UNRELEASED, message));
    }
}

fn without_volume(
    view: &View,
    claim: &Claim,
    locals: &[&Local],
    now: Instant,
    patience: &Patience,
    decision: &mut Decision,
) {
    match &claim.volume_name {
        // Bound to our volume, which the watch has yet to show, or which was deleted by hand: nothing is concluded.
        Some(name) if *name == volume_name(&claim.meta.uid) => return,
        Some(_) => {
            for local in locals {
                settle(local, decision);
            }
            return;
        }
        None => {}
    }
    if claim.deleting {
        for local in locals {
            if local.mark == Mark::Binding && local.phase == Some(Phase::Ready) && local.release.is_none() {
                let terms = Terms::of(Some(claim), view.class(&local.class_name));
                decision.act(Action::Bind { local: local.meta.clone(), marked: true, terms });
            } else {
                settle(local, decision);
            }
        }
        return;
    }
    admission::decide(view, claim, now, patience, decision);
}

/// What the owner of a claim should know of a volume that is not the one it is bound to.
pub fn kept_elsewhere(local: &Local) -> String {
    format!(
        "node {} keeps another volume of this claim (LocalVolume {}), with whatever was written there. It is not used and not \
         wiped; once its data is not needed, release it there with `bedplate volumes`",
        local.node, local.meta.name
    )
}

/// An attempt that will not be used: void it, and let its object go when its node has confirmed.
pub fn settle(local: &Local, decision: &mut Decision) {
    if local.may_go() {
        let (local, claim_uid) = (local.meta.clone(), local.claim_uid.clone());
        decision.act(Action::DropLocal { local, claim_uid });
    } else if local.release.is_none() && local.mark == Mark::Unbound {
        decision.act(void(local));
    }
}

/// Give up an attempt for which no PersistentVolume ever was.
#[must_use]
pub fn void(local: &Local) -> Action {
    Action::Release { local: local.meta.clone(), kind: ReleaseKind::NeverBound, claim: claim_name(local) }
}

fn claim_name(local: &Local) -> ClaimName {
    ClaimName { namespace: local.claim.namespace.clone(), name: local.claim.name.clone(), uid: local.claim_uid.clone() }
}

#[cfg(test)]
mod tests;
