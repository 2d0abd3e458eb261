//! The `image` pool on real ext4, xfs and btrfs hosts: a volume's whole life, restarts and reboots in it, and the search
//! of the raw disk beneath after it.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_core::bytes::MIB;
use bedplate_core::filesystem::FsType;
use bedplate_core::volume::Mode;
use bedplate_core::wipe::{Level, Verification, VerifyDemand};
use bedplate_provisioner::engine::{Driven, Stop};
use bedplate_tests::engine::{Node, demanding, drive, mounts_of, phase, release, want, want_ext4, wipe};
use bedplate_tests::loopfs::{Recipe, run};
use bedplate_tests::on_each_host;
use bedplate_tests::skip::need_root;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

on_each_host!(
    what_a_volume_held_is_gone_from_the_raw_disk_after_its_wipe,
    a_restart_in_any_phase_of_the_wipe_goes_on_and_ends_in_one_receipt,
    a_reboot_takes_the_loop_devices_and_nothing_else,
    a_volume_takes_all_its_blocks_when_it_is_made_and_never_gives_one_back,
);

const BLOCKS: usize = 64;

/// Every filesystem that fits in turn: made, used, staged a second time, released, wiped; the raw disk searched before
/// (every marker is there: the search works) and after.
fn what_a_volume_held_is_gone_from_the_raw_disk_after_its_wipe(fs: &'static str) {
    let node = Node::new(fs, 1024).unwrap();
    let engine = node.open().unwrap();
    for (number, (kind, mib)) in (1u32..).zip([(FsType::Ext4, 16), (FsType::Xfs, 300), (FsType::Btrfs, 110)]) {
        let wish = demanding(Level::Clear, want(&format!("{kind}"), mib, Mode::Filesystem(kind)));
        let volume = engine.create(&wish).unwrap();
        node.tenancy(&engine, &volume.id, number, BLOCKS).unwrap();
        // The second staging finds what the first one left: it was not formatted again.
        let mounted = node.mount(&engine, &volume.id).unwrap();
        assert_eq!(
            std::fs::metadata(mounted.path().join(format!("data-{number}"))).unwrap().len(),
            4096 * BLOCKS as u64
        );
        mounted.unmount().unwrap();
        engine.unstage(&volume.id).unwrap();
        assert_eq!(engine.level_now(&volume.id), Some(Level::Clear), "{kind} on {fs}");
        assert_eq!(node.on_disk(number).unwrap(), BLOCKS, "{kind} on {fs}: the search must find what is there");
        wipe(&engine, &volume.id).unwrap();
        assert_eq!(node.on_disk(number).unwrap(), 0, "{kind} on {fs}");
        assert!(node.loops().is_empty());
        let receipts = node.receipts().unwrap();
        let receipt = receipts.last().unwrap();
        assert_eq!((receipt.number, &receipt.volume, receipt.level), (u64::from(number), &volume.id, Level::Clear));
        assert_eq!(receipt.bytes, mib * MIB);
        assert_eq!(receipt.verification.kind, Verification::Full);
        assert!(receipt.verification.bytes >= mib * MIB && receipt.verification.canaries >= 2 * mib);
        assert_eq!(receipt.ranges.covered(), mib * MIB);
        assert!(receipt.level_losses.is_empty());
        assert!(receipt.disk.filesystem_uuid.is_some());
    }
    assert_eq!(node.files().unwrap(), Vec::<String>::new());
    assert_eq!(engine.volumes(false), Vec::new());
}

