//! Why a pod does not fit: few, fixed texts. The scheduler counts them letter by letter and re-queues a pod whose text
//! changed, so no text holds a number or a name; those are in [`Detail`](super::Detail).

/// Why a pod does not fit on a node, or anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A claim already has a volume elsewhere.
    OtherNode,
    /// The node has no agent, or its agent never spoke.
    NoAgent,
    /// Its agent says that it cannot make volumes now.
    NotReady,
    /// It cannot make or mount the filesystem.
    Filesystem,
    /// It has no pool of the name that the class wants, or no pool at all.
    NoPool,
    /// The pools that would do are absent.
    PoolAbsent,
    /// No pool on the medium.
    Media,
    /// No pool can be wiped to the level.
    Level,
    /// No matching pool could hold the volume even if it were empty.
    TooLarge,
    /// No matching pool has that much room now.
    NoRoom,
    /// There is room, but not in one piece.
    Pieces,
    /// Each claim fits, but not all of them together.
    Together,
    /// Too many claims to be placed together with certainty.
    TooMany,
    /// A claim that the pod names does not exist.
    NoClaim,
    /// A claim's StorageClass does not exist.
    NoClass,
    /// A claim or its StorageClass asks for what Bedplate refuses; the claim's Events say what.
    Refused,
    /// The extender could not find out.
    Internal,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 17] = [
        Self::OtherNode,
        Self::NoAgent,
        Self::NotReady,
        Self::Filesystem,
        Self::NoPool,
        Self::PoolAbsent,
        Self::Media,
        Self::Level,
        Self::TooLarge,
        Self::NoRoom,
        Self::Pieces,
        Self::Together,
        Self::TooMany,
        Self::NoClaim,
        Self::NoClass,
        Self::Refused,
        Self::Internal,
    ];

    /// The text that the scheduler shows.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OtherNode => "bedplate: a volume of the pod is on another node",
            Self::NoAgent => "bedplate: no agent on the node",
            Self::NotReady => "bedplate: the node's agent is not ready",
            Self::Filesystem => "bedplate: the node lacks the filesystem",
            Self::NoPool => "bedplate: no such pool on the node",
            Self::PoolAbsent => "bedplate: the pool is absent",
            Self::Media => "bedplate: no pool on the medium asked for",
            Self::Level => "bedplate: no pool can wipe to the level asked for",
            Self::TooLarge => "bedplate: larger than any matching pool",
            Self::NoRoom => "bedplate: no matching pool has room",
            Self::Pieces => "bedplate: room, but not in one piece",
            Self::Together => "bedplate: the pod's claims do not fit together",
            Self::TooMany => "bedplate: too many claims to place together",
            Self::NoClaim => "bedplate: a claim of the pod does not exist",
            Self::NoClass => "bedplate: a claim's StorageClass does not exist",
            Self::Refused => "bedplate: a claim or its StorageClass is refused, see its events",
            Self::Internal => "bedplate: the extender cannot tell, see its log",
        }
    }

    /// The word in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::OtherNode => "other-node",
            Self::NoAgent => "no-agent",
            Self::NotReady => "not-ready",
            Self::Filesystem => "filesystem",
            Self::NoPool => "no-pool",
            Self::PoolAbsent => "pool-absent",
            Self::Media => "media",
            Self::Level => "level",
            Self::TooLarge => "too-large",
            Self::NoRoom => "no-room",
            Self::Pieces => "pieces",
            Self::Together => "together",
            Self::TooMany => "too-many",
            Self::NoClaim => "no-claim",
            Self::NoClass => "no-class",
            Self::Refused => "refused",
            Self::Internal => "internal",
        }
    }

    /// Whether more room would change it: what others hold may be the cause.
    #[must_use]
    pub const fn is_about_room(self) -> bool {
        matches!(self, Self::NoRoom | Self::Pieces | Self::Together)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}
