//! How a test says that it cannot run here.
//!
//! A test that needs what this machine lacks prints one line `SKIP name: why` and returns. `make test` takes that line
//! from the test's output, counts the test as skipped instead of passed, and repeats the line above its closing line.
//! As root on Linux no test may need it. Crates that cannot depend on this one print the same line themselves.

/// Says that `test` is skipped, and why; both on one line. The caller returns right after.
pub fn skip(test: &str, why: &str) {
    println!("{}", line(test, why));
}

/// True if the caller is root. Otherwise says that `test` is skipped for the lack of it.
#[must_use]
pub fn need_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip(test, "needs root (loop devices, mounts)");
    }
    root
}

/// The line that the runner looks for. A colon ends the name, a newline the line: neither may stand within.
fn line(test: &str, why: &str) -> String {
    let name = test.replace("::", ".").replace([':', '\n'], " ");
    let why = why.replace('\n', " ");
    format!("SKIP {name}: {why}")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_skip_is_one_line_whatever_the_name_and_the_reason_hold() {
        assert_eq!(line("loop::ext4", "no such\nfilesystem: ext4"), "SKIP loop.ext4: no such filesystem: ext4");
    }
}
