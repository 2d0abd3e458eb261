//! What reaches the disk beneath: direct writes do, a zeroed range does not.

use bedplate_blockdev::{Aligned, Detached, Host, ZeroMethod};
use bedplate_tests::loopfs::{Recipe, run};
use bedplate_tests::skip::need_root;

use crate::rig::{MIB, Mounted, NAME, Rig, VOLUME, marker, plant, read_back};

const CHUNK: u64 = 64 * MIB;

/// Plants markers through the loop device, wipes by `method`, and counts what is left on the disk beneath.
fn wipe(host: &'static str, method: ZeroMethod) -> (Rig, usize, usize) {
    // Room for a second copy: a zeroed range may be given new blocks before the old ones are free.
    let rig = Rig::on(Recipe::new(host, 1152 * MIB), VOLUME);
    let before = rig.map();
    let marker = marker("secret");
    let offsets: Vec<u64> = (0..100).map(|n| n * (VOLUME / 100 / 4096) * 4096 + n * 8).collect();
    let device = rig.attach();
    plant(&device.path, &marker, &offsets);
    assert_eq!(rig.detach(&device), Detached::Gone);
    let found = rig.fs.count(&marker).unwrap();
    let mut file = rig.open().unwrap();
    for at in (0..VOLUME).step_by(usize::try_from(CHUNK).unwrap()) {
        file.zero(at, CHUNK.min(VOLUME - at), method).unwrap();
    }
    file.flush().unwrap();
    let mut block = Aligned::zeroed(1 << 20);
    for at in (0..VOLUME).step_by(block.len()) {
        file.read_at(at, &mut block).unwrap();
        assert!(block.iter().all(|b| *b == 0), "{host}: byte {at} does not read as zero");
    }
    drop(file);
    if method == ZeroMethod::DirectWrites {
        assert!(rig.map().same_places(&before), "{host}: wiping moved blocks");
    }
    let left = rig.fs.count(&marker).unwrap();
    (rig, found, left)
}

#[test]
fn direct_writes_take_every_marker_off_the_disk_beneath() {
    if !need_root("direct_writes_take_every_marker_off_the_disk_beneath") {
        return;
    }
    for host in ["ext4", "xfs", "btrfs"] {
        let (rig, found, left) = wipe(host, ZeroMethod::DirectWrites);
        assert_eq!((found, left), (100, 0), "{host}");
        assert_eq!(rig.map().unwritten, 0, "{host}: a wiped extent is not unwritten");
    }
}

/// Why nothing but direct writes counts as a wipe of an image; and the proof that the search above can find something.
#[test]
fn a_zeroed_range_reads_as_zero_and_leaves_every_marker_on_the_disk_beneath() {
    if !need_root("a_zeroed_range_reads_as_zero_and_leaves_every_marker_on_the_disk_beneath") {
        return;
    }
    for host in ["ext4", "xfs", "btrfs"] {
        let (rig, found, left) = wipe(host, ZeroMethod::ZeroRange);
        assert_eq!((found, left), (100, 100), "{host}");
        assert_eq!(rig.map().unwritten, VOLUME, "{host}");
    }
}

#[test]
fn an_error_on_the_disk_beneath_names_its_byte() {
    if !need_root("an_error_on_the_disk_beneath_names_its_byte") {
        return;
    }
    let rig = Rig::new("ext4");
    let mut file = rig.open().unwrap();
    let error = file.zero(VOLUME - 4096, 8192, ZeroMethod::DirectWrites).unwrap_err();
    assert!(error.to_string().contains(&format!("at byte {}", VOLUME - 4096)), "{error}");
    drop(file);
    // From now on the disk beneath is shorter than its filesystem believes: I/O past its end fails.
    let short = std::fs::OpenOptions::new().write(true).open(rig.fs.disk()).unwrap();
    let last = rig.map().extents.iter().map(|e| e.physical + e.length).max().unwrap();
    let first_bad = rig.map().extents.iter().find(|e| e.physical + e.length == last).map(|e| e.logical).unwrap();
    let disk = rig.fs.device().to_str().unwrap();
    short.set_len(last - 8 * MIB).unwrap();
    run("losetup", &["-c", disk]).unwrap();
    let mut file = rig.open().unwrap();
    let mut at = 0;
    let error = loop {
        match file.zero(at, CHUNK.min(VOLUME - at), ZeroMethod::DirectWrites) {
            Ok(()) => at += CHUNK.min(VOLUME - at),
            Err(error) => break error,
        }
        assert!(at < VOLUME, "nothing failed");
    };
    let text = error.to_string();
    let byte: u64 = text.split("at byte ").nth(1).and_then(|t| t.split(' ').next()).unwrap().parse().unwrap();
    assert!(byte >= first_bad && byte < VOLUME && byte.is_multiple_of(512), "{text}");
    assert_eq!(error.io().unwrap().raw_os_error(), Some(nix::libc::EIO), "{text}");
    drop(file);
    short.set_len(704 * MIB).unwrap();
    run("losetup", &["-c", disk]).unwrap();
}

