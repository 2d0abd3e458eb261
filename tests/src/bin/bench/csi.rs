//! CSI create → published at 1, 10 and 100 calls at once, and the agent's memory with 100 volumes in service.
//!
//! A real agent process on a real pool, over its socket, `mkfs` included.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bedplate_csi::v1::controller_client::ControllerClient;
use bedplate_csi::v1::node_client::NodeClient;
use bedplate_csi::v1::volume_capability::access_mode::Mode;
use bedplate_csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use bedplate_csi::v1::{
    CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use bedplate_tests::loopfs::{HostFs, Recipe};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::Settings;
use crate::report::{Report, median};
use crate::wipe::run;

/// Bytes of a volume: small, so that `mkfs` and the journal and not the disk are measured.
const BYTES: i64 = 64 << 20;

pub fn measure(settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    println!("csi: create to published, ext4, 64 MiB volumes");
    // Room for a hundred twice: while one is being made, its bytes count beside the blocks that it has taken already.
    let ground = HostFs::make(Recipe { written: true, ..Recipe::new("ext4", 14 << 30) })?;
    let work = bedplate_tests::loopfs::real_dir()?;
    let _mounts = Mounts { below: work.path().to_owned() };
    let agent = Agent::start(work.path(), &ground)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let channel = bedplate_csi::client::connect(&agent.csi).await?;
        let idle = agent.resident_mib()?;
        for (at_once, rounds) in [(1usize, settings.rounds * 4), (10, settings.rounds), (100, 2.min(settings.rounds))] {
            let mut latencies = Vec::new();
            let mut medians = Vec::new();
            for round in 0..rounds {
                let one = burst(&channel, work.path(), &format!("b{at_once}-{round}"), at_once).await?;
                if at_once == 100 && round == 0 {
                    report.add_with_reach("agent.rss_mib", "MiB", vec![agent.resident_mib()?], ("<", 20.0));
                }
                let millis: Vec<f64> = one.iter().map(|v| v.millis).collect();
                medians.push(median(&millis));
                latencies.extend(millis);
                drop_all(&channel, one).await?;
            }
            let name = format!("csi.create_publish_p50_ms.{at_once}");
            if at_once == 1 {
                report.add_with_reach(&name, "ms", latencies, ("<", 100.0));
            } else {
                report.add(&name, "ms", medians);
            }
        }
        report.add("agent.idle_rss_mib", "MiB", vec![idle]);
        anyhow::Ok(())
    })?;
    agent.stop()
}

/// The agent's release build beside this program, stopped when dropped.
struct Agent {
    child: Child,
    csi: PathBuf,
}

impl Agent {
    #[expect(clippy::unnecessary_debug_formatting, reason = "TOML quotes strings as Rust does")]
    fn start(work: &Path, ground: &HostFs) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("bedplate-agent");
        let (csi, admin, config) = (work.join("csi.sock"), work.join("admin.sock"), work.join("agent.toml"));
        let text = format!(
            "node = \"bench\"\nstate_dir = {:?}\ncsi_socket = {csi:?}\nadmin_socket = {admin:?}\n\n[[pool]]\nname = \"bench\"\n\
             directory = {:?}\nreserve = \"0\"\nmedia = \"ssd\"\n",
            ground.path().join("state"),
            ground.pool("bench")?
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(&program);
        command.arg("--standalone").arg("--config").arg(&config).args(["--log", "warn"]);
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        let mut agent = Self { child, csi };
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&admin).is_err() {
            ensure!(Instant::now() < deadline && agent.child.try_wait()?.is_none(), "the agent did not get ready");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(agent)
    }

