//! Receipts as evidence: `bedplate receipts --verify` finds what was changed, removed, added or cut off, and one chain runs
//! through restarts, kills and torn lines. The logs come from engines on the scripted machine.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_blockdev::fake::{Done, FakeHost, Script};
use bedplate_core::ids::VolumeId;
use bedplate_core::receipt::{Receipt, verify_chain};
use bedplate_provisioner::engine::{Driven, Engine, Stop};
use bedplate_provisioner::receipts::{RECEIPTS, parse};
use bedplate_tests::agent::bedplate;
use bedplate_tests::engine::{drive, phase, release, want_ext4, wipe};
use bedplate_tests::scripted::{STATE, machine, open, tenancy};
use serde_json::Value;
use std::path::Path;

/// A volume's whole life.
fn wiped(host: &FakeHost, engine: &Engine, name: &str) -> VolumeId {
    let id = engine.create(&want_ext4(name, 1)).unwrap().id;
    tenancy(host, engine, &id, 600_000, b"something").unwrap();
    wipe(engine, &id).unwrap();
    id
}

fn log(host: &FakeHost) -> Vec<u8> {
    host.content(Path::new(STATE), RECEIPTS).unwrap_or_default()
}

fn lines(log: &[u8]) -> Vec<String> {
    std::str::from_utf8(log).unwrap().lines().map(str::to_owned).collect()
}

/// A state directory as a person finds it, with a log and perhaps the ledger.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new(host: &FakeHost, with_ledger: bool) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        if with_ledger {
            let ledger = host.content(Path::new(STATE), "ledger.log").unwrap();
            std::fs::write(copy.0.path().join("ledger.log"), ledger).unwrap();
        }
        copy.write(&log(host))
    }

    fn write(self, log: &[u8]) -> Self {
        std::fs::write(self.0.path().join(RECEIPTS), log).unwrap();
        self
    }

    fn put(&self, lines: &[String]) {
        let text: String = lines.iter().flat_map(|l| [l.as_str(), "\n"]).collect();
        std::fs::write(self.0.path().join(RECEIPTS), text).unwrap();
    }

    /// Whether the log is called intact, and what is said.
    fn verify(&self) -> (bool, String) {
        let out = bedplate(&["receipts", "--verify", "--from", self.0.path().to_str().unwrap()]).unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8(said).unwrap())
    }

    #[track_caller]
    fn is_intact(&self) -> String {
        let (intact, said) = self.verify();
        assert!(intact, "{said}");
        said
    }

    #[track_caller]
    fn is_broken(&self, word: &str) {
        let (intact, said) = self.verify();
        assert!(!intact && said.contains(word), "{word:?} is not in\n{said}");
        assert!(said.contains("not intact"), "{said}");
    }
}

/// Every field of a receipt, at every depth, as the paths that lead there.
fn fields(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| fields(value, &format!("{path}/{key}"), found)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| fields(v, &format!("{path}/{i}"), found)),
        _ => found.push(path.to_owned()),
    }
}

/// Another value of the same kind.
fn changed(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Number(n) => Value::from(n.as_u64()? + 1),
        Value::Bool(b) => Value::from(!b),
        Value::Null => Value::from("S3CRET"),
        // A digit or letter for another of its kind, so that dates, ids and words stay such.
        Value::String(s) => {
            let at = s.rfind(|c: char| c.is_ascii_digit())?;
            let digit = if &s[at..=at] == "1" { "2" } else { "1" };
            Value::from(format!("{}{digit}{}", &s[..at], &s[at + 1..]))
        }
        Value::Array(_) | Value::Object(_) => return None,
    })
}

