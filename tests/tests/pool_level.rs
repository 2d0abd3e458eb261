//! What a receipt may claim on real hosts: a copy made by the host's own means, another name of the file, or a wipe that
//! only changes the map lower the level, and a class that demands more is told so.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_core::ids::VolumeId;
use bedplate_core::receipt::Receipt;
use bedplate_core::volume::StuckReason;
use bedplate_core::wipe::{Level, LevelLoss, ZeroMethod};
use bedplate_provisioner::engine::{CreateError, Driven, Engine, Misfit};
use bedplate_tests::engine::{Node, demanding, drive, phase, release, want_ext4, wipe};
use bedplate_tests::loopfs::run;
use bedplate_tests::on_each_host;
use bedplate_tests::skip::need_root;
use std::path::{Path, PathBuf};

on_each_host!(
    another_name_of_the_backing_file_lowers_the_level,
    a_wipe_by_zero_range_can_never_say_clear_and_really_leaves_the_bytes,
    a_file_that_the_host_moved_lowers_the_level,
);

const BLOCKS: usize = 64;

/// A volume with markers in it, at rest.
fn filled(node: &Node, engine: &Engine, demand: Option<Level>, number: u32) -> VolumeId {
    let wish = want_ext4(&format!("volume {number}"), 16);
    let wish = if let Some(level) = demand { demanding(level, wish) } else { wish };
    let id = engine.create(&wish).unwrap().id;
    node.tenancy(engine, &id, number, BLOCKS).unwrap();
    id
}

/// Path of the file made last.
fn file_of(node: &Node, known: &[String]) -> PathBuf {
    let new = node.files().unwrap().into_iter().find(|f| !known.contains(f)).unwrap();
    node.directory().join(new)
}

fn last(node: &Node) -> Receipt {
    node.receipts().unwrap().pop().unwrap()
}

/// Wipes a volume whose class demands `clear` and whose level is lost: Stuck, then accepted.
fn stuck_then_accepted(node: &Node, engine: &Engine, id: &VolumeId, is: impl Fn(&LevelLoss) -> bool) {
    let given = node.receipts().unwrap().len();
    release(engine, id).unwrap();
    let Driven::Stuck { reason: StuckReason::LevelLost { losses } } = drive(engine, id).unwrap() else {
        panic!("{:?}", engine.volume(id));
    };
    assert!(losses.iter().any(is), "{losses:?}");
    assert_eq!(node.receipts().unwrap().len(), given);
    let view = engine.volume(id).unwrap();
    assert_eq!(view.phase, "Stuck");
    assert!(view.detail.contains("level-lost") && view.detail.contains("bedplate volumes accept"), "{}", view.detail);
    engine.accept_level(id, "a person").unwrap();
    assert_eq!(drive(engine, id).unwrap(), Driven::Freed);
    let receipt = last(node);
    assert_eq!((receipt.level, &receipt.volume), (Level::Isolation, id));
    assert!(!receipt.level_losses.is_empty());
}

/// `cp --reflink` during the volume's life: the copy keeps old blocks that no wipe of the volume reaches.
fn copy_by_reflink(from: &Path, to: &Path) {
    run("cp", &["--reflink=always".as_ref(), from.as_os_str(), to.as_os_str()]).unwrap();
}

fn a_copy_on_the_same_blocks(fs: &'static str, copy: impl Fn(&Path, &Node, u32)) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    for (number, demand) in [(1, None), (2, Some(Level::Clear))] {
        let known = node.files().unwrap();
        let id = filled(&node, &engine, demand, number);
        let file = file_of(&node, &known);
        assert_eq!(engine.level_now(&id), Some(Level::Clear));
        copy(&file, &node, number);
        assert_eq!(engine.level_now(&id), Some(Level::Isolation));
        // The device keeps its sectors: xfs asks more of direct I/O on a reflinked file. Seen at the next staging, and remembered though the tenant's writes part the two again.
        node.tenancy(&engine, &id, 100 + number, BLOCKS).unwrap();
        assert!(!engine.volume(&id).unwrap().detail.is_empty());
        let lost = |l: &LevelLoss| matches!(l, LevelLoss::Shared { .. } | LevelLoss::Moved { .. });
        if demand.is_some() {
            stuck_then_accepted(&node, &engine, &id, lost);
        } else {
            wipe(&engine, &id).unwrap();
            let receipt = last(&node);
            assert_eq!(receipt.level, Level::Isolation);
            assert!(receipt.level_losses.iter().any(lost), "{:?}", receipt.level_losses);
        }
        // The receipt is right: the copy still holds the bytes.
        assert_eq!(node.on_disk(number).unwrap(), BLOCKS);
    }
}

#[test]
fn a_reflink_of_the_backing_file_lowers_the_level() {
    if !need_root("a_reflink_of_the_backing_file_lowers_the_level") {
        return;
    }
    for fs in ["xfs", "btrfs"] {
        a_copy_on_the_same_blocks(fs, |file, node, number| {
            copy_by_reflink(file, &node.directory().join(format!("copy-{number}")));
        });
    }
}

#[test]
fn a_host_snapshot_of_the_pool_lowers_the_level() {
    if !need_root("a_host_snapshot_of_the_pool_lowers_the_level") {
        return;
    }
    a_copy_on_the_same_blocks("btrfs", |_, node, number| {
        let to = node.fs.path().join(format!("snapshot-{number}"));
        run(
            "btrfs",
            &["-q".as_ref(), "subvolume".as_ref(), "snapshot".as_ref(), node.directory().as_os_str(), to.as_os_str()],
        )
        .unwrap();
    });
}

