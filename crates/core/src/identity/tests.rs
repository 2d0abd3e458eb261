//! Who is who, and who cannot be told.

use super::*;
use crate::disk::{DeviceNumber, Kind};
use crate::signature::{Contents, Look, Signature, Usage};

fn disk(name: &str, wwn: Option<&str>, serial: Option<&str>) -> DiskFacts {
    DiskFacts {
        name: name.to_owned(),
        number: DeviceNumber { major: 8, minor: u32::from(*name.as_bytes().last().unwrap()) },
        model: Some("ST4000NM0023".to_owned()),
        wwn: wwn.map(str::to_owned),
        serial: serial.map(str::to_owned),
        ..DiskFacts::default()
    }
}

#[test]
fn a_world_wide_name_wins_over_a_serial_and_both_are_strong() {
    let both = Identity::of(&disk("sda", Some("naa.5000C500A1B2C3D4"), Some("Z1Z2ABCD")));
    assert_eq!(both.id.unwrap().as_str(), "wwn-5000c500a1b2c3d4");
    let serial = Identity::of(&disk("sda", None, Some(" Z1Z2ABCD ")));
    assert_eq!((serial.id.unwrap().as_str(), serial.strength), ("serial-ST4000NM0023-Z1Z2ABCD", Strength::Strong));
}

#[test]
fn all_spellings_of_a_world_wide_name_are_one() {
    for text in ["naa.5000c500a1b2c3d4", "0x5000c500a1b2c3d4", "5000C500A1B2C3D4", " naa.5000C500a1b2c3d4\n"] {
        assert_eq!(normal_wwn(text).as_deref(), Some("5000c500a1b2c3d4"));
    }
    for nothing in ["", "0x0", "naa.0000000000000000", "eui.ffffffffffffffff", "t10.ATA     QEMU HARDDISK  QM00002"] {
        assert_eq!(normal_wwn(nothing), None, "{nothing:?}");
    }
}

#[test]
fn placeholder_serials_are_no_identity() {
    for nothing in ["", "  ", "0", "0000000000", "0123456789", "1234567890", "12345", "Default string", "None", "\0\0"]
    {
        assert_eq!(normal_serial(nothing), None, "{nothing:?}");
    }
    assert_eq!(normal_serial(" overlayblk\n"), Some("overlayblk"));
}

#[test]
fn without_serial_or_wwn_the_content_or_the_slot_is_a_weak_identity_and_nothing_is_none() {
    let mut facts = disk("vda", None, None);
    assert_eq!(Identity::of(&facts), Identity::default());
    facts.by_path = Some("pci-0000:00:05.0".to_owned());
    let path = Identity::of(&facts);
    assert_eq!((path.id.unwrap().as_str(), path.strength), ("path-pci_0000_00_05.0", Strength::Weak));
    let ext4 = Signature {
        format: "ext4".to_owned(),
        usage: Usage::Filesystem,
        label: None,
        uuid: Some("aaaa-bbbb".to_owned()),
        offset: 1080,
    };
    facts.look = Look::Done(Contents { signatures: vec![ext4], ..Contents::default() });
    let content = Identity::of(&facts);
    assert_eq!((content.strength, content.source), (Strength::Weak, IdentitySource::Content));
}

#[test]
fn two_disks_with_one_serial_or_one_wwn_both_clash() {
    let found = clashes(&[
        disk("sda", None, Some("SAME-SERIAL")),
        disk("sdb", None, Some("SAME-SERIAL")),
        disk("sdc", None, Some("OTHER")),
        disk("sdd", Some("naa.600508b1001c4d4e"), None),
        disk("sde", Some("0x600508b1001c4d4e"), None),
    ]);
    let who: Vec<usize> = (0..found.len()).filter(|i| !found[*i].is_empty()).collect();
    assert_eq!(who, [0, 1, 3, 4]);
    assert!(matches!(&found[0][..], [Clash::Duplicate { what: "serial number", other, .. }] if other == "sdb"));
}

#[test]
fn namespaces_of_one_controller_share_a_serial_and_do_not_clash() {
    let found = clashes(&[
        disk("nvme0n1", Some("eui.0025385b71b00001"), Some("S5GXNG0R1")),
        disk("nvme0n2", Some("eui.0025385b71b00002"), Some("S5GXNG0R1")),
    ]);
    assert!(found.iter().all(Vec::is_empty));
}

#[test]
fn paths_of_a_multipath_map_are_told_so_and_are_not_duplicates() {
    let wwn = Some("naa.600508b4000156d7");
    let mut map = disk("dm-0", Some("600508b4000156d7"), None);
    map.device = Kind::DeviceMapper { name: Some("mpatha".into()), uuid: Some("mpath-3600508b4000156d7".into()) };
    map.slaves = vec!["sda".to_owned(), "sdb".to_owned()];
    let found = clashes(&[map, disk("sda", wwn, None), disk("sdb", wwn, None)]);
    assert!(found[0].is_empty(), "{found:?}");
    assert_eq!(found[1], [Clash::PathOf { map: "dm-0".to_owned() }]);
    assert_eq!(found[2], [Clash::PathOf { map: "dm-0".to_owned() }]);
}

#[test]
fn a_clone_outside_the_multipath_map_clashes_with_the_map() {
    let wwn = Some("naa.600508b4000156d7");
    let mut map = disk("dm-0", wwn, None);
    map.device = Kind::DeviceMapper { name: None, uuid: Some("mpath-3600508b4000156d7".into()) };
    map.slaves = vec!["sda".to_owned()];
    let found = clashes(&[map, disk("sda", wwn, None), disk("sdx", wwn, None)]);
    assert!(matches!(&found[0][..], [Clash::Duplicate { other, .. }] if other == "sdx"), "{found:?}");
    assert!(found[2].iter().any(|c| matches!(c, Clash::Duplicate { other, .. } if other == "dm-0")));
}
