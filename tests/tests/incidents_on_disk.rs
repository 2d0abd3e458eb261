//! What went wrong elsewhere and must not happen here, on real loop devices: each test is named after the lesson of an
//! incident that is known in public, and cites it.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_core::bytes::MIB;
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::Mode;
use bedplate_provisioner::engine::{Driven, Engine, ServeError};
use bedplate_tests::engine::{
    Node, drive, mounts_of, open, phase, queue, release, settings, wait, want, want_ext4, wipe,
};
use bedplate_tests::loopfs::{HostFs, TestLoop, real_dir};
use bedplate_tests::skip::need_root;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::Duration;

const BLOCKS: usize = 64;

/// A volume with a file of markers in it, at rest.
fn filled(node: &Node, engine: &Engine, number: u32) -> VolumeId {
    let id = engine.create(&want_ext4(&format!("volume {number}"), 16)).unwrap().id;
    node.tenancy(engine, &id, number, BLOCKS).unwrap();
    id
}

/// topolvm/topolvm#1150: a new raw block volume showed its reader the bytes of the one before.
#[test]
fn old_data_never_reaches_the_next_raw_block_volume() {
    if !need_root("old_data_never_reaches_the_next_raw_block_volume") {
        return;
    }
    for fs in ["ext4", "xfs", "btrfs"] {
        let node = Node::new(fs, 320).unwrap();
        let engine = node.open().unwrap();
        for round in 1..4 {
            // As large as the pool allows, so that the next one must lie where the last one lay.
            let mut room = engine.pools()[0].free / MIB;
            assert!(room > 150, "{fs}, round {round}: only {room} MiB are free, the last volume's were not given back");
            // The filesystem's own blocks are not counted: a little less, until it fits.
            let id = loop {
                match engine.create(&want("raw", room, Mode::Block)) {
                    Ok(made) => break made.id,
                    Err(_) => room -= 4,
                }
            };
            let device = engine.stage(&id, "/raw").unwrap();
            let mut content = Vec::new();
            File::open(&device.path).unwrap().read_to_end(&mut content).unwrap();
            assert!(content.iter().all(|b| *b == 0), "{fs}, round {round}: not empty");
            let written = node.oracle.fill_device(&device.path, round).unwrap();
            engine.unstage(&id).unwrap();
            assert_eq!(node.on_disk(round).unwrap(), written);
            wipe(&engine, &id).unwrap();
            assert_eq!(node.on_disk(round).unwrap(), 0);
        }
    }
}

