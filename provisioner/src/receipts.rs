//! The receipts log: one JSON line a receipt, append-only, for people and auditors.
//!
//! The journal's Verified record is the commit point; this log is brought up to it before the volume's space is given
//! back, so no receipt can be lost with the journal's compaction.

use std::sync::{Mutex, PoisonError};

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
    #[error("line {line} of the receipts log has no end within {LONGEST} bytes; restore {RECEIPTS} from a backup")]
    TooLong { line: usize },
    #[error("{RECEIPTS} became shorter while it was copied; nobody but the agent may write it")]
    Shrunk,
    #[error("no line of {RECEIPTS} ends at byte {place}, where one did: it is another log by now, or a part of it")]
    Another { place: u64 },
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
        receipts.push(receipt(i + 1, line)?);
    }
    Ok((receipts, whole as u64))
}

/// Every receipt in the log.
///
/// # Errors
/// Where it cannot be read.
pub fn read(host: &dyn Host, dir: &Dir) -> Result<Vec<Receipt>, ReceiptsError> {
    let mut all = Vec::new();
    walk(host, dir, 0, |number, line| {
        all.push(receipt(number, line)?);
        Ok(Go::On)
    })?;
    Ok(all)
}

/// Receipts from a place in the log on, as many as a piece of it holds, and the place where the next one begins; the same
/// place where there are no more. Places last as long as the log.
///
/// # Errors
/// Where it cannot be read; [`ReceiptsError::Another`] where the place means nothing in it.
pub fn read_from(host: &dyn Host, dir: &Dir, place: u64) -> Result<(Vec<Receipt>, u64), ReceiptsError> {
    if !begins_a_line(host, dir, place)? {
        return Err(ReceiptsError::Another { place });
    }
    let (mut some, mut bytes) = (Vec::new(), 0);
    let end = walk(host, dir, place, |number, line| {
        some.push(receipt(number, line)?);
        bytes += line.len();
        Ok(if bytes < PIECE { Go::On } else { Go::Stop })
    })?;
    Ok((some, end.whole))
}

/// Bytes read at once, and about as many are told at once: a log may hold years, and is never in memory as a whole.
const PIECE: usize = 64 << 10;
/// The longest line that a receipt could be.
const LONGEST: usize = 64 << 20;

enum Go {
    On,
    Stop,
}

/// Where a walk ended.
struct End {
    /// After the last whole line that was looked at.
    whole: u64,
    /// Whether more follows: what a torn write left.
    torn: bool,
}

/// Go through the whole lines of the log from a place on. They are numbered from 1 where the walk begins.
fn walk(
    host: &dyn Host,
    dir: &Dir,
    from: u64,
    mut each: impl FnMut(usize, &[u8]) -> Result<Go, ReceiptsError>,
) -> Result<End, ReceiptsError> {
    let (mut whole, mut number, mut piece) = (from, 0, PIECE);
    loop {
        let bytes = host.read_from(dir, RECEIPTS, whole, piece).map_err(ReceiptsError::Host)?.unwrap_or_default();
        let lines = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
        for line in bytes[..lines].split_inclusive(|b| *b == b'\n') {
            number += 1;
            whole += line.len() as u64;
            if let Go::Stop = each(number, line)? {
                return Ok(End { whole, torn: false });
            }
        }
        if bytes.len() < piece {
            return Ok(End { whole, torn: lines < bytes.len() });
        }
        // A line longer than the piece.
        piece = if lines == 0 { piece * 2 } else { PIECE };
        if piece > LONGEST {
            return Err(ReceiptsError::TooLong { line: number + 1 });
        }
    }
}

/// Whether a line begins there, as in the log that the place is from. One restored from a copy may end long before: it
/// would seem to hold nothing new until it has grown as long.
fn begins_a_line(host: &dyn Host, dir: &Dir, place: u64) -> Result<bool, ReceiptsError> {
    let Some(before) = place.checked_sub(1) else { return Ok(true) };
    let last = host.read_from(dir, RECEIPTS, before, 1).map_err(ReceiptsError::Host)?;
    Ok(last.as_deref() == Some(b"\n"))
}

fn receipt(line: usize, bytes: &[u8]) -> Result<Receipt, ReceiptsError> {
    serde_json::from_slice(bytes).map_err(|source| ReceiptsError::Corrupt { line, source })
}

/// The log, as one process writes it: one receipt at a time, and each line is judged once.
#[derive(Debug, Default)]
pub struct Log {
    /// Up to where every line is known to be a receipt.
    judged: Mutex<u64>,
}

impl Log {
    /// Make sure that `receipt` is in the log, durably, once.
    ///
    /// # Errors
    /// Where it cannot be read or written; nothing is freed then.
    pub fn ensure(&self, host: &dyn Host, dir: &Dir, receipt: &Receipt) -> Result<(), ReceiptsError> {
        // Wipes of several disks end at the same time, and a line of theirs must not be taken for a torn one.
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line =
            serde_json::to_vec(receipt).map_err(|source| ReceiptsError::Encode { number: receipt.number, source })?;
        line.push(b'\n');
        if !begins_a_line(host, dir, *judged)? {
            *judged = 0;
        }
        let own = format!("\"hash\":\"{}\"", receipt.hash);
        let (mut there, mut place) = (false, 0);
        let end = walk(host, dir, 0, |number, known| {
            place += known.len() as u64;
            if place > *judged {
                there |= self::receipt(number, known)?.hash == receipt.hash;
            } else {
                // Judged before. Its hash covers all of it; the next receipt names it too, but as `previous`.
                there |= memchr::memmem::find(known, own.as_bytes()).is_some();
            }
            Ok(Go::On)
        })?;
        if there {
            // An earlier try put it there and may have been killed, or its fsync failed and the next one would pass over
            // what is in memory only: a fresh file is durable for certain.
            copy(host, dir, end.whole)?;
        } else {
            if end.torn {
                host.truncate(dir, RECEIPTS, end.whole).map_err(ReceiptsError::Host)?;
            }
            host.append(dir, RECEIPTS, &line).map_err(ReceiptsError::Host)?;
            host.sync_file(dir, RECEIPTS).map_err(ReceiptsError::Host)?;
            // Also where it was there: whoever made it may have been killed before its name was durable.
            host.sync_dir(dir).map_err(ReceiptsError::Host)?;
        }
        *judged = end.whole;
        Ok(())
    }
}

/// Put a copy of the log's first bytes in its place.
fn copy(host: &dyn Host, dir: &Dir, whole: u64) -> Result<(), ReceiptsError> {
    host.write(dir, NEXT, &[]).map_err(ReceiptsError::Host)?;
    let mut done = 0;
    while done < whole {
        let most = usize::try_from(whole - done).unwrap_or(PIECE).min(PIECE);
        let bytes = host.read_from(dir, RECEIPTS, done, most).map_err(ReceiptsError::Host)?.unwrap_or_default();
        if bytes.is_empty() {
            return Err(ReceiptsError::Shrunk);
        }
        host.append(dir, NEXT, &bytes).map_err(ReceiptsError::Host)?;
        done += bytes.len() as u64;
    }
    host.sync_file(dir, NEXT).map_err(ReceiptsError::Host)?;
    host.rename(dir, NEXT, RECEIPTS).map_err(ReceiptsError::Host)?;
    host.sync_dir(dir).map_err(ReceiptsError::Host)
}

#[cfg(test)]
mod tests;