#[test]
fn a_change_of_any_field_of_any_receipt_is_found() {
    let host = machine();
    let engine = open(&host).unwrap();
    for name in ["v1", "v2", "v3"] {
        wiped(&host, &engine, name);
    }
    let copy = Copy::new(&host, false);
    assert!(copy.is_intact().contains("3 receipts"));
    let good = lines(&log(&host));
    let receipt: Value = serde_json::from_str(&good[1]).unwrap();
    let mut paths = Vec::new();
    fields(&receipt, "", &mut paths);
    assert!(paths.len() > 25, "{paths:?}");
    let mut tried = 0;
    for path in paths {
        let mut forged = receipt.clone();
        let Some(other) = changed(forged.pointer(&path).unwrap()) else { continue };
        *forged.pointer_mut(&path).unwrap() = other;
        let mut lines = good.clone();
        lines[1] = forged.to_string();
        copy.put(&lines);
        let (intact, said) = copy.verify();
        assert!(!intact, "{path} could be changed to {}: {said}", forged.pointer(&path).unwrap());
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
    // The word that matters most.
    copy.put(&[good[0].clone(), good[1].replace("\"level\":\"clear\"", "\"level\":\"isolation\""), good[2].clone()]);
    copy.is_broken("receipt 2");
    copy.put(&good);
    copy.is_intact();
}

#[test]
fn a_receipt_that_is_removed_repeated_or_moved_is_found() {
    let host = machine();
    let engine = open(&host).unwrap();
    for name in ["v1", "v2", "v3", "v4"] {
        wiped(&host, &engine, name);
    }
    let copy = Copy::new(&host, false);
    let [a, b, c, d] = lines(&log(&host)).try_into().unwrap();
    for wrong in [
        vec![&a, &c, &d],
        vec![&b, &c, &d],
        vec![&a, &b, &b, &c, &d],
        vec![&a, &c, &b, &d],
        vec![&a, &b, &c, &d, &a],
        vec![&d],
    ] {
        copy.put(&wrong.into_iter().cloned().collect::<Vec<_>>());
        copy.is_broken("does not follow");
    }
    copy.put(&[a, b, "this is no receipt".to_owned(), c, d]);
    let (intact, said) = copy.verify();
    assert!(!intact && said.contains("line 3"), "{said}");
}

/// The end of a chain has no successor to tell. The ledger beside it can.
#[test]
fn a_log_cut_off_or_written_anew_at_its_end_is_found_beside_its_ledger() {
    let host = machine();
    let engine = open(&host).unwrap();
    for name in ["v1", "v2", "v3"] {
        wiped(&host, &engine, name);
    }
    let good = lines(&log(&host));
    let mut last: Receipt = serde_json::from_str(&good[2]).unwrap();
    last.bytes *= 2;
    last.hash = last.computed_hash().unwrap();
    let forged = [good[0].clone(), good[1].clone(), serde_json::to_string(&last).unwrap()];
    for with_ledger in [true, false] {
        let copy = Copy::new(&host, with_ledger);
        let said = copy.is_intact();
        assert_eq!(said.contains("as the ledger knows it"), with_ledger, "{said}");
        for (wrong, word) in [(&good[..2], "receipt 3"), (&good[..0], "receipt 1"), (&forged[..], "receipt 3")] {
            copy.put(wrong);
            if with_ledger {
                copy.is_broken(word);
            } else {
                // Nobody could know; what is said does not claim more.
                let said = copy.is_intact();
                assert!(said.contains("only the ledger could tell") || said.contains("nothing to verify"), "{said}");
            }
        }
    }
    let copy = Copy::new(&host, true);
    std::fs::remove_file(copy.0.path().join(RECEIPTS)).unwrap();
    copy.is_broken("receipt 1");
}

#[test]
fn a_torn_last_line_is_tolerated_and_mended_with_the_next_receipt() {
    let host = machine();
    let engine = open(&host).unwrap();
    wiped(&host, &engine, "v1");
    let whole = log(&host);
    for torn in [&whole[..10], &whole[..whole.len() - 1]] {
        let copy = Copy::new(&host, true).write(&[&whole[..], torn].concat());
        let said = copy.is_intact();
        assert!(said.contains("torn") && said.contains("1 receipts"), "{said}");
    }
    host.host_write(Path::new(STATE), RECEIPTS, &[&whole[..], &whole[..10]].concat());
    wiped(&host, &engine, "v2");
    assert_eq!(lines(&log(&host)).len(), 2);
    Copy::new(&host, true).is_intact();
}

#[test]
fn one_chain_runs_through_restarts_and_kills_in_every_step_of_giving_back() {
    let mut host = machine();
    let (mut made, mut kills) = (Vec::new(), 0);
    for life in 0..40 {
        let engine = open(&host).unwrap();
        let id = engine.create(&want_ext4(&format!("v{life}"), 1)).unwrap().id;
        tenancy(&host, &engine, &id, 600_000, b"something").unwrap();
        release(&engine, &id).unwrap();
        // Later and later in the last steps of the wipe, and then from the start of it again.
        let stop = Stop::default();
        let script = Script::new().kill_at(host.steps() + 20 + 2 * life, Done::Part(life));
        host.set_script(script);
        let killed = engine.drive(&id, &stop, &|| ());
        kills += u32::from(host.is_dead());
        made.push(id);
        drop(engine);
        host = host.after_kill();
        let engine = open(&host).unwrap();
        // Whether it was killed or not: the log in the moment after is a chain, if perhaps one receipt short.
        Copy::new(&host, true).is_intact();
        for id in engine.pending() {
            assert_eq!(drive(&engine, &id).unwrap(), Driven::Freed, "{killed:?}");
        }
        Copy::new(&host, true).is_intact();
        drop(engine);
        host = host.after_kill();
    }
    assert!(kills > 20, "only {kills} kills struck");
    let engine = open(&host).unwrap();
    let receipts = parse(&log(&host)).unwrap().0;
    assert_eq!(receipts.len(), 40);
    verify_chain(engine.ledger_id(), &receipts).unwrap();
    assert_eq!(receipts.iter().map(|r| &r.volume).collect::<Vec<_>>(), made.iter().collect::<Vec<_>>());
    assert!(receipts.is_sorted_by_key(|r| r.ended));
    assert!(made.iter().all(|id| phase(&engine, id) == "Freed"));
}

/// A log that cannot be read takes no receipt, so nothing is freed until it is put right.
#[test]
fn nothing_is_freed_while_the_log_is_damaged() {
    let host = machine();
    let engine = open(&host).unwrap();
    wiped(&host, &engine, "v1");
    let whole = log(&host);
    host.host_write(Path::new(STATE), RECEIPTS, b"somebody edited this\n{}\n");
    let id = engine.create(&want_ext4("v2", 1)).unwrap().id;
    tenancy(&host, &engine, &id, 600_000, b"something").unwrap();
    release(&engine, &id).unwrap();
    for _ in 0..2 {
        let error = drive(&engine, &id).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains("line 1") && said.contains(RECEIPTS) && said.contains("backup"), "{said}");
        assert_eq!(phase(&engine, &id), "Verified");
    }
    assert!(engine.create(&want_ext4("v2", 1)).is_err());
    host.host_write(Path::new(STATE), RECEIPTS, &whole);
    assert_eq!(drive(&engine, &id).unwrap(), Driven::Freed);
    Copy::new(&host, true).is_intact();
}
