//! What went wrong elsewhere and must not happen here: each test is named after the lesson of an incident that is known
//! in public, and cites it. These run on the scripted machine; `incidents_on_disk.rs` has those that a real one can show.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_blockdev::fake::{DeviceFault, FakeHost, Script};
use bedplate_core::class::Class;
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::StuckReason;
use bedplate_provisioner::engine::{CreateError, Driven, Engine, ReleaseError, ServeError, Stop};
use bedplate_tests::engine::{drive, phase, release, want_ext4, wipe};
use bedplate_tests::meddle::Meddler;
use bedplate_tests::scripted::{DIRECTORY, STATE, files, machine, open, open_through, tenancy};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const SECRET: &[u8] = b"what the last tenant must not leave behind";
/// Past every superblock that the scripted `mkfs` writes.
const AT: u64 = 512 * 1024;

/// A formatted volume with a secret in it, at rest.
fn inhabited(host: &FakeHost, engine: &Engine, name: &str) -> VolumeId {
    let id = engine.create(&want_ext4(name, 1)).unwrap().id;
    tenancy(host, engine, &id, AT, SECRET).unwrap();
    id
}

fn secrets(host: &FakeHost) -> usize {
    host.find(SECRET).len()
}

/// metal-stack/csi-driver-lvm#140: the probe moved to a tool that answered nothing, nothing was read as "blank", and every
/// mount formatted the volume.
#[test]
fn a_blank_answer_of_the_probe_is_no_licence_to_format() {
    let host = machine();
    let id = inhabited(&host, &open(&host).unwrap(), "a");
    let mut blind = Meddler::new(Arc::new(host.clone()), |_| None);
    blind.blind = true;
    let engine = open_through(Arc::new(blind)).unwrap();
    for _ in 0..3 {
        let device = engine.stage(&id, "/mnt").unwrap();
        assert_eq!(&host.tenant_read(device.number, AT, 4096).unwrap()[..SECRET.len()], SECRET);
        engine.unstage(&id).unwrap();
    }
    assert_eq!(host.mkfs_runs().len(), 1);
}

/// hetznercloud/csi-driver#1346, NetApp/trident#418, ydb nbs#7207: an exit code or empty output of `blkid` read as "blank".
#[test]
fn a_probe_that_failed_has_not_said_blank() {
    let host = machine();
    let engine = open(&host).unwrap();
    let id = engine.create(&want_ext4("a", 1)).unwrap().id;
    host.set_script(Script::new().fail_op("signature", 0, 3, Errno::EIO));
    for _ in 0..3 {
        let error = engine.stage(&id, "/mnt").unwrap_err();
        assert!(matches!(error, ServeError::Host { .. }), "{error:?}");
        assert!(host.mkfs_runs().is_empty());
        assert!(host.loops().is_empty(), "{:?}", host.loops());
    }
    engine.stage(&id, "/mnt").unwrap();
    assert_eq!(host.mkfs_runs().len(), 1);
}

/// Azure/local-csi-driver#584 (review): a device node that came 200 ms late after a reboot made a live volume "corrupt",
/// and so it was quarantined and zeroed.
#[test]
fn a_late_device_node_is_not_a_corrupt_volume() {
    let host = machine();
    let engine = open(&host).unwrap();
    let id = inhabited(&host, &engine, "a");
    for errno in [Errno::ENOENT, Errno::ENXIO, Errno::ETIMEDOUT] {
        host.set_script(Script::new().fail_op("attach", 0, 1, errno));
        assert!(matches!(engine.stage(&id, "/mnt").unwrap_err(), ServeError::Host { .. }));
        assert_eq!((phase(&engine, &id).as_str(), secrets(&host)), ("Ready", 1));
    }
    let device = engine.stage(&id, "/mnt").unwrap();
    assert_eq!(&host.tenant_read(device.number, AT, 4096).unwrap()[..SECRET.len()], SECRET);
    assert_eq!(host.mkfs_runs().len(), 1);
}

