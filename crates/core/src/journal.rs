//! The journal's lines: versioned, numbered, chained and checksummed, readable with a pager.
//!
//! A line is `<crc32c, 8 hex digits> <json>\n`; the checksum covers the JSON, which holds the number and the checksum of
//! the line before. Only the *last* line may be torn (a crash in the middle of an append): it was never acknowledged and
//! is cut off. Anything else that does not fit is damage, and the ledger stays closed: guessing could free live data.
//!
//! A cut at a line's end looks whole, so a witness (a second small file) holds the number and checksum of a line that
//! was acknowledged: a journal that ends before it has lost something.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ledger::Event;

/// The format this program writes, and the newest it can read.
pub const FORMAT: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format.
    pub v: u32,
    /// Number, from 1, without gaps.
    pub seq: u64,
    /// Checksum of the line before; 0 for the first.
    pub prev: u32,
    /// When it was written.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// The end of a journal: what the next line follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Number of the last line; 0 for none.
    pub seq: u64,
    /// Its checksum.
    pub crc: u32,
}

/// What a journal holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Journal {
    /// Every whole line.
    pub records: Vec<Record>,
    /// Its end.
    pub tail: Tail,
    /// Bytes of whole lines; what follows is a torn last line to be cut off.
    pub whole: u64,
    /// Bytes of the torn last line.
    pub torn: u64,
}

/// Why a journal cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum Damage {
    #[error("line {line} (byte {byte}) is corrupted: {why}")]
    Corrupt { line: u64, byte: u64, why: String },
    #[error("line {line} was written by a newer version (format {found}, this program reads up to {FORMAT})")]
    FromTheFuture { line: u64, found: u32 },
    #[error("it ends at line {found}, but line {expected} was acknowledged: the end is missing")]
    Truncated { found: u64, expected: u64 },
    #[error("line {line} does not follow the line before (number or checksum): lines are missing or out of order")]
    Gap { line: u64 },
    #[error(
        "it was acknowledged with another content at line {line}: this is another journal or a copy of an older one"
    )]
    Different { line: u64 },
}

/// Why a record could not be written down.
#[derive(Debug, thiserror::Error)]
#[error("journal record {seq} cannot be encoded")]
pub struct Unencodable {
    seq: u64,
    #[source]
    source: serde_json::Error,
}

/// Encode one event as the line after `tail`.
///
/// # Errors
/// Where it cannot be written as JSON.
pub fn encode(tail: Tail, at: Timestamp, event: Event) -> Result<(Vec<u8>, Tail), Unencodable> {
    let seq = tail.seq + 1;
    let record = Record { v: FORMAT, seq, prev: tail.crc, at, event };
    let json = serde_json::to_vec(&record).map_err(|source| Unencodable { seq, source })?;
    let crc = crc32c::crc32c(&json);
    let mut line = format!("{crc:08x} ").into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok((line, Tail { seq, crc }))
}

/// Read a journal. `witnesses` are the tails that were acknowledged, as far as they could be read.
///
/// # Errors
/// Everything but a torn, never acknowledged last line.
pub fn decode(bytes: &[u8], witnesses: &[Tail]) -> Result<Journal, Damage> {
    let expected = witnesses.iter().copied().max_by_key(|w| w.seq).unwrap_or_default();
    let mut journal = Journal { records: Vec::new(), tail: Tail::default(), whole: 0, torn: 0 };
    let mut at = 0;
    let mut line = 0;
    while at < bytes.len() {
        line += 1;
        let rest = &bytes[at..];
        let (text, ended) = match rest.iter().position(|b| *b == b'\n') {
            Some(end) => (&rest[..end], true),
            None => (rest, false),
        };
        let last = !ended || at + text.len() + 1 == bytes.len();
        let parsed = if ended { parse(text) } else { Err(Unread::Corrupt("no line end".to_owned())) };
        let (record, crc) = match parsed {
            Ok(parsed) => parsed,
            Err(Unread::Future(found)) => return Err(Damage::FromTheFuture { line, found }),
            // The last line of a crash in the middle of an append: never acknowledged, unless the witness says so.
            Err(Unread::Corrupt(_)) if last && journal.tail.seq >= expected.seq => {
                journal.torn = (bytes.len() - at) as u64;
                break;
            }
            Err(Unread::Corrupt(_)) if last => {
                return Err(Damage::Truncated { found: journal.tail.seq, expected: expected.seq });
            }
            Err(Unread::Corrupt(why)) => return Err(Damage::Corrupt { line, byte: at as u64, why }),
        };
        // A compacted journal starts with a snapshot, at whatever number it had reached.
        let starts =
            journal.records.is_empty() && matches!(record.event, Event::Snapshot { .. } | Event::Opened { .. });
        if !starts && (record.seq != journal.tail.seq + 1 || record.prev != journal.tail.crc) {
            return Err(Damage::Gap { line });
        }
        journal.tail = Tail { seq: record.seq, crc };
        if expected.seq == record.seq && expected.crc != crc {
            return Err(Damage::Different { line });
        }
        journal.records.push(record);
        at += text.len() + 1;
        journal.whole = at as u64;
    }
    if journal.tail.seq < expected.seq {
        return Err(Damage::Truncated { found: journal.tail.seq, expected: expected.seq });
    }
    Ok(journal)
}

/// The one field that every format will have.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

enum Unread {
    Future(u32),
    Corrupt(String),
}

fn parse(text: &[u8]) -> Result<(Record, u32), Unread> {
    let corrupt = |why: &str| Unread::Corrupt(why.to_owned());
    let (sum, json) = text.split_at_checked(9).ok_or_else(|| corrupt("too short"))?;
    let crc = crc32c::crc32c(json);
    // To the letter: a reader that took `A` for `a` would believe a flipped bit.
    if sum != format!("{crc:08x} ").as_bytes() {
        return Err(corrupt("the checksum does not match"));
    }
    let version: Version = serde_json::from_slice(json).map_err(|e| Unread::Corrupt(e.to_string()))?;
    if version.v > FORMAT {
        return Err(Unread::Future(version.v));
    }
    let record = serde_json::from_slice(json).map_err(|e| Unread::Corrupt(e.to_string()))?;
    Ok((record, crc))
}

/// One witness as it is written: a checksummed line of its own.
#[must_use]
pub fn encode_witness(tail: Tail) -> Vec<u8> {
    let text = format!("{} {:08x}", tail.seq, tail.crc);
    format!("{:08x} {text}\n", crc32c::crc32c(text.as_bytes())).into_bytes()
}

/// A witness as it was read; `None` where it is torn or was never written.
#[must_use]
pub fn decode_witness(bytes: &[u8]) -> Option<Tail> {
    let (_, text) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split_once(' ')?;
    let (seq, crc) = text.split_once(' ')?;
    let tail = Tail { seq: seq.parse().ok()?, crc: u32::from_str_radix(crc, 16).ok()? };
    // To the letter, checksum and spelling.
    (encode_witness(tail) == bytes).then_some(tail)
}

#[cfg(test)]
mod tests;
