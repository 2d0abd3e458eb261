//! `bedplate disks` as a person runs it: on bad input, without rights, on odd machines.
#![allow(clippy::unwrap_used)] // clippy.toml frees tests only, not the helpers beside them

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

fn bedplate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bedplate"));
    command.arg("disks").args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A machine of one disk, mounted at a place with a hostile name, whose node is no device.
fn machine(root: &Path) {
    let put = |path: &str, content: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    for (file, content) in [
        ("dev", "8:0"),
        ("size", "4194304"),
        ("ro", "0"),
        ("removable", "0"),
        ("queue/rotational", "1"),
        ("queue/logical_block_size", "512"),
    ] {
        put(&format!("sys/block/sda/{file}"), content);
    }
    put("dev/sda", "");
    put("proc/1/mountinfo", "28 1 8:0 / /mnt/\\033[2J\\012evil rw - ext4 /dev/sda rw\n");
    put("proc/swaps", "Filename Type Size Used Priority\n");
    std::fs::create_dir_all(root.join("proc/1/ns")).unwrap();
    std::fs::create_dir_all(root.join("proc/self/ns")).unwrap();
    symlink("mnt:[1]", root.join("proc/1/ns/mnt")).unwrap();
    symlink("pid:[4026531836]", root.join("proc/self/ns/pid")).unwrap();
}

fn on(root: &Path, more: &[&str]) -> Output {
    let at = |flag: &str, name: &str| format!("--{flag}={}", root.join(name).display());
    let roots =
        [at("sys-root", "sys"), at("proc-root", "proc"), at("dev-root", "dev"), at("run-udev-root", "run/udev")];
    bedplate(more).args(roots).output().unwrap()
}

#[test]
fn without_sysfs_it_fails_with_the_path_and_the_way_out() {
    let out = bedplate(&["--sys-root", "/nowhere"]).output().unwrap();
    assert!(!out.status.success());
    let said = text(&out.stderr);
    assert!(said.contains("/nowhere/block") && said.contains("--sys-root"), "{said}");
}

#[test]
fn a_device_name_in_place_of_an_identity_is_refused_with_the_way_out() {
    for (argument, way_out) in [
        ("--media=/dev/sda=ssd", "by its id"),
        ("--media=sda", "DISK=MEDIA"),
        ("--media=S5GX=flash", "nvme, ssd, hdd or unknown"),
    ] {
        let out = bedplate(&[argument]).output().unwrap();
        assert!(!out.status.success() && text(&out.stderr).contains(way_out), "{argument}: {}", text(&out.stderr));
    }
}

#[test]
fn a_node_that_cannot_be_read_is_a_reason_and_names_from_outside_cannot_move_the_cursor() {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path());
    let out = on(dir.path(), &[]);
    let said = text(&out.stdout);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(said.contains("carries a mounted ext4 at /mnt/?[2J?evil"), "{said}");
    assert!(said.contains("sda is not a block device"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn json_says_whose_each_disk_is_and_why() {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path());
    let report: serde_json::Value = serde_json::from_slice(&on(dir.path(), &["-o", "json"]).stdout).unwrap();
    let disk = &report["disks"][0];
    assert_eq!(disk["verdict"]["is"], "foreign");
    assert_eq!(disk["verdict"]["reasons"][0]["code"], "mounted");
    assert_eq!(disk["facts"]["size"], 2_147_483_648u64);
    assert_eq!(disk["classification"]["media"], "unknown");
}

#[test]
fn a_machine_without_disks_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("sys/block")).unwrap();
    let out = on(dir.path(), &[]);
    assert!(out.status.success() && text(&out.stdout).contains("No disks found."));
}

#[test]
fn without_root_it_shows_what_it_may_and_says_what_it_cannot_see() {
    let name = "without_root_it_shows_what_it_may_and_says_what_it_cannot_see";
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP {name}: drops root, so it needs root");
        return;
    }
    let disks = std::fs::read_dir("/sys/block").unwrap().flatten();
    let real = disks.map(|e| e.file_name().to_string_lossy().into_owned()).any(|n| n.starts_with(['v', 's', 'n']));
    if !real {
        println!("SKIP {name}: this machine has no disk of its own");
        return;
    }
    // The build's folder may be closed to others; a copy in a folder of its own is not.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let copy = dir.path().join("bedplate");
    std::fs::copy(env!("CARGO_BIN_EXE_bedplate"), &copy).unwrap();
    for path in [dir.path(), &copy] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let out = Command::new(&copy).arg("disks").uid(65_534).gid(65_534).output().unwrap();
    let said = text(&out.stdout);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(said.contains("could not be read") && said.contains("run as root") && said.contains("hostPID"), "{said}");
    assert!(!said.contains("free:"), "{said}");
}