/// openebs/lvm-localpv (device path missing: "deleted"), metal-stack (any error of `lvs`: "absent, so deleted"),
/// dell/csi-baremetal (drive missing: "removed" without a wipe, and its data came back with the drive).
#[test]
fn an_absent_device_is_not_an_absent_volume() {
    let host = machine();
    let engine = open(&host).unwrap();
    let (live, owed) = (inhabited(&host, &engine, "live"), inhabited(&host, &engine, "owed"));
    release(&engine, &owed).unwrap();
    drop(engine);
    host.host_unmount(Path::new(DIRECTORY));
    let host = host.after_kill();
    let engine = open(&host).unwrap();
    assert_eq!(engine.volumes(false).len(), 2);
    let error = release(&engine, &live).unwrap_err().downcast::<ReleaseError>().unwrap();
    assert!(matches!(error, ReleaseError::PoolAbsent { .. }), "{error:?}");
    assert!(matches!(drive(&engine, &owed).unwrap(), Driven::Debt { .. }));
    assert_eq!(engine.receipts_given(), 0);
    drop(engine);
    host.host_mount(Path::new(DIRECTORY));
    let host = host.after_kill();
    let engine = open(&host).unwrap();
    assert_eq!(secrets(&host), 2);
    assert_eq!(drive(&engine, &owed).unwrap(), Driven::Freed);
    assert_eq!(secrets(&host), 1);
}

/// kubernetes-sigs/sig-storage-local-static-provisioner#174: the "Succeeded" of an earlier cleaning was taken for that of a
/// new one, and the volume was offered uncleaned.
#[test]
fn a_stale_success_is_not_reused_for_a_new_deletion() {
    let host = machine();
    let engine = open(&host).unwrap();
    let first = inhabited(&host, &engine, "same name");
    wipe(&engine, &first).unwrap();
    let second = inhabited(&host, &engine, "same name");
    assert_ne!(first, second);
    // The old one's end is repeated as often as anybody likes: it says nothing about the new one.
    for _ in 0..3 {
        release(&engine, &first).unwrap();
        assert_eq!(drive(&engine, &first).unwrap(), Driven::Freed);
        assert_eq!((phase(&engine, &second).as_str(), secrets(&host), engine.receipts_given()), ("Ready", 1, 1));
    }
    release(&engine, &second).unwrap();
    host.set_script(Script::new().fail_op("device.write_at", 0, 1, Errno::EIO));
    assert!(matches!(drive(&engine, &second).unwrap(), Driven::Stuck { .. }));
    assert_eq!((secrets(&host), engine.receipts_given()), (1, 1));
    engine.retry(&second, "a person").unwrap();
    assert_eq!(drive(&engine, &second).unwrap(), Driven::Freed);
    assert_eq!((secrets(&host), engine.receipts_given()), (0, 2));
}

