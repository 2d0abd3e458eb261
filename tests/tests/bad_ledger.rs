//! A ledger that is missing, cut, damaged, from the future or somebody else's: the agent's own program stays closed, names
//! the file and the way out, and who follows it loses nothing.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_core::bytes::MIB;
use bedplate_core::receipt::Receipt;
use bedplate_tests::agent::{Agent, Place, bedplate, bedplate_ok, refusal};
use bedplate_tests::engine::{Node, wait, want_ext4, wipe};
use bedplate_tests::orchestrator::Orchestrator;
use bedplate_tests::skip::need_root;
use std::path::PathBuf;
use std::time::Duration;

const BLOCKS: usize = 64;

/// A node that was in use: one volume wiped, one alive with markers; nothing is running.
struct Used {
    node: Node,
    place: Place,
    config: PathBuf,
}

impl Used {
    fn new() -> Self {
        let node = Node::new("ext4", 320).unwrap();
        let engine = node.open().unwrap();
        let gone = engine.create(&want_ext4("gone", 16)).unwrap().id;
        node.tenancy(&engine, &gone, 1, BLOCKS).unwrap();
        wipe(&engine, &gone).unwrap();
        let kept = engine.create(&want_ext4("kept", 16)).unwrap().id;
        node.tenancy(&engine, &kept, 2, BLOCKS).unwrap();
        drop(engine);
        let place = Place::new(node.place(), node.state());
        let config = place.write(&place.config(node.directory(), "")).unwrap();
        Self { node, place, config }
    }

    fn ledger(&self) -> PathBuf {
        self.node.state().join("ledger.log")
    }

    /// The agent does not start, says `words`, and has changed no byte of anything.
    fn stays_closed(&self, words: &[&str]) -> String {
        let look = || {
            let mut files: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(self.node.state())
                .unwrap()
                .map(|e| e.unwrap().path())
                .filter(|p| p.is_file() && p.file_name().is_some_and(|n| n != "lock"))
                .map(|p| (p.clone(), std::fs::read(p).unwrap()))
                .collect();
            files.sort();
            files
        };
        let before = look();
        let (status, said) = refusal(&["--standalone", "--config", self.config.to_str().unwrap()]).unwrap();
        assert!(!status.success(), "{said}");
        let state = self.node.state().display().to_string();
        for word in words.iter().chain(&[state.as_str(), "ledger.log"]) {
            assert!(said.contains(word), "{word:?} is not in\n{said}");
        }
        assert!(look() == before, "the state directory was changed");
        assert_eq!((self.node.files().unwrap().len(), self.node.on_disk(2).unwrap()), (1, BLOCKS));
        assert!(self.node.loops().is_empty());
        said
    }

    /// Follows the way out that was named: the old ledger is put aside, a new one begins. Nothing is lost, nothing offered,
    /// and a person gets at everything.
    fn the_way_out_loses_nothing(&self) {
        let aside = self.node.place().join("aside");
        std::fs::create_dir(&aside).unwrap();
        for name in ["ledger.log", "ledger.witness.0", "ledger.witness.1"] {
            let from = self.node.state().join(name);
            if from.exists() {
                std::fs::rename(&from, aside.join(name)).unwrap();
            }
        }
        let agent = Agent::start(&self.place, &self.config).unwrap();
        let admin = self.place.admin().display().to_string();
        let pools: serde_json::Value =
            serde_json::from_str(&bedplate_ok(&["pools", "-o", "json", "--socket", &admin]).unwrap()).unwrap();
        assert_eq!(pools[0]["found"].as_array().unwrap().len(), 1, "{pools}");
        assert_eq!(pools[0]["withheld"], 16 * MIB);
        assert_eq!(self.node.on_disk(2).unwrap(), BLOCKS);
        let file = pools[0]["found"][0]["file"].as_str().unwrap().to_owned();
        // New volumes are made beside it.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let calls = Orchestrator::new(&self.place.csi());
        let new = runtime.block_on(calls.create("kept", 16)).unwrap();
        assert_eq!(self.node.files().unwrap().len(), 2);
        runtime.block_on(calls.delete(&new)).unwrap();
        // The old one is taken on, and only then can it be wiped.
        bedplate_ok(&["pools", "--socket", &admin, "adopt", "local", &file]).unwrap();
        let volumes: serde_json::Value =
            serde_json::from_str(&bedplate_ok(&["volumes", "-o", "json", "--socket", &admin]).unwrap()).unwrap();
        assert_eq!(volumes[0]["phase"], "Retained", "{volumes}");
        assert_eq!(self.node.on_disk(2).unwrap(), BLOCKS);
        bedplate_ok(&["volumes", "--socket", &admin, "release", volumes[0]["id"].as_str().unwrap()]).unwrap();
        let gone = wait(Duration::from_secs(20), || (self.node.files().unwrap().is_empty()).then_some(()));
        assert!(gone.is_some(), "{}", agent.last_words());
        assert_eq!(self.node.on_disk(2).unwrap(), 0);
        assert!(agent.terminate().unwrap().success());
        // The receipts of both ledgers stand in one log, each chain whole.
        let receipts = self.node.receipts().unwrap();
        assert_eq!(receipts.iter().map(|r: &Receipt| r.number).collect::<Vec<_>>(), [1, 1, 2]);
        let said = bedplate_ok(&["receipts", "--verify", "--from", self.node.state().to_str().unwrap()]).unwrap();
        assert_eq!(said.matches("intact").count(), 2, "{said}");
    }
}