/// hetznercloud/csi-driver#1346 and its kin, seen from the other side: bytes that no tool recognises are not "blank".
#[test]
fn a_new_volume_that_is_not_blank_is_not_formatted() {
    if !need_root("a_new_volume_that_is_not_blank_is_not_formatted") {
        return;
    }
    let node = Node::new("ext4", 320).unwrap();
    let engine = node.open().unwrap();
    let id = engine.create(&want_ext4("a", 16)).unwrap().id;
    // Somebody restored a backup into the file before its first use. No signature in it, just data.
    let file = File::options().write(true).open(node.only_file().unwrap()).unwrap();
    file.write_all_at(&node.oracle.block(1).repeat(BLOCKS), 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    for _ in 0..2 {
        let error = engine.stage(&id, "/nowhere").unwrap_err();
        assert!(matches!(error, ServeError::NotBlank { .. }), "{error:?}");
        assert!(error.to_string().contains("nothing is formatted over it"));
        assert!(node.loops().is_empty());
    }
    assert_eq!(node.on_disk(1).unwrap(), BLOCKS);
    // The way out that it names.
    wipe(&engine, &id).unwrap();
    assert_eq!(node.on_disk(1).unwrap(), 0);
}

/// hwameistor: after a volume's end the *stored device path* was wiped, whatever disk had that name by then;
/// kubernetes#51431: a node of the same name with other disks.
#[test]
fn a_wrong_disk_under_the_old_name_is_not_wiped() {
    if !need_root("a_wrong_disk_under_the_old_name_is_not_wiped") {
        return;
    }
    let mut node = Node::new("ext4", 320).unwrap();
    let engine = node.open().unwrap();
    let id = filled(&node, &engine, 1);
    release(&engine, &id).unwrap();
    let file = node.files().unwrap().remove(0);
    drop(engine);
    node.fs.unmount().unwrap();
    // Another disk at the same mount point, with a file of the same name, size and path in a pool of the same name.
    let other = HostFs::new("ext4", 320 * MIB).unwrap();
    let pool = other.pool("pool").unwrap();
    drop(open(&settings(&node.place().join("other-state"), &pool).unwrap(), &node.boot).unwrap());
    node.oracle.write_file(&pool.join(&file), 2, (16 * MIB / 4096) as usize).unwrap();
    let device = other.device().display().to_string();
    bedplate_tests::loopfs::run("mount", &[device.as_str(), &node.fs.path().display().to_string()]).unwrap();
    let engine = node.open().unwrap();
    let driven = drive(&engine, &id).unwrap();
    drop(engine);
    bedplate_tests::loopfs::run("umount", &[node.fs.path()]).unwrap();
    assert!(matches!(driven, Driven::Debt { .. }), "{driven:?}");
    assert_eq!(node.oracle.search(&other.disk()).unwrap().get(&2), Some(&((16 * MIB / 4096) as usize)));
    node.fs.mount().unwrap();
    let engine = node.open().unwrap();
    assert_eq!(drive(&engine, &id).unwrap(), Driven::Freed);
    assert_eq!(node.on_disk(1).unwrap(), 0);
}

/// hwameistor#982, #993: names changed after a reboot. Here other people's loop devices take the numbers.
#[test]
fn a_device_that_comes_back_under_another_name_is_the_same_volume() {
    if !need_root("a_device_that_comes_back_under_another_name_is_the_same_volume") {
        return;
    }
    let mut node = Node::new("ext4", 320).unwrap();
    let engine = node.open().unwrap();
    let (a, b) = (filled(&node, &engine, 1), filled(&node, &engine, 2));
    let first = engine.stage(&a, "/a").unwrap();
    drop(engine);
    node.reboot().unwrap();
    // This time b comes first, so a gets another number.
    let engine = node.open().unwrap();
    let in_b = node.mount(&engine, &b).unwrap();
    let in_a = node.mount(&engine, &a).unwrap();
    assert!(in_a.path().join("data-1").exists() && in_b.path().join("data-2").exists());
    assert!(in_a.device() != in_b.device());
    println!("{} was {}", in_a.device().display(), first.path.display());
    for mounted in [in_a, in_b] {
        mounted.unmount().unwrap();
    }
    engine.unstage(&a).unwrap();
    wipe_staged(&engine, &b);
    assert_eq!((node.on_disk(1).unwrap(), node.on_disk(2).unwrap()), (BLOCKS, 0));
}

fn wipe_staged(engine: &Engine, id: &VolumeId) {
    engine.unstage(id).unwrap();
    wipe(engine, id).unwrap();
}

/// topolvm#607: after an upgrade the driver tried to remove live volumes, and only their mounts held it back;
/// openebs/lvm-localpv#191: volumes came back empty. An engine that ends and one that starts touch nothing that is in use.
#[test]
fn volumes_in_use_do_not_notice_that_the_agent_comes_and_goes() {
    if !need_root("volumes_in_use_do_not_notice_that_the_agent_comes_and_goes") {
        return;
    }
    let node = Node::new("ext4", 320).unwrap();
    let mut engine = node.open().unwrap();
    let id = engine.create(&want_ext4("a", 16)).unwrap().id;
    let mounted = node.mount(&engine, &id).unwrap();
    for round in 0..5 {
        drop(engine);
        // Nobody serves, the tenant writes on.
        node.oracle.write_file(&mounted.path().join(format!("{round}")), round, 8).unwrap();
        engine = node.open().unwrap();
        let wiping = queue(&engine).unwrap();
        assert_eq!(phase(&engine, &id), "Ready");
        assert_eq!(mounts_of(mounted.device()).len(), 1);
        drop(wiping);
    }
    for round in 0..5 {
        let content = std::fs::read(mounted.path().join(format!("{round}"))).unwrap();
        assert!(content == node.oracle.block(round).repeat(8));
    }
    mounted.unmount().unwrap();
    wipe_staged(&engine, &id);
}

/// kubernetes#51431, static-provisioner#201: a node that was made anew under its old name. Its ledger is gone with its
/// root disk, the data disk is still there.
#[test]
fn a_node_of_the_same_name_inherits_no_volume() {
    if !need_root("a_node_of_the_same_name_inherits_no_volume") {
        return;
    }
    let node = Node::new("xfs", 320).unwrap();
    let engine = node.open().unwrap();
    let (old, id) = (engine.ledger_id(), filled(&node, &engine, 1));
    drop(engine);
    let state = real_dir().unwrap();
    let anew = open(&settings(&state.path().join("state"), node.directory()).unwrap(), &node.boot).unwrap();
    assert_ne!(anew.ledger_id(), old);
    assert!(matches!(anew.stage(&id, "/nowhere").unwrap_err(), ServeError::Unknown { .. }));
    assert_eq!(drive(&anew, &id).unwrap(), Driven::Nothing);
    assert_eq!(anew.pools()[0].found.len(), 1);
    assert_eq!(anew.pools()[0].withheld, 16 * MIB);
    let new = filled(&node, &anew, 2);
    wipe(&anew, &new).unwrap();
    assert_eq!((node.on_disk(1).unwrap(), node.on_disk(2).unwrap()), (BLOCKS, 0));
}

/// rancher/local-path-provisioner#438, #452; openebs/dynamic-localpv#181: many deletions at once, or large ones, never ended.
#[test]
fn fifty_volumes_deleted_at_once_are_all_wiped() {
    if !need_root("fifty_volumes_deleted_at_once_are_all_wiped") {
        return;
    }
    let node = Node::new("ext4", 320).unwrap();
    let engine = node.open().unwrap();
    let ids: Vec<VolumeId> = (0..50)
        .map(|n| {
            let id = engine.create(&want(&format!("{n}"), 1, Mode::Block)).unwrap().id;
            let device = engine.stage(&id, "/raw").unwrap();
            node.oracle.fill_device(&device.path, n).unwrap();
            engine.unstage(&id).unwrap();
            id
        })
        .collect();
    assert_eq!(node.oracle.search(&node.fs.disk()).unwrap().len(), 50);
    let wiping = queue(&engine).unwrap();
    std::thread::scope(|scope| {
        for part in ids.chunks(10) {
            let engine = &engine;
            scope.spawn(move || {
                for id in part {
                    // Whoever asks twice is answered the same.
                    release(engine, id).unwrap();
                    release(engine, id).unwrap();
                }
            });
        }
    });
    let done = || engine.volumes(false).is_empty().then_some(());
    assert!(wait(Duration::from_mins(1), done).is_some(), "{:?}", engine.volumes(false));
    drop(wiping);
    assert!(node.oracle.search(&node.fs.disk()).unwrap().is_empty());
    let receipts = node.receipts().unwrap();
    assert_eq!(receipts.len(), 50);
    bedplate_core::receipt::verify_chain(engine.ledger_id(), &receipts).unwrap();
}

/// openshift/local-storage-operator PRs 235, 618 and others: devices claimed by somebody else in the meantime. A loop device
/// that stands on the volume's file but is not ours is neither taken over nor torn down under its user.
#[test]
fn a_loop_device_that_somebody_else_put_on_the_file_is_not_served() {
    if !need_root("a_loop_device_that_somebody_else_put_on_the_file_is_not_served") {
        return;
    }
    let node = Node::new("ext4", 320).unwrap();
    let engine = node.open().unwrap();
    let id = filled(&node, &engine, 1);
    // With discard, as losetup makes it: nothing may be served through it.
    let theirs = TestLoop::attach(&node.only_file().unwrap(), 4096).unwrap();
    let held = File::open(theirs.path()).unwrap();
    let error = engine.stage(&id, "/nowhere").unwrap_err();
    assert!(matches!(error, ServeError::InUse { .. }), "{error:?}");
    assert_eq!(node.loops(), vec![theirs.path().to_owned()]);
    drop(held);
    drop(theirs);
    assert!(wait(Duration::from_secs(5), || node.loops().is_empty().then_some(())).is_some());
    node.tenancy(&engine, &id, 2, BLOCKS).unwrap();
    wipe(&engine, &id).unwrap();
}
