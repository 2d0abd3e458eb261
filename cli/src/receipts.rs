//! `bedplate receipts`: what was wiped, how it was proven, and whether the log was tampered with.
//!
//! Reads the log file itself, so it works without an agent and on a copy. Beside its ledger the log's end is checked too.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bedplate_core::bytes::Bytes;
use bedplate_core::journal::decode;
use bedplate_core::ledger::Ledger;
use bedplate_core::receipt::{Chain, Receipt, verify_log};
use bedplate_core::wipe::Verification;
use bedplate_provisioner::receipts::{RECEIPTS, parse};
use bedplate_provisioner::store::JOURNAL;
use clap::Args;

use crate::output::{Output, print};
use crate::volumes::columns;

/// Receipts of finished wipes.
#[derive(Debug, Args)]
pub struct ReceiptsArgs {
    /// The agent's state directory, or a copy of its receipts.log.
    #[arg(long, env = "BEDPLATE_STATE_DIR", default_value = "/var/lib/bedplate")]
    from: PathBuf,
    /// Check every hash and the chain, and its end against the ledger beside it; exits with 1 where anything was changed,
    /// removed or added.
    #[arg(long)]
    verify: bool,
    /// Only those of this claim, as namespace/name, or of this volume name.
    #[arg(long)]
    of: Option<String>,
    /// How to print.
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl ReceiptsArgs {
    /// Do it.
    pub fn run(self) -> anyhow::Result<()> {
        // Before the log: a receipt that is given out in between is then one too many, never one too few.
        let ledger = if self.verify { ledger_beside(&self.from) } else { None };
        let path = if self.from.is_dir() { self.from.join(RECEIPTS) } else { self.from };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // The ledger says whether there ought to be one.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && ledger.is_some() => Vec::new(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("there is no receipts log at {}; name the agent's state_dir with --from", path.display())
            }
            Err(error) => return Err(error).context(format!("{} cannot be read", path.display())),
        };
        let (receipts, whole) = parse(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
        if whole < bytes.len() as u64 {
            eprintln!("the last line of {} is torn; the agent mends it at its next receipt", path.display());
        }
        if self.verify {
            return verify(&path, &receipts, ledger.as_ref());
        }
        let shown: Vec<&Receipt> =
            receipts.iter().filter(|r| self.of.as_deref().is_none_or(|of| is_of(r, of))).collect();
        match self.output {
            Output::Json => print(&serde_json::to_string_pretty(&shown)?)?,
            Output::Table => print(&table(&shown))?,
        }
        Ok(())
    }
}

/// The ledger in the same state directory: only it knows where the log ought to end.
fn ledger_beside(from: &Path) -> Option<Ledger> {
    let path = from.join(JOURNAL);
    let bytes = std::fs::read(&path).ok()?;
    match decode(&bytes, &[]).map_err(anyhow::Error::from).and_then(|j| Ok(Ledger::replay(j.records)?)) {
        Ok(ledger) => ledger,
        Err(error) => {
            eprintln!(
                "{} cannot be read, so the end of the log cannot be checked against it: {error:#}",
                path.display()
            );
            None
        }
    }
}

fn verify(path: &Path, receipts: &[Receipt], ledger: Option<&Ledger>) -> anyhow::Result<()> {
    let broken = || format!("{} is not intact", path.display());
    let chains = verify_log(receipts).with_context(broken)?;
    if let Some(ledger) = ledger {
        ledger.check_log(receipts).with_context(broken)?;
    }
    if chains.is_empty() {
        println!("no receipts, nothing to verify");
    }
    for Chain { ledger: id, receipts, last } in &chains {
        let end = match ledger {
            Some(ledger) if ledger.id == *id => ", as the ledger knows it",
            _ => "; only the ledger could tell whether more followed",
        };
        println!("{receipts} receipts of ledger {id} are intact; the last hash is {last}{end}");
    }
    Ok(())
}

fn is_of(receipt: &Receipt, of: &str) -> bool {
    receipt.name == of
        || receipt.volume.as_str() == of
        || of.split_once('/').is_some_and(|(ns, name)| receipt.claim.namespace == ns && receipt.claim.name == name)
}

/// Receipts as a table.
pub fn table(receipts: &[&Receipt]) -> String {
    if receipts.is_empty() {
        return "no receipts".to_owned();
    }
    let mut table =
        columns(&["NO", "VOLUME", "NAME", "SIZE", "DISK", "LEVEL", "VERIFIED", "CANARIES", "SECONDS", "ENDED", "HASH"]);
    for r in receipts {
        let disk = r.disk.serial.as_ref().or(r.disk.wwn.as_ref()).or(r.disk.device.as_ref());
        table.add_row([
            r.number.to_string(),
            r.volume.to_string(),
            r.name.clone(),
            Bytes(r.bytes).to_string(),
            format!("{} ({} identity)", disk.map_or("unknown", String::as_str), r.disk.identity),
            r.level.to_string(),
            match r.verification.kind {
                Verification::Full => "full".to_owned(),
                Verification::Sample { samples } => format!("sample({samples}, {} ppm)", r.verification.bound_ppm),
            },
            format!("{} gone", r.verification.canaries),
            format!("{:.1}", r.ended.duration_since(r.started).as_secs_f64()),
            r.ended.to_string(),
            r.hash.chars().take(12).collect(),
        ]);
    }
    table.to_string()
}
