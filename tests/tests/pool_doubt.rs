//! When things are not as the ledger remembers them: files gone, cut or exchanged, pools unmounted, copied or met by
//! somebody else's engine. Nothing foreign is touched, nothing is lost, and each says the way out.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_core::bytes::MIB;
use bedplate_core::chain::chain;
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::{ReleaseKind, StuckReason};
use bedplate_core::wipe::Level;
use bedplate_provisioner::engine::{CreateError, Driven, Engine, Misfit, OpenError, ReleaseError, ServeError};
use bedplate_tests::engine::{Node, POOL, drive, open, phase, queue, release, settings, wait, want_ext4, wipe};
use bedplate_tests::loopfs::{HostFs, run};
use bedplate_tests::on_each_host;
use std::path::Path;
use std::time::Duration;

on_each_host!(
    a_missing_backing_file_is_no_volume_and_no_clean_one,
    a_truncated_backing_file_is_neither_served_nor_wiped,
    a_file_of_the_same_name_is_not_the_volume,
    an_unmounted_pool_is_absent_and_its_wipes_are_owed,
    a_pool_that_comes_back_while_the_engine_runs_is_served_and_its_debts_are_paid,
    a_pool_without_its_marker_is_absent_until_it_is_back,
    a_copy_of_a_pool_is_not_the_pool,
    two_engines_never_share_a_pool_or_a_ledger,
    a_file_that_nobody_knows_is_withheld_and_wiped_only_on_a_persons_word,
);

const BLOCKS: usize = 64;

fn filled(node: &Node, engine: &Engine, number: u32) -> VolumeId {
    let id = engine.create(&want_ext4(&format!("volume {number}"), 16)).unwrap().id;
    node.tenancy(engine, &id, number, BLOCKS).unwrap();
    id
}

/// The file is not what was made: staging is refused, a release ends in Stuck(backing-changed), both name the file.
fn is_doubted(node: &Node, engine: &Engine, id: &VolumeId, what: &str) {
    let refused = engine.stage(id, "/nowhere").unwrap_err();
    assert!(matches!(&refused, ServeError::BackingChanged { .. }), "{refused:?}");
    release(engine, id).unwrap();
    let driven = drive(engine, id).unwrap();
    let Driven::Stuck { reason } = driven else { panic!("{driven:?}") };
    assert!(matches!(reason, StuckReason::BackingChanged { .. }), "{reason:?}");
    for text in [chain(&refused), reason.to_string(), engine.volume(id).unwrap().detail] {
        assert!(text.contains(what) && text.contains(".img"), "{text}");
    }
    assert!(reason.to_string().contains("bedplate volumes retry"));
    // Its space is withheld and it is not offered under its name again.
    assert!(matches!(
        engine.create(&want_ext4(&engine.volume(id).unwrap().name, 16)).unwrap_err(),
        CreateError::BeingDeleted { .. }
    ));
    assert!(node.receipts().unwrap().is_empty());
    assert_eq!(drive(engine, id).unwrap(), Driven::Stuck { reason });
}

/// With the file back under its name, one order wipes it.
fn is_wiped_after_retry(node: &Node, engine: &Engine, id: &VolumeId, number: u32) {
    assert_eq!(node.on_disk(number).unwrap(), BLOCKS);
    engine.retry(id, "a person").unwrap();
    assert_eq!(drive(engine, id).unwrap(), Driven::Freed);
    assert_eq!(node.on_disk(number).unwrap(), 0);
    assert_eq!(node.receipts().unwrap()[0].level, Level::Clear);
}

