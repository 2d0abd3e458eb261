use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ids::{LedgerId, NodeName};
use crate::ledger::PoolRecord;

fn events(count: usize) -> Vec<Event> {
    let node: NodeName = "n1".parse().unwrap();
    let mut list = vec![Event::Opened { ledger: LedgerId(Uuid::from_u128(7)), node }];
    list.extend((1..count).map(|i| Event::PoolAdded {
        name: format!("p{i}").parse().unwrap(),
        pool: PoolRecord {
            uuid: Uuid::from_u128(i as u128),
            fs_uuid: Uuid::from_u128(1),
            directory: "/srv/a\nb".into(),
        },
    }));
    list
}

fn written(count: usize) -> (Vec<u8>, Vec<Tail>, Vec<usize>) {
    let (mut bytes, mut tails, mut ends) = (Vec::new(), vec![Tail::default()], vec![0]);
    for event in events(count) {
        let (line, tail) = encode(*tails.last().unwrap(), Timestamp::UNIX_EPOCH, event).unwrap();
        bytes.extend(line);
        tails.push(tail);
        ends.push(bytes.len());
    }
    (bytes, tails, ends)
}

proptest! {
    #[test]
    fn what_is_written_is_read(count in 1usize..20) {
        let (bytes, tails, _) = written(count);
        let journal = decode(&bytes, &[tails[count]]).unwrap();
        prop_assert_eq!(journal.records.into_iter().map(|r| r.event).collect::<Vec<_>>(), events(count));
        prop_assert_eq!((journal.tail, journal.torn), (tails[count], 0));
    }

    /// Wherever an append was cut: every acknowledged line is there, or the journal is refused.
    #[test]
    fn a_cut_loses_nothing_acknowledged_unseen(count in 1usize..12, at in any::<prop::sample::Index>(), acked in any::<prop::sample::Index>()) {
        let (bytes, tails, ends) = written(count);
        let cut = at.index(bytes.len() + 1);
        let acked = acked.index(count + 1);
        let result = decode(&bytes[..cut], &[tails[acked]]);
        if cut < ends[acked] {
            let is_truncated = matches!(result, Err(Damage::Truncated { .. }));
            prop_assert!(is_truncated, "{:?}", result);
        } else {
            let journal = result.unwrap();
            prop_assert!(journal.records.len() >= acked);
            prop_assert_eq!(journal.whole + journal.torn, cut as u64);
        }
    }

    /// One flipped bit is never read as something else: refused, or (in the never acknowledged last line) cut off.
    #[test]
    fn a_flipped_bit_is_never_believed(count in 2usize..8, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (mut bytes, tails, _) = written(count);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes, &[tails[count]]).is_err());
        if let Ok(journal) = decode(&bytes, &[]) {
            prop_assert!(journal.records.len() < count);
            prop_assert!(journal.torn > 0);
        }
    }

    #[test]
    fn a_witness_survives_its_own_tearing(seq in any::<u64>(), crc in any::<u32>(), cut in 0usize..40) {
        let tail = Tail { seq, crc };
        let bytes = encode_witness(tail);
        prop_assert_eq!(decode_witness(&bytes), Some(tail));
        if cut < bytes.len() {
            prop_assert_eq!(decode_witness(&bytes[..cut]), None);
        }
    }
}

#[test]
fn a_line_from_the_future_is_refused_by_its_version() {
    let (bytes, tails, _) = written(2);
    let json = br#"{"v":2,"seq":3,"prev":0,"new":"shape"}"#;
    let mut future = bytes;
    future.extend(format!("{:08x} ", crc32c::crc32c(json)).bytes());
    future.extend(json);
    future.push(b'\n');
    assert_eq!(decode(&future, &[tails[2]]), Err(Damage::FromTheFuture { line: 3, found: 2 }));
}

#[test]
fn a_missing_or_doubled_middle_line_is_refused() {
    let (bytes, _, ends) = written(4);
    let without = [&bytes[..ends[1]], &bytes[ends[2]..]].concat();
    assert_eq!(decode(&without, &[]), Err(Damage::Gap { line: 2 }));
    let doubled = [&bytes[..ends[2]], &bytes[ends[1]..]].concat();
    assert_eq!(decode(&doubled, &[]), Err(Damage::Gap { line: 3 }));
}

#[test]
fn another_journal_of_the_same_length_is_refused() {
    let (bytes, _, _) = written(3);
    let witness = Tail { seq: 3, crc: 1 };
    assert_eq!(decode(&bytes, &[witness]), Err(Damage::Different { line: 3 }));
}