/// The engine is closed and opened again over and over while it wipes, each time a little later.
fn a_restart_in_any_phase_of_the_wipe_goes_on_and_ends_in_one_receipt(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let mut engine = node.open().unwrap();
    let volume = engine.create(&demanding(Level::Clear, want_ext4("a", 12))).unwrap();
    drop(engine);
    engine = node.open().unwrap();
    node.tenancy(&engine, &volume.id, 1, BLOCKS).unwrap();
    drop(engine);
    engine = node.open().unwrap();
    assert_eq!(phase(&engine, &volume.id), "Ready");
    release(&engine, &volume.id).unwrap();
    let mut phases = BTreeSet::from([phase(&engine, &volume.id)]);
    for life in 1.. {
        assert!(life < 200, "it never ends; seen {phases:?}");
        drop(engine);
        engine = node.open().unwrap();
        // Whatever the phase: not handed out, not made again, not offered.
        assert!(engine.stage(&volume.id, "/nowhere").is_err());
        assert!(engine.create(&want_ext4("a", 12)).is_err());
        assert_eq!(node.files().unwrap().len(), 1);
        let (stop, pieces) = (Stop::default(), AtomicU64::new(0));
        let between = || {
            if pieces.fetch_add(1, Ordering::Relaxed) + 1 >= life {
                stop.set();
            }
        };
        let driven = engine.drive(&volume.id, &stop, &between).unwrap();
        phases.insert(phase(&engine, &volume.id));
        if driven == Driven::Freed {
            break;
        }
        assert_eq!(driven, Driven::Stopped);
    }
    for seen in ["Released", "Wiping", "Freed"] {
        assert!(phases.contains(seen), "{phases:?}");
    }
    assert!(phases.contains("Verifying") || phases.contains("Verified"), "{phases:?}");
    drop(engine);
    let engine = node.open().unwrap();
    assert_eq!(drive(&engine, &volume.id).unwrap(), Driven::Freed);
    let receipts = node.receipts().unwrap();
    assert_eq!(receipts.len(), 1);
    assert!(!receipts[0].resumed_at.is_empty());
    assert_eq!(receipts[0].level, Level::Clear);
    assert_eq!(node.on_disk(1).unwrap(), 0);
    engine.create(&want_ext4("a", 12)).unwrap();
}

/// No loop device, no mount, another boot id: volumes are as they were, the staging of the last boot is void, and a wipe
/// that had begun goes on.
fn a_reboot_takes_the_loop_devices_and_nothing_else(fs: &'static str) {
    let mut node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let kept = engine.create(&want_ext4("kept", 16)).unwrap().id;
    let released = engine.create(&want_ext4("released", 16)).unwrap().id;
    node.tenancy(&engine, &released, 2, BLOCKS).unwrap();
    release(&engine, &released).unwrap();
    let mounted = node.mount(&engine, &kept).unwrap();
    node.oracle.write_file(&mounted.path().join("data"), 1, BLOCKS).unwrap();
    // In the same boot the staging counts, also after a restart.
    drop(engine);
    let engine = node.open().unwrap();
    assert!(engine.stage(&kept, "/another/place").is_err());
    assert_eq!(mounts_of(mounted.device()).len(), 1);
    drop(engine);
    mounted.unmount().unwrap();
    node.reboot().unwrap();
    assert!(node.loops().is_empty());
    let engine = node.open().unwrap();
    assert!(node.loops().is_empty(), "nothing is attached before somebody asks");
    let mounted = node.mount(&engine, &kept).unwrap();
    assert_eq!(std::fs::read(mounted.path().join("data")).unwrap(), node.oracle.block(1).repeat(BLOCKS));
    assert_eq!(drive(&engine, &released).unwrap(), Driven::Freed);
    assert_eq!((node.on_disk(1).unwrap(), node.on_disk(2).unwrap()), (BLOCKS, 0));
    mounted.unmount().unwrap();
    engine.unstage(&kept).unwrap();
    wipe(&engine, &kept).unwrap();
    assert_eq!(node.on_disk(1).unwrap(), 0);
}

/// mkfs, `mount -o discard`, fstrim and a hole punched by the tenant's own tool leave the backing file as it is.
fn a_volume_takes_all_its_blocks_when_it_is_made_and_never_gives_one_back(fs: &'static str) {
    let node = Node::new(fs, 512).unwrap();
    let engine = node.open().unwrap();
    let id = engine.create(&demanding(Level::Clear, want_ext4("a", 32))).unwrap().id;
    let allocated = || std::fs::metadata(node.only_file().unwrap()).unwrap().blocks() * 512;
    let made = allocated();
    assert!(made >= 32 * MIB);
    let mounted = node.mount(&engine, &id).unwrap();
    node.oracle.write_file(&mounted.path().join("data"), 1, 1024).unwrap();
    let target = mounted.path().display().to_string();
    run("mount", &["-o", "remount,discard", &target]).unwrap();
    std::fs::remove_file(mounted.path().join("data")).unwrap();
    run("sync", &["-f", &target]).unwrap();
    // It may say that it is not supported; what counts is the file.
    let _ = run("fstrim", &[&target]);
    mounted.unmount().unwrap();
    let device = engine.device(&id).unwrap().unwrap();
    let _ = run("blkdiscard", &[&device]);
    let _ = run("fallocate", &["--punch-hole", "--length", "1MiB", &device.display().to_string()]);
    assert!(allocated() >= made, "{} bytes of {made} are left", allocated());
    engine.unstage(&id).unwrap();
    assert_eq!(engine.level_now(&id), Some(Level::Clear));
    wipe(&engine, &id).unwrap();
    assert_eq!(node.on_disk(1).unwrap(), 0);
}

