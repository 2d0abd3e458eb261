//! The read probe against fio with equal parameters: same device, block size, depth and time, in turn.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use bedplate_agent::probe::{ReadParameters, read_probe};

use bedplate_core::bytes::Bytes;

use crate::Settings;
use crate::report::Report;

pub fn measure(settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    // A file, written once in full with bytes that no cache layer can compress away: equal for both, on any machine.
    let work = bedplate_tests::loopfs::real_dir()?;
    let device = work.path().join("target");
    let bytes = settings.wipe_bytes;
    println!("probe: {} written file, {} s a run, {} rounds", Bytes(bytes), settings.probe_seconds, settings.rounds);
    crate::wipe::run(
        "dd",
        &[
            "if=/dev/urandom",
            &format!("of={}", device.display()),
            "bs=4M",
            &format!("count={}", bytes >> 22),
            "conv=fsync",
            "status=none",
        ],
    )?;
    for depth in [1u16, 32] {
        let (mut ours, mut theirs, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..settings.rounds {
            let parameters = ReadParameters {
                seed: (u64::from(depth) << 32) + round as u64,
                ..ReadParameters::new(depth, settings.probe_seconds)
            };
            let probe = read_probe(&device, &parameters)?.figure.iops as f64;
            let fio = fio(&device, depth, settings.probe_seconds, round)?;
            ours.push(probe);
            theirs.push(fio);
            ratio.push(probe / fio);
        }
        report.add(&format!("probe.read_iops.qd{depth}.ratio_to_fio"), "x", ratio);
        report.add(&format!("probe.read_iops.qd{depth}.iops"), "IOPS", ours);
        report.add(&format!("probe.read_iops.qd{depth}.fio_iops"), "IOPS", theirs);
    }
    Ok(())
}

fn fio(device: &Path, depth: u16, seconds: u64, round: usize) -> anyhow::Result<f64> {
    let out = Command::new("fio")
        .args([
            "--name=peer",
            "--ioengine=io_uring",
            "--direct=1",
            "--rw=randread",
            "--bs=4k",
            "--readonly",
            "--time_based",
        ])
        .args(["--output-format=json", "--randrepeat=0"])
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--runtime={seconds}"))
        .arg(format!("--randseed={}", (usize::from(depth) << 8) + round + 77))
        .arg(format!("--filename={}", device.display()))
        .output()
        .context("fio cannot be started")?;
    ensure!(out.status.success(), "fio: {}", String::from_utf8_lossy(&out.stderr));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    json["jobs"][0]["read"]["iops"].as_f64().context("fio gave no read IOPS")
}