#[test]
fn a_ledger_that_is_missing_stays_missed() {
    if !need_root("a_ledger_that_is_missing_stays_missed") {
        return;
    }
    let used = Used::new();
    std::fs::remove_file(used.ledger()).unwrap();
    let said = used.stays_closed(&["is missing", "ledger.witness", "backup", "none is lost"]);
    assert!(said.contains("move ledger.witness.* out of"), "{said}");
    used.the_way_out_loses_nothing();
}

#[test]
fn a_ledger_cut_at_a_lines_end_is_noticed() {
    if !need_root("a_ledger_cut_at_a_lines_end_is_noticed") {
        return;
    }
    let used = Used::new();
    let whole = std::fs::read(used.ledger()).unwrap();
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
    // Back to before the volume that lives was made; to the very first line; to nothing.
    for keep in [ends[ends.len() / 2], ends[0], 0] {
        std::fs::write(used.ledger(), &whole[..keep]).unwrap();
        used.stays_closed(&["the end is missing", "backup", "none is lost"]);
    }
    used.the_way_out_loses_nothing();
}

#[test]
fn a_ledger_cut_in_the_middle_of_an_acknowledged_line_is_noticed() {
    if !need_root("a_ledger_cut_in_the_middle_of_an_acknowledged_line_is_noticed") {
        return;
    }
    let used = Used::new();
    let whole = std::fs::read(used.ledger()).unwrap();
    std::fs::write(used.ledger(), &whole[..whole.len() / 2]).unwrap();
    used.stays_closed(&["backup", "none is lost"]);
    used.the_way_out_loses_nothing();
}

#[test]
fn a_ledger_with_one_wrong_byte_is_noticed_wherever_it_is() {
    if !need_root("a_ledger_with_one_wrong_byte_is_noticed_wherever_it_is") {
        return;
    }
    let used = Used::new();
    let whole = std::fs::read(used.ledger()).unwrap();
    for at in [3, 40, whole.len() / 3, whole.len() * 2 / 3] {
        let mut wrong = whole.clone();
        wrong[at] ^= 4;
        std::fs::write(used.ledger(), &wrong).unwrap();
        used.stays_closed(&["line", "backup", "none is lost"]);
    }
    std::fs::write(used.ledger(), b"#!/bin/sh\necho this is no ledger\nexit 1\n").unwrap();
    used.stays_closed(&["line 1", "backup"]);
    // The backup that the message asks for: everything is as it was.
    std::fs::write(used.ledger(), &whole).unwrap();
    let engine = used.node.open().unwrap();
    assert_eq!(engine.volumes(false).len(), 1);
    drop(engine);
    let mut wrong = std::fs::read(used.ledger()).unwrap();
    wrong[100] ^= 4;
    std::fs::write(used.ledger(), &wrong).unwrap();
    used.the_way_out_loses_nothing();
}

#[test]
fn a_ledger_from_the_future_is_left_to_the_version_that_wrote_it() {
    if !need_root("a_ledger_from_the_future_is_left_to_the_version_that_wrote_it") {
        return;
    }
    let used = Used::new();
    let whole = std::fs::read_to_string(used.ledger()).unwrap();
    // A newer version has added one line, with fields that this one does not know.
    let json = r#"{"v":2,"number":77,"content":{"of":"the future"}}"#;
    let newer = format!("{whole}{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
    std::fs::write(used.ledger(), &newer).unwrap();
    used.stays_closed(&["newer version", "format 2"]);
    std::fs::write(used.ledger(), whole.replacen("\"v\":1", "\"v\":9", 1)).unwrap();
    used.stays_closed(&["line 1"]);
    std::fs::write(used.ledger(), &newer).unwrap();
    used.the_way_out_loses_nothing();
}

#[test]
fn a_ledger_of_another_node_is_not_taken_over() {
    if !need_root("a_ledger_of_another_node_is_not_taken_over") {
        return;
    }
    let used = Used::new();
    let config = std::fs::read_to_string(&used.config).unwrap().replace("\"node-1\"", "\"node-2\"");
    used.place.write(&config).unwrap();
    let (status, said) = refusal(&["--standalone", "--config", used.config.to_str().unwrap()]).unwrap();
    assert!(!status.success());
    for word in ["node-1", "node-2", "`node`", "state_dir"] {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
    // An older copy of its own ledger is not taken for the ledger either.
    used.place.write(&config.replace("\"node-2\"", "\"node-1\"")).unwrap();
    let older = std::fs::read(used.ledger()).unwrap();
    let engine = used.node.open().unwrap();
    let another = engine.create(&want_ext4("another", 16)).unwrap().id;
    wipe(&engine, &another).unwrap();
    drop(engine);
    std::fs::write(used.ledger(), older).unwrap();
    used.stays_closed(&["the end is missing"]);
}

/// Only what nobody was ever told of may be torn: the last line of an append that a crash cut short.
#[test]
fn a_torn_last_line_is_cut_off_and_nothing_else_happens() {
    if !need_root("a_torn_last_line_is_cut_off_and_nothing_else_happens") {
        return;
    }
    let used = Used::new();
    let whole = std::fs::read(used.ledger()).unwrap();
    for torn in [&b"9"[..], b"00000000 {\"v\":1,\"se", b"deadbeef {}\n"] {
        std::fs::write(used.ledger(), [&whole[..], torn].concat()).unwrap();
        let engine = used.node.open().unwrap();
        assert_eq!(engine.volumes(false).len(), 1);
        drop(engine);
        assert_eq!(std::fs::read(used.ledger()).unwrap(), whole);
    }
    assert!(
        bedplate(&["receipts", "--verify", "--from", used.node.state().to_str().unwrap()]).unwrap().status.success()
    );
}
