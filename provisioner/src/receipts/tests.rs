use std::path::Path;

use bedplate_blockdev::LinuxHost;
use bedplate_blockdev::fake::{Config, FakeHost};
use bedplate_core::extent::PhysicalMap;
use bedplate_core::ids::LedgerId;
use bedplate_core::receipt::{DiskName, RECEIPT_VERSION, ReadBack};
use bedplate_core::volume::{Claim, Release, ReleaseKind};
use bedplate_core::wipe::{Level, Seed, Verification, ZeroMethod};
use jiff::Timestamp;
use uuid::Uuid;

use super::*;

fn state() -> &'static Path {
    Path::new("/state")
}

fn numbered(number: u64) -> Receipt {
    Receipt {
        version: RECEIPT_VERSION,
        number,
        ledger: LedgerId(Uuid::nil()),
        node: "n1".parse().unwrap(),
        volume: format!("vol-{number}").parse().unwrap(),
        name: String::new(),
        claim: Claim::default(),
        class: std::collections::BTreeMap::new(),
        release: Release { kind: ReleaseKind::ByHand, by: "test".to_owned(), at: Timestamp::UNIX_EPOCH },
        pool: "p".parse().unwrap(),
        disk: DiskName::default(),
        bytes: 1 << 20,
        ranges: PhysicalMap::default(),
        method: ZeroMethod::DirectWrites,
        passes: 1,
        seed: Seed([0; 32]),
        verification: ReadBack { kind: Verification::Full, bytes: 1 << 20, bound_ppm: 0, canaries: 1 },
        resumed_at: Vec::new(),
        level: Level::Clear,
        level_losses: Vec::new(),
        started: Timestamp::UNIX_EPOCH,
        ended: Timestamp::UNIX_EPOCH,
        agent: "test".to_owned(),
        previous: String::new(),
        hash: format!("{number:064}"),
    }
}

fn lines(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| [serde_json::to_vec(&numbered(*number)).unwrap(), vec![b'\n']].concat()).collect()
}

/// A machine whose log has these.
fn with(numbers: &[u64]) -> (FakeHost, Dir) {
    let host = FakeHost::new(Config::default());
    host.host_write(state(), RECEIPTS, &lines(numbers));
    let dir = host.open_dir(state()).unwrap();
    (host, dir)
}

fn numbers(receipts: &[Receipt]) -> Vec<u64> {
    receipts.iter().map(|receipt| receipt.number).collect()
}

#[test]
fn a_log_that_becomes_shorter_while_it_is_copied_is_not_replaced_by_the_copy() {
    let (host, dir) = with(&[1, 2]);
    let whole = lines(&[1, 2, 3]).len() as u64;
    assert!(matches!(copy(&host, &dir, whole), Err(ReceiptsError::Shrunk)));
    assert_eq!(host.content(state(), RECEIPTS).unwrap(), lines(&[1, 2]));
    // What was copied hinders nothing later.
    Log::default().ensure(&host, &dir, &numbered(2)).unwrap();
    assert_eq!(host.content(state(), RECEIPTS).unwrap(), lines(&[1, 2]));
}

#[test]
fn a_place_is_refused_in_a_log_that_is_shorter_or_another_one() {
    let (host, dir) = with(&[1, 2]);
    let (some, place) = read_from(&host, &dir, 0).unwrap();
    assert_eq!((numbers(&some), place), (vec![1, 2], lines(&[1, 2]).len() as u64));
    assert_eq!(read_from(&host, &dir, place).unwrap(), (Vec::new(), place));
    for other in [&[][..], &[1], &[1000], &[1000, 1001, 1002]] {
        host.host_write(state(), RECEIPTS, &lines(other));
        let refused = read_from(&host, &dir, place);
        assert!(matches!(refused, Err(ReceiptsError::Another { place: at }) if at == place), "{other:?} {refused:?}");
        assert_eq!(numbers(&read_from(&host, &dir, 0).unwrap().0), other);
    }
    host.host_remove(state(), RECEIPTS);
    assert!(matches!(read_from(&host, &dir, place), Err(ReceiptsError::Another { .. })));
}

#[test]
fn a_log_that_was_replaced_is_judged_anew_before_it_is_written_to() {
    let (host, dir) = with(&[1, 2, 3]);
    let log = Log::default();
    for number in [3, 4] {
        log.ensure(&host, &dir, &numbered(number)).unwrap();
    }
    let other = [b"nonsense\n".to_vec(), lines(&[1])].concat();
    host.host_write(state(), RECEIPTS, &other);
    let refused = log.ensure(&host, &dir, &numbered(5));
    assert!(matches!(refused, Err(ReceiptsError::Corrupt { line: 1, .. })), "{refused:?}");
    assert_eq!(host.content(state(), RECEIPTS).unwrap(), other);
}

#[test]
fn a_torn_last_line_is_left_out_until_it_is_whole_and_cut_off_by_the_next_receipt() {
    let (host, dir) = with(&[1, 2]);
    let third = lines(&[3]);
    let (head, tail) = third.split_at(third.len() / 2);
    host.append(&dir, RECEIPTS, head).unwrap();
    let (some, place) = read_from(&host, &dir, 0).unwrap();
    assert_eq!((numbers(&some), place), (vec![1, 2], lines(&[1, 2]).len() as u64));
    host.append(&dir, RECEIPTS, tail).unwrap();
    assert_eq!(numbers(&read_from(&host, &dir, place).unwrap().0), [3]);
    host.append(&dir, RECEIPTS, head).unwrap();
    Log::default().ensure(&host, &dir, &numbered(4)).unwrap();
    assert_eq!(host.content(state(), RECEIPTS).unwrap(), lines(&[1, 2, 3, 4]));
}

#[test]
fn a_line_without_an_end_is_refused_and_a_long_one_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(RECEIPTS);
    let host = LinuxHost::default();
    let dir = host.open_dir(folder.path()).unwrap();
    // Several times as long as what is read at once.
    let long = Receipt { name: "n".repeat(5 * PIECE), ..numbered(2) };
    let log = [lines(&[1]), serde_json::to_vec(&long).unwrap(), b"\n".to_vec(), lines(&[3])].concat();
    std::fs::write(&path, &log).unwrap();
    assert_eq!(numbers(&read(&host, &dir).unwrap()), [1, 2, 3]);
    // A hole, as a disk that lost its blocks gives.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len((log.len() + LONGEST) as u64).unwrap();
    assert!(matches!(read(&host, &dir), Err(ReceiptsError::TooLong { line: 4 })));
    let place = log.len() as u64;
    assert!(matches!(read_from(&host, &dir, place), Err(ReceiptsError::TooLong { line: 1 })));
    let refused = Log::default().ensure(&host, &dir, &numbered(4));
    assert!(matches!(refused, Err(ReceiptsError::TooLong { line: 4 })), "{refused:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), (log.len() + LONGEST) as u64, "nothing is cut off");
}
