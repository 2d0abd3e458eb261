//! Formats at their places, and above all: what must never be called blank.

use proptest::prelude::*;

use super::*;

const SIZE: u64 = 64 * MIB;
const END_LEN: usize = 1 << 20;

fn len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

/// A device of zeroes with `patches` in it, both ends read.
fn device(patches: &[(u64, &[u8])]) -> Windows {
    let mut head = vec![0; END_LEN];
    let mut tail = vec![0; END_LEN];
    for (at, bytes) in patches {
        let (piece, start) = if *at < ENDS { (&mut head, *at) } else { (&mut tail, at - (SIZE - ENDS)) };
        piece[len(start)..][..bytes.len()].copy_from_slice(bytes);
    }
    Windows::new(SIZE, vec![Window { offset: 0, bytes: head }, Window { offset: SIZE - ENDS, bytes: tail }])
}

fn formats(patches: &[(u64, &[u8])], sector: u32) -> Vec<String> {
    detect(&device(patches), sector).signatures.into_iter().map(|s| s.format).collect()
}

#[test]
fn only_zeroes_at_both_ends_are_blank() {
    assert!(Look::Done(detect(&device(&[]), 512)).is_blank());
}

#[test]
fn a_failed_or_empty_look_is_never_blank() {
    assert!(!Look::NotDone.is_blank());
    assert!(!Look::Failed("EIO".to_owned()).is_blank());
    assert!(!Look::Done(Contents::default()).is_blank());
    assert!(!Look::Done(detect(&Windows::new(SIZE, vec![]), 512)).is_blank());
    assert!(!Look::Done(detect(&Windows::new(0, vec![]), 512)).is_blank());
    let head_only = vec![Window { offset: 0, bytes: vec![0; END_LEN] }];
    assert!(!Look::Done(detect(&Windows::new(SIZE, head_only), 512)).is_blank());
    let gap = vec![
        Window { offset: 0, bytes: vec![0; 4096] },
        Window { offset: 8192, bytes: vec![0; END_LEN] },
        Window { offset: SIZE - ENDS, bytes: vec![0; END_LEN] },
    ];
    assert!(!Look::Done(detect(&Windows::new(SIZE, gap), 512)).is_blank());
}

#[test]
fn a_gpt_on_a_4kn_disk_is_found_at_its_second_sector() {
    let guid = [0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 1, 2, 3, 4, 5, 6, 7, 8];
    let found = detect(&device(&[(4096, b"EFI PART"), (4096 + 56, &guid)]), 4096);
    assert_eq!(found.signatures[0].format, "gpt");
    assert_eq!(found.signatures[0].uuid.as_deref(), Some("12345678-9abc-def0-0102-030405060708"));
    assert_eq!(formats(&[(512, b"EFI PART")], 512), ["gpt"]);
}

#[test]
fn a_gpt_whose_first_half_was_erased_is_found_at_the_end() {
    assert_eq!(formats(&[(SIZE - 512, b"EFI PART")], 512), ["gpt"]);
    assert_eq!(formats(&[(SIZE - 4096, b"EFI PART")], 4096), ["gpt"]);
}

#[test]
fn an_mbr_needs_sane_entries_but_a_boot_sector_is_still_something() {
    assert_eq!(formats(&[(446 + 4, &[0x83]), (510, &[0x55, 0xaa])], 512), ["dos"]);
    assert_eq!(formats(&[(446 + 4, &[0xee]), (510, &[0x55, 0xaa])], 512), ["PMBR"]);
    assert_eq!(formats(&[(510, &[0x55, 0xaa])], 512), ["boot-sector"]);
    assert_eq!(formats(&[(82, b"FAT32   "), (510, &[0x55, 0xaa])], 512), ["vfat"]);
}

