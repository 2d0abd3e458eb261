//! What happens inside a volume never changes which blocks its backing file has, nor where they lie.

use std::process::Command;

use bedplate_core::filesystem::FsType;
use bedplate_tests::loopfs::{Recipe, TestLoop, run};
use bedplate_tests::skip::need_root;

use crate::rig::{MIB, Mounted, Rig, VOLUME, eventually, marker, plant, read_back};

/// mkfs, a mount that discards, deleting, trimming, punching holes, discarding the device, zeroing it.
fn nothing_inside_gives_blocks_back(host: &'static str) {
    let rig = Rig::new(host);
    let before = rig.map();
    assert_eq!(before.covered(), VOLUME);
    for inner in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
        let at = |what: &str| format!("{inner} on {host}, {what}");
        let device = rig.attach();
        rig.format(&device, inner);
        rig.assert_untouched(&before, &at("after mkfs"));

        let mounted = Mounted::new(&device.path, "discard");
        let file = mounted.path().join("data");
        std::fs::write(&file, vec![7; 48 << 20]).unwrap();
        run("sync", &["-f", mounted.path().to_str().unwrap()]).unwrap();
        run("fallocate", &["-p", "-o", "4MiB", "-l", "16MiB", file.to_str().unwrap()]).unwrap();
        run("sync", &["-f", mounted.path().to_str().unwrap()]).unwrap();
        rig.assert_untouched(&before, &at("after punching a hole into a file"));
        std::fs::remove_file(&file).unwrap();
        run("sync", &["-f", mounted.path().to_str().unwrap()]).unwrap();
        let trim = Command::new("fstrim").arg(mounted.path()).output().unwrap();
        assert!(!trim.status.success(), "{}: fstrim found something to trim: {trim:?}", at("trim"));
        drop(mounted);
        rig.assert_untouched(&before, &at("after mount -o discard, deleting and fstrim"));

        let discard = Command::new("blkdiscard").arg("-f").arg(&device.path).output().unwrap();
        assert!(!discard.status.success(), "{}: blkdiscard succeeded", at("discard"));
        rig.assert_untouched(&before, &at("after blkdiscard"));
        rig.detach(&device);
        rig.open().unwrap().zero(0, VOLUME, bedplate_blockdev::ZeroMethod::DirectWrites).unwrap();
    }

    // BLKZEROOUT on the device must write: a hole or an unwritten extent would keep the marker on the disk.
    let device = rig.attach();
    let marker = marker("zero me");
    let offsets = [0, 5 * MIB + 4096, VOLUME - 4096];
    plant(&device.path, &marker, &offsets);
    assert_eq!(rig.fs.count(&marker).unwrap(), offsets.len());
    run("blkdiscard", &["-f", "-z", device.path.to_str().unwrap()]).unwrap();
    rig.assert_untouched(&before, "after BLKZEROOUT");
    assert_eq!(rig.fs.count(&marker).unwrap(), 0, "{host}: BLKZEROOUT left markers on the disk");
    rig.detach(&device);
}

#[test]
fn nothing_inside_a_volume_gives_blocks_back_to_an_ext4_host() {
    if need_root("nothing_inside_a_volume_gives_blocks_back_to_an_ext4_host") {
        nothing_inside_gives_blocks_back("ext4");
    }
}

#[test]
fn nothing_inside_a_volume_gives_blocks_back_to_an_xfs_host() {
    if need_root("nothing_inside_a_volume_gives_blocks_back_to_an_xfs_host") {
        nothing_inside_gives_blocks_back("xfs");
    }
}

#[test]
fn nothing_inside_a_volume_gives_blocks_back_to_a_btrfs_host() {
    if need_root("nothing_inside_a_volume_gives_blocks_back_to_a_btrfs_host") {
        nothing_inside_gives_blocks_back("btrfs");
    }
}

/// The control: without our setting the same acts do take blocks away and leave the bytes on the disk.
#[test]
fn an_ordinary_loop_device_does_give_blocks_back_and_leaves_the_bytes_on_the_disk() {
    if !need_root("an_ordinary_loop_device_does_give_blocks_back_and_leaves_the_bytes_on_the_disk") {
        return;
    }
    for host in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::new(host);
        let plain = TestLoop::ordinary(&rig.path(), 512).unwrap();
        let marker = marker("still here");
        plant(plain.path(), &marker, &[64 * MIB, 128 * MIB]);
        assert_eq!(rig.fs.count(&marker).unwrap(), 2);
        run("blkdiscard", &["-f", "-z", plain.path().to_str().unwrap()]).unwrap();
        let now = rig.map();
        assert!(now.holes(VOLUME) + now.unwritten >= VOLUME / 2, "{host}: {now:?}");
        assert_eq!(read_back(&rig.path(), 64 * MIB, marker.len()), vec![0; marker.len()], "{host}");
        assert_eq!(rig.fs.count(&marker).unwrap(), 2, "{host}: the disk itself was written after all");
    }
}

/// ext4 fills its inode tables in the background after the first mount. Here they are large, and filled at once.
fn lazy_initialisation_moves_nothing(host: &'static str) {
    let rig = Rig::new(host);
    let before = rig.map();
    let device = rig.attach();
    rig.format(&device, FsType::Ext4);
    let zeroed = || {
        let text = run("dumpe2fs", &[device.path.to_str().unwrap()]).unwrap();
        let groups = text.lines().filter(|l| l.starts_with("Group ") && l.contains(": (Blocks")).count();
        (text.matches("ITABLE_ZEROED").count(), groups)
    };
    let (done, groups) = zeroed();
    assert!(done < groups, "nothing left to be done lazily: {done} of {groups}");
    {
        let _mounted = Mounted::new(&device.path, "init_itable=0");
        eventually("all inode tables initialised", || {
            let (done, groups) = zeroed();
            done == groups
        });
    }
    rig.assert_untouched(&before, &format!("{host}: after lazy initialisation"));
    rig.detach(&device);
}

#[test]
fn lazy_initialisation_inside_moves_nothing_on_any_host() {
    if need_root("lazy_initialisation_inside_moves_nothing_on_any_host") {
        for host in ["ext4", "xfs", "btrfs"] {
            lazy_initialisation_moves_nothing(host);
        }
    }
}

#[test]
fn a_volume_works_on_a_disk_with_sectors_of_4096_bytes() {
    if !need_root("a_volume_works_on_a_disk_with_sectors_of_4096_bytes") {
        return;
    }
    for host in ["ext4", "xfs", "btrfs"] {
        let rig = Rig::on(Recipe { sector: 4096, ..Recipe::new(host, 704 * MIB) }, VOLUME);
        let before = rig.map();
        for inner in [FsType::Ext4, FsType::Xfs, FsType::Btrfs] {
            let device = rig.attach();
            let sector = format!("/sys/block/loop{}/queue/logical_block_size", device.number);
            assert_eq!(std::fs::read_to_string(sector).unwrap().trim(), "4096");
            rig.format(&device, inner);
            let mounted = Mounted::new(&device.path, "defaults");
            std::fs::write(mounted.path().join("data"), vec![1; 1 << 20]).unwrap();
            drop(mounted);
            rig.detach(&device);
            let mut file = rig.open().unwrap();
            assert_eq!(file.block_size(), 4096);
            file.zero(0, VOLUME, bedplate_blockdev::ZeroMethod::DirectWrites).unwrap();
            drop(file);
        }
        rig.assert_untouched(&before, host);
    }
}
