//! Directories, names, small files, locks.

use bedplate_blockdev::{Host, LinuxHost, Roots};
use bedplate_tests::loopfs::{HostFs, real_dir, run};
use bedplate_tests::skip::need_root;

use crate::rig::{MIB, refused};

#[test]
fn a_name_is_one_component_and_never_leads_elsewhere() {
    let folder = real_dir().unwrap();
    let host = LinuxHost::new(Roots::default());
    let dir = host.open_dir(folder.path()).unwrap();
    for name in ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b"] {
        assert!(refused(host.write(&dir, name, b"x")).contains("plain file name"), "{name:?}");
        refused(host.create_backing(&dir, name));
        refused(host.rename(&dir, "a", name));
        refused(host.read(&dir, name));
        refused(host.lock(&dir, name).map(|_| ()));
    }
    let outside = real_dir().unwrap();
    std::fs::write(outside.path().join("target"), b"theirs").unwrap();
    std::os::unix::fs::symlink(outside.path().join("target"), folder.path().join("link")).unwrap();
    assert!(host.read(&dir, "link").is_err());
    assert!(host.write(&dir, "link", b"x").is_err());
    assert!(host.append(&dir, "link", b"x").is_err());
    assert_eq!(std::fs::read(outside.path().join("target")).unwrap(), b"theirs");
}

#[test]
fn small_files_are_written_appended_cut_and_replaced_with_mode_0600() {
    use std::os::unix::fs::PermissionsExt;
    let folder = real_dir().unwrap();
    let host = LinuxHost::new(Roots::default());
    let dir = host.open_dir(folder.path()).unwrap();
    assert_eq!(host.read(&dir, "none").unwrap(), None);
    host.write(&dir, "a", b"longer").unwrap();
    host.write(&dir, "a", b"one").unwrap();
    host.append(&dir, "a", b"two").unwrap();
    host.append(&dir, "b", b"new").unwrap();
    host.sync_file(&dir, "a").unwrap();
    assert_eq!(host.read(&dir, "a").unwrap().unwrap(), b"onetwo");
    host.truncate(&dir, "a", 4).unwrap();
    host.rename(&dir, "a", "b").unwrap();
    host.sync_dir(&dir).unwrap();
    assert_eq!(host.list(&dir).unwrap(), ["b"]);
    assert_eq!(host.read(&dir, "b").unwrap().unwrap(), b"onet");
    assert_eq!(std::fs::metadata(folder.path().join("b")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_directory_that_is_missing_or_a_file_is_refused_with_the_way_out() {
    let folder = real_dir().unwrap();
    let host = LinuxHost::new(Roots::default());
    assert!(refused(host.open_dir(&folder.path().join("none"))).contains("make it"));
    std::fs::write(folder.path().join("file"), b"").unwrap();
    assert!(refused(host.open_dir(&folder.path().join("file"))).contains("not a directory"));
}

#[test]
fn a_second_lock_is_refused_and_names_the_first_ones_process() {
    let folder = real_dir().unwrap();
    let host = LinuxHost::new(Roots::default());
    let dir = host.open_dir(folder.path()).unwrap();
    let first = host.lock(&dir, "lock").unwrap();
    let other = LinuxHost::new(Roots::default());
    let same = other.open_dir(folder.path()).unwrap();
    let said = refused(other.lock(&same, "lock").map(|_| ()));
    assert!(said.contains(&format!("process {} holds it", std::process::id())), "{said}");
    drop(first);
    other.lock(&same, "lock").unwrap();
}

#[test]
fn the_same_directory_has_one_handle_and_what_is_mounted_over_it_another() {
    if !need_root("the_same_directory_has_one_handle_and_what_is_mounted_over_it_another") {
        return;
    }
    let mut fs = HostFs::new("ext4", 64 * MIB).unwrap();
    let host = LinuxHost::new(Roots::default());
    fs.unmount().unwrap();
    let below = host.open_dir(fs.path()).unwrap();
    assert_eq!(host.open_dir(fs.path()).unwrap().handle, below.handle);
    fs.mount().unwrap();
    assert_ne!(host.open_dir(fs.path()).unwrap().handle, below.handle);
    // The first handle still is the folder beneath, whatever is mounted over it.
    host.write(&below, "beneath", b"x").unwrap();
    assert!(!fs.path().join("beneath").exists());
    drop(host);
    fs.unmount().unwrap();
    assert!(fs.path().join("beneath").exists());
}

#[test]
fn a_pools_facts_are_those_of_the_filesystem_the_folder_stands_on() {
    if !need_root("a_pools_facts_are_those_of_the_filesystem_the_folder_stands_on") {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let fs = HostFs::new(kind, 320 * MIB).unwrap();
        let pool = fs.pool("pool").unwrap();
        let host = LinuxHost::new(Roots::default());
        let dir = host.open_dir(&pool).unwrap();
        let facts = host.pool_facts(&dir).unwrap();
        assert_eq!(facts.fs_type, kind);
        let told = run("blkid", &["-p", "-s", "UUID", "-o", "value", fs.device().to_str().unwrap()]).unwrap();
        assert_eq!(facts.fs_uuid.unwrap().to_string(), told.trim(), "{kind}");
        assert!(!facts.read_only && facts.own_subvolume && facts.overwrites_in_place, "{kind}: {facts:?}");
        assert!(facts.available > 100 * MIB && facts.total > facts.available, "{kind}: {facts:?}");
        let (major, minor) = facts.device.unwrap();
        let name = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap();
        assert_eq!(name.file_name(), fs.device().file_name(), "{kind}");
        if kind == "btrfs" {
            let plain = fs.path().join("plain");
            std::fs::create_dir(&plain).unwrap();
            let facts = host.pool_facts(&host.open_dir(&plain).unwrap()).unwrap();
            assert!(!facts.own_subvolume && !facts.overwrites_in_place);
            run("mount", &["-o", "remount,compress=zstd", fs.path().to_str().unwrap()]).unwrap();
            assert!(!host.pool_facts(&dir).unwrap().overwrites_in_place, "compression is on");
        }
        run("mount", &["-o", "remount,ro", fs.path().to_str().unwrap()]).unwrap();
        assert!(host.pool_facts(&dir).unwrap().read_only, "{kind}");
        drop(host);
    }
    let host = LinuxHost::new(Roots::default());
    let facts = host.pool_facts(&host.open_dir("/dev/shm".as_ref()).unwrap()).unwrap();
    assert_eq!(facts.fs_type, "tmpfs");
}
