//! The programs under test, where cargo puts them: beside the folder that this test program lies in.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The path of one of the workspace's programs. `make test` builds them all before it runs anything.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this test program")?;
    // target/debug/deps/test-0123 → target/debug/program
    let folder = own.ancestors().nth(2).context("this test program lies in no target folder")?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}