/// 4Kn: logical sectors of 4096 bytes beneath the host filesystem (a peer multiplied 512-byte ranges by the sector size).
#[test]
fn a_host_on_a_disk_with_4096_byte_sectors_keeps_every_promise() {
    if !need_root("a_host_on_a_disk_with_4096_byte_sectors_keeps_every_promise") {
        return;
    }
    for fs in ["ext4", "xfs", "btrfs"] {
        let node = Node::on(Recipe { sector: 4096, ..Recipe::new(fs, 1024 * MIB) }).unwrap();
        let engine = node.open().unwrap();
        for (number, (kind, mib)) in (1u32..).zip([(FsType::Ext4, 16), (FsType::Xfs, 300)]) {
            let wish = demanding(Level::Clear, want("a", mib, Mode::Filesystem(kind)));
            let id = engine.create(&wish).unwrap().id;
            node.tenancy(&engine, &id, number, BLOCKS).unwrap();
            assert_eq!(node.on_disk(number).unwrap(), BLOCKS);
            wipe(&engine, &id).unwrap();
            assert_eq!(node.on_disk(number).unwrap(), 0);
        }
        // A raw device, written to its very last sector.
        let id = engine.create(&demanding(Level::Clear, want("raw", 5, Mode::Block))).unwrap().id;
        let device = engine.stage(&id, "/raw").unwrap();
        let written = node.oracle.fill_device(&device.path, 9).unwrap();
        engine.unstage(&id).unwrap();
        assert_eq!(node.on_disk(9).unwrap(), written);
        wipe(&engine, &id).unwrap();
        assert_eq!(node.on_disk(9).unwrap(), 0);
        assert!(node.receipts().unwrap().iter().all(|r| r.level == Level::Clear));
    }
}

/// A class that is content with samples: less is read, the receipt says how much less, and what it says is true.
#[test]
fn a_sampled_verification_says_what_it_leaves_open_and_progress_is_seen_on_the_way() {
    if !need_root("a_sampled_verification_says_what_it_leaves_open_and_progress_is_seen_on_the_way") {
        return;
    }
    let node = Node::new("ext4", 512).unwrap();
    let engine = node.open().unwrap();
    let mut wish = demanding(Level::Clear, want("sampled", 256, Mode::Block));
    wish.class.verify = VerifyDemand::Sample;
    let id = engine.create(&wish).unwrap().id;
    let device = engine.stage(&id, "/raw").unwrap();
    let written = node.oracle.fill_device(&device.path, 1).unwrap();
    engine.unstage(&id).unwrap();
    assert_eq!(node.on_disk(1).unwrap(), written);
    release(&engine, &id).unwrap();
    let seen = Mutex::new(BTreeSet::new());
    let between = || {
        if let Some(progress) = engine.volume(&id).and_then(|v| v.progress) {
            assert!(progress.done <= progress.total, "{progress:?}");
            seen.lock().unwrap().insert(format!("{:?}", progress.stage));
        }
    };
    assert_eq!(engine.drive(&id, &Stop::default(), &between).unwrap(), Driven::Freed);
    assert_eq!(seen.into_inner().unwrap().into_iter().collect::<Vec<_>>(), ["Canaries", "Verifying", "Wiping"]);
    assert_eq!(engine.volume(&id).unwrap().progress, None);
    let receipt = node.receipts().unwrap().pop().unwrap();
    assert!(matches!(receipt.verification.kind, Verification::Sample { samples } if samples > 0));
    assert!(
        receipt.verification.bytes < receipt.bytes && receipt.verification.bound_ppm > 0,
        "{:?}",
        receipt.verification
    );
    assert_eq!((receipt.level, node.on_disk(1).unwrap()), (Level::Clear, 0));
}
