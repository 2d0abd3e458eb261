//! Two kinds of "no": [`Refused`] is a safety decision and never retried blindly; [`Failed`] is the machine's answer.

use std::io;

/// The step was not taken because it could have hurt somebody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused to {op} {object}: {reason}; {way_out}")]
pub struct Refused {
    /// What was asked, as a verb: "open", "remove".
    pub op: &'static str,
    /// On what.
    pub object: String,
    /// Why not.
    pub reason: String,
    /// What a person can do about it.
    pub way_out: String,
}

/// The step was tried and the machine said no.
#[derive(Debug, thiserror::Error)]
#[error("{op} {object} failed")]
pub struct Failed {
    /// What was tried, as a verb: "open", "write".
    pub op: &'static str,
    /// On what, with offsets where it is about a range.
    pub object: String,
    /// What the kernel or tool answered.
    #[source]
    pub source: io::Error,
}

/// Why a host call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A safety decision.
    #[error(transparent)]
    Refused(Refused),
    /// An I/O error.
    #[error(transparent)]
    Failed(Failed),
}

impl HostError {
    /// A failed step.
    pub fn failed(op: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        Self::Failed(Failed { op, object: object.into(), source })
    }

    /// A refused step.
    pub fn refused(
        op: &'static str,
        object: impl Into<String>,
        reason: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self::Refused(Refused { op, object: object.into(), reason: reason.into(), way_out: way_out.into() })
    }

    /// The kernel's answer, where there was one.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Refused(_) => None,
            Self::Failed(failed) => Some(&failed.source),
        }
    }

    /// Whether the filesystem had no room (ENOSPC, EDQUOT).
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.io().is_some_and(|e| matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
