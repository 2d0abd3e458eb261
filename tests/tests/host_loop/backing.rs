//! Backing files: made whole, known again, refused when they are not the recorded ones.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use bedplate_blockdev::{Detached, Host, HostError, LinuxHost, Roots};
use bedplate_tests::loopfs::{HostFs, Recipe, run};
use bedplate_tests::skip::need_root;

use crate::rig::{MIB, NAME, Rig, VOLUME, eventually, refused};

#[test]
fn a_backing_file_is_private_whole_and_made_only_once() {
    if !need_root("a_backing_file_is_private_whole_and_made_only_once") {
        return;
    }
    for host in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::new(host);
        let facts = rig.host.backing(&rig.dir, NAME).unwrap().unwrap();
        assert_eq!((facts.identity, facts.size, facts.links), (rig.identity, VOLUME, 1));
        assert!(facts.allocated >= VOLUME, "{host}: {facts:?}");
        assert_eq!(std::fs::metadata(rig.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let map = rig.map();
        assert_eq!((map.holes(VOLUME), map.unplaced, map.shared, map.encoded), (0, 0, 0, 0), "{host}: {map:?}");
        let again = rig.host.create_backing(&rig.dir, NAME).unwrap_err();
        assert_eq!(again.io().unwrap().kind(), std::io::ErrorKind::AlreadyExists);
        if host == "btrfs" {
            assert!(run("lsattr", &[rig.path()]).unwrap().split(' ').next().unwrap().contains('C'));
        }
        assert_eq!(rig.host.backing(&rig.dir, "none").unwrap(), None);
    }
}

#[test]
fn a_folder_whose_files_go_through_the_host_s_journal_is_refused() {
    if !need_root("a_folder_whose_files_go_through_the_host_s_journal_is_refused") {
        return;
    }
    let mut fs = HostFs::new("ext4", 64 * MIB).unwrap();
    let pool = fs.pool("pool").unwrap();
    // By debugfs: chattr needs a capability that root does not have everywhere. Extents and journalled data.
    fs.unmount().unwrap();
    let disk = fs.disk().display().to_string();
    run("debugfs", &["-w", "-R", "set_inode_field /pool flags 0x84000", &disk]).unwrap();
    fs.mount().unwrap();
    let host = LinuxHost::new(Roots::default());
    let dir = host.open_dir(&pool).unwrap();
    let HostError::Refused(why) = host.create_backing(&dir, "journalled").unwrap_err() else {
        panic!("not refused");
    };
    assert!(why.to_string().contains("chattr -j"), "{why}");
    assert_eq!(host.backing(&dir, "journalled").unwrap(), None);
}

#[test]
fn a_full_filesystem_says_so_and_removing_the_part_gives_its_room_back() {
    if !need_root("a_full_filesystem_says_so_and_removing_the_part_gives_its_room_back") {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::on(Recipe::new(kind, 320 * MIB), 16 * MIB);
        let (host, dir) = (&rig.host, &rig.dir);
        let before = host.pool_facts(dir).unwrap().available;
        let identity = host.create_backing(dir, "big").unwrap();
        let error = host.allocate_backing(dir, "big", &identity, 1 << 30).unwrap_err();
        assert!(error.is_full(), "{kind}: {error:?}");
        host.remove_backing(dir, "big", &identity).unwrap();
        host.sync_dir(dir).unwrap();
        eventually("room is back", || host.pool_facts(dir).unwrap().available + 8 * MIB >= before);
    }
}

#[test]
fn a_replaced_file_is_refused_by_every_step() {
    if !need_root("a_replaced_file_is_refused_by_every_step") {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::new(kind);
        let (host, dir, identity) = (&rig.host, &rig.dir, &rig.identity);
        std::fs::rename(rig.path(), dir.path.join("aside")).unwrap();
        run("truncate", &["-s", "320MiB", rig.path().to_str().unwrap()]).unwrap();
        let before = std::fs::metadata(rig.path()).unwrap().ino();
        for said in [
            refused(rig.open().map(|_| ())),
            refused(host.attach(dir, NAME, identity)),
            refused(host.map(dir, NAME, identity)),
            refused(host.allocate_backing(dir, NAME, identity, VOLUME)),
            refused(host.remove_backing(dir, NAME, identity)),
            refused(host.users(dir, NAME, identity, None)),
            refused(host.attachments(dir, NAME, identity)),
        ] {
            assert!(said.contains("another file"), "{said}");
        }
        assert_eq!(std::fs::metadata(rig.path()).unwrap().ino(), before, "{kind}: it was touched");
        // Gone altogether is no reason to refuse a removal, and every reason to fail anything else.
        std::fs::remove_file(rig.path()).unwrap();
        host.remove_backing(dir, NAME, identity).unwrap();
        assert!(rig.open().is_err());
        // A link to the right file is not the right file.
        std::os::unix::fs::symlink("aside", rig.path()).unwrap();
        assert!(rig.open().is_err());
        assert!(host.remove_backing(dir, NAME, identity).is_err());
        std::fs::remove_file(rig.path()).unwrap();
        std::fs::rename(dir.path.join("aside"), rig.path()).unwrap();
        drop(rig.open().unwrap());
    }
}

#[test]
fn a_file_of_another_mount_laid_over_the_name_is_not_reached() {
    if !need_root("a_file_of_another_mount_laid_over_the_name_is_not_reached") {
        return;
    }
    let rig = Rig::new("ext4");
    let other = rig.dir.path.join("other");
    std::fs::write(&other, b"theirs").unwrap();
    run("mount", &["--bind", other.to_str().unwrap(), rig.path().to_str().unwrap()]).unwrap();
    let results = [rig.open().err(), rig.host.attach(&rig.dir, NAME, &rig.identity).err()];
    run("umount", &[rig.path()]).unwrap();
    assert!(results.iter().all(Option::is_some));
    drop(rig.open().unwrap());
}

#[test]
fn a_truncated_file_is_refused_and_a_hard_link_is_told() {
    if !need_root("a_truncated_file_is_refused_and_a_hard_link_is_told") {
        return;
    }
    let rig = Rig::new("ext4");
    std::fs::hard_link(rig.path(), rig.dir.path.join("second name")).unwrap();
    assert_eq!(rig.host.backing(&rig.dir, NAME).unwrap().unwrap().links, 2);
    rig.host.truncate(&rig.dir, NAME, VOLUME - 4096).unwrap();
    let said = refused(rig.open().map(|_| ()));
    assert!(said.contains(&format!("it is {} bytes long", VOLUME - 4096)), "{said}");
}

#[test]
fn only_one_may_have_the_file_open_even_one_who_only_reads() {
    if !need_root("only_one_may_have_the_file_open_even_one_who_only_reads") {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::new(kind);
        let reader = std::fs::File::open(rig.path()).unwrap();
        assert!(refused(rig.open().map(|_| ())).contains("open"), "{kind}");
        drop(reader);
        let first = rig.open().unwrap();
        assert!(refused(rig.open().map(|_| ())).contains("lock"), "{kind}");
        drop(first);
        let device = rig.attach();
        assert!(refused(rig.open().map(|_| ())).contains("attached"), "{kind}");
        assert_eq!(rig.detach(&device), Detached::Gone);
        drop(rig.open().unwrap());
    }
}

#[test]
fn a_loop_device_comes_and_goes_without_leaving_its_number() {
    if !need_root("a_loop_device_comes_and_goes_without_leaving_its_number") {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::new(kind);
        for _ in 0..5 {
            let device = rig.attach();
            assert!(device.number >= 7000);
            let entry = format!("/sys/block/loop{}", device.number);
            let read = |name: &str| std::fs::read_to_string(format!("{entry}/{name}")).unwrap().trim().to_owned();
            assert_eq!(read("queue/discard_max_bytes"), "0");
            assert_eq!(read("loop/dio"), "1");
            assert_eq!(read("loop/autoclear"), "0");
            let found = rig.host.attachments(&rig.dir, NAME, &rig.identity).unwrap();
            assert_eq!(found.len(), 1);
            assert!(found[0].device == device && found[0].direct_io && found[0].discard_off && !found[0].read_only);
            assert_eq!(rig.detach(&device), Detached::Gone);
            // Another test may take the number at once, for a file of its own.
            let on = std::fs::read_to_string(format!("{entry}/loop/backing_file")).unwrap_or_default();
            assert!(!on.contains(rig.path().to_str().unwrap()), "{on}");
            assert_eq!(rig.detach(&device), Detached::Gone, "a second detach is fine");
        }
    }
}

#[test]
fn a_loop_device_whose_discard_cannot_be_switched_off_is_detached_again() {
    if !need_root("a_loop_device_whose_discard_cannot_be_switched_off_is_detached_again") {
        return;
    }
    // A sysfs that lies: discards stay on, or direct I/O is off, whatever is asked for.
    for (discard, dio, expect) in [("4096", "1", "discards"), ("0", "0", "page cache")] {
        let rig = Rig::new("ext4");
        let lies = tempfile::tempdir().unwrap();
        for number in 7000..7200 {
            let entry = lies.path().join(format!("block/loop{number}"));
            std::fs::create_dir_all(entry.join("queue")).unwrap();
            std::fs::create_dir_all(entry.join("loop")).unwrap();
            std::fs::write(entry.join("dev"), format!("7:{number}")).unwrap();
            std::fs::write(entry.join("loop/dio"), dio).unwrap();
            if discard == "0" {
                std::fs::write(entry.join("queue/discard_max_bytes"), "1").unwrap();
            } else {
                // Writes vanish, reads say 4096: a pipe cannot do that, a read-only bind mount could; a link to a file
                // that cannot be written is the plain case of both.
                std::os::unix::fs::symlink("/dev/full", entry.join("queue/discard_max_bytes")).unwrap();
            }
        }
        let host = LinuxHost::new(Roots { sys: lies.path().to_owned(), ..Roots::default() });
        let dir = host.open_dir(&rig.dir.path).unwrap();
        let error = host.attach(&dir, NAME, &rig.identity).unwrap_err();
        if dio == "0" {
            assert!(matches!(error, HostError::Refused(_)), "{error:?}");
            assert!(error.to_string().contains(expect), "{error}");
        }
        assert_eq!(rig.host.attachments(&rig.dir, NAME, &rig.identity).unwrap(), [], "{error}");
        drop(rig.open().unwrap());
    }
}

#[test]
fn a_device_that_is_on_another_file_is_not_detached() {
    if !need_root("a_device_that_is_on_another_file_is_not_detached") {
        return;
    }
    let (one, two) = (Rig::new("ext4"), Rig::on(Recipe::new("ext4", 64 * MIB), 16 * MIB));
    let device = two.attach();
    let said = refused(one.host.detach(&one.dir, NAME, &one.identity, &device));
    assert!(said.contains("another file"), "{said}");
    assert_eq!(two.host.attachments(&two.dir, NAME, &two.identity).unwrap().len(), 1);
    two.detach(&device);
}
