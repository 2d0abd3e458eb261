//! How much a pool gives: its capacity, the host's reserve, a host that is full in the middle of making a volume.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_blockdev::{HostError, LinuxHost};
use bedplate_core::bytes::{Bytes, MIB};
use bedplate_core::class::Class;
use bedplate_provisioner::engine::{CreateError, Engine, Misfit};
use bedplate_tests::engine::{Node, open_on, queue, release, wait, want_ext4, wipe};
use bedplate_tests::loopfs::run;
use bedplate_tests::meddle::Meddler;
use bedplate_tests::on_each_host;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

on_each_host!(
    a_pool_gives_its_capacity_and_not_a_byte_more,
    the_reserve_stays_with_the_host,
    a_host_that_fills_up_while_a_volume_is_made_keeps_nothing_of_it,
    many_at_once_never_get_more_than_there_is,
    what_would_fit_beside_those_under_way_is_asked_to_wait,
    what_failed_and_could_not_be_removed_is_waited_for_by_nobody,
);

fn free(engine: &Engine) -> u64 {
    engine.pools()[0].free
}

fn is_full(error: &CreateError) -> bool {
    matches!(error, CreateError::Misfit { misfits, .. } if matches!(misfits[..], [Misfit::Full { .. }]))
}

fn a_pool_gives_its_capacity_and_not_a_byte_more(fs: &'static str) {
    let mut node = Node::new(fs, 512).unwrap();
    node.config.pools[0].capacity = Some(Bytes(40 * MIB));
    let engine = node.open().unwrap();
    assert_eq!(free(&engine), 40 * MIB);
    let a = engine.create(&want_ext4("a", 24)).unwrap().id;
    assert_eq!((free(&engine), engine.room(&Class::default()).0), (16 * MIB, Bytes(16 * MIB)));
    let error = engine.create(&want_ext4("b", 17)).unwrap_err();
    assert!(is_full(&error), "{error:?}");
    assert!(error.to_string().contains("16 MiB") || error.to_string().contains("16777216"), "{error}");
    let b = engine.create(&want_ext4("b", 16)).unwrap().id;
    assert_eq!(free(&engine), 0);
    // Released is not free. Wiped is.
    release(&engine, &a).unwrap();
    assert_eq!(free(&engine), 0);
    assert!(engine.create(&want_ext4("c", 1)).is_err());
    wipe(&engine, &b).unwrap();
    assert_eq!(free(&engine), 16 * MIB);
    engine.create(&want_ext4("c", 16)).unwrap();
    assert_eq!(node.files().unwrap().len(), 2);
}

fn the_reserve_stays_with_the_host(fs: &'static str) {
    let mut node = Node::new(fs, 512).unwrap();
    node.config.pools[0].reserve = Bytes(100 * MIB);
    let engine = node.open().unwrap();
    let room = free(&engine) / MIB;
    assert!(room > 100 && room < 412, "{room}");
    assert!(is_full(&engine.create(&want_ext4("too large", room + 1)).unwrap_err()));
    engine.create(&want_ext4("a", room)).unwrap();
    assert!(is_full(&engine.create(&want_ext4("b", 1)).unwrap_err()));
    let available = nix::sys::statvfs::statvfs(node.directory()).unwrap();
    assert!(available.blocks_available() * available.fragment_size() >= 99 * MIB);
}

/// The host's own files take the room after the pool was chosen and before the blocks are allocated.
fn a_host_that_fills_up_while_a_volume_is_made_keeps_nothing_of_it(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let taken = node.fs.path().join("taken");
    let (taker, full) = (taken.clone(), Arc::new(AtomicBool::new(true)));
    let fills = full.clone();
    let host = Meddler::new(Arc::new(LinuxHost::default()), move |op| {
        if op == "allocate_backing" && fills.load(Ordering::Relaxed) {
            run("fallocate", &["--length", "300MiB", &taker.display().to_string()]).unwrap();
        }
        None
    });
    let engine = open_on(Arc::new(host), &node.config, &node.boot).unwrap();
    for name in ["a", "a", "b"] {
        assert!(wait(Duration::from_secs(10), || (free(&engine) >= 250 * MIB).then_some(())).is_some());
        let error = engine.create(&want_ext4(name, 250)).unwrap_err();
        assert!(is_full(&error), "{error:?}");
        assert_eq!(node.files().unwrap(), Vec::<String>::new(), "something is left of it");
        assert_eq!(engine.volumes(false), Vec::new());
        std::fs::remove_file(&taken).unwrap();
        // Some filesystems give room back a little later, btrfs with its next commit.
        run("sync", &["-f".as_ref(), node.directory().as_os_str()]).unwrap();
    }
    full.store(false, Ordering::Relaxed);
    let made = wait(Duration::from_secs(10), || engine.create(&want_ext4("a", 250)).ok()).unwrap();
    wipe(&engine, &made.id).unwrap();
}

