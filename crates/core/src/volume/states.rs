//! The states, and the only ways from one to the next.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::spec::{Backing, Release, ReleaseKind, Spec};
use crate::receipt::Receipt;
use crate::wipe::{LevelLoss, WipePlan};

/// Space is promised; nothing may exist on disk yet, or a file that no tenant ever saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved;

/// What is known of the volume's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "uuid")]
pub enum Format {
    /// Never formatted and never handed out: the licence to run `mkfs`.
    #[default]
    Never,
    /// A `mkfs` with this UUID was begun: it alone may be repeated.
    Formatting(Uuid),
    /// It was finished: nothing may format this volume again.
    Formatted(Uuid),
}

/// Where a volume is staged, and in which boot: a reboot voids it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Staged {
    /// The staging path.
    pub path: String,
    /// The kernel's boot id at that time.
    pub boot: String,
}

/// In service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Its space.
    pub backing: Backing,
    /// Its content.
    #[serde(default)]
    pub format: Format,
    /// Where it is staged now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// Whether it was ever handed to anybody.
    #[serde(default)]
    pub ever_staged: bool,
    /// What was seen in its life that a wipe cannot reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<LevelLoss>,
}

/// Withheld with its bytes, without an owner, until a person releases it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retained {
    /// Its space.
    pub backing: Backing,
    /// What a wipe cannot reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<LevelLoss>,
}

/// What every state after the release carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// Its space.
    pub backing: Backing,
    /// What a wipe cannot reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<LevelLoss>,
    /// The authority.
    pub release: Release,
    /// A person has accepted that the receipt will say `isolation`.
    #[serde(default)]
    pub level_accepted: bool,
}

/// Detached and proven unused; its space is withheld until Verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// What it was released with.
    #[serde(flatten)]
    pub released: Released,
}

/// Being overwritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wiping {
    /// What it was released with.
    #[serde(flatten)]
    pub released: Released,
    /// What is done.
    pub plan: WipePlan,
    /// When it began.
    pub started: Timestamp,
    /// Canaries are on the medium and were read back; zeroing may begin.
    #[serde(default)]
    pub canaries_placed: bool,
    /// Everything before this offset is zero and flushed, in bytes.
    #[serde(default)]
    pub offset: u64,
    /// Where the wipe was resumed after a restart, in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed_at: Vec<u64>,
}

/// Overwritten and flushed, not yet read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// How it got here.
    #[serde(flatten)]
    pub wiping: Wiping,
}

/// Being read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifying {
    /// How it got here.
    #[serde(flatten)]
    pub wiping: Wiping,
}

/// Proven clean, with a durable receipt; its space may now be given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Its space.
    pub backing: Backing,
    /// The proof.
    pub receipt: Box<Receipt>,
}

/// Given back. Kept as a tombstone, so that the id is never used again and a repeated delete is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freed {
    /// Number of its receipt.
    pub receipt: u64,
}

/// Reserved, but never made; no tenant ever saw it, so there was nothing to wipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discarded;

/// A person has recorded that this volume's wipe is not waited for any more. Its space is not offered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// Who, and why.
    pub by: String,
    /// The space, should it come back.
    pub backing: Backing,
}

/// Why a wipe needs a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum StuckReason {
    /// The disk answered with an error.
    IoError {
        /// What was tried, where, and what the kernel said.
        what: String,
    },
    /// The backing file is not the one recorded: replaced, truncated, linked elsewhere or gone.
    BackingChanged {
        /// What differs.
        what: String,
    },
    /// Canaries could not be read back: writes do not reach the medium.
    CanaryNotStored {
        /// First offset in bytes.
        offset: u64,
    },
    /// The read-back found something else than zero.
    NotZero {
        /// First offset in bytes.
        offset: u64,
        /// Whether it was one of our own canaries.
        canary: bool,
    },
    /// The class demanded more than the evidence carries.
    LevelLost {
        /// Why.
        losses: Vec<LevelLoss>,
    },
}

impl std::fmt::Display for StuckReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IoError { what } => {
                write!(f, "io-error: {what}; replace or repair the disk, then `bedplate volumes retry`")
            }
            Self::BackingChanged { what } => write!(
                f,
                "backing-changed: {what}; restore the file and `bedplate volumes retry`, or record the loss with `bedplate volumes forget`"
            ),
            Self::CanaryNotStored { offset } => write!(
                f,
                "canary-not-stored: what was written at byte {offset} did not come back, the disk drops writes; replace it, then `bedplate volumes retry`"
            ),
            Self::NotZero { offset, canary } => write!(
                f,
                "not-zero: byte {offset} still holds {} after the wipe; `bedplate volumes retry` wipes again",
                if *canary { "a canary" } else { "data" }
            ),
            Self::LevelLost { losses } => {
                f.write_str("level-lost: the class demands more than this wipe can state (")?;
                for (i, loss) in losses.iter().enumerate() {
                    write!(f, "{}{loss}", if i > 0 { "; " } else { "" })?;
                }
                f.write_str("); remove what holds old blocks, then `bedplate volumes accept` records the lower level")
            }
        }
    }
}

