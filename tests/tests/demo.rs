//! `bedplate demo`, as people run it: its story ends well, it fails when it must, and it leaves nothing behind.

#![allow(clippy::unwrap_used)] // helpers of tests, where a panic is the answer

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bedplate_tests::loopfs::{HostFs, Recipe, real_dir, run};
use bedplate_tests::programs::program;
use bedplate_tests::skip::need_root;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const MIB: u64 = 1 << 20;

fn demo(dir: &Path, more: &[&str]) -> Command {
    demo_of("320Mi", dir, more)
}

fn demo_of(size: &str, dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program("bedplate").unwrap());
    command.args(["demo", "--no-probe", "--size", size, "--markers", "64", "--rows", "60", "--dir"]);
    command.arg(dir).args(more).stdin(Stdio::null());
    command
}

fn told(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn report(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("report.json")).unwrap()).unwrap()
}

/// Nothing beneath `dir` is mounted or attached, and only the report is left in it.
fn assert_tidy(dir: &Path) {
    let dir = dir.canonicalize().unwrap();
    let text = dir.to_string_lossy();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let inside: Vec<&str> = mounts.lines().filter(|line| line.contains(&format!("{text}/run-"))).collect();
    assert!(inside.is_empty(), "{inside:?}");
    let loops = run("losetup", &["--list", "--noheadings", "--output", "NAME,BACK-FILE"]).unwrap();
    assert!(!loops.contains(&format!("{text}/run-")), "{loops}");
    let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.retain(|name| name != "report.json" && name != "lost+found");
    assert!(names.is_empty(), "{names:?}");
    let processes = processes(&format!("{text}/run-"));
    assert!(processes.is_empty(), "{processes:?}");
}

/// Living processes whose command line holds these words.
fn processes(words: &str) -> Vec<String> {
    let line = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(line);
    all.filter(|line| line.contains(words)).collect()
}

fn assert_clean(dir: &Path, out: &Output) {
    assert_eq!(out.status.code(), Some(0), "{}", told(out));
    let report = report(dir);
    assert_eq!(report["verdict"], "clean", "{report:#}");
    assert_eq!(report["markers_written"], 4 * (64 + 60));
    assert_eq!(report["markers_found_before_wipe"], report["markers_written"]);
    assert_eq!(report["markers_found_after_wipe"], 0);
    let receipts = report["receipts"].as_array().unwrap();
    assert!(receipts.iter().all(|r| r["level"] == "clear"), "{receipts:#?}");
    let mut claims: Vec<_> = receipts.iter().map(|r| r["claim"]["name"].as_str().unwrap()).collect();
    claims.sort_unstable();
    assert_eq!(claims, ["archive", "data-orders-0", "data-orders-1", "data-orders-2"]);
    assert_eq!(report["volumes"].as_array().unwrap().len(), 4);
    assert_placed(&report["placements"]);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert_tidy(dir);
}

/// Members on flash of a node each, the archive on the disk that turns, and a pod that fits nowhere, each with a reason for
/// every node.
fn assert_placed(placements: &Value) {
    let of = |pod: &str| placements.as_array().unwrap().iter().find(|p| p["pod"] == pod).unwrap().clone();
    let members: Vec<Value> = (0..3).map(|ordinal| of(&format!("shop/orders-{ordinal}"))).collect();
    let homes: BTreeSet<&str> = members.iter().map(|member| member["node"].as_str().unwrap()).collect();
    assert_eq!(homes.len(), 3, "{members:#?}");
    assert!(members.iter().all(|member| ["ssd", "nvme"].contains(&member["media"].as_str().unwrap())), "{members:#?}");
    assert_eq!(members[2]["claims"], serde_json::json!(["shop/data-orders-2"]));
    let apart = &members[2]["rejected"]["another member is there (required anti-affinity)"];
    assert_eq!(*apart, 2, "{members:#?}");
    let archive = of("shop/archive");
    assert_eq!(archive["media"], "hdd", "{archive:#}");
    assert_eq!(archive["rejected"]["no pool on the medium asked for"], 3, "{archive:#}");
    let misfit = of("shop/warehouse");
    assert_eq!(misfit["node"], Value::Null, "{misfit:#}");
    assert_eq!(misfit["rejected"]["the pod's claims do not fit together"], 3, "{misfit:#}");
    assert_eq!(misfit["rejected"]["no pool on the medium asked for"], 1, "{misfit:#}");
    for placement in placements.as_array().unwrap() {
        assert_eq!(placement["reasons"].as_array().unwrap().len(), 4, "a reason for every node: {placement:#}");
    }
}

