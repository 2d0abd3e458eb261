//! What a run has shown, decided from counts and receipts alone.

use std::fmt;
use std::process::ExitCode;

use bedplate_core::receipt::Receipt;
use bedplate_core::wipe::{Level, Verification};

/// How the demo ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was found before the wipe, nothing after it, and every wipe has its receipt.
    Clean {
        /// Markers of all volumes.
        markers: u64,
        /// Volumes.
        volumes: usize,
    },
    /// It was tried, and something is wrong.
    Failed(String),
    /// It could not be tried.
    NotDone(String),
}

/// The evidence.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Markers written through the mounts.
    pub written: u64,
    /// Markers found whole, in their own volume's extents, before the wipe.
    pub before: u64,
    /// Markers found whole or in part, in any volume's extents, after the wipe.
    pub after: u64,
    /// Bytes that were not zero after the wipe, where the blocks were held so that nobody else can have written there.
    pub not_zero: Option<u64>,
    /// The volumes: ids, and claims as namespace/name.
    pub volumes: &'a [(String, String)],
    /// The receipts.
    pub receipts: &'a [Receipt],
}

impl Evidence<'_> {
    /// What it shows.
    pub fn verdict(&self) -> Verdict {
        let Self { written, before, after, not_zero, volumes, receipts } = *self;
        if written == 0 || volumes.is_empty() {
            return Verdict::Failed("nothing was written, so nothing was shown".to_owned());
        }
        if before != written {
            return Verdict::Failed(format!(
                "the search found {before} of {written} markers before the wipe, so its silence afterwards proves nothing"
            ));
        }
        if after != 0 {
            return Verdict::Failed(format!("{after} of {written} markers are still on the disk"));
        }
        if let Some(bytes @ 1..) = not_zero {
            return Verdict::Failed(format!("{bytes} bytes of the wiped volumes are not zero"));
        }
        for (id, claim) in volumes {
            match receipts.iter().find(|r| r.volume.as_str() == id) {
                None => return Verdict::Failed(format!("volume {id} has no receipt")),
                Some(r) if format!("{}/{}", r.claim.namespace, r.claim.name) != *claim => {
                    return Verdict::Failed(format!("the receipt of volume {id} does not name its claim {claim}"));
                }
                Some(r) if r.level != Level::Clear || r.verification.kind != Verification::Full => {
                    return Verdict::Failed(format!(
                        "volume {id} was wiped to {} only, or not read back in full",
                        r.level
                    ));
                }
                Some(_) => {}
            }
        }
        Verdict::Clean { markers: written, volumes: volumes.len() }
    }
}

impl Verdict {
    /// One word for files.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Clean { .. } => "clean",
            Self::Failed(_) => "failed",
            Self::NotDone(_) => "not done",
        }
    }

    /// The process's end: 0, 1 or 2.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::Clean { .. } => ExitCode::SUCCESS,
            Self::Failed(_) => ExitCode::from(1),
            Self::NotDone(_) => ExitCode::from(2),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean { markers, volumes } => write!(
                f,
                "clean: all {markers} markers of {volumes} volumes were found on the disk before the wipe, none after it"
            ),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
            Self::NotDone(why) => write!(f, "not done: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(written: u64, before: u64, after: u64) -> Verdict {
        Evidence {
            written,
            before,
            after,
            not_zero: None,
            volumes: &[("vol-1".to_owned(), "a/b".to_owned())],
            receipts: &[],
        }
        .verdict()
    }

    fn why(verdict: Verdict) -> String {
        if let Verdict::Failed(why) = verdict { why } else { panic!("{verdict:?}") }
    }

    #[test]
    fn silence_after_the_wipe_counts_only_where_everything_was_found_before_it() {
        assert!(why(verdict(10, 9, 0)).contains("proves nothing"));
        assert!(why(verdict(0, 0, 0)).contains("nothing was written"));
        assert!(why(verdict(10, 10, 1)).contains("1 of 10 markers are still on the disk"));
        assert!(why(verdict(10, 10, 0)).contains("no receipt"));
        let held = Evidence {
            written: 1,
            before: 1,
            after: 0,
            not_zero: Some(512),
            volumes: &[("v".into(), "a/b".into())],
            receipts: &[],
        };
        assert!(why(held.verdict()).contains("512 bytes"));
    }
}
