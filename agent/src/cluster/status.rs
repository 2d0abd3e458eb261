//! What a LocalVolume's status says: the ledger's state in the API's words. Pure.

use bedplate_api::local_volume::{LocalVolumeStatus, Phase, WipeProgress};
use bedplate_provisioner::engine::{Outline, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::convert::signed;

/// A wipe's progress is told again when it grew by this share of the whole, in percent.
const STEP_PERCENT: u64 = 5;

/// The phase that the ledger's state is.
pub fn phase(volume: &Outline) -> Phase {
    let owed = volume.absent.is_some();
    match volume.phase {
        "Reserved" => Phase::Reserved,
        "Ready" => Phase::Ready,
        "Retained" => Phase::Retained,
        "Freed" => Phase::Freed,
        "Discarded" => Phase::Discarded,
        "Forgotten" => Phase::Forgotten,
        _ if owed => Phase::Debt,
        "Released" => Phase::Released,
        "Quarantined" => Phase::Quarantined,
        "Wiping" => Phase::Wiping,
        "Flushed" | "Verifying" => Phase::Verifying,
        "Verified" => Phase::Verified,
        _ => Phase::Stuck,
    }
}

/// The status of a volume in the ledger. `note` goes before what the ledger says of it; `directory` is its pool's.
pub fn of_volume(volume: &Outline, note: Option<&str>, directory: Option<&str>) -> LocalVolumeStatus {
    let said = match phase(volume) {
        Phase::Debt | Phase::Ready if volume.absent.is_some() => volume.absent.clone().unwrap_or_default(),
        Phase::Retained => "kept with its bytes until `bedplate volumes release`".to_owned(),
        _ => volume.detail.clone(),
    };
    let message = [note.unwrap_or_default(), &said].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>();
    let device = match (directory, &volume.file) {
        (Some(directory), Some(file)) => Some(format!("{directory}/{file}")),
        _ => None,
    };
    LocalVolumeStatus {
        phase: Some(phase(volume)),
        message: message.join("; "),
        volume_handle: Some(volume.id.to_string()),
        bytes: Some(signed(volume.bytes)),
        device,
        wipe: volume.progress.map(|progress| WipeProgress {
            stage: match progress.stage {
                Stage::Canaries => "canaries",
                Stage::Wiping => "wiping",
                Stage::Verifying => "verifying",
            }
            .to_owned(),
            done: signed(coarse(progress.done, progress.total)),
            total: signed(progress.total),
        }),
        receipt: volume.receipt.map(signed),
        conditions: Vec::new(),
    }
}

/// The status of a volume that the ledger does not have.
pub fn of_none(phase: Phase, why: &str) -> LocalVolumeStatus {
    LocalVolumeStatus { phase: Some(phase), message: why.to_owned(), ..LocalVolumeStatus::default() }
}

/// `done` in steps of [`STEP_PERCENT`], so that a status changes at most twenty times a stage.
fn coarse(done: u64, total: u64) -> u64 {
    let step = (total / 100).saturating_mul(STEP_PERCENT).max(1);
    if done >= total { total } else { done / step * step }
}

/// Give a status its conditions. Those whose status stays keep the time since when it has been so.
pub fn with_conditions(
    mut status: LocalVolumeStatus,
    before: &[Condition],
    generation: Option<i64>,
    absent: bool,
    now: Timestamp,
) -> LocalVolumeStatus {
    let Some(phase) = status.phase else { return status };
    let ready = phase == Phase::Ready && !absent;
    let mut conditions = vec![condition("Ready", ready, &format!("{phase:?}"), &status.message)];
    let released = !matches!(
        phase,
        Phase::Reserved | Phase::Ready | Phase::Refused | Phase::Lost | Phase::Discarded | Phase::Retained
    );
    if released {
        conditions.push(condition("Wiped", phase == Phase::Freed, &format!("{phase:?}"), &status.message));
    }
    for new in &mut conditions {
        new.observed_generation = generation;
    }
    status.conditions = settled(conditions, before, now);
    status
}

/// A condition, its time still to be set.
pub fn condition(kind: &str, holds: bool, reason: &str, message: &str) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// Conditions with their times: those whose status stays keep theirs.
pub fn settled(mut conditions: Vec<Condition>, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    for new in &mut conditions {
        let old = before.iter().find(|old| old.type_ == new.type_ && old.status == new.status);
        new.last_transition_time = old.map_or(Time(whole_seconds(now)), |old| old.last_transition_time.clone());
    }
    conditions
}

/// Kubernetes writes times in whole seconds.
pub fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

#[cfg(test)]
mod tests;