#[test]
fn members_that_hide_at_the_end_are_found() {
    let md = [0xfc, 0x4e, 0x2b, 0xa9];
    assert_eq!(formats(&[(SIZE - 8192, &md)], 512), ["linux_raid_member"]);
    assert_eq!(formats(&[(SIZE - 0x1_0000, &md)], 512), ["linux_raid_member"]);
    assert_eq!(formats(&[(4096, &md)], 512), ["linux_raid_member"]);
    assert_eq!(formats(&[(SIZE - 512, &[0xde, 0x11, 0xde, 0x11])], 512), ["ddf_raid_member"]);
    assert_eq!(formats(&[(SIZE - 1024, b"Intel Raid ISM Cfg Sig. ")], 512), ["isw_raid_member"]);
    let zfs = 0x00ba_b10cu64.to_be_bytes();
    assert_eq!(formats(&[(SIZE - (256 << 10) + (130 << 10), &zfs)], 512), ["zfs_member"]);
}

#[test]
fn lvm_luks_and_caches_are_found_with_their_names() {
    let lvm = detect(
        &device(&[(512, b"LABELONE"), (512 + 24, b"LVM2 001"), (512 + 32, b"0123456789abcdefghijklmnopqrstuv")]),
        512,
    );
    assert_eq!(lvm.signatures[0].format, "LVM2_member");
    assert_eq!(lvm.signatures[0].uuid.as_deref(), Some("0123456789abcdefghijklmnopqrstuv"));
    assert_eq!(formats(&[(4096, b"LABELONE"), (4096 + 24, b"LVM2 001")], 4096), ["LVM2_member"]);

    let luks = detect(&device(&[(0, b"LUKS\xba\xbe\x00\x02"), (24, b"vault"), (168, b"f00d-uuid")]), 512);
    assert_eq!(luks.signatures[0].to_string(), "crypto_LUKS container \"vault\"");
    assert_eq!(luks.signatures[0].uuid.as_deref(), Some("f00d-uuid"));
    assert_eq!(formats(&[(0x4000, b"SKUL\xba\xbe")], 512), ["crypto_LUKS"], "second header, first one erased");
    assert_eq!(formats(&[(0, b"bluestore block device")], 512), ["ceph_bluestore"]);
}

#[test]
fn ext_generations_are_told_apart_by_their_features() {
    let ext = |compatible: u32, incompatible: u32| {
        formats(
            &[
                (1024 + 0x38, &[0x53, 0xef]),
                (1024 + 0x5c, &compatible.to_le_bytes()),
                (1024 + 0x60, &incompatible.to_le_bytes()),
            ],
            512,
        )
    };
    assert_eq!(ext(0, 2), ["ext2"]);
    assert_eq!(ext(4, 2), ["ext3"]);
    assert_eq!(ext(4, 2 | 0x40), ["ext4"]);
    assert_eq!(ext(0, 8), ["jbd"]);
}

#[test]
fn labels_cannot_carry_control_characters_into_a_terminal() {
    let found = detect(&device(&[(0, b"XFSB"), (108, b"ev\x1b[2Jil")]), 512);
    assert_eq!(found.signatures[0].label.as_deref(), Some("ev[2Jil"));
}

proptest! {
    #[test]
    fn a_single_byte_at_either_end_forbids_blank(at in 0..2 * ENDS, byte in 1u8..) {
        let place = if at < ENDS { at } else { SIZE - 2 * ENDS + at };
        let contents = detect(&device(&[(place, &[byte])]), 512);
        prop_assert_eq!(contents.data_at, Some(place));
        prop_assert!(!Look::Done(contents).is_blank());
    }

    #[test]
    fn no_content_however_odd_or_short_breaks_the_look(
        bytes in proptest::collection::vec(any::<u8>(), 0..70_000),
        offset in 0u64..200_000,
        size in 0u64..u64::MAX,
        sector in any::<u32>(),
    ) {
        let contents = detect(&Windows::new(size, vec![Window { offset, bytes }]), sector);
        prop_assert!(contents.head <= contents.size);
    }
}
