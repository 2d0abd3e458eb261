//! Opening the ledger: locked, whole, ours, or not at all.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use bedplate_blockdev::{Dir, Host, HostError};
use bedplate_core::ids::{LedgerId, NodeName};
use bedplate_core::journal::{Damage, Tail, Unencodable, decode, decode_witness, encode};
use bedplate_core::ledger::{Event, IllegalEvent, Ledger};
use uuid::Uuid;

use super::{COMPACT_AT, Inner, JOURNAL, LOCK, Store, WITNESSES, beginning, replace};
use crate::surroundings::Surroundings;

/// Why the ledger stays closed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum OpenStoreError {
    #[error("state directory {dir} cannot be used")]
    Host {
        dir: String,
        #[source]
        source: HostError,
    },
    #[error(
        "the ledger {dir}/ledger.log cannot be trusted, so nothing is served, made or freed; restore it from a backup \
         taken after the last change, or move ledger.log and ledger.witness.* out of {dir} to begin a new ledger \
         (every volume found in the pools is then withheld, none is lost)"
    )]
    Damaged {
        dir: String,
        #[source]
        source: Damage,
    },
    #[error(
        "the ledger {dir}/ledger.log is missing, but ledger.witness.* says it held {records} records; restore it from a \
         backup, or move ledger.witness.* out of {dir} to begin a new ledger (every volume found in the pools is then \
         withheld, none is lost)"
    )]
    Missing { dir: String, records: u64 },
    #[error(
        "the ledger {dir}/ledger.log holds a record that does not fit the ones before, so nothing is served, made or \
         freed; restore it from a backup, or move ledger.log and ledger.witness.* out of {dir} to begin a new ledger"
    )]
    Illegal {
        dir: String,
        #[source]
        source: IllegalEvent,
    },
    #[error(
        "the ledger in {dir} belongs to node {found}, this is node {expected}; set `node` to {found} or use another state_dir"
    )]
    OtherNode { dir: String, found: NodeName, expected: NodeName },
    #[error("the first record cannot be encoded")]
    Encode(#[source] Unencodable),
}

/// Open, or begin, the ledger in `path`.
///
/// # Errors
/// Whenever there is doubt: it then stays closed, and says the way out.
pub fn open(
    host: Arc<dyn Host>,
    surroundings: Arc<dyn Surroundings>,
    path: &Path,
    node: &NodeName,
) -> Result<Store, OpenStoreError> {
    let failed = |source| OpenStoreError::Host { dir: path.display().to_string(), source };
    let dir = host.open_dir(path).map_err(failed)?;
    let lock = host.lock(&dir, LOCK).map_err(failed)?;
    let name = || path.display().to_string();
    let bytes = host.read(&dir, JOURNAL).map_err(failed)?;
    let mut witnesses = Vec::new();
    for witness in WITNESSES {
        witnesses.extend(host.read(&dir, witness).map_err(failed)?.as_deref().and_then(decode_witness));
    }
    let bytes = match bytes {
        Some(bytes) => bytes,
        None => match witnesses.iter().map(|w| w.seq).max() {
            Some(records) => return Err(OpenStoreError::Missing { dir: name(), records }),
            None => Vec::new(),
        },
    };
    let journal = decode(&bytes, &witnesses).map_err(|source| OpenStoreError::Damaged { dir: name(), source })?;
    if journal.torn > 0 {
        tracing::warn!(bytes = journal.torn, "cut a torn, never acknowledged line off the ledger");
    }
    if !bytes.is_empty() {
        // What was read may be in memory only: written by a process that was killed before its fsync, or called clean
        // by a failed fsync that the next one passes over. A fresh file is durable before anything is decided on it.
        let whole = usize::try_from(journal.whole).unwrap_or(usize::MAX).min(bytes.len());
        replace(&*host, &dir, &bytes[..whole]).map_err(failed)?;
    }
    let mut tail = journal.tail;
    let mut size = journal.whole;
    let known = Ledger::replay(journal.records).map_err(|source| OpenStoreError::Illegal { dir: name(), source })?;
    let fresh = known.is_none();
    let ledger = match known {
        Some(ledger) if &ledger.node != node => {
            return Err(OpenStoreError::OtherNode { dir: name(), found: ledger.node, expected: node.clone() });
        }
        Some(mut ledger) if size > COMPACT_AT => {
            ledger.prune();
            (tail, size) =
                rewrite(&*host, &dir, &*surroundings, tail, Event::Snapshot { state: ledger.clone() }, failed)?;
            ledger
        }
        Some(ledger) => ledger,
        None => {
            let id = LedgerId(Uuid::from_u128(u128::from_le_bytes(half(surroundings.random()))));
            let (event, ledger) = beginning(id, node.clone());
            (tail, size) = rewrite(&*host, &dir, &*surroundings, Tail::default(), event, failed)?;
            ledger
        }
    };
    let inner = Inner {
        ledger,
        tail,
        queue: Vec::new(),
        durable: tail,
        syncing: false,
        witness_due: false,
        size,
        failed: None,
        dirty: std::collections::BTreeMap::new(),
        compact_above: super::compact_above(size),
    };
    let store = Store {
        host,
        surroundings,
        dir,
        inner: Mutex::new(inner),
        changed: Condvar::new(),
        pulse: tokio::sync::watch::Sender::new(()),
        _lock: lock,
    };
    // Both witness files exist from the start, so that writing one never needs the directory to be synced again.
    if fresh || witnesses.len() < WITNESSES.len() {
        for name in WITNESSES {
            let line = bedplate_core::journal::encode_witness(tail);
            store.host.write(&store.dir, name, &line).map_err(failed)?;
            store.host.sync_file(&store.dir, name).map_err(failed)?;
        }
        store.host.sync_dir(&store.dir).map_err(failed)?;
    }
    Ok(store)
}

/// Put a journal of one record in place: the beginning, or a snapshot.
fn rewrite(
    host: &dyn Host,
    dir: &Dir,
    surroundings: &dyn Surroundings,
    tail: Tail,
    event: Event,
    failed: impl Fn(HostError) -> OpenStoreError,
) -> Result<(Tail, u64), OpenStoreError> {
    let (line, tail) = encode(tail, surroundings.now(), event).map_err(OpenStoreError::Encode)?;
    replace(host, dir, &line).map_err(failed)?;
    Ok((tail, line.len() as u64))
}

/// The first 128 of 256 random bits.
pub(crate) fn half(random: [u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&random[..16]);
    out
}
