//! The wipe engine against `dd oflag=direct` and `shred -n1`, its verification against a direct read.
//!
//! One round: a raw block volume of a real pool, filled once so that every extent is written, is overwritten by `shred`,
//! released and wiped, canaries, journal, checkpoints and flushes included; its times are the ledger's, from the plan to the
//! flush, and from there to the proof. A second volume beside it is written and read by `dd` right before and right after:
//! many disks (and all of a cloud's) give more to whoever comes after a rest, so `dd` counts with the mean of the two. What
//! a cache below this machine's disk serves cannot be told from here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use bedplate_blockdev::linux::{LinuxHost, Roots};
use bedplate_core::bytes::Bytes;
use bedplate_core::class::Class;
use bedplate_core::ids::VolumeId;
use bedplate_core::journal::decode;
use bedplate_core::ledger::Event;
use bedplate_core::volume::{Change, Mode, ReleaseKind};
use bedplate_core::wipe::Geometry;
use bedplate_provisioner::config::{EngineConfig, PoolConfig};
use bedplate_provisioner::engine::{CreateVolume, Driven, Engine, Stop};
use bedplate_provisioner::surroundings::RealSurroundings;

use bedplate_tests::loopfs::{HostFs, Recipe};

use crate::Settings;
use crate::report::Report;

/// Sectors are 512 bytes in `/proc/diskstats`, whatever the disk's own.
const SECTOR: u64 = 512;

