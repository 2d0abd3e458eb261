//! The programs under test, where cargo puts them: beside this program, or, for a test, beside the folder that it lies in.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The path of one of the workspace's programs. `make test` builds them all before it runs anything.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this test program")?;
    // target/debug/deps/test-0123 → target/debug/program, and target/release/bench → target/release/program
    let folder = own.parent().context("this program lies in no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}