/// static-provisioner#465: a deletion in the middle of the cleaning made the volume vanish, half cleaned.
#[test]
fn a_second_deletion_in_the_middle_of_a_wipe_changes_nothing() {
    let host = machine();
    let engine = open(&host).unwrap();
    let id = inhabited(&host, &engine, "a");
    release(&engine, &id).unwrap();
    let steps = AtomicU32::new(0);
    let between = || {
        release(&engine, &id).unwrap();
        assert!(matches!(engine.create(&want_ext4("a", 1)).unwrap_err(), CreateError::BeingDeleted { .. }));
        assert!(engine.stage(&id, "/mnt").is_err());
        assert!(engine.forget(&id, "somebody in a hurry").is_err(), "forgotten in the middle of a step");
        assert_eq!(files(&host).len(), 1);
        steps.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(engine.drive(&id, &Stop::default(), &between).unwrap(), Driven::Freed);
    assert!(steps.into_inner() > 4);
    assert_eq!((secrets(&host), engine.receipts_given()), (0, 1));
}

/// In memory everywhere else (static-provisioner's table, deckhouse's agent): a restart began at byte 0, or offered.
#[test]
fn a_restart_mid_wipe_resumes_and_never_starts_offering() {
    let host = machine();
    let engine = open(&host).unwrap();
    let id = inhabited(&host, &engine, "a");
    let room = engine.room(&Class::default()).0;
    release(&engine, &id).unwrap();
    let stop = Stop::default();
    let pieces = AtomicU32::new(0);
    let between = || {
        if pieces.fetch_add(1, Ordering::Relaxed) == 6 {
            stop.set();
        }
    };
    assert_eq!(engine.drive(&id, &stop, &between).unwrap(), Driven::Stopped);
    assert_eq!(phase(&engine, &id), "Wiping");
    drop(engine);
    let host = host.after_kill();
    let engine = open(&host).unwrap();
    assert!(engine.room(&Class::default()).0 <= room, "space in the middle of its wipe is offered");
    assert_eq!(engine.pending(), vec![id.clone()]);
    assert_eq!(drive(&engine, &id).unwrap(), Driven::Freed);
    let receipts = host.content(Path::new(STATE), "receipts.log").unwrap();
    let receipt = bedplate_provisioner::receipts::parse(&receipts).unwrap().0.pop().unwrap();
    assert!(!receipt.resumed_at.is_empty());
    assert_eq!(secrets(&host), 0);
}

/// carina-io/carina (orphan sweep): an error while reading the owner counted as "no owner", and an emptied list as "delete
/// everything".
#[test]
fn errors_while_listing_never_mean_nothing_there() {
    let host = machine();
    let engine = open(&host).unwrap();
    let id = inhabited(&host, &engine, "a");
    drop(engine);
    for op in ["list", "read", "backing", "pool_facts"] {
        for skip in 0..4 {
            let host = host.after_kill();
            host.set_script(Script::new().fail_op(op, skip, 1, Errno::EIO));
            // It opens or it does not: in neither case is anything gone, new or written over.
            if let Ok(engine) = open(&host) {
                assert_eq!(phase(&engine, &id), "Ready", "{op} {skip}");
            }
            assert_eq!((files(&host).len(), secrets(&host)), (1, 1), "{op} {skip}");
        }
    }
    let engine = open(&host.after_kill()).unwrap();
    assert_eq!(phase(&engine, &id), "Ready");
}

/// The same sweep, and an API restored from a backup: a ledger that begins anew owns nothing of what it finds.
#[test]
fn a_new_ledger_beside_old_volumes_withholds_and_never_sweeps() {
    let host = machine();
    let engine = open(&host).unwrap();
    inhabited(&host, &engine, "a");
    drop(engine);
    for name in ["ledger.log", "ledger.witness.0", "ledger.witness.1"] {
        host.host_remove(Path::new(STATE), name);
    }
    let host = host.after_kill();
    let engine = open(&host).unwrap();
    assert!(engine.volumes(true).is_empty());
    let pool = &engine.pools()[0];
    assert_eq!((pool.found.len(), pool.withheld), (1, 1 << 20));
    // The same name is another volume now, in other space.
    let again = engine.create(&want_ext4("a", 1)).unwrap().id;
    tenancy(&host, &engine, &again, AT, b"another tenant").unwrap();
    assert_eq!((files(&host).len(), secrets(&host)), (2, 1));
}

/// openshift/local-storage-operator#320, #371: volumes flagged clean too early; and every driver that trusts a discard. Here
/// the disk acknowledges and drops what is written.
#[test]
fn a_disk_that_only_pretends_is_found_out_and_nothing_is_offered() {
    let whole = 0..12 << 20;
    for fault in [DeviceFault::DropWrites(whole.clone()), DeviceFault::ForgetOnFlush(whole)] {
        let host = machine();
        let engine = open(&host).unwrap();
        let id = inhabited(&host, &engine, "a");
        release(&engine, &id).unwrap();
        // Only the volume's own blocks: the journal must work for the test to tell anything.
        let map = host.extents(Path::new(DIRECTORY), &files(&host)[0]).unwrap();
        for extent in &map.extents {
            let range = extent.physical..extent.physical + extent.length;
            host.afflict(match fault {
                DeviceFault::DropWrites(_) => DeviceFault::DropWrites(range),
                _ => DeviceFault::ForgetOnFlush(range),
            });
        }
        let driven = drive(&engine, &id).unwrap();
        let Driven::Stuck { reason: StuckReason::CanaryNotStored { .. } } = driven else { panic!("{driven:?}") };
        assert_eq!((engine.receipts_given(), files(&host).len(), secrets(&host)), (0, 1, 1));
        host.heal();
        engine.retry(&id, "the disk was replaced").unwrap();
        assert_eq!(drive(&engine, &id).unwrap(), Driven::Freed);
        assert_eq!(secrets(&host), 0);
    }
}

/// static-provisioner PR 126: giving up a volume on a broken disk was refused, the fault may pass; deckhouse: a failed wipe
/// was not tried again until the agent restarted. Here a person says "again", and until then nothing moves.
#[test]
fn a_wipe_that_failed_waits_for_a_person_and_survives_restarts() {
    let mut host = machine();
    let mut engine = open(&host).unwrap();
    let id = inhabited(&host, &engine, "a");
    release(&engine, &id).unwrap();
    host.set_script(Script::new().fail_op("device.zero", 1, 1, Errno::EIO));
    assert!(matches!(drive(&engine, &id).unwrap(), Driven::Stuck { reason: StuckReason::IoError { .. } }));
    for _ in 0..3 {
        drop(engine);
        host = host.after_kill();
        engine = open(&host).unwrap();
        assert_eq!(phase(&engine, &id), "Stuck");
        assert!(engine.pending().is_empty());
        assert!(matches!(drive(&engine, &id).unwrap(), Driven::Stuck { .. }));
        assert_eq!(files(&host).len(), 1);
    }
    engine.retry(&id, "a person").unwrap();
    assert_eq!(drive(&engine, &id).unwrap(), Driven::Freed);
}

/// dell/csi-baremetal: a volume given up with its drive came back with it, data and all. Forgotten here means withheld.
#[test]
fn what_was_forgotten_is_never_offered_again() {
    let host = machine();
    let engine = open(&host).unwrap();
    let id = inhabited(&host, &engine, "a");
    let room = engine.room(&Class::default()).0;
    release(&engine, &id).unwrap();
    drop(engine);
    host.host_unmount(Path::new(DIRECTORY));
    let host = host.after_kill();
    let engine = open(&host).unwrap();
    engine.forget(&id, "a person").unwrap();
    drop(engine);
    host.host_mount(Path::new(DIRECTORY));
    let host = host.after_kill();
    let engine = open(&host).unwrap();
    assert_eq!(phase(&engine, &id), "Forgotten");
    assert_eq!(drive(&engine, &id).unwrap(), Driven::Nothing);
    assert!(engine.stage(&id, "/mnt").is_err());
    assert_eq!((engine.room(&Class::default()).0, files(&host).len(), engine.receipts_given()), (room, 1, 0));
}

/// rancher/local-path-provisioner CVE-2025-62878, CVE-2026-3864 (NFS), CVE-2026-3865 (SMB), csi-driver-host-path#644: a path
/// inside an id or a parameter.
#[test]
fn an_id_with_a_path_in_it_is_refused() {
    let host = machine();
    let engine = open(&host).unwrap();
    inhabited(&host, &engine, "a");
    for text in ["../state/ledger.log", "a/b", "..", ".", "", "a\n", "a\0b", "/etc/passwd", "vol-..", "a\u{202e}b"] {
        assert!(text.parse::<VolumeId>().is_err(), "{text:?}");
        assert!(engine.adopt(&"local".parse().unwrap(), text, "a person").is_err(), "{text:?}");
        let parameters = BTreeMap::from([("bedplate.dev/pool".to_owned(), text.to_owned())]);
        assert!(Class::parse(&parameters).is_err(), "{text:?}");
    }
    assert_eq!(files(&host).len(), 1);
    // A name is a label, never a path: whatever it holds, the file's name is drawn.
    let odd = engine.create(&want_ext4("../../etc/passwd\n", 1)).unwrap();
    assert!(
        files(&host).iter().all(|f| f.starts_with("vol-") && f.len() == "vol-.img".len() + 32),
        "{:?}",
        files(&host)
    );
    wipe(&engine, &odd.id).unwrap();
}

/// local-path CVE-2026-44543: text of a user became a command of a privileged helper.
#[test]
fn options_that_could_run_or_reach_something_are_refused() {
    for value in
        ["-b 4096; reboot", "-L $(id)", "-L `id`", "-d file=1,name=/etc/shadow", "-U 0", "/dev/vda", "-E discard"]
    {
        let parameters = BTreeMap::from([("bedplate.dev/mkfs-options".to_owned(), value.to_owned())]);
        let error = Class::parse(&parameters).unwrap_err().to_string();
        assert!(error.contains("bedplate.dev/mkfs-options"), "{value:?}: {error}");
    }
}