pub fn measure(settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    let bytes = settings.wipe_bytes;
    // A filesystem of our own on a fully written file: the real disk sees every sector, and nothing else is disturbed.
    let recipe = Recipe { written: true, ..Recipe::new("ext4", 2 * bytes + (1 << 30)) };
    let ground = HostFs::make(recipe)?;
    println!("wipe: {} volume, {} rounds", Bytes(bytes), settings.rounds);
    let disk = Disk::beneath(&ground.disk())?;
    let (state, pool) = (ground.path().join("state"), ground.pool("bench")?);
    std::fs::create_dir(&state)?;
    let config = EngineConfig {
        node: "bench".parse()?,
        state_dir: state.clone(),
        pools: vec![PoolConfig { reserve: Bytes(0), ..PoolConfig::new("bench".parse()?, pool) }],
        geometry: Geometry::default(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let host = Arc::new(LinuxHost::new(Roots::default()));
    let engine = Engine::open(host, Arc::new(RealSurroundings::new()?), config)?;
    let gib_s = |seconds: f64| bytes as f64 / f64::from(1 << 30) / seconds;
    let mut rounds = Rounds::default();
    let create = |name: String| {
        engine.create(&CreateVolume {
            name,
            required: bytes,
            limit: 0,
            mode: Mode::Block,
            class: Class::default(),
            parameters: std::collections::BTreeMap::new(),
            origin: None,
        })
    };
    let stage = |id: &VolumeId| anyhow::Ok(engine.stage(id, "/bench")?.path.display().to_string());
    let count = format!("count={}", bytes >> 22);
    let dd = |arguments: &[&str]| run("dd", &[arguments, &["bs=4M", &count, "status=none"]].concat());
    let write = |node: &str| dd(&["if=/dev/zero", &format!("of={node}"), "oflag=direct", "conv=notrunc,fsync"]);
    let peer = create("peer".to_owned())?;
    let beside = stage(&peer.id)?;
    write(&beside)?;
    for round in 0..settings.rounds {
        let volume = create(format!("round-{round}"))?;
        let node = stage(&volume.id)?;
        write(&node)?;
        let shred_s = disk.timed(0, bytes, || run("shred", &["-n1", &node]))?;
        engine.unstage(&volume.id)?;
        engine.release(&volume.id, ReleaseKind::ByHand, "bench")?;
        let read = || disk.timed(bytes, 0, || dd(&[&format!("if={beside}"), "of=/dev/null", "iflag=direct"]));
        let read_before_s = read()?;
        let before_s = disk.timed(0, bytes, || write(&beside))?;
        disk.timed(bytes, bytes, || match engine.drive(&volume.id, &Stop::default(), &|| {})? {
            Driven::Freed => Ok(()),
            other => bail!("the wipe ended {other:?}"),
        })?;
        let read_s = f64::midpoint(read_before_s, read()?);
        let after_s = disk.timed(0, bytes, || write(&beside))?;
        let dd_s = f64::midpoint(before_s, after_s);
        let (wipe_s, verify_s) = phases(&state, volume.id.as_str())?;
        println!(
            "  round {}: dd {:.2} and {:.2}, shred {:.2}, bedplate {:.2} GiB/s; read {:.2}, verify {:.2} GiB/s",
            round + 1,
            gib_s(before_s),
            gib_s(after_s),
            gib_s(shred_s),
            gib_s(wipe_s),
            gib_s(read_s),
            gib_s(verify_s)
        );
        rounds.to_dd.push(dd_s / wipe_s);
        rounds.to_shred.push(shred_s / wipe_s);
        rounds.to_read.push(read_s / verify_s);
        rounds.wipe.push(gib_s(wipe_s));
        rounds.dd.push(gib_s(dd_s));
        rounds.shred.push(gib_s(shred_s));
        rounds.read.push(gib_s(read_s));
        rounds.verify.push(gib_s(verify_s));
    }
    report.add_with_reach("wipe.zero.ratio_to_dd", "x", rounds.to_dd, (">=", 0.95));
    report.add_with_reach("wipe.zero.ratio_to_shred", "x", rounds.to_shred, (">=", 0.95));
    report.add("wipe.verify.ratio_to_read", "x", rounds.to_read);
    report.add("wipe.zero.gib_per_s", "GiB/s", rounds.wipe);
    report.add("wipe.zero.dd_gib_per_s", "GiB/s", rounds.dd);
    report.add("wipe.zero.shred_gib_per_s", "GiB/s", rounds.shred);
    report.add("wipe.verify.gib_per_s", "GiB/s", rounds.verify);
    report.add("wipe.verify.read_gib_per_s", "GiB/s", rounds.read);
    engine.unstage(&peer.id)?;
    Ok(())
}

#[derive(Default)]
struct Rounds {
    to_dd: Vec<f64>,
    to_shred: Vec<f64>,
    to_read: Vec<f64>,
    wipe: Vec<f64>,
    dd: Vec<f64>,
    shred: Vec<f64>,
    read: Vec<f64>,
    verify: Vec<f64>,
}

/// Seconds of overwriting and of reading back, by the ledger's own records.
fn phases(state: &Path, id: &str) -> anyhow::Result<(f64, f64)> {
    let journal = decode(&std::fs::read(state.join("ledger.log"))?, &[])?;
    let mut at = [None; 3];
    for record in journal.records {
        let Event::Volume { id: volume, change } = record.event else { continue };
        if volume.as_str() == id {
            match change {
                Change::WipePlanned { .. } => at[0] = Some(record.at),
                Change::Flushed => at[1] = Some(record.at),
                Change::Verified { .. } => at[2] = Some(record.at),
                _ => {}
            }
        }
    }
    let [Some(planned), Some(flushed), Some(verified)] = at else { bail!("the ledger has no whole wipe of {id}") };
    let seconds = |from: jiff::Timestamp, to: jiff::Timestamp| to.duration_since(from).as_secs_f64();
    Ok((seconds(planned, flushed), seconds(flushed, verified)))
}

/// The disk beneath a folder, by its counters.
struct Disk {
    stat: PathBuf,
}

impl Disk {
    fn beneath(file: &Path) -> anyhow::Result<Self> {
        let device = nix::sys::stat::stat(file)?.st_dev;
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let stat = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        ensure!(
            stat.exists(),
            "{} is on no single block device; set BEDPLATE_TEST_DIR to a folder on one",
            file.display()
        );
        Ok(Self { stat })
    }

    /// Bytes read and written so far (the fields of `/proc/diskstats`).
    fn moved(&self) -> anyhow::Result<(u64, u64)> {
        let text = std::fs::read_to_string(&self.stat)?;
        let fields: Vec<u64> = text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [_, _, read, _, _, _, written, ..] = fields.as_slice() else {
            bail!("{} has too few fields", self.stat.display())
        };
        Ok((read * SECTOR, written * SECTOR))
    }

    /// Seconds that `work` took, if the disk really read and wrote so many bytes in it.
    fn timed(&self, reads: u64, writes: u64, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let before = self.moved()?;
        let start = Instant::now();
        work()?;
        let seconds = start.elapsed().as_secs_f64();
        let after = self.moved()?;
        for (what, moved, bytes) in [("read", after.0 - before.0, reads), ("written", after.1 - before.1, writes)] {
            ensure!(
                moved >= bytes / 100 * 99,
                "only {moved} of {bytes} bytes were {what}: this run counts for nothing"
            );
        }
        Ok(seconds)
    }
}

/// Run a tool to its good end.
pub fn run(tool: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let out = Command::new(tool).args(arguments).output().with_context(|| format!("{tool} cannot be started"))?;
    ensure!(out.status.success(), "{tool} {}: {}", arguments.join(" "), String::from_utf8_lossy(&out.stderr));
    Ok(())
}
