//! Arguments as a careless or hostile client sends them.

use super::*;
use bedplate_csi::v1::volume_capability::{AccessMode as Given, BlockVolume, MountVolume};
use proptest::prelude::*;

#[test]
fn paths_are_absolute_plain_and_below_the_root() {
    assert_eq!(path("p", "/a/b c/ü").unwrap(), Path::new("/a/b c/ü"));
    assert_eq!(path("p", "/a//b/").unwrap(), Path::new("/a/b"), "one path, one form: it is a key for locks");
    for (text, why) in [
        ("", "missing"),
        ("a/b", "not an absolute path"),
        ("/", "root"),
        ("/a/../b", ".."),
        ("/a/./b", "."),
        ("/..", ".."),
        ("/a\0b", "control"),
        ("/a\nb", "control"),
    ] {
        let refused = path("target_path", text).unwrap_err().to_string();
        assert!(refused.contains("field target_path") && refused.contains(why), "{text:?}: {refused}");
    }
    assert!(path("p", &format!("/{}", "x".repeat(MAX_PATH))).is_err());
}

#[test]
fn a_volume_mount_group_is_refused_because_it_is_not_offered() {
    let given = VolumeCapability {
        access_mode: Some(Given { mode: AccessMode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume { volume_mount_group: "1000".into(), ..Default::default() })),
    };
    assert!(
        matches!(capability("c", &given), Err(CapabilityError::Unsupported(bad)) if bad.why.contains("VOLUME_MOUNT_GROUP"))
    );
}

#[test]
fn an_access_mode_of_the_future_is_malformed_not_ignored() {
    let given = VolumeCapability {
        access_mode: Some(Given { mode: 99 }),
        access_type: Some(AccessType::Block(BlockVolume {})),
    };
    assert!(matches!(capability("c", &given), Err(CapabilityError::Malformed(bad)) if bad.why.contains("99")));
}

#[test]
fn the_filesystem_is_named_once() {
    let mount = |fs_type| Capability { access: Access::Mount { fs_type, flags: vec![] }, sharing: Sharing::One };
    assert_eq!(mode(&[mount(None)], None), Ok(Mode::Filesystem(FsType::Ext4)));
    assert_eq!(mode(&[mount(None)], Some(FsType::Xfs)), Ok(Mode::Filesystem(FsType::Xfs)));
    assert_eq!(mode(&[mount(Some(FsType::Xfs)), mount(None)], None), Ok(Mode::Filesystem(FsType::Xfs)));
    assert!(mode(&[mount(Some(FsType::Xfs))], Some(FsType::Btrfs)).unwrap_err().why.contains("one place"));
}

proptest! {
    #[test]
    fn an_accepted_path_stays_where_it_says(text in ".{0,60}") {
        if let Ok(found) = path("p", &text) {
            prop_assert!(found.is_absolute() && found.file_name().is_some());
            prop_assert!(found.components().all(|part| !matches!(part, Component::ParentDir | Component::CurDir)));
        }
    }

    #[test]
    fn accepted_bounds_can_be_met(required in any::<i64>(), limit in any::<i64>()) {
        if let Ok((least, most)) = bounds(Some(&CapacityRange { required_bytes: required, limit_bytes: limit })) {
            prop_assert!(least > 0 || most > 0);
            prop_assert!(most == 0 || least <= most);
        }
    }
}
