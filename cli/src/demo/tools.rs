//! The host's own programs: found at fixed places, run with a clean environment, never through a shell.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Where programs of the system lie.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program's path, where it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())
}

/// A command that inherits nothing.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PLACES.join(":")).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Run a program to its end; what it printed.
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> anyhow::Result<String> {
    let program = find(name).with_context(|| format!("{name} is not installed"))?;
    let out = command(&program).args(arguments).output().with_context(|| format!("cannot start {name}"))?;
    if !out.status.success() {
        bail!("{name} failed ({}): {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