#[test]
fn the_demo_finds_every_marker_before_the_wipe_and_none_after_it() {
    if !need_root("the_demo_finds_every_marker_before_the_wipe_and_none_after_it") {
        return;
    }
    let dir = real_dir().unwrap();
    let out = demo(dir.path(), &[]).output().unwrap();
    assert_clean(dir.path(), &out);
    let disks = report(dir.path())["disks"].as_array().unwrap().clone();
    assert!(!disks.is_empty() && disks.iter().all(|d| d["media"].is_string() && d["confidence"].is_string()));
    let text = told(&out);
    assert!(text.contains("chain is intact") && text.contains("clean: all 496 markers"), "{text}");
    assert!(text.contains("0/4 nodes are available") && text.contains("FailedScheduling"), "{text}");
}

#[test]
fn a_demo_whose_wipe_is_skipped_fails_and_says_that_the_markers_are_still_there() {
    if !need_root("a_demo_whose_wipe_is_skipped_fails_and_says_that_the_markers_are_still_there") {
        return;
    }
    let dir = real_dir().unwrap();
    let out = demo(dir.path(), &["--skip-wipe"]).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert!(told(&out).contains("496 of 496 markers are still on the disk"), "{}", told(&out));
    let report = report(dir.path());
    assert_eq!(report["verdict"], "failed");
    assert_eq!(report["markers_found_after_wipe"], 496);
    assert_eq!(report["receipts"], Value::Array(Vec::new()));
    assert_tidy(dir.path());
}

#[test]
fn on_a_disk_that_can_be_read_the_pool_lies_directly_on_it_and_discard_does_not_do_the_wipe_s_work() {
    if !need_root("on_a_disk_that_can_be_read_the_pool_lies_directly_on_it_and_discard_does_not_do_the_wipe_s_work") {
        return;
    }
    for fs in ["ext4", "xfs"] {
        let host = HostFs::make(Recipe { options: "discard", ..Recipe::new(fs, 4608 * MIB) }).unwrap();
        let out = demo(host.path(), &[]).output().unwrap();
        assert_clean(host.path(), &out);
        let text = told(&out);
        assert!(!text.contains("filesystem of its own"), "{text}");
        assert!(text.contains(&format!("{fs} on {}", host.device().display())), "{text}");
        let report = report(host.path());
        assert_eq!(report["blocks_held_until_searched"], true, "{text}");
        assert_eq!(report["bytes_not_zero_after_wipe"], 0);
    }
}

#[test]
fn where_blocks_have_no_fixed_address_the_demo_makes_a_filesystem_of_its_own() {
    if !need_root("where_blocks_have_no_fixed_address_the_demo_makes_a_filesystem_of_its_own") {
        return;
    }
    let host = HostFs::new("btrfs", 5120 * MIB).unwrap();
    let out = demo(host.path(), &[]).output().unwrap();
    assert_clean(host.path(), &out);
    assert!(told(&out).contains("an ext4 filesystem of its own"), "{}", told(&out));
}

#[test]
fn a_demo_without_a_place_to_work_says_what_is_missing_and_is_not_done() {
    if !need_root("a_demo_without_a_place_to_work_says_what_is_missing_and_is_not_done") {
        return;
    }
    let small = HostFs::new("ext4", 320 * MIB).unwrap();
    let out = demo(small.path(), &[]).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", told(&out));
    let text = told(&out);
    assert!(text.contains("not done: there is no place to work") && text.contains("are needed"), "{text}");
    assert!(text.contains("--dir"), "{text}");
    assert_eq!(report(small.path())["verdict"], "not done");
    assert_tidy(small.path());
    let dir = real_dir().unwrap();
    let out = demo_of("8Mi", dir.path(), &[]).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", told(&out));
    assert!(told(&out).contains("--size 8 MiB is too small"), "{}", told(&out));
}

