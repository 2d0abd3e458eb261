use super::*;

fn place(m: &Made) -> std::ops::Range<u64> {
    let first = m.host.extents(pool_path(), "v").unwrap().extents[0];
    first.physical..first.physical + BLOCK as u64
}

#[test]
fn a_device_that_drops_writes_says_they_went_well() {
    let m = made();
    let mut device = m.open();
    device.write_at(0, &filled(b'S', 2)).unwrap();
    device.flush().unwrap();
    m.host.afflict(DeviceFault::DropWrites(place(&m)));
    device.zero(0, SIZE, ZeroMethod::DirectWrites).unwrap();
    device.flush().unwrap();
    assert_eq!(read(device.as_mut(), 0, 1)[0], b'S');
    assert_eq!(read(device.as_mut(), BLOCK as u64, 1)[0], 0);
}

#[test]
fn a_device_that_forgets_on_flush_shows_the_write_until_then() {
    let m = made();
    let mut device = m.open();
    device.write_at(0, &filled(b'S', 1)).unwrap();
    device.flush().unwrap();
    m.host.afflict(DeviceFault::ForgetOnFlush(place(&m)));
    device.zero(0, SIZE, ZeroMethod::DirectWrites).unwrap();
    assert_eq!(read(device.as_mut(), 0, 1)[0], 0);
    device.flush().unwrap();
    assert_eq!(read(device.as_mut(), 0, 1)[0], b'S');
}

#[test]
fn a_device_that_reads_stale_hides_what_was_written() {
    let m = made();
    let mut device = m.open();
    device.zero(0, SIZE, ZeroMethod::DirectWrites).unwrap();
    m.host.afflict(DeviceFault::StaleReads(place(&m)));
    device.write_at(0, &filled(b'S', 1)).unwrap();
    assert_eq!(read(device.as_mut(), 0, 1)[0], 0);
    assert!(!m.host.find(b"SSSS").is_empty());
}

#[test]
fn a_bad_block_and_a_flipped_bit_hit_only_their_place() {
    let m = made();
    let mut device = m.open();
    device.write_at(0, &filled(0, 16)).unwrap();
    let bad = place(&m);
    m.host.afflict(DeviceFault::FlippedBit { offset: bad.start + 5, bit: 3 });
    assert_eq!(read(device.as_mut(), 0, 1)[5], 8);
    m.host.afflict(DeviceFault::ReadError(bad.clone()));
    let mut buf = Aligned::zeroed(BLOCK);
    assert!(device.read_at(0, &mut buf).is_err());
    assert!(device.read_at(BLOCK as u64, &mut buf).is_ok());
    m.host.afflict(DeviceFault::WriteError(bad));
    assert!(device.write_at(0, &buf).is_err());
    drop(device);
    let host = m.host.after_power_loss(&Outcome::nothing());
    let mut device = m.again(host).open();
    assert!(device.write_at(0, &buf).is_err(), "hardware faults outlive a restart");
}

#[test]
fn a_device_that_pretends_zeroes_can_only_be_found_out_from_outside() {
    let m = made();
    m.host.afflict(DeviceFault::PretendedZeroes(place(&m)));
    let mut device = m.open();
    device.write_at(0, &filled(b'S', 1)).unwrap();
    device.flush().unwrap();
    assert_eq!(read(device.as_mut(), 0, 1)[0], b'S');
    device.zero(0, SIZE, ZeroMethod::DirectWrites).unwrap();
    device.flush().unwrap();
    assert!(read(device.as_mut(), 0, 16).iter().all(|b| *b == 0));
    assert_eq!(m.host.map(&m.pool, "v", &m.identity).unwrap().unwritten, 0);
    assert!(!m.host.find(b"SSSS").is_empty());
}
