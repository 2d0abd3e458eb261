use super::*;

fn known() -> Recogniser {
    Recogniser::new(Markers::new([7; 32], 2, 5, 4))
}

/// 1 MiB of noise with both volumes' markers in it, and where the last block begins.
fn disk(markers: &Markers) -> (Vec<u8>, usize) {
    let mut disk: Vec<u8> = (0..1u32 << 20).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let mut last = 0;
    for volume in 0..2 {
        for block in 0..5 {
            last = 8192 + (volume as usize * 5 + block as usize) * 3 * BLOCK;
            disk[last..last + BLOCK].copy_from_slice(&markers.block(volume, block));
        }
        for row in 0..4 {
            // At odd places, as a database puts them.
            let at = 700_001 + (volume as usize * 4 + row as usize) * 1021;
            disk[at..at + TOKEN].copy_from_slice(markers.token(volume, row).as_bytes());
        }
    }
    (disk, last)
}

fn search(known: &Recogniser, disk: &[u8], piece: usize) -> Findings {
    let mut scan = known.scan();
    disk.chunks(piece).for_each(|piece| scan.feed(piece));
    scan.findings()
}

#[test]
fn every_marker_is_found_however_the_reads_fall() {
    let known = known();
    let (disk, _) = disk(known.markers());
    for piece in [SECTOR, 3 * SECTOR, 4096, 65536, 1 << 20] {
        let found = search(&known, &disk, piece);
        assert_eq!((known.whole(&found, 0), known.whole(&found, 1)), (9, 9), "pieces of {piece}");
        assert_eq!(Recogniser::any(&found), known.markers().all());
        assert_eq!(found.bytes, 1 << 20);
    }
}

#[test]
fn half_a_marker_is_not_found_before_the_wipe_but_left_behind_after_it() {
    let known = known();
    let (mut disk, last) = disk(known.markers());
    disk[last..last + 3 * SECTOR].fill(0);
    let found = search(&known, &disk, 4096);
    assert_eq!(known.whole(&found, 1), 8);
    let mut wiped = vec![0; 1 << 20];
    wiped[512..1024].copy_from_slice(&disk[last + 4 * SECTOR..last + 5 * SECTOR]);
    let found = search(&known, &wiped, 65536);
    assert_eq!((Recogniser::any(&found), found.not_zero), (1, 512));
}

#[test]
fn one_wrong_bit_in_a_sector_is_another_sector() {
    let known = known();
    let mut block = known.markers().block(0, 0);
    block[SECTOR + 100] ^= 1;
    let found = search(&known, &block, BLOCK);
    assert_eq!((known.whole(&found, 0), Recogniser::any(&found)), (0, 1));
}

#[test]
fn a_wiped_disk_holds_nothing_and_other_seeds_are_strangers() {
    let known = known();
    let found = search(&known, &vec![0; 1 << 20], 65536);
    assert_eq!((Recogniser::any(&found), found.not_zero), (0, 0));
    let (disk, _) = disk(&Markers::new([8; 32], 2, 5, 4));
    assert_eq!(Recogniser::any(&search(&known, &disk, 65536)), 0);
}

#[test]
fn findings_of_two_searches_add_up() {
    let known = known();
    let one = search(&known, &known.markers().block(0, 1), BLOCK);
    let mut sum = Findings::default();
    sum.add(&one);
    sum.add(&search(&known, &known.markers().block(1, 1), BLOCK));
    sum.add(&one);
    assert_eq!((Recogniser::any(&sum), sum.bytes), (2, 3 * BLOCK as u64));
}