#[test]
fn an_agent_that_dies_at_its_start_is_quoted() {
    if !need_root("an_agent_that_dies_at_its_start_is_quoted") {
        return;
    }
    let dir = real_dir().unwrap();
    let programs = dir.path().join("programs");
    std::fs::create_dir(&programs).unwrap();
    for name in ["bedplate-provisioner", "bedplate-extender"] {
        std::os::unix::fs::symlink(program(name).unwrap(), programs.join(name)).unwrap();
    }
    let script = programs.join("bedplate-agent");
    std::fs::write(&script, "#!/bin/sh\necho no disk today >&2\nexit 3\n").unwrap();
    run("chmod", &["755", &script.to_string_lossy()]).unwrap();
    let out = demo(&dir.path().join("work"), &["--programs", &programs.to_string_lossy()]).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{}", told(&out));
    assert!(told(&out).contains("no disk today") && told(&out).contains("exit status: 3"), "{}", told(&out));
    assert_tidy(&dir.path().join("work"));
}

/// A demo that has come as far as the line that holds `words`.
fn demo_until(dir: &Path, words: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = demo(dir, &[]).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before {words:?}");
    }
    (child, lines)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

#[test]
fn a_demo_that_is_interrupted_anywhere_takes_everything_away() {
    if !need_root("a_demo_that_is_interrupted_anywhere_takes_everything_away") {
        return;
    }
    for words in [
        "A place to work",
        "A cluster:",
        "A shop moves in",
        "A pod that fits nowhere",
        "Data, written",
        "First search",
        "The claims are deleted",
    ] {
        let dir = real_dir().unwrap();
        let (mut child, mut lines) = demo_until(dir.path(), words);
        kill(pid(&child), Signal::SIGINT).unwrap();
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut lines, &mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(2), "at {words:?}: {rest}");
        assert!(rest.contains("not done: stopped by a signal"), "at {words:?}: {rest}");
        assert_tidy(dir.path());
    }
}

#[test]
fn what_a_killed_demo_left_behind_is_taken_away_by_the_next() {
    if !need_root("what_a_killed_demo_left_behind_is_taken_away_by_the_next") {
        return;
    }
    let dir = real_dir().unwrap();
    let (mut child, _lines) = demo_until(dir.path(), "Data, written");
    child.kill().unwrap();
    child.wait().unwrap();
    let words = format!("{}/run-{}", dir.path().canonicalize().unwrap().display(), child.id());
    let agents = |all: &[String]| all.iter().filter(|line| line.contains("bedplate-agent")).count();
    assert_eq!(
        agents(&processes(&words)),
        4,
        "the killed demo's agents run on: that is what the next has to deal with"
    );
    let out = demo(dir.path(), &[]).output().unwrap();
    assert_clean(dir.path(), &out);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes(&words).is_empty() {
        assert!(Instant::now() < deadline, "of the killed demo there still run {:?}", processes(&words));
        std::thread::yield_now();
    }
}

#[test]
fn without_root_the_demo_shows_disks_and_says_what_it_cannot_do() {
    if !need_root("without_root_the_demo_shows_disks_and_says_what_it_cannot_do") {
        return;
    }
    // A copy where anybody may run it, and a folder that anybody may write to.
    let dir = real_dir().unwrap();
    run("chmod", &["777", &dir.path().to_string_lossy()]).unwrap();
    let copy = dir.path().join("bedplate");
    std::fs::copy(program("bedplate").unwrap(), &copy).unwrap();
    let out = Command::new(&copy).arg("demo").current_dir(dir.path()).uid(65534).gid(65534).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", told(&out));
    let text = told(&out);
    assert!(text.contains("Disks of") && text.contains("not done: without root"), "{text}");
    assert!(text.contains("sudo bedplate demo"), "{text}");
    assert_eq!(report(&dir.path().join("target/demo"))["verdict"], "not done");
}