/// The wipe stopped; the space stays withheld until a person acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stuck {
    /// What it was released with.
    #[serde(flatten)]
    pub released: Released,
    /// Why.
    pub reason: StuckReason,
    /// Since when.
    pub since: Timestamp,
}

/// A volume in one state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume<S> {
    /// What it is.
    pub spec: Spec,
    /// Where it stands.
    pub state: S,
}

/// One journalled step in a volume's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "change")]
#[expect(missing_docs, reason = "each is the transition of the same name on Volume, with its arguments")]
pub enum Change {
    Discarded,
    Ready { backing: Backing },
    Formatting { uuid: Uuid },
    Formatted,
    Staged { staged: Staged },
    Unstaged,
    LevelLowered { losses: Vec<LevelLoss> },
    Retained { by: String },
    Released { release: Release },
    Quarantined { losses: Vec<LevelLoss> },
    WipePlanned { plan: WipePlan, at: Timestamp },
    CanariesPlaced,
    Wiped { offset: u64 },
    Resumed { offset: u64 },
    Flushed,
    Verifying,
    Verified { receipt: Box<Receipt> },
    Freed,
    Stuck { reason: StuckReason, at: Timestamp },
    Retried { by: String },
    LevelAccepted { by: String },
    Forgotten { by: String },
}

/// A transition: what to journal, and what the volume is once that is durable.
pub type Step<S> = (Change, Volume<S>);

impl<S> Volume<S> {
    fn into<T>(self, change: Change, state: impl FnOnce(S) -> T) -> Step<T> {
        (change, Volume { spec: self.spec, state: state(self.state) })
    }

    /// Of what is over, what its class and its claim said besides is told by its receipt, and kept there alone.
    fn into_tombstone<T>(mut self, change: Change, state: impl FnOnce(S) -> T) -> Step<T> {
        self.spec.parameters.clear();
        self.spec.claim.labels.clear();
        self.spec.mkfs_options = Vec::new();
        self.into(change, state)
    }
}

impl Volume<Reserved> {
    /// Its space exists, whole, attached to nobody.
    pub fn ready(self, backing: Backing) -> Step<Ready> {
        let change = Change::Ready { backing: backing.clone() };
        self.into(change, |_| Ready {
            backing,
            format: Format::Never,
            staged: None,
            ever_staged: false,
            losses: Vec::new(),
        })
    }

    /// It was never made, or what was made was removed unseen.
    pub fn discard(self) -> Step<Discarded> {
        self.into_tombstone(Change::Discarded, |_| Discarded)
    }
}

impl Volume<Ready> {
    /// About to run `mkfs`. `None` unless the licence is there: never formatted, or the same `mkfs` was begun before.
    pub fn formatting(self, uuid: Uuid) -> Option<Step<Ready>> {
        match self.state.format {
            Format::Never if !self.state.ever_staged => {}
            Format::Formatting(begun) if begun == uuid => {}
            Format::Never | Format::Formatting(_) | Format::Formatted(_) => return None,
        }
        Some(self.into(Change::Formatting { uuid }, |s| Ready { format: Format::Formatting(uuid), ..s }))
    }

    /// `mkfs` ended well. `None` unless it was begun.
    pub fn formatted(self) -> Option<Step<Ready>> {
        let Format::Formatting(uuid) = self.state.format else { return None };
        Some(self.into(Change::Formatted, |s| Ready { format: Format::Formatted(uuid), ..s }))
    }

    /// About to be handed to a tenant at `staged`.
    pub fn stage(self, staged: Staged) -> Step<Ready> {
        let change = Change::Staged { staged: staged.clone() };
        self.into(change, |s| Ready { staged: Some(staged), ever_staged: true, ..s })
    }

    /// The tenant has let go.
    pub fn unstage(self) -> Step<Ready> {
        self.into(Change::Unstaged, |s| Ready { staged: None, ..s })
    }

    /// Something was seen that a wipe cannot reach: remembered until the receipt.
    pub fn lower_level(self, losses: Vec<LevelLoss>) -> Step<Ready> {
        let change = Change::LevelLowered { losses: losses.clone() };
        self.into(change, |mut s| {
            add(&mut s.losses, losses);
            s
        })
    }

    /// Its owner is gone and wants it kept.
    pub fn retain(self, by: String) -> Step<Retained> {
        self.into(Change::Retained { by }, |s| Retained { backing: s.backing, losses: s.losses })
    }

    /// It may be wiped. From here no way leads back to a tenant.
    pub fn release(self, release: Release) -> Step<Released> {
        let change = Change::Released { release: release.clone() };
        self.into(change, |s| Released { backing: s.backing, losses: s.losses, release, level_accepted: false })
    }
}

impl Volume<Retained> {
    /// It may be wiped, on a person's word and nobody else's: `None` otherwise.
    pub fn release(self, release: Release) -> Option<Step<Released>> {
        let by_hand = release.kind == ReleaseKind::ByHand;
        let change = Change::Released { release: release.clone() };
        by_hand.then(|| {
            self.into(change, |s| Released { backing: s.backing, losses: s.losses, release, level_accepted: false })
        })
    }
}