#[test]
fn a_reflink_shows_as_shared_and_writes_after_it_move_the_volumes_blocks() {
    if !need_root("a_reflink_shows_as_shared_and_writes_after_it_move_the_volumes_blocks") {
        return;
    }
    for host in ["xfs", "btrfs"] {
        let rig = Rig::new(host);
        let device = rig.attach();
        plant(&device.path, b"old", &[0, 100 * MIB]);
        rig.detach(&device);
        let before = rig.map();
        assert_eq!(before.shared, 0);
        let copy = rig.dir.path.join("copy");
        run("cp", &["--reflink=always", rig.path().to_str().unwrap(), copy.to_str().unwrap()]).unwrap();
        let shared = rig.map();
        assert!(shared.shared > 0 && shared.same_places(&before), "{host}: {shared:?}");
        let mut file = rig.open().unwrap();
        file.zero(0, 8 * MIB, ZeroMethod::DirectWrites).unwrap();
        file.flush().unwrap();
        drop(file);
        assert!(!rig.map().same_places(&before), "{host}: written in place though shared");
        assert_eq!(read_back(&copy, 0, 3), b"old", "{host}: the copy keeps the old bytes");
    }
}

#[test]
fn a_snapshot_of_the_host_shows_as_shared() {
    if !need_root("a_snapshot_of_the_host_shows_as_shared") {
        return;
    }
    let rig = Rig::new("btrfs");
    let device = rig.attach();
    plant(&device.path, b"old", &[0]);
    rig.detach(&device);
    let before = rig.map();
    let snapshot = rig.fs.path().join("snapshot");
    let (from, to) = (rig.dir.path.to_str().unwrap(), snapshot.to_str().unwrap());
    run("btrfs", &["-q", "subvolume", "snapshot", "-r", from, to]).unwrap();
    assert!(rig.map().shared > 0);
    let device = rig.attach();
    plant(&device.path, b"new", &[0]);
    rig.detach(&device);
    assert!(!rig.map().same_places(&before), "written in place though a snapshot holds it");
    assert_eq!(read_back(&snapshot.join(NAME), 0, 3), b"old");
}

#[test]
fn a_volume_filled_through_its_filesystem_is_gone_from_the_disk_after_the_wipe() {
    if !need_root("a_volume_filled_through_its_filesystem_is_gone_from_the_disk_after_the_wipe") {
        return;
    }
    let rig = Rig::on(Recipe::new("xfs", 704 * MIB), VOLUME);
    let marker = marker("in a file");
    let device = rig.attach();
    rig.format(&device, bedplate_core::filesystem::FsType::Ext4);
    let mounted = Mounted::new(&device.path, "defaults");
    for n in 0..50 {
        std::fs::write(mounted.path().join(format!("f{n}")), marker.repeat(64)).unwrap();
    }
    drop(mounted);
    assert_eq!(rig.detach(&device), Detached::Gone);
    assert!(rig.fs.count(&marker).unwrap() >= 50 * 64);
    let mut file = rig.open().unwrap();
    file.zero(0, VOLUME, ZeroMethod::DirectWrites).unwrap();
    file.flush().unwrap();
    drop(file);
    assert_eq!(rig.fs.count(&marker).unwrap(), 0);
    rig.host.remove_backing(&rig.dir, NAME, &rig.identity).unwrap();
    assert_eq!(rig.host.list(&rig.dir).unwrap(), Vec::<String>::new());
}
