//! What lies in a volume before it is deleted: a real program's database, files with markers, and a deleted file, whose
//! bytes stay on the disk although no name leads to them any more.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::interrupt::Interrupt;
use super::markers::{BLOCK, Markers};
use super::tools;

/// Files with marker blocks, of which the last is deleted again.
const FILES: u32 = 8;
/// Rows of one transaction.
const BATCH: usize = 50;

/// What keeps the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keeper {
    /// sqlite3.
    Sqlite,
    /// A text file, where sqlite3 is not installed.
    File,
}

impl Keeper {
    /// The best one here.
    pub fn here() -> Self {
        if tools::find("sqlite3").is_some() { Self::Sqlite } else { Self::File }
    }
}

/// Fill a mounted volume. All of it has reached the disk's own care (fsync) when this returns.
pub fn fill(markers: &Markers, volume: u32, mount: &Path, keeper: Keeper, interrupt: &Interrupt) -> anyhow::Result<()> {
    let rows: Vec<String> = (0..markers.rows).map(|row| markers.token(volume, row)).collect();
    match keeper {
        Keeper::Sqlite => database(&mount.join("orders.db"), &rows)?,
        Keeper::File => text(&mount.join("orders.txt"), &rows)?,
    }
    for file in 0..FILES {
        interrupt.check()?;
        // A folder each: filesystems spread folders over the volume.
        let folder = mount.join(format!("shelf-{file}"));
        std::fs::create_dir(&folder)?;
        let path = folder.join("blocks");
        let mut open = File::create_new(&path)?;
        for block in (file..markers.blocks).step_by(FILES as usize) {
            open.write_all(&markers.block(volume, block))?;
        }
        open.sync_all()?;
        ensure!(open.metadata()?.len() % BLOCK as u64 == 0, "{} is not of whole blocks", path.display());
        drop(open);
        if file + 1 == FILES {
            std::fs::remove_file(&path)?;
        }
        File::open(&folder)?.sync_all()?;
    }
    File::open(mount)?.sync_all()?;
    Ok(())
}

/// A table in a database, written in transactions that sqlite itself carries to the disk.
fn database(path: &Path, rows: &[String]) -> anyhow::Result<()> {
    let mut sql = String::from(
        "PRAGMA synchronous=FULL;\nCREATE TABLE orders(id INTEGER PRIMARY KEY, customer TEXT NOT NULL, amount REAL);\n",
    );
    for batch in rows.chunks(BATCH) {
        sql.push_str("BEGIN;\n");
        for (i, token) in batch.iter().enumerate() {
            let _ = writeln!(sql, "INSERT INTO orders(customer, amount) VALUES ('customer {token}', {i}.5);");
        }
        sql.push_str("COMMIT;\n");
    }
    sql.push_str("PRAGMA integrity_check;\nSELECT count(*) FROM orders;\n");
    let program = tools::find("sqlite3").context("sqlite3 is not installed")?;
    let mut child = tools::command(&program)
        .args(["-batch", "-bail"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start sqlite3")?;
    // Through a pipe: the rows are on no disk but the volume's. It answers only after it has read everything.
    let given = child.stdin.take().context("sqlite3 takes no input")?.write_all(sql.as_bytes());
    let out = child.wait_with_output()?;
    if !out.status.success() {
        bail!("sqlite3 failed ({}): {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    given.context("sqlite3 did not read its input")?;
    let said = String::from_utf8_lossy(&out.stdout);
    let said: Vec<&str> = said.lines().collect();
    ensure!(said == ["ok", &rows.len().to_string()], "sqlite3 counted otherwise: {said:?}");
    Ok(())
}

fn text(path: &Path, rows: &[String]) -> anyhow::Result<()> {
    let mut file = File::create_new(path)?;
    for (i, token) in rows.iter().enumerate() {
        writeln!(file, "order {i} customer {token}")?;
    }
    file.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_block_and_row_is_written_once_and_one_file_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let markers = Markers::new([3; 32], 1, 40, 120);
        let interrupt = Interrupt::listen().unwrap();
        fill(&markers, 0, folder.path(), Keeper::File, &interrupt).unwrap();
        let read = |n: u32| std::fs::read(folder.path().join(format!("shelf-{n}/blocks")));
        let blocks: Vec<Vec<u8>> = (0..FILES - 1)
            .flat_map(|n| read(n).unwrap().chunks(BLOCK).map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect();
        assert_eq!(blocks.len(), 35);
        for block in (0..40).filter(|b| b % FILES != FILES - 1) {
            assert!(blocks.contains(&markers.block(0, block)), "block {block}");
        }
        assert!(read(FILES - 1).is_err());
        let rows = std::fs::read_to_string(folder.path().join("orders.txt")).unwrap();
        assert!((0..120).all(|row| rows.contains(&markers.token(0, row))));
    }

    #[test]
    fn a_database_keeps_every_row() {
        if Keeper::here() == Keeper::File {
            println!("SKIP a_database_keeps_every_row: sqlite3 is not installed");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let markers = Markers::new([4; 32], 1, 0, 130);
        let rows: Vec<String> = (0..130).map(|row| markers.token(0, row)).collect();
        database(&folder.path().join("x.db"), &rows).unwrap();
        let bytes = std::fs::read(folder.path().join("x.db")).unwrap();
        assert!(rows.iter().all(|row| memchr::memmem::find(&bytes, row.as_bytes()).is_some()));
    }
}