/// A copy that comes and goes while the volume is in use leaves its old blocks free and unwiped: seen by their places.
#[test]
fn a_copy_that_is_gone_again_before_the_wipe_still_lowers_the_level() {
    if !need_root("a_copy_that_is_gone_again_before_the_wipe_still_lowers_the_level") {
        return;
    }
    for fs in ["xfs", "btrfs"] {
        let node = Node::new(fs, 512).unwrap();
        let engine = node.open().unwrap();
        let id = filled(&node, &engine, Some(Level::Clear), 1);
        let mounted = node.mount(&engine, &id).unwrap();
        let copy = node.directory().join("copy");
        copy_by_reflink(&node.only_file().unwrap(), &copy);
        // Overwritten in place by the tenant: on the host it goes to new blocks.
        let data = mounted.path().join("data-1");
        let file = std::fs::OpenOptions::new().write(true).open(&data).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &node.oracle.block(2).repeat(BLOCKS), 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        mounted.unmount().unwrap();
        engine.unstage(&id).unwrap();
        std::fs::remove_file(&copy).unwrap();
        run("sync", &["-f".as_ref(), node.directory().as_os_str()]).unwrap();
        stuck_then_accepted(&node, &engine, &id, |l| matches!(l, LevelLoss::Moved { .. }));
        assert_eq!(
            (node.on_disk(1).unwrap(), node.on_disk(2).unwrap()),
            (BLOCKS, 0),
            "{fs}: the old blocks are free, and full"
        );
    }
}

fn another_name_of_the_backing_file_lowers_the_level(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    for (number, demand) in [(1, None), (2, Some(Level::Clear))] {
        let known = node.files().unwrap();
        let id = filled(&node, &engine, demand, number);
        let other = node.directory().join(format!("other-{number}"));
        std::fs::hard_link(file_of(&node, &known), &other).unwrap();
        assert_eq!(engine.level_now(&id), Some(Level::Isolation));
        let linked = |l: &LevelLoss| matches!(l, LevelLoss::Linked { links: 2 });
        if demand.is_some() {
            stuck_then_accepted(&node, &engine, &id, linked);
        } else {
            wipe(&engine, &id).unwrap();
            assert!(last(&node).level_losses.iter().any(linked));
            assert_eq!(last(&node).level, Level::Isolation);
        }
        assert_eq!(node.on_disk(number).unwrap(), 0, "the blocks themselves were overwritten");
        assert!(other.exists());
    }
}

fn a_wipe_by_zero_range_can_never_say_clear_and_really_leaves_the_bytes(fs: &'static str) {
    let mut node = Node::new(fs, 512).unwrap();
    node.config.pools[0].method = ZeroMethod::ZeroRange;
    let engine = node.open().unwrap();
    let refused = engine.create(&demanding(Level::Clear, want_ext4("demanding", 16))).unwrap_err();
    assert!(
        matches!(&refused, CreateError::Misfit { misfits, .. }
            if matches!(misfits[..], [Misfit::Level { best: Level::Isolation, wants: Level::Clear, .. }])),
        "{refused:?}"
    );
    assert!(node.files().unwrap().is_empty() && engine.volumes(true).is_empty());
    let id = filled(&node, &engine, None, 1);
    assert_eq!(engine.level_now(&id), Some(Level::Isolation));
    assert_eq!(node.on_disk(1).unwrap(), BLOCKS);
    wipe(&engine, &id).unwrap();
    let receipt = last(&node);
    assert_eq!((receipt.level, receipt.method), (Level::Isolation, ZeroMethod::ZeroRange));
    assert!(receipt.level_losses.iter().any(|l| matches!(l, LevelLoss::NotOverwritten { .. })));
    assert!(
        receipt.level_losses.iter().any(|l| matches!(l, LevelLoss::Unwritten { .. })),
        "{:?}",
        receipt.level_losses
    );
    // The control of every search here: this is what a wipe that does not write leaves (a few canaries fell on blocks).
    assert!(node.on_disk(1).unwrap() > BLOCKS / 2);
    // The pool is set right; a volume of its earlier time that was not wiped yet is then wiped for real.
    let late = filled(&node, &engine, None, 2);
    drop(engine);
    node.config.pools[0].method = ZeroMethod::DirectWrites;
    let engine = node.open().unwrap();
    wipe(&engine, &late).unwrap();
    assert_eq!((last(&node).level, node.on_disk(2).unwrap()), (Level::Clear, 0));
}

/// Somebody rewrote the file by a copy and a rename in place (a defragmenter does it inside one inode; here a punch and a
/// refill): other blocks than those recorded.
fn a_file_that_the_host_moved_lowers_the_level(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let id = filled(&node, &engine, Some(Level::Clear), 1);
    let file = node.only_file().unwrap().display().to_string();
    // The freed blocks are taken by somebody else before the hole is filled again.
    run("fallocate", &["--punch-hole", "--offset", "0", "--length", "16MiB", &file]).unwrap();
    run("sync", &["-f", &file]).unwrap();
    run("fallocate", &["--length", "350MiB", &node.fs.path().join("taker").display().to_string()]).unwrap();
    run("fallocate", &["--offset", "0", "--length", "16MiB", &file]).unwrap();
    release(&engine, &id).unwrap();
    let driven = drive(&engine, &id).unwrap();
    let Driven::Stuck { reason: StuckReason::LevelLost { losses } } = driven else { panic!("{driven:?}") };
    assert!(losses.iter().any(|l| matches!(l, LevelLoss::Moved { .. })), "{losses:?}");
    assert_eq!(phase(&engine, &id), "Stuck");
    assert_eq!(node.on_disk(1).unwrap(), BLOCKS, "the receipt that was not given would have been a lie");
}
