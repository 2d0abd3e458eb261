//! The numbers in the last line of `make test` come from two small readers of test reports, `tests/run/*.awk`.
//! A reader that takes a failure for a pass would hide it from everybody, so each is held against a report here.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a reader over a report, first for the numbers, then for the list of names.
fn read(reader: &str, report: &str) -> anyhow::Result<(String, String)> {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("run").join(reader);
    let run = |list: &str| -> anyhow::Result<String> {
        let mut awk = Command::new("awk")
            .args(["-v", list, "-f"])
            .arg(&reader)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        awk.stdin.take().ok_or_else(|| anyhow::anyhow!("awk has no standard input"))?.write_all(report.as_bytes())?;
        let output = awk.wait_with_output()?;
        anyhow::ensure!(output.status.success(), "awk: {}", output.status);
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    };
    Ok((run("list=0")?, run("list=1")?))
}

const NEXTEST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="6" failures="2" errors="0">
    <testsuite name="bedplate-core" tests="6" disabled="0" errors="0" failures="2">
        <testcase name="wipe::passes" classname="bedplate-core" time="0.003"/>
        <testcase name="says_skip_elsewhere" classname="bedplate-core" time="0.003">
            <system-out>
a log that would SKIP things: but is no skip
&lt;testcase name="forged"&gt;
test result: ok. 1 passed; 0 failed</system-out>
        </testcase>
        <testcase name="skips" classname="bedplate-core" time="0.003">
            <system-out>SKIP skips: no &lt;btrfs&gt; &amp; no root</system-out>
            <system-err></system-err>
        </testcase>
        <testcase name="skips_twice" classname="bedplate-core" time="0.003">
            <system-out>
test skips_twice ... SKIP skips_twice (ext4): not here
SKIP skips_twice (xfs): not here
ok
</system-out>
        </testcase>
        <testcase name="skips_then_fails" classname="bedplate-core" time="0.003">
            <failure message="assertion failed" type="test failure with exit code 101">thread panicked</failure>
            <system-out>SKIP skips_then_fails: half of it
</system-out>
        </testcase>
        <testcase name="hangs" classname="bedplate-core" time="8.0">
            <failure type="test timeout"/>
        </testcase>
    </testsuite>
</testsuites>
"#;

#[test]
fn a_nextest_report_is_counted_by_test_and_not_by_line() -> anyhow::Result<()> {
    let (numbers, names) = read("junit.awk", NEXTEST)?;
    assert_eq!(numbers, "6 2 2", "tests, failed, skipped");
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        [
            "SKIP skips: no <btrfs> & no root",
            "SKIP skips_twice (ext4): not here",
            "SKIP skips_twice (xfs): not here",
            "FAILED bedplate-core skips_then_fails: test failure with exit code 101",
            "FAILED bedplate-core hangs: test timeout",
        ]
    );
    Ok(())
}

const LIBTEST: &str = r"
running 7 tests
test drill ... ignored, long: a hundred rounds
test broken ... ignored, waits for a newer kernel
test passes ... ok
test skips ... ok
test skips_twice ... ok
test fails ... FAILED

successes:

---- skips ---- no header of ours
---- skips stdout ----
SKIP skips: no root

---- skips_twice stdout ----
SKIP skips_twice (ext4): not here
SKIP skips_twice (xfs): not here

successes:
    passes

failures:

---- fails stdout ----
SKIP fails: half of it

failures:
    fails

test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 1 test
test skips ... ok

successes:

---- skips stdout ----
SKIP skips: the same name in another program

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

#[test]
fn without_nextest_the_same_rules_hold_over_all_programs() -> anyhow::Result<()> {
    let (numbers, names) = read("libtest.awk", LIBTEST)?;
    assert_eq!(numbers, "1 1 4", "passed, failed, skipped");
    assert!(names.lines().any(|line| line == "FAILED fails"), "{names}");
    assert!(names.lines().any(|line| line == "SKIP broken: waits for a newer kernel"), "{names}");
    assert!(names.lines().any(|line| line.starts_with("not part of make test: drill")), "{names}");
    assert!(!names.contains("SKIP fails"), "a failed test is not a skipped one: {names}");
    Ok(())
}
