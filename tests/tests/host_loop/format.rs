//! mkfs: only on what is blank, or on its own remains.

use bedplate_blockdev::{Host, HostError, Mkfs};
use bedplate_core::filesystem::FsType;
use bedplate_tests::loopfs::run;
use bedplate_tests::skip::need_root;
use uuid::Uuid;

use crate::rig::{MIB, Rig, marker, plant};

fn mkfs(fs_type: FsType, uuid: Uuid, repeat: bool) -> Mkfs {
    Mkfs { fs_type, uuid, options: Vec::new(), repeat }
}

#[test]
fn a_blank_device_gets_its_filesystem_with_the_recorded_uuid() {
    if !need_root("a_blank_device_gets_its_filesystem_with_the_recorded_uuid") {
        return;
    }
    for fs in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
        let rig = Rig::new("ext4");
        let device = rig.attach();
        assert_eq!(rig.host.signature(&device).unwrap(), None, "a fresh file is blank");
        let uuid = Uuid::new_v4();
        rig.host.mkfs(&device, &mkfs(fs, uuid, false)).unwrap();
        let found = rig.host.signature(&device).unwrap().unwrap();
        assert!(found.contains(fs.name()), "{found}");
        let path = device.path.to_str().unwrap();
        let told = run("blkid", &["-p", "-o", "value", "-s", "UUID", path]).unwrap();
        assert_eq!(told.trim(), uuid.to_string());
        rig.detach(&device);
    }
}

#[test]
fn what_carries_anything_is_never_formatted_but_by_a_repetition_of_the_same_mkfs() {
    if !need_root("what_carries_anything_is_never_formatted_but_by_a_repetition_of_the_same_mkfs") {
        return;
    }
    for fs in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
        let rig = Rig::new("ext4");
        let device = rig.attach();
        let uuid = Uuid::new_v4();
        rig.host.mkfs(&device, &mkfs(fs, uuid, false)).unwrap();
        for again in [mkfs(fs, uuid, false), mkfs(fs, Uuid::new_v4(), true), mkfs(fs, Uuid::new_v4(), false)] {
            let error = rig.host.mkfs(&device, &again).unwrap_err();
            assert!(matches!(error, HostError::Refused(_)), "{error:?}");
            assert!(error.to_string().contains(fs.name()), "{error}");
        }
        rig.host.mkfs(&device, &mkfs(fs, uuid, true)).unwrap();
        rig.detach(&device);
    }
    // Unknown data in the middle is data.
    let rig = Rig::new("ext4");
    let device = rig.attach();
    plant(&device.path, &marker("x"), &[300 * MIB / 4096 * 4096, 512 * 1024]);
    let found = rig.host.signature(&device).unwrap().unwrap();
    assert!(found.contains("unrecognised data"), "{found}");
    assert!(rig.host.mkfs(&device, &mkfs(FsType::Ext4, Uuid::new_v4(), false)).is_err());
    // What a killed mkfs left may look like anything: the recorded licence covers it.
    rig.host.mkfs(&device, &mkfs(FsType::Xfs, Uuid::new_v4(), true)).unwrap();
    rig.detach(&device);
}

#[test]
fn a_missing_tool_is_named_with_its_package_and_a_failing_one_is_quoted() {
    if !need_root("a_missing_tool_is_named_with_its_package_and_a_failing_one_is_quoted") {
        return;
    }
    let rig = Rig::on(bedplate_tests::loopfs::Recipe::new("ext4", 64 * MIB), 16 * MIB);
    let device = rig.attach();
    if !std::path::Path::new("/usr/sbin/mkfs.f2fs").exists() {
        let error = rig.host.mkfs(&device, &mkfs(FsType::F2fs, Uuid::new_v4(), false)).unwrap_err();
        assert!(error.to_string().contains("install f2fs-tools"), "{error}");
    }
    let error = rig.host.mkfs(&device, &mkfs(FsType::Xfs, Uuid::new_v4(), false)).unwrap_err();
    let HostError::Failed(failed) = error else { panic!("{error:?}") };
    assert!(failed.source.to_string().contains("mkfs.xfs"), "{}", failed.source);
    rig.detach(&device);
}

#[test]
fn a_look_that_fails_is_an_error_and_not_blank() {
    if !need_root("a_look_that_fails_is_an_error_and_not_blank") {
        return;
    }
    let rig = Rig::on(bedplate_tests::loopfs::Recipe::new("ext4", 64 * MIB), 16 * MIB);
    let device = rig.attach();
    rig.detach(&device);
    assert!(rig.host.signature(&device).is_err());
    assert!(rig.host.mkfs(&device, &mkfs(FsType::Ext4, Uuid::new_v4(), true)).is_err());
}