impl Volume<Released> {
    /// Nobody uses it and its device is gone.
    pub fn quarantine(self, losses: Vec<LevelLoss>) -> Step<Quarantined> {
        let change = Change::Quarantined { losses: losses.clone() };
        self.into(change, |mut released| {
            add(&mut released.losses, losses);
            Quarantined { released }
        })
    }

    /// Give up waiting, on a person's word.
    pub fn forget(self, by: String) -> Step<Forgotten> {
        forget(self, by)
    }
}

impl Volume<Quarantined> {
    /// The plan and its seed, before the first canary.
    pub fn plan(self, plan: WipePlan, at: Timestamp) -> Step<Wiping> {
        let change = Change::WipePlanned { plan: plan.clone(), at };
        self.into(change, |s| Wiping {
            released: s.released,
            plan,
            started: at,
            canaries_placed: false,
            offset: 0,
            resumed_at: Vec::new(),
        })
    }
}

impl Volume<Wiping> {
    /// Every canary is on the medium and was read back.
    pub fn canaries_placed(self) -> Step<Wiping> {
        self.into(Change::CanariesPlaced, |s| Wiping { canaries_placed: true, ..s })
    }

    /// Everything before `offset` is zero and flushed.
    pub fn checkpoint(self, offset: u64) -> Step<Wiping> {
        self.into(Change::Wiped { offset }, |s| Wiping { offset, ..s })
    }

    /// Going on after a restart at `offset`.
    pub fn resume(self, offset: u64) -> Step<Wiping> {
        self.into(Change::Resumed { offset }, |mut s| {
            s.resumed_at.push(offset);
            Wiping { offset, ..s }
        })
    }

    /// The whole range is zero and flushed. `None` before the last checkpoint or without canaries.
    pub fn flushed(self) -> Option<Step<Flushed>> {
        let whole = self.state.canaries_placed && self.state.offset == self.state.plan.size;
        whole.then(|| self.into(Change::Flushed, |wiping| Flushed { wiping }))
    }
}

impl Volume<Flushed> {
    /// Reading back begins.
    pub fn verify(self) -> Step<Verifying> {
        self.into(Change::Verifying, |s| Verifying { wiping: s.wiping })
    }
}

impl Volume<Verifying> {
    /// Read back and found zero; the receipt is part of the record, so no crash can part them. `None` where the receipt's
    /// level does not satisfy the class and nobody accepted that.
    pub fn verified(self, receipt: Receipt) -> Option<Step<Verified>> {
        let enough =
            self.spec.demand.is_none_or(|d| receipt.level.satisfies(d)) || self.state.wiping.released.level_accepted;
        let receipt = Box::new(receipt);
        let change = Change::Verified { receipt: receipt.clone() };
        enough.then(|| self.into(change, |s| Verified { backing: s.wiping.released.backing, receipt }))
    }
}

impl Volume<Verified> {
    /// Its space was given back.
    pub fn free(self) -> Step<Freed> {
        self.into_tombstone(Change::Freed, |s| Freed { receipt: s.receipt.number })
    }
}

impl Volume<Stuck> {
    /// A person wants another try: the wipe starts again from Quarantined, with a new seed.
    pub fn retry(self, by: String) -> Step<Quarantined> {
        self.into(Change::Retried { by }, |s| Quarantined { released: s.released })
    }

    /// A person accepts the lower level.
    pub fn accept_level(self, by: String) -> Step<Quarantined> {
        self.into(Change::LevelAccepted { by }, |s| Quarantined {
            released: Released { level_accepted: true, ..s.released },
        })
    }
}

/// States in which a wipe is owed: it may get stuck, or be forgotten on a person's word.
pub trait Owed {
    /// What it was released with.
    fn released(self) -> Released;
}

macro_rules! owed {
    ($($state:ty => |$s:ident| $released:expr),+ $(,)?) => {
        $(impl Owed for $state {
            fn released(self) -> Released {
                let $s = self;
                $released
            }
        })+
    };
}

owed!(
    Released => |s| s,
    Quarantined => |s| s.released,
    Wiping => |s| s.released,
    Flushed => |s| s.wiping.released,
    Verifying => |s| s.wiping.released,
    Stuck => |s| s.released,
);

impl<S: Owed> Volume<S> {
    /// The wipe stopped and needs a person.
    pub fn stuck(self, reason: StuckReason, at: Timestamp) -> Step<Stuck> {
        let change = Change::Stuck { reason: reason.clone(), at };
        self.into(change, |s| Stuck { released: s.released(), reason, since: at })
    }
}

/// Give up waiting, on a person's word; the space stays withheld.
pub fn forget<S: Owed>(volume: Volume<S>, by: String) -> Step<Forgotten> {
    let change = Change::Forgotten { by: by.clone() };
    volume.into(change, |s| Forgotten { by, backing: s.released().backing })
}

fn add(losses: &mut Vec<LevelLoss>, more: Vec<LevelLoss>) {
    for loss in more {
        if !losses.contains(&loss) {
            losses.push(loss);
        }
    }
}