/// A volume that has its blocks and is not Ready counts twice until it is: what fits beside it is told to ask again, what
/// does not is refused at once.
fn what_would_fit_beside_those_under_way_is_asked_to_wait(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let (reached, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (there, on) = (reached.clone(), go_on.clone());
    let (allocated, once) = (AtomicBool::new(false), AtomicBool::new(true));
    let mut host = Meddler::new(Arc::new(LinuxHost::default()), |_| None);
    host.gate = Some(Box::new(move |op| {
        if op == "allocate_backing" {
            allocated.store(true, Ordering::Relaxed);
        } else if allocated.load(Ordering::Relaxed) && once.swap(false, Ordering::Relaxed) {
            there.wait();
            on.wait();
        }
    }));
    let engine = open_on(Arc::new(host), &node.config, &node.boot).unwrap();
    let room = free(&engine) / MIB;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| engine.create(&want_ext4("a", room / 10 * 6)));
        reached.wait();
        let wait = engine.create(&want_ext4("b", room / 10 * 2));
        let never = engine.create(&want_ext4("c", room));
        go_on.wait();
        let (wait, never) = (wait.unwrap_err(), never.unwrap_err());
        assert!(
            matches!(&wait, CreateError::Crowded { misfits, .. } if matches!(misfits[..], [Misfit::Crowded { .. }])),
            "{wait:?}"
        );
        assert!(wait.to_string().contains("ask again"), "{wait}");
        assert!(is_full(&never), "{never:?}");
        first.join().unwrap().unwrap();
    });
    engine.create(&want_ext4("b", room / 10 * 2)).unwrap();
}

/// A volume whose blocks were taken, whose making failed and whose removal failed stays Reserved, and counts twice for good.
fn what_failed_and_could_not_be_removed_is_waited_for_by_nobody(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let (mut allocated, broken) = (false, Arc::new(AtomicBool::new(true)));
    let breaks = broken.clone();
    let host = Meddler::new(Arc::new(LinuxHost::default()), move |op| {
        allocated |= op == "allocate_backing";
        let fails = breaks.load(Ordering::Relaxed) && allocated && op == "map";
        fails.then(|| HostError::failed("meddle", op.to_owned(), std::io::Error::other("broken")))
    });
    let engine = open_on(Arc::new(host), &node.config, &node.boot).unwrap();
    let room = free(&engine) / MIB;
    let failed = engine.create(&want_ext4("a", room / 10 * 6)).unwrap_err();
    assert!(matches!(failed, CreateError::HostAndCleanup { .. }), "{failed:?}");
    let refused = engine.create(&want_ext4("b", room / 10 * 2)).unwrap_err();
    assert!(is_full(&refused), "{refused:?}");
    broken.store(false, Ordering::Relaxed);
    engine.clean_up_unmade();
    engine.create(&want_ext4("b", room / 10 * 2)).unwrap();
}

/// Fifty requests at once, with room for a part of them; and again once those are wiped.
fn many_at_once_never_get_more_than_there_is(fs: &'static str) {
    let mut node = Node::new(fs, 512).unwrap();
    node.config.pools[0].capacity = Some(Bytes(48 * MIB));
    let engine = node.open().unwrap();
    for round in 0..2 {
        let start = Barrier::new(10);
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..10)
                .map(|t| {
                    let (engine, start) = (&engine, &start);
                    scope.spawn(move || {
                        start.wait();
                        let names = (0..5).map(|n| format!("{round}-{t}-{n}"));
                        names.filter_map(|name| engine.create(&want_ext4(&name, 4)).ok()).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(made.len(), 12);
        assert_eq!(node.files().unwrap().len(), 12);
        assert_eq!(free(&engine), 0);
        let wiping = queue(&engine).unwrap();
        for volume in &made {
            release(&engine, &volume.id).unwrap();
        }
        let done = || engine.volumes(false).is_empty().then_some(());
        assert!(wait(Duration::from_mins(1), done).is_some(), "{:?}", engine.volumes(false));
        drop(wiping);
        assert_eq!(free(&engine), 48 * MIB);
        assert_eq!(node.files().unwrap(), Vec::<String>::new());
    }
    let receipts = node.receipts().unwrap();
    assert_eq!(receipts.len(), 24);
    bedplate_core::receipt::verify_chain(engine.ledger_id(), &receipts).unwrap();
}