    fn resident_mib(&self) -> anyhow::Result<f64> {
        let process = procfs::process::Process::new(i32::try_from(self.child.id())?)?;
        Ok((process.statm()?.resident * procfs::page_size()) as f64 / f64::from(1 << 20))
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Takes away the mounts below a folder when dropped, where a bench that failed left some; their loop devices were made to
/// detach themselves with the last mount or are detached here.
struct Mounts {
    below: PathBuf,
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let Ok(mounts) = procfs::process::Process::myself().and_then(|own| own.mountinfo()) else { return };
        for mount in mounts.0.iter().rev().filter(|mount| mount.mount_point.starts_with(&self.below)) {
            let point = mount.mount_point.display().to_string();
            if let Err(error) = run("umount", &[&point]) {
                eprintln!("left behind: {error:#}");
            }
            if let Some(source) = mount.mount_source.as_deref().filter(|source| source.starts_with("/dev/loop")) {
                // Detached already where it was told to be with its last user.
                let _ = run("losetup", &["--detach", source]);
            }
        }
    }
}

struct Published {
    id: String,
    stage: PathBuf,
    target: PathBuf,
    millis: f64,
}

async fn burst(channel: &Channel, work: &Path, name: &str, count: usize) -> anyhow::Result<Vec<Published>> {
    let mut tasks = JoinSet::new();
    let work = Arc::new(work.to_owned());
    for i in 0..count {
        let (channel, work, name) = (channel.clone(), work.clone(), format!("{name}-{i}"));
        tasks.spawn(async move { publish(channel, &work, name).await });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn publish(channel: Channel, work: &Path, name: String) -> anyhow::Result<Published> {
    let (mut controller, mut node) = (ControllerClient::new(channel.clone()), NodeClient::new(channel));
    let stage = work.join("stage").join(&name);
    let target = work.join("pods").join(&name);
    std::fs::create_dir_all(&stage)?;
    std::fs::create_dir_all(work.join("pods"))?;
    let capability = VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume { fs_type: "ext4".to_owned(), ..MountVolume::default() })),
    };
    let start = Instant::now();
    let created = controller
        .create_volume(CreateVolumeRequest {
            name,
            capacity_range: Some(CapacityRange { required_bytes: BYTES, limit_bytes: 0 }),
            volume_capabilities: vec![capability.clone()],
            ..CreateVolumeRequest::default()
        })
        .await
        .context("CreateVolume")?;
    let volume = created.into_inner().volume.context("CreateVolume gave no volume")?;
    let id = volume.volume_id;
    node.node_stage_volume(NodeStageVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: stage.display().to_string(),
        volume_capability: Some(capability.clone()),
        volume_context: volume.volume_context.clone(),
        ..NodeStageVolumeRequest::default()
    })
    .await
    .context("NodeStageVolume")?;
    node.node_publish_volume(NodePublishVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: stage.display().to_string(),
        target_path: target.display().to_string(),
        volume_capability: Some(capability),
        volume_context: volume.volume_context,
        ..NodePublishVolumeRequest::default()
    })
    .await
    .context("NodePublishVolume")?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let same_device = nix::sys::stat::stat(&target)?.st_dev == nix::sys::stat::stat(work)?.st_dev;
    ensure!(!same_device, "{} is not mounted", target.display());
    Ok(Published { id, stage, target, millis })
}

async fn drop_all(channel: &Channel, volumes: Vec<Published>) -> anyhow::Result<()> {
    let (mut controller, mut node) = (ControllerClient::new(channel.clone()), NodeClient::new(channel.clone()));
    for volume in &volumes {
        node.node_unpublish_volume(NodeUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: volume.target.display().to_string(),
        })
        .await?;
        node.node_unstage_volume(NodeUnstageVolumeRequest {
            volume_id: volume.id.clone(),
            staging_target_path: volume.stage.display().to_string(),
        })
        .await?;
    }
    for volume in volumes {
        // Aborted means that the wipe goes on: the call is idempotent.
        loop {
            let request = DeleteVolumeRequest { volume_id: volume.id.clone(), ..DeleteVolumeRequest::default() };
            match controller.delete_volume(request).await {
                Ok(_) => break,
                Err(status) if status.code() == tonic::Code::Aborted => {}
                Err(status) => return Err(status).context("DeleteVolume"),
            }
        }
    }
    Ok(())
}