fn a_missing_backing_file_is_no_volume_and_no_clean_one(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let id = filled(&node, &engine, 1);
    let (file, aside) = (node.only_file().unwrap(), node.directory().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    is_doubted(&node, &engine, &id, "missing");
    std::fs::rename(&aside, &file).unwrap();
    is_wiped_after_retry(&node, &engine, &id, 1);
}

fn a_truncated_backing_file_is_neither_served_nor_wiped(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let id = filled(&node, &engine, 1);
    let file = node.only_file().unwrap();
    let handle = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    let there = node.on_disk(1).unwrap();
    handle.set_len(16 * MIB - 4096).unwrap();
    is_doubted(&node, &engine, &id, "16773120");
    assert_eq!(node.on_disk(1).unwrap(), there, "nothing was written");
    // Lengthened again it has a hole where its last block was: that block was not wiped, and the receipt says so.
    handle.set_len(16 * MIB).unwrap();
    drop(handle);
    engine.retry(&id, "a person").unwrap();
    assert_eq!(drive(&engine, &id).unwrap(), Driven::Freed);
    let receipt = node.receipts().unwrap().pop().unwrap();
    assert_eq!(receipt.level, Level::Isolation);
    assert!(!receipt.level_losses.is_empty());
    assert_eq!(node.on_disk(1).unwrap(), 0);
}

fn a_file_of_the_same_name_is_not_the_volume(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let id = filled(&node, &engine, 1);
    let (file, aside) = (node.only_file().unwrap(), node.directory().join("aside"));
    std::fs::rename(&file, &aside).unwrap();
    // Somebody's own data, of the very same length.
    let foreign = vec![0x5A; 16 << 20];
    std::fs::write(&file, &foreign).unwrap();
    is_doubted(&node, &engine, &id, "another file");
    assert!(std::fs::read(&file).unwrap() == foreign, "somebody else's bytes were written over");
    // Not even where the wipe is ordered again.
    engine.retry(&id, "a person").unwrap();
    assert!(matches!(drive(&engine, &id).unwrap(), Driven::Stuck { .. }));
    assert!(std::fs::read(&file).unwrap() == foreign, "somebody else's bytes were written over");
    std::fs::rename(&file, node.directory().join("foreign")).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    is_wiped_after_retry(&node, &engine, &id, 1);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The one pool is absent; what can and cannot be done then.
fn is_absent(engine: &Engine, live: &VolumeId, owed: &VolumeId) {
    let pool = &engine.pools()[0];
    assert!(pool.absent.is_some() && pool.free == 0, "{pool:?}");
    let misfit = engine.create(&want_ext4("new", 1)).unwrap_err();
    assert!(
        matches!(&misfit, CreateError::Misfit { misfits, .. } if matches!(misfits[..], [Misfit::Absent { .. }])),
        "{misfit:?}"
    );
    assert!(matches!(engine.stage(live, "/nowhere").unwrap_err(), ServeError::PoolAbsent { .. }));
    assert!(matches!(
        release(engine, live).unwrap_err().downcast::<ReleaseError>(),
        Ok(ReleaseError::PoolAbsent { .. })
    ));
    assert!(matches!(drive(engine, owed).unwrap(), Driven::Debt { .. }));
    assert_eq!((phase(engine, live), phase(engine, owed)), ("Ready".to_owned(), "Debt".to_owned()));
    // A release that was recorded before is still one.
    release(engine, owed).unwrap();
}

fn an_unmounted_pool_is_absent_and_its_wipes_are_owed(fs: &'static str) {
    let mut node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let (live, owed) = (filled(&node, &engine, 1), filled(&node, &engine, 2));
    release(&engine, &owed).unwrap();
    drop(engine);
    let directory = node.directory().to_owned();
    node.fs.unmount().unwrap();
    // Not even a directory, and an empty one: neither becomes a new pool.
    for exists in [false, true] {
        if exists {
            std::fs::create_dir(&directory).unwrap();
        }
        let engine = node.open().unwrap();
        is_absent(&engine, &live, &owed);
        drop(engine);
        assert_eq!(directory.exists(), exists);
        if exists {
            assert_eq!(names(&directory), Vec::<String>::new());
            std::fs::remove_dir(&directory).unwrap();
        }
    }
    node.fs.mount().unwrap();
    let engine = node.open().unwrap();
    assert_eq!((phase(&engine, &live), phase(&engine, &owed)), ("Ready".to_owned(), "Released".to_owned()));
    assert_eq!(drive(&engine, &owed).unwrap(), Driven::Freed);
    assert_eq!((node.on_disk(1).unwrap(), node.on_disk(2).unwrap()), (BLOCKS, 0));
    wipe(&engine, &live).unwrap();
}

fn a_pool_that_comes_back_while_the_engine_runs_is_served_and_its_debts_are_paid(fs: &'static str) {
    let mut node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let (live, owed) = (filled(&node, &engine, 1), filled(&node, &engine, 2));
    release(&engine, &owed).unwrap();
    drop(engine);
    node.fs.unmount().unwrap();
    let engine = node.open().unwrap();
    let wiping = queue(&engine).unwrap();
    is_absent(&engine, &live, &owed);
    node.fs.mount().unwrap();
    let paid = || (phase(&engine, &owed) == "Freed").then_some(());
    assert!(wait(Duration::from_secs(20), paid).is_some(), "{:?} {:?}", engine.pools(), engine.volumes(false));
    drop(wiping);
    assert_eq!((node.on_disk(1).unwrap(), node.on_disk(2).unwrap()), (BLOCKS, 0));
    let mounted = node.mount(&engine, &live).unwrap();
    assert!(mounted.path().join("data-1").exists());
    mounted.unmount().unwrap();
    engine.unstage(&live).unwrap();
    engine.create(&want_ext4("new", 1)).unwrap();
    wipe(&engine, &live).unwrap();
}

fn a_pool_without_its_marker_is_absent_until_it_is_back(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let (live, owed) = (filled(&node, &engine, 1), filled(&node, &engine, 2));
    release(&engine, &owed).unwrap();
    drop(engine);
    let (marker, aside) = (node.directory().join(".bedplate-pool"), node.directory().join("aside"));
    std::fs::rename(&marker, &aside).unwrap();
    let before = names(node.directory());
    let engine = node.open().unwrap();
    is_absent(&engine, &live, &owed);
    assert!(engine.pools()[0].absent.as_ref().unwrap().contains(".bedplate-pool"));
    drop(engine);
    assert_eq!(names(node.directory()), before);
    // To an engine that never saw it, it is a directory with somebody's volumes: no pool either.
    let stranger = settings(&node.place().join("other-state"), node.directory()).unwrap();
    let error = open(&stranger, &node.boot).err().unwrap();
    assert!(matches!(error, OpenError::Pool(_)) && chain(&error).contains(".img"), "{}", chain(&error));
    assert_eq!(names(node.directory()), before);
    std::fs::rename(&aside, &marker).unwrap();
    let engine = node.open().unwrap();
    wipe(&engine, &live).unwrap();
    assert_eq!(drive(&engine, &owed).unwrap(), Driven::Freed);
}

fn a_copy_of_a_pool_is_not_the_pool(fs: &'static str) {
    let mut node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let (live, owed) = (filled(&node, &engine, 1), filled(&node, &engine, 2));
    release(&engine, &owed).unwrap();
    drop(engine);
    let other = HostFs::new(fs, 512 * MIB).unwrap();
    let copy = other.pool("copy").unwrap();
    run("cp", &["-a", &format!("{}/.", node.directory().display()), &copy.display().to_string()]).unwrap();
    run("sync", &["-f", &copy.display().to_string()]).unwrap();
    let before = names(&copy);
    let real = std::mem::replace(&mut node.config.pools[0].directory, copy.clone());
    let engine = node.open().unwrap();
    is_absent(&engine, &live, &owed);
    drop(engine);
    let stranger = settings(&node.place().join("other-state"), &copy).unwrap();
    let error = open(&stranger, &node.boot).err().unwrap();
    assert!(chain(&error).contains(&copy.display().to_string()) && chain(&error).contains("copy"), "{}", chain(&error));
    // A lock file may have come, nothing else.
    let after: Vec<_> = names(&copy).into_iter().filter(|n| n != ".bedplate-lock").collect();
    assert_eq!(after, before.into_iter().filter(|n| n != ".bedplate-lock").collect::<Vec<_>>());
    assert_eq!(node.oracle.search(&other.disk()).unwrap().get(&2), Some(&BLOCKS), "the copy was not wiped");
    node.config.pools[0].directory = real;
    let engine = node.open().unwrap();
    assert_eq!(drive(&engine, &owed).unwrap(), Driven::Freed);
    assert_eq!((node.on_disk(1).unwrap(), node.on_disk(2).unwrap()), (BLOCKS, 0));
}

fn two_engines_never_share_a_pool_or_a_ledger(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let id = filled(&node, &engine, 1);
    let error = node.try_open().err().unwrap();
    assert!(matches!(error, OpenError::Store(_)), "{error:?}");
    let said = chain(&error);
    assert!(said.contains(&std::process::id().to_string()), "who holds it is not named: {said}");
    let stranger = settings(&node.place().join("other-state"), node.directory()).unwrap();
    let error = open(&stranger, &node.boot).err().unwrap();
    assert!(matches!(error, OpenError::Pool(_)), "{error:?}");
    assert!(chain(&error).contains(&node.directory().display().to_string()), "{}", chain(&error));
    // The first one never noticed.
    node.tenancy(&engine, &id, 2, BLOCKS).unwrap();
    drop(engine);
    // With the first one gone the second has the pool, but none of its volumes.
    let second = open(&stranger, &node.boot).unwrap();
    assert!(second.volumes(true).is_empty());
    assert!(matches!(second.stage(&id, "/nowhere").unwrap_err(), ServeError::Unknown { .. }));
    assert_eq!(second.pools()[0].found.len(), 1);
    drop(second);
    let engine = node.open().unwrap();
    assert_eq!(node.on_disk(1).unwrap(), BLOCKS);
    wipe(&engine, &id).unwrap();
}

fn a_file_that_nobody_knows_is_withheld_and_wiped_only_on_a_persons_word(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    drop(node.open().unwrap());
    let file = node.directory().join("vol-of-somebody.img");
    node.oracle.write_file(&file, 7, 1024).unwrap();
    let engine = node.open().unwrap();
    let pool = &engine.pools()[0];
    assert_eq!((pool.found.len(), pool.withheld), (1, 4 * MIB));
    assert_eq!((pool.found[0].file.as_str(), pool.found[0].bytes), ("vol-of-somebody.img", 4 * MIB));
    assert!(engine.volumes(true).is_empty());
    let pool: bedplate_core::ids::PoolName = POOL.parse().unwrap();
    assert!(engine.adopt(&pool, "../vol-of-somebody.img", "a person").is_err());
    assert!(engine.adopt(&pool, ".bedplate-pool", "a person").is_err());
    let id = engine.adopt(&pool, "vol-of-somebody.img", "a person").unwrap();
    assert!(engine.adopt(&pool, "vol-of-somebody.img", "a person").is_err(), "twice");
    assert_eq!(phase(&engine, &id), "Retained");
    let view = &engine.pools()[0];
    assert_eq!((view.found.len(), view.withheld), (0, 4 * MIB));
    assert_eq!(drive(&engine, &id).unwrap(), Driven::Nothing);
    assert!(engine.stage(&id, "/nowhere").is_err());
    drop(engine);
    let engine = node.open().unwrap();
    assert_eq!(node.on_disk(7).unwrap(), 1024);
    // No orchestrator can have it wiped, only a person.
    assert!(release(&engine, &id).is_err());
    engine.release(&id, ReleaseKind::ByHand, "a person").unwrap();
    assert_eq!(drive(&engine, &id).unwrap(), Driven::Freed);
    assert_eq!(node.on_disk(7).unwrap(), 0);
    assert_eq!(engine.pools()[0].withheld, 0);
    assert_eq!(node.files().unwrap(), Vec::<String>::new());
}
