//! A volume in whatever state, and the replay of journalled changes through the typed transitions.

use serde::{Deserialize, Serialize};

use super::states::forget;
use super::{
    Backing, Change, Discarded, Flushed, Forgotten, Freed, Quarantined, Ready, Released, Reserved, Retained, Spec,
    Stuck, Verified, Verifying, Volume, Wiping,
};

/// A volume in whatever state it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase")]
#[expect(missing_docs, reason = "each is the state of the same name")]
pub enum AnyVolume {
    Reserved(Volume<Reserved>),
    Ready(Volume<Ready>),
    Retained(Volume<Retained>),
    Released(Volume<Released>),
    Quarantined(Volume<Quarantined>),
    Wiping(Volume<Wiping>),
    Flushed(Volume<Flushed>),
    Verifying(Volume<Verifying>),
    Verified(Volume<Verified>),
    Freed(Volume<Freed>),
    Discarded(Volume<Discarded>),
    Stuck(Volume<Stuck>),
    Forgotten(Volume<Forgotten>),
}

/// A journalled change that does not fit the state it is applied to: the journal is damaged, or another program wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("volume {volume} is {phase}: it cannot become {change}")]
pub struct IllegalChange {
    volume: String,
    phase: &'static str,
    change: String,
}

macro_rules! from_state {
    ($($state:ident),+) => {
        $(impl From<Volume<$state>> for AnyVolume {
            fn from(volume: Volume<$state>) -> Self {
                Self::$state(volume)
            }
        })+

        impl AnyVolume {
            /// What it is.
            #[must_use]
            pub fn spec(&self) -> &Spec {
                match self {
                    $(Self::$state(volume) => &volume.spec,)+
                }
            }

            /// The name of its state.
            #[must_use]
            pub fn phase(&self) -> &'static str {
                match self {
                    $(Self::$state(_) => stringify!($state),)+
                }
            }
        }
    };
}

from_state!(
    Reserved,
    Ready,
    Retained,
    Released,
    Quarantined,
    Wiping,
    Flushed,
    Verifying,
    Verified,
    Freed,
    Discarded,
    Stuck,
    Forgotten
);

impl AnyVolume {
    /// Its space, where it has some.
    #[must_use]
    pub fn backing(&self) -> Option<&Backing> {
        match self {
            Self::Reserved(_) | Self::Freed(_) | Self::Discarded(_) => None,
            Self::Ready(v) => Some(&v.state.backing),
            Self::Retained(v) => Some(&v.state.backing),
            Self::Verified(v) => Some(&v.state.backing),
            Self::Forgotten(v) => Some(&v.state.backing),
            Self::Released(_)
            | Self::Quarantined(_)
            | Self::Wiping(_)
            | Self::Flushed(_)
            | Self::Verifying(_)
            | Self::Stuck(_) => self.released().map(|r| &r.backing),
        }
    }

    /// What it was released with, where a wipe is owed.
    #[must_use]
    pub fn released(&self) -> Option<&Released> {
        match self {
            Self::Released(v) => Some(&v.state),
            Self::Quarantined(v) => Some(&v.state.released),
            Self::Wiping(v) => Some(&v.state.released),
            Self::Flushed(v) => Some(&v.state.wiping.released),
            Self::Verifying(v) => Some(&v.state.wiping.released),
            Self::Stuck(v) => Some(&v.state.released),
            Self::Reserved(_)
            | Self::Ready(_)
            | Self::Retained(_)
            | Self::Verified(_)
            | Self::Freed(_)
            | Self::Discarded(_)
            | Self::Forgotten(_) => None,
        }
    }

