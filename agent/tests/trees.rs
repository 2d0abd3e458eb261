//! Other machines, made from published facts: each file in `trees/` is laid out as a folder, scanned, and held against
//! what its own `[expect]` section says.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy.toml frees tests only, not the helpers beside them

use std::collections::BTreeMap;

use bedplate_agent::discover::{DiscoverError, Report, Roots, Settings, discover};
use bedplate_core::disk::UdevView;
use bedplate_core::media::MeasuredLatency;
use bedplate_core::verdict::Reason;

#[path = "trees/tree.rs"]
mod tree;

use tree::Tree;

fn scan(tree: &Tree) -> Report {
    let settings = Settings { roots: tree.roots(), overrides: tree.overrides(), claims: vec![] };
    discover(&settings, &tree.eyes()).unwrap()
}

/// Lay a machine out, scan it, and compare.
fn check(name: &str) -> (Tree, Report) {
    let tree = Tree::load(name);
    let report = scan(&tree);
    let differences = tree.differences(&report);
    assert!(differences.is_empty(), "{name}:\n{}", differences.join("\n"));
    (tree, report)
}

#[test]
fn a_laptop_shows_one_nvme_disk_and_everything_above_it() {
    let (_tree, report) = check("nvme-laptop");
    let said: Vec<String> = report
        .disks
        .iter()
        .find(|d| d.facts.name == "nvme0n1")
        .unwrap()
        .verdict
        .reasons()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(said.iter().any(|r| r == "carries a mounted ext4 at / (dm-1 (fedora-root))"), "{said:?}");
    assert!(said.iter().any(|r| r == "is active swap (dm-2 (fedora-swap))"), "{said:?}");
}

#[test]
fn a_raid_logical_drive_of_ssds_is_not_a_hard_disk_because_the_kernel_says_so() {
    check("sas-raid");
}

#[test]
fn a_vsan_disk_is_unknown_until_it_is_measured() {
    check("vmware-vsan");
}

#[test]
fn a_xen_disk_is_not_an_ssd_because_the_kernel_says_so() {
    check("xen");
}

#[test]
fn an_ebs_volume_of_hard_disks_is_not_an_ssd_and_the_instance_store_is_nvme() {
    check("ec2");
}

#[test]
fn google_local_ssds_are_told_from_persistent_disks_by_their_names() {
    check("gcp-local-ssd");
}

#[test]
fn nothing_on_usb_is_offered() {
    check("usb");
}

#[test]
fn a_multipath_map_is_one_disk_and_unjoined_paths_are_nobodys() {
    check("multipath");
}

#[test]
fn members_of_an_array_are_foreign_and_the_array_is_what_its_members_are() {
    check("md-raid");
}

#[test]
fn inactive_volume_groups_hidden_mounts_and_silent_btrfs_members_are_foreign() {
    check("lvm-dmcrypt");
}

#[test]
fn sizes_on_4kn_disks_are_not_eight_times_too_big() {
    check("disks-4kn");
}

#[test]
fn two_disks_with_one_serial_number_are_both_foreign() {
    check("twins");
}

#[test]
fn sata_disks_are_what_they_say_they_are_and_free_only_with_every_proof() {
    check("sata");
}

#[test]
fn a_virtio_disk_that_claims_to_turn_and_answers_in_36_us_is_not_a_hard_disk() {
    check("virtio");
}

#[test]
fn nvme_paths_networks_and_hard_disks_are_told_apart() {
    check("nvme-subsystem");
}

#[test]
fn every_tree_is_checked_here() {
    let source = include_str!("trees.rs");
    for entry in std::fs::read_dir(tree::folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(machine) = name.strip_suffix(".tree") {
            assert!(source.contains(&format!("\"{machine}\"")), "{machine} is not checked by any test");
        }
    }
}

#[test]
fn a_missing_sysfs_is_an_error_that_names_the_path_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots { sys: dir.path().join("nowhere"), ..Roots::default() };
    let error = discover(&Settings { roots, ..Settings::default() }, &Tree::load("xen").eyes()).unwrap_err();
    let DiscoverError::NoSysfs { path, .. } = &error;
    assert_eq!(*path, dir.path().join("nowhere/block"));
    assert!(error.to_string().contains("--sys-root"), "{error}");
}

