use bedplate_core::probe::{DepthFigure, Engine, Medium, Method, ScratchFigures, StopReason, WriteFigures};
use jiff::Timestamp;

use super::*;

fn reads_of(iops: u64, conditions: Conditions) -> Figures {
    let depth = |depth, iops| DepthFigure { depth, iops, p50_us: 90, p99_us: 200, p999_us: 0, mib_s: 0.0, reads: 1 };
    Figures {
        read: vec![depth(1, iops / 8), depth(32, iops)],
        method: Method { engine: Engine::IoUring, medium: Medium::WholeDisk },
        block_size: 4096,
        span_bytes: 1 << 40,
        reads: 1000,
        zero_blocks: 0,
        when: Timestamp::UNIX_EPOCH,
        confidence: Confidence::High,
        conditions,
        stopped: StopReason::RampComplete,
    }
}

fn writes_of(iops: u64, conditions: Conditions) -> PoolWrites {
    let one = WriteFigures {
        fsync_count: 500,
        fsync_p50_us: 50,
        fsync_p99_us: 400,
        random_write_iops: iops,
        sequential_mib_s: 2.0,
    };
    let figures = ScratchFigures {
        first_write: one.clone(),
        overwrite: one,
        record_bytes: 4096,
        random_depth: 16,
        engine: Engine::IoUring,
        file_bytes: 64 << 20,
        when: Timestamp::UNIX_EPOCH,
    };
    PoolWrites { figures, conditions }
}

#[test]
fn a_budget_is_the_lesser_of_reads_and_writes_and_comes_from_an_idle_disk_only() {
    let mut book = Book::default();
    book.wrote("fast", "wwn-1", writes_of(9_000, Conditions::Idle));
    assert_eq!(book.budget("fast"), None, "reads are not known yet");
    book.read("wwn-1", reads_of(60_000, Conditions::Disturbed));
    assert_eq!(book.budget("fast"), None, "measured beside somebody's work");
    book.read("wwn-1", reads_of(60_000, Conditions::Idle));
    assert_eq!(book.budget("fast"), Some(9_000));
    book.read("wwn-1", reads_of(500, Conditions::Disturbed));
    assert_eq!(book.budget("fast"), Some(9_000), "a busy disk never lowers it");
}

#[test]
fn figures_are_kept_over_a_restart_and_a_file_that_cannot_be_read_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = Book::load(folder.path());
    assert_eq!(book, Book::default());
    book.read("wwn-1", reads_of(60_000, Conditions::Idle));
    book.wrote("fast", "wwn-1", writes_of(9_000, Conditions::Idle));
    book.save(folder.path()).unwrap();
    let again = Book::load(folder.path());
    assert_eq!(again, book);
    assert_eq!(again.pool_time("fast", "wwn-1"), Some(Timestamp::UNIX_EPOCH));
    assert_eq!(again.pool_time("fast", "wwn-2"), None, "on another disk nothing is known of it");
    std::fs::write(folder.path().join(FILE), "{").unwrap();
    assert_eq!(Book::load(folder.path()), Book::default());
}

#[test]
fn a_pools_figures_are_its_own_writes_and_its_disks_reads() {
    let mut book = Book::default();
    book.read("wwn-1", reads_of(60_000, Conditions::Idle));
    book.wrote("fast", "wwn-1", writes_of(9_000, Conditions::Disturbed));
    let told = &book.pools()["fast"];
    assert_eq!((told.read_iops, told.write_iops, told.fsync_p99_us), (Some(60_000), Some(9_000), Some(400)));
    assert_eq!(told.write_bytes_per_second, Some(2 << 20));
    assert_eq!(told.confidence, "low: the disk was in use");
    book.wrote("fast", "wwn-2", writes_of(100, Conditions::Disturbed));
    assert_eq!(book.pools()["fast"].write_iops, Some(100), "another disk: what was known of the first says nothing");
}