    /// Whether it is over: nothing is promised, withheld or owed any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Freed(_) | Self::Discarded(_))
    }

    /// Bytes of the pool that it keeps from others.
    #[must_use]
    pub fn withholds(&self) -> u64 {
        if self.is_over() { 0 } else { self.spec().bytes }
    }

    /// Whether the wipe engine has work with it that needs no person.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        match self {
            Self::Released(_)
            | Self::Quarantined(_)
            | Self::Wiping(_)
            | Self::Flushed(_)
            | Self::Verifying(_)
            | Self::Verified(_) => true,
            Self::Reserved(_)
            | Self::Ready(_)
            | Self::Retained(_)
            | Self::Freed(_)
            | Self::Discarded(_)
            | Self::Stuck(_)
            | Self::Forgotten(_) => false,
        }
    }

    /// Replay one change.
    ///
    /// # Errors
    /// Where no transition leads there.
    pub fn apply(self, change: Change) -> Result<Self, IllegalChange> {
        let illegal = IllegalChange {
            volume: self.spec().id.to_string(),
            phase: self.phase(),
            change: serde_json::to_value(&change)
                .ok()
                .and_then(|v| v.get("change").and_then(|c| c.as_str()).map(str::to_owned))
                .unwrap_or_default(),
        };
        let next: Option<Self> = match (self, change) {
            (Self::Reserved(v), Change::Ready { backing }) => Some(v.ready(backing).1.into()),
            (Self::Reserved(v), Change::Discarded) => Some(v.discard().1.into()),
            (Self::Ready(v), Change::Formatting { uuid }) => v.formatting(uuid).map(|s| s.1.into()),
            (Self::Ready(v), Change::Formatted) => v.formatted().map(|s| s.1.into()),
            (Self::Ready(v), Change::Staged { staged }) => Some(v.stage(staged).1.into()),
            (Self::Ready(v), Change::Unstaged) => Some(v.unstage().1.into()),
            (Self::Ready(v), Change::LevelLowered { losses }) => Some(v.lower_level(losses).1.into()),
            (Self::Ready(v), Change::Retained { by }) => Some(v.retain(by).1.into()),
            (Self::Ready(v), Change::Released { release }) => Some(v.release(release).1.into()),
            (Self::Retained(v), Change::Released { release }) => v.release(release).map(|s| s.1.into()),
            (Self::Released(v), Change::Quarantined { losses }) => Some(v.quarantine(losses).1.into()),
            (Self::Quarantined(v), Change::WipePlanned { plan, at }) => Some(v.plan(plan, at).1.into()),
            (Self::Wiping(v), Change::CanariesPlaced) => Some(v.canaries_placed().1.into()),
            (Self::Wiping(v), Change::Wiped { offset }) => Some(v.checkpoint(offset).1.into()),
            (Self::Wiping(v), Change::Resumed { offset }) => Some(v.resume(offset).1.into()),
            (Self::Wiping(v), Change::Flushed) => v.flushed().map(|s| s.1.into()),
            (Self::Flushed(v), Change::Verifying) => Some(v.verify().1.into()),
            (Self::Verifying(v), Change::Verified { receipt }) => v.verified(*receipt).map(|s| s.1.into()),
            (Self::Verified(v), Change::Freed) => Some(v.free().1.into()),
            (Self::Stuck(v), Change::Retried { by }) => Some(v.retry(by).1.into()),
            (Self::Stuck(v), Change::LevelAccepted { by }) => Some(v.accept_level(by).1.into()),
            (Self::Released(v), Change::Stuck { reason, at }) => Some(v.stuck(reason, at).1.into()),
            (Self::Quarantined(v), Change::Stuck { reason, at }) => Some(v.stuck(reason, at).1.into()),
            (Self::Wiping(v), Change::Stuck { reason, at }) => Some(v.stuck(reason, at).1.into()),
            (Self::Flushed(v), Change::Stuck { reason, at }) => Some(v.stuck(reason, at).1.into()),
            (Self::Verifying(v), Change::Stuck { reason, at }) => Some(v.stuck(reason, at).1.into()),
            (Self::Released(v), Change::Forgotten { by }) => Some(forget(v, by).1.into()),
            (Self::Quarantined(v), Change::Forgotten { by }) => Some(forget(v, by).1.into()),
            (Self::Wiping(v), Change::Forgotten { by }) => Some(forget(v, by).1.into()),
            (Self::Flushed(v), Change::Forgotten { by }) => Some(forget(v, by).1.into()),
            (Self::Verifying(v), Change::Forgotten { by }) => Some(forget(v, by).1.into()),
            (Self::Stuck(v), Change::Forgotten { by }) => Some(forget(v, by).1.into()),
            _ => None,
        };
        next.ok_or(illegal)
    }
}
