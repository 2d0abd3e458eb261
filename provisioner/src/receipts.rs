//! The receipts log: one JSON line a receipt, append-only, for people and auditors.
//!
//! The journal's Verified record is the commit point; this log is brought up to it before the volume's space is given
//! back, so no receipt can be lost with the journal's compaction.

use bedplate_blockdev::{Dir, Host, HostError};
use bedplate_core::receipt::Receipt;

/// The log's name in the state directory.
pub const RECEIPTS: &str = "receipts.log";
const NEXT: &str = "receipts.next";

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum ReceiptsError {
    #[error("the receipts log cannot be used")]
    Host(#[source] HostError),
    #[error("line {line} of the receipts log is not a receipt; restore {RECEIPTS} from a backup")]
    Corrupt {
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("receipt {number} cannot be encoded")]
    Encode {
        number: u64,
        #[source]
        source: serde_json::Error,
    },
}

/// Every whole line, and how many bytes they take; a torn last line is left out.
///
/// # Errors
/// Where a line before the last is no receipt.
pub fn parse(bytes: &[u8]) -> Result<(Vec<Receipt>, u64), ReceiptsError> {
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let mut receipts = Vec::new();
    for (i, line) in bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate() {
        receipts.push(serde_json::from_slice(line).map_err(|source| ReceiptsError::Corrupt { line: i + 1, source })?);
    }
    Ok((receipts, whole as u64))
}

/// Every receipt in the log.
///
/// # Errors
/// Where it cannot be read.
pub fn read(host: &dyn Host, dir: &Dir) -> Result<Vec<Receipt>, ReceiptsError> {
    let bytes = host.read(dir, RECEIPTS).map_err(ReceiptsError::Host)?.unwrap_or_default();
    Ok(parse(&bytes)?.0)
}

/// Make sure that `receipt` is in the log, durably, once.
///
/// # Errors
/// Where it cannot be read or written; nothing is freed then.
pub fn ensure(host: &dyn Host, dir: &Dir, receipt: &Receipt) -> Result<(), ReceiptsError> {
    let bytes = host.read(dir, RECEIPTS).map_err(ReceiptsError::Host)?.unwrap_or_default();
    let (known, whole) = parse(&bytes)?;
    let whole = usize::try_from(whole).unwrap_or(usize::MAX).min(bytes.len());
    if known.iter().rev().any(|r| r.hash == receipt.hash) {
        // An earlier try put it there and may have been killed, or its fsync failed and the next one would pass over
        // what is in memory only: a fresh file is durable for certain.
        host.write(dir, NEXT, &bytes[..whole]).map_err(ReceiptsError::Host)?;
        host.sync_file(dir, NEXT).map_err(ReceiptsError::Host)?;
        host.rename(dir, NEXT, RECEIPTS).map_err(ReceiptsError::Host)?;
        return host.sync_dir(dir).map_err(ReceiptsError::Host);
    }
    let mut line =
        serde_json::to_vec(receipt).map_err(|source| ReceiptsError::Encode { number: receipt.number, source })?;
    line.push(b'\n');
    if whole < bytes.len() {
        host.truncate(dir, RECEIPTS, whole as u64).map_err(ReceiptsError::Host)?;
    }
    host.append(dir, RECEIPTS, &line).map_err(ReceiptsError::Host)?;
    host.sync_file(dir, RECEIPTS).map_err(ReceiptsError::Host)?;
    // Also where it was there: whoever made it may have been killed before its name was durable.
    host.sync_dir(dir).map_err(ReceiptsError::Host)
}
