//! A volume as the CSI calls need it: the ledger's states folded to those a caller can tell apart.

use crate::engine::{Engine, Progress, Stage};
use bedplate_core::bytes::Bytes;
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::{AnyVolume, Mode};
use bedplate_csi::v1::VolumeCondition;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a volume stands in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Reserved; not made yet.
    Making,
    /// In service.
    Ready,
    /// Withheld with its bytes until a person releases it.
    Retained,
    /// Released and not yet given back; what is being done, in words.
    Wiping(String),
    /// The wipe needs a person; why, and what to do.
    Stuck(String),
    /// It cannot be reached now, its pool is absent; why.
    Absent(String),
    /// Proven clean, discarded or forgotten: there is no such volume any more.
    Gone,
}

/// A volume as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its id.
    pub id: VolumeId,
    /// Its size in bytes.
    pub bytes: u64,
    /// How it is offered.
    pub mode: Mode,
    /// The class parameters as given.
    pub parameters: BTreeMap<String, String>,
    /// Where it stands.
    pub phase: Phase,
    /// Where it is staged in this boot.
    pub staged: Option<PathBuf>,
    /// What is wrong with it, although it serves; empty where nothing is.
    concern: String,
}

impl View {
    /// The volume, whatever its phase; `None` where the ledger never heard of it.
    pub fn find(engine: &Engine, id: &VolumeId) -> Option<Self> {
        Some(Self::of(engine, &engine.state(id)?))
    }

    /// All volumes that an orchestrator may still know, sorted by id.
    pub fn all(engine: &Engine) -> Vec<Self> {
        let ids = engine.volumes(false).into_iter().map(|volume| volume.id);
        let mut found: Vec<Self> = ids.filter_map(|id| Self::find(engine, &id)).collect();
        found.retain(|view| !matches!(view.phase, Phase::Gone | Phase::Making));
        found.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        found
    }

    fn of(engine: &Engine, volume: &AnyVolume) -> Self {
        let spec = volume.spec();
        let absent = engine.absence(volume).map(Phase::Absent);
        let progress = || engine.volume(&spec.id).and_then(|seen| seen.progress);
        let mut concern = String::new();
        let phase = match volume {
            AnyVolume::Reserved(_) => Phase::Making,
            AnyVolume::Ready(ready) => {
                concern = ready.state.losses.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                absent.unwrap_or(Phase::Ready)
            }
            AnyVolume::Retained(_) => Phase::Retained,
            AnyVolume::Released(_)
            | AnyVolume::Quarantined(_)
            | AnyVolume::Wiping(_)
            | AnyVolume::Flushed(_)
            | AnyVolume::Verifying(_) => absent.unwrap_or_else(|| Phase::Wiping(doing(volume, progress()))),
            AnyVolume::Stuck(stuck) => absent.unwrap_or_else(|| Phase::Stuck(stuck.state.reason.to_string())),
            AnyVolume::Verified(_) | AnyVolume::Freed(_) | AnyVolume::Discarded(_) | AnyVolume::Forgotten(_) => {
                Phase::Gone
            }
        };
        Self {
            id: spec.id.clone(),
            bytes: spec.bytes,
            mode: spec.mode,
            parameters: spec.parameters.clone(),
            phase,
            staged: engine.staged_now(volume),
            concern,
        }
    }

    /// What there is to say about its health.
    pub fn condition(&self) -> VolumeCondition {
        let (abnormal, message) = match &self.phase {
            Phase::Ready if self.concern.is_empty() => (false, "in service".to_owned()),
            Phase::Ready => (true, format!("in service, but its wipe will only state isolation: {}", self.concern)),
            Phase::Making => (false, "being made".to_owned()),
            Phase::Wiping(how) => (false, format!("released: {how}")),
            Phase::Retained => (true, "retained: withheld with its bytes until it is released".to_owned()),
            Phase::Stuck(why) => (true, format!("its wipe is stuck: {why}")),
            Phase::Absent(why) => (true, format!("it cannot be reached: {why}")),
            Phase::Gone => (true, "gone".to_owned()),
        };
        VolumeCondition { abnormal, message }
    }
}

/// What the wipe is doing, in words.
fn doing(volume: &AnyVolume, progress: Option<Progress>) -> String {
    let Some(Progress { stage, done, total }) = progress else {
        return match volume {
            AnyVolume::Released(_) => "waiting to be wiped".to_owned(),
            _ => "waiting for its wipe to go on".to_owned(),
        };
    };
    let what = match stage {
        Stage::Canaries => "planting canaries",
        Stage::Wiping => "overwriting",
        Stage::Verifying => "reading back",
    };
    format!("{what}, {} of {}", Bytes(done), Bytes(total))
}