#[test]
fn a_disk_that_vanishes_in_the_middle_of_a_scan_is_left_out_and_a_half_gone_one_is_foreign() {
    let tree = Tree::load("vmware-vsan");
    let block = tree.roots().sys.join("block");
    std::os::unix::fs::symlink("../devices/pci0000:00/gone/block/sdx", block.join("sdx")).unwrap();
    std::fs::create_dir_all(block.join("sdy/queue")).unwrap();
    std::fs::create_dir_all(block.join("sdz")).unwrap();
    std::fs::write(block.join("sdz/dev"), "65:144\n").unwrap();
    let report = scan(&tree);
    let names: Vec<&str> = report.disks.iter().map(|d| d.facts.name.as_str()).collect();
    assert_eq!(names, ["sda", "sdb", "sdz"]);
    let codes: Vec<&str> = report.disks[2].verdict.reasons().iter().map(Reason::code).collect();
    assert!(codes.contains(&"unread") && codes.contains(&"not-probed"), "{codes:?}");
}

#[test]
fn scans_survive_disks_that_come_and_go_all_the_time() {
    let tree = Tree::load("sata");
    let block = tree.roots().sys.join("block");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flapping = block.join("sdq");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::create_dir_all(flapping.join("queue")).unwrap();
                std::fs::write(flapping.join("dev"), "65:0\n").unwrap();
                std::fs::write(flapping.join("size"), "4000000\n").unwrap();
                std::fs::remove_dir_all(&flapping).unwrap();
            }
        });
        for _ in 0..50 {
            let report = scan(&tree);
            let flapping = report.disks.iter().find(|d| d.facts.name == "sdq");
            assert!(flapping.is_none_or(|d| !d.verdict.is_free()));
            assert!(report.disks.iter().any(|d| d.facts.name == "sda" && d.verdict.is_free()));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn from_inside_a_container_nothing_is_free_and_the_report_says_why() {
    let tree = Tree::load("sata");
    let link = tree.roots().proc.join("self/ns/pid");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("pid:[4026533000]", &link).unwrap();
    let report = scan(&tree);
    assert!(report.disks.iter().all(|d| !d.verdict.is_free()));
    assert!(report.blind_spots.iter().any(|s| s.contains("outside this container")), "{:?}", report.blind_spots);
    assert!(report.blind_spots.iter().any(|s| s.contains("hostPID: true")), "{:?}", report.blind_spots);
}

#[test]
fn a_partition_that_only_one_source_lists_makes_a_disk_foreign() {
    let tree = Tree::load("sata");
    let path = tree.roots().proc.join("partitions");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("   8        1    1048576 sda1\n");
    std::fs::write(&path, text).unwrap();
    let report = scan(&tree);
    let sda = report.disks.iter().find(|d| d.facts.name == "sda").unwrap();
    assert_eq!(sda.verdict.reasons()[0].to_string(), "/proc/partitions lists sda1, sysfs does not");
}

#[test]
fn without_udev_the_kernels_own_view_is_the_first_look() {
    let tree = Tree::load("sata");
    std::fs::remove_dir_all(tree.roots().run_udev).unwrap();
    let report = scan(&tree);
    let sda = report.disks.iter().find(|d| d.facts.name == "sda").unwrap();
    assert_eq!(sda.facts.udev, UdevView::Absent);
    assert!(sda.verdict.is_free());
}

#[test]
fn a_measurement_of_a_member_reaches_the_device_above_it() {
    let tree = Tree::load("md-raid");
    let mut report = scan(&tree);
    let latency = MeasuredLatency { p50_us: 60, samples: 500, zero_fraction: 0.0 };
    report.measured(&BTreeMap::from([("sda".to_owned(), latency)]));
    let md0 = report.disks.iter().find(|d| d.facts.name == "md0").unwrap();
    assert_eq!(md0.classification.media.as_str(), "unknown", "one member now contradicts itself");
}
