//! The Node service over a real socket, on real loop devices and mounts of this machine: a volume's whole life, twice
//! over, its codes, and what it must never touch.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests are not seen as tests by the lint

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedplate_blockdev::LinuxHost;
use bedplate_csi::v1::node_service_capability::Type as NodeType;
use bedplate_csi::v1::volume_capability::access_mode::Mode;
use bedplate_csi::v1::volume_usage::Unit;
use bedplate_csi::v1::{
    CreateVolumeRequest, DeleteVolumeRequest, NodeExpandVolumeRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, VolumeCapability,
};
use bedplate_tests::csi::{MIB, Served, block, create, mount, settings};
use bedplate_tests::loopfs::{HostFs, real_dir, run};
use bedplate_tests::skip::need_root;
use tempfile::TempDir;
use tonic::{Code, Request, Status};

const WRITER: Mode = Mode::SingleNodeWriter;

/// A served engine on this machine, on a filesystem of this test's own, and folders for its state and mounts.
struct Bench {
    served: Option<Served>,
    dir: TempDir,
    host: HostFs,
}

impl Bench {
    async fn new() -> Self {
        let (dir, host) = (real_dir().unwrap(), HostFs::new("ext4", 1 << 30).unwrap());
        for name in ["state", "s", "t"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut bench = Self { served: None, dir, host };
        fs::create_dir(bench.pool()).unwrap();
        bench.restart(true).await;
        bench
    }

    /// Ends the engine and its server, and begins anew on the same state.
    async fn restart(&mut self, wiping: bool) {
        if let Some(before) = self.served.take() {
            before.stop().await;
        }
        let config = settings(&self.at("state"), &self.pool()).unwrap();
        self.served = Some(Served::start(Arc::new(LinuxHost::default()), config, wiping).await.unwrap());
    }

    fn served(&self) -> &Served {
        self.served.as_ref().unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pool(&self) -> PathBuf {
        self.host.path().join("pool")
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    async fn make(&self, request: CreateVolumeRequest) -> String {
        let answer = self.served().controller().create_volume(request).await.unwrap();
        answer.into_inner().volume.unwrap().volume_id
    }

    async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest { volume_id: id.to_owned(), ..Default::default() };
        self.served().controller().delete_volume(request).await.map(drop)
    }

    async fn stage(&self, id: &str, at: &str, capability: VolumeCapability) -> Result<(), Status> {
        let request = NodeStageVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: self.text(at),
            volume_capability: Some(capability),
            ..Default::default()
        };
        self.served().node().node_stage_volume(request).await.map(drop)
    }

    async fn unstage(&self, id: &str, at: &str) -> Result<(), Status> {
        let request = NodeUnstageVolumeRequest { volume_id: id.to_owned(), staging_target_path: self.text(at) };
        self.served().node().node_unstage_volume(request).await.map(drop)
    }

    fn publication(&self, id: &str, at: &str, capability: VolumeCapability) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: id.to_owned(),
            staging_target_path: self.text("s"),
            target_path: self.text(at),
            volume_capability: Some(capability),
            ..Default::default()
        }
    }

    async fn publish(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.served().node().node_publish_volume(request).await.map(drop)
    }

    async fn unpublish(&self, id: &str, at: &str) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path: self.text(at) };
        self.served().node().node_unpublish_volume(request).await.map(drop)
    }

    async fn stats(&self, id: &str, path: String) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest { volume_id: id.to_owned(), volume_path: path, ..Default::default() };
        self.served().node().node_get_volume_stats(request).await.map(tonic::Response::into_inner)
    }
}

impl Drop for Bench {
    /// Takes away what this test mounted and attached, in case it ended early.
    fn drop(&mut self) {
        let base = self.dir.path().canonicalize().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(point).starts_with(&base) {
                let _ = nix::mount::umount2(point, nix::mount::MntFlags::UMOUNT_NOFOLLOW);
            }
        }
        for file in fs::read_dir(self.pool()).into_iter().flatten().flatten() {
            let associated = ["--noheadings", "--output", "NAME", "--associated"].map(std::ffi::OsString::from);
            let arguments: Vec<_> = associated.into_iter().chain([file.path().into_os_string()]).collect();
            for device in run("losetup", &arguments).unwrap_or_default().lines() {
                let _ = run("losetup", &["--detach", device.trim()]);
            }
        }
    }
}

/// The error must have this code and name all of these.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, names: &[&str]) {
    let status = answer.expect_err("it must be refused");
    assert_eq!(status.code(), code, "{status}");
    for name in names {
        assert!(status.message().contains(name), "{:?} must name {name:?}", status.message());
    }
}

fn plain() -> VolumeCapability {
    mount(WRITER, "", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_lives_its_whole_life_with_every_call_made_three_times() {
    if !need_root("a_volume_lives_its_whole_life_with_every_call_made_three_times") {
        return;
    }
    for (fs_type, mib, flags) in
        [("ext4", 32, &["noatime"][..]), ("xfs", 300, &["noatime,largeio"][..]), ("btrfs", 128, &["compress=zstd"][..])]
    {
        let bench = Bench::new().await;
        let capability = mount(WRITER, fs_type, flags);
        let request = CreateVolumeRequest { volume_capabilities: vec![capability.clone()], ..create("a", mib) };
        let id = bench.make(request).await;
        for _ in 0..3 {
            bench.stage(&id, "s", capability.clone()).await.unwrap();
        }
        for _ in 0..3 {
            bench.publish(bench.publication(&id, "t/a", capability.clone())).await.unwrap();
        }
        fs::write(bench.at("t/a/file"), "kept").unwrap();
        for _ in 0..3 {
            bench.unpublish(&id, "t/a").await.unwrap();
        }
        assert!(!bench.at("t/a").exists());
        for _ in 0..3 {
            bench.unstage(&id, "s").await.unwrap();
        }
        assert_eq!(fs::read_dir(bench.at("s")).unwrap().count(), 0, "the staging path is empty again");
        bench.stage(&id, "s", capability.clone()).await.unwrap();
        assert_eq!(fs::read_to_string(bench.at("s/file")).unwrap(), "kept", "a second staging formats nothing");
        refused(bench.delete(&id).await, Code::FailedPrecondition, &["in use", &bench.text("s")]);
        bench.unstage(&id, "s").await.unwrap();
        for _ in 0..3 {
            bench.delete(&id).await.unwrap();
        }
        let images: Vec<_> =
            fs::read_dir(bench.pool()).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some()).collect();
        assert!(images.iter().all(|e| !e.as_ref().unwrap().path().ends_with(".img")), "{fs_type}: its file is gone");
        refused(bench.stage(&id, "s", capability.clone()).await, Code::NotFound, &[&id]);
        bench.unstage(&id, "s").await.unwrap();
        bench.unpublish(&id, "t/a").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_publication_is_read_only_from_its_first_moment() {
    if !need_root("a_read_only_publication_is_read_only_from_its_first_moment") {
        return;
    }
    let bench = Bench::new().await;
    let many = mount(Mode::SingleNodeMultiWriter, "", &[]);
    let id = bench.make(create("a", 8)).await;
    bench.stage(&id, "s", many.clone()).await.unwrap();
    let reader = NodePublishVolumeRequest { readonly: true, ..bench.publication(&id, "t/r", many.clone()) };
    let writer = bench.publication(&id, "t/w", many.clone());
    for request in [&reader, &writer, &reader, &writer] {
        bench.publish(request.clone()).await.unwrap();
    }
    fs::write(bench.at("t/w/file"), "x").unwrap();
    assert_eq!(fs::read_to_string(bench.at("t/r/file")).unwrap(), "x");
    assert_eq!(fs::write(bench.at("t/r/file"), "y").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    let turned = NodePublishVolumeRequest { readonly: false, ..reader.clone() };
    refused(bench.publish(turned).await, Code::AlreadyExists, &[&bench.text("t/r"), "read-only"]);
    let turned = NodePublishVolumeRequest { readonly: true, ..writer.clone() };
    refused(bench.publish(turned).await, Code::AlreadyExists, &[&bench.text("t/w"), "writable"]);
    refused(bench.unstage(&id, "s").await, Code::FailedPrecondition, &["t/r", "t/w", "unpublish"]);
    bench.unpublish(&id, "t/r").await.unwrap();
    bench.unpublish(&id, "t/w").await.unwrap();
    // A mode that only reads is read-only without being told.
    bench.publish(bench.publication(&id, "t/o", mount(Mode::SingleNodeReaderOnly, "", &[]))).await.unwrap();
    assert_eq!(fs::write(bench.at("t/o/file"), "y").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    bench.unpublish(&id, "t/o").await.unwrap();
    bench.unstage(&id, "s").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_for_one_is_published_once() {
    if !need_root("a_volume_for_one_is_published_once") {
        return;
    }
    let bench = Bench::new().await;
    let id = bench.make(create("a", 8)).await;
    for mode in [Mode::SingleNodeSingleWriter, WRITER] {
        let one = mount(mode, "", &[]);
        bench.stage(&id, "s", one.clone()).await.unwrap();
        bench.publish(bench.publication(&id, "t/1", one.clone())).await.unwrap();
        let second = bench.publication(&id, "t/2", one.clone());
        refused(bench.publish(second).await, Code::FailedPrecondition, &["t/1", "unpublish"]);
        // The first tolerates no other, whatever the second says of itself.
        let second = bench.publication(&id, "t/2", mount(Mode::SingleNodeMultiWriter, "", &[]));
        refused(bench.publish(second).await, Code::FailedPrecondition, &["t/1"]);
        let other = bench.publication(&id, "t/1", mount(Mode::SingleNodeMultiWriter, "", &[]));
        refused(bench.publish(other).await, Code::AlreadyExists, &["volume_capability"]);
        assert!(!bench.at("t/2").exists());
        bench.unpublish(&id, "t/1").await.unwrap();
        bench.unstage(&id, "s").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_volume_is_a_device_node_that_can_be_read_only() {
    if !need_root("a_block_volume_is_a_device_node_that_can_be_read_only") {
        return;
    }
    let bench = Bench::new().await;
    let many = block(Mode::SingleNodeMultiWriter);
    let id = bench.make(CreateVolumeRequest { volume_capabilities: vec![many.clone()], ..create("a", 8) }).await;
    for _ in 0..2 {
        bench.stage(&id, "s", many.clone()).await.unwrap();
    }
    let writer = bench.publication(&id, "t/w", many.clone());
    for _ in 0..2 {
        bench.publish(writer.clone()).await.unwrap();
    }
    assert!(fs::metadata(bench.at("t/w")).unwrap().file_type().is_block_device());
    let usage = bench.stats(&id, bench.text("t/w")).await.unwrap().usage;
    assert_eq!((usage[0].total, usage.len()), (8 * MIB, 1));
    let turned = NodePublishVolumeRequest { readonly: true, ..writer.clone() };
    refused(bench.publish(turned).await, Code::AlreadyExists, &["t/w", "writable"]);
    let reader = NodePublishVolumeRequest { readonly: true, ..bench.publication(&id, "t/r", many.clone()) };
    refused(bench.publish(reader.clone()).await, Code::FailedPrecondition, &["t/w", "writable"]);
    refused(bench.unstage(&id, "s").await, Code::FailedPrecondition, &["t/w"]);
    bench.unpublish(&id, "t/w").await.unwrap();
    assert!(!bench.at("t/w").exists());

    for _ in 0..2 {
        bench.publish(reader.clone()).await.unwrap();
        bench.stage(&id, "s", many.clone()).await.unwrap();
    }
    // The kernel lets one open it, but not write.
    let mut opened = fs::OpenOptions::new().write(true).open(bench.at("t/r")).unwrap();
    assert_eq!(opened.write(&[1; 4096]).unwrap_err().kind(), ErrorKind::PermissionDenied);
    drop(opened);
    refused(bench.publish(writer.clone()).await, Code::FailedPrecondition, &["t/r", "read-only"]);
    bench.unpublish(&id, "t/r").await.unwrap();
    bench.publish(writer).await.unwrap();
    fs::OpenOptions::new().write(true).open(bench.at("t/w")).unwrap().write_all(&[1; 4096]).unwrap();
    bench.unpublish(&id, "t/w").await.unwrap();
    refused(bench.stage(&id, "s", plain()).await, Code::AlreadyExists, &["volume_capability"]);
    bench.unstage(&id, "s").await.unwrap();
    refused(bench.stage(&id, "s", plain()).await, Code::FailedPrecondition, &["offered as block"]);
    bench.delete(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_knows_its_mounts_again() {
    if !need_root("a_restarted_agent_knows_its_mounts_again") {
        return;
    }
    let mut bench = Bench::new().await;
    let id = bench.make(create("a", 8)).await;
    bench.stage(&id, "s", plain()).await.unwrap();
    bench.publish(bench.publication(&id, "t/a", plain())).await.unwrap();
    let open = fs::File::create(bench.at("t/a/file")).unwrap();
    bench.restart(true).await;
    refused(bench.delete(&id).await, Code::FailedPrecondition, &["in use"]);
    bench.stage(&id, "s", plain()).await.unwrap();
    bench.publish(bench.publication(&id, "t/a", plain())).await.unwrap();
    let turned = NodePublishVolumeRequest { readonly: true, ..bench.publication(&id, "t/a", plain()) };
    refused(bench.publish(turned).await, Code::AlreadyExists, &["writable"]);
    assert_eq!(bench.stats(&id, bench.text("t/a")).await.unwrap().usage.len(), 2);
    refused(bench.unpublish(&id, "t/a").await, Code::FailedPrecondition, &["in use", "t/a"]);
    drop(open);
    bench.unpublish(&id, "t/a").await.unwrap();
    bench.unstage(&id, "s").await.unwrap();
    bench.delete(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_can_end_although_its_pool_is_gone() {
    if !need_root("a_pod_can_end_although_its_pool_is_gone") {
        return;
    }
    let mut bench = Bench::new().await;
    let id = bench.make(create("a", 8)).await;
    bench.stage(&id, "s", plain()).await.unwrap();
    bench.publish(bench.publication(&id, "t/a", plain())).await.unwrap();
    let (pool, hidden) = (bench.pool(), bench.host.path().join("hidden"));
    fs::rename(&pool, &hidden).unwrap();
    fs::create_dir(&pool).unwrap();
    bench.restart(true).await;
    let condition = bench.stats(&id, bench.text("t/a")).await.unwrap().volume_condition.unwrap();
    assert!(condition.abnormal && condition.message.contains("absent"), "{condition:?}");
    refused(bench.publish(bench.publication(&id, "t/b", plain())).await, Code::FailedPrecondition, &["absent"]);
    bench.unpublish(&id, "t/a").await.unwrap();
    assert!(!bench.at("t/a").exists());
    refused(bench.unstage(&id, "s").await, Code::FailedPrecondition, &["absent"]);
    refused(bench.delete(&id).await, Code::FailedPrecondition, &["in use"]);
    fs::remove_dir(&pool).unwrap();
    fs::rename(&hidden, &pool).unwrap();
    bench.restart(true).await;
    bench.unstage(&id, "s").await.unwrap();
    bench.delete(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_volume_is_never_staged_again() {
    if !need_root("a_released_volume_is_never_staged_again") {
        return;
    }
    let mut bench = Bench::new().await;
    let id = bench.make(create("a", 8)).await;
    bench.restart(false).await;
    let mut request = Request::new(DeleteVolumeRequest { volume_id: id.clone(), ..Default::default() });
    request.set_timeout(Duration::from_millis(200));
    refused(bench.served().controller().delete_volume(request).await, Code::Aborted, &[&id]);
    refused(bench.stage(&id, "s", plain()).await, Code::FailedPrecondition, &[&id, "released"]);
    refused(bench.publish(bench.publication(&id, "t/a", plain())).await, Code::FailedPrecondition, &[&id, "released"]);
    bench.unstage(&id, "s").await.unwrap();
    bench.unpublish(&id, "t/a").await.unwrap();
    let condition = bench.served().controller().list_volumes(bedplate_csi::v1::ListVolumesRequest::default()).await;
    assert_eq!(condition.unwrap().into_inner().entries.len(), 1);
    bench.restart(true).await;
    bench.delete(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_malformed_arguments_are_named() {
    if !need_root("missing_and_malformed_arguments_are_named") {
        return;
    }
    let bench = Bench::new().await;
    let id = bench.make(create("a", 8)).await;
    let node = || bench.served().node();
    let stage = NodeStageVolumeRequest {
        volume_id: id.clone(),
        staging_target_path: bench.text("s"),
        volume_capability: Some(plain()),
        ..Default::default()
    };
    let publish = bench.publication(&id, "t/a", plain());
    for bad in ["", "../x", "a\nb", "a/b"] {
        let volume_id = bad.to_owned();
        let staged = NodeStageVolumeRequest { volume_id: volume_id.clone(), ..stage.clone() };
        refused(node().node_stage_volume(staged).await, Code::InvalidArgument, &["volume_id"]);
        let published = NodePublishVolumeRequest { volume_id: volume_id.clone(), ..publish.clone() };
        refused(node().node_publish_volume(published).await, Code::InvalidArgument, &["volume_id"]);
        refused(bench.unstage(bad, "s").await, Code::InvalidArgument, &["volume_id"]);
        refused(bench.unpublish(bad, "t/a").await, Code::InvalidArgument, &["volume_id"]);
        refused(bench.stats(bad, bench.text("t/a")).await, Code::InvalidArgument, &["volume_id"]);
    }
    for bad in ["", "relative", "/", "/a/../b", "/a\nb", "/a\0b"] {
        let path = bad.to_owned();
        let staged = NodeStageVolumeRequest { staging_target_path: path.clone(), ..stage.clone() };
        refused(node().node_stage_volume(staged).await, Code::InvalidArgument, &["staging_target_path"]);
        let unstaged = NodeUnstageVolumeRequest { volume_id: id.clone(), staging_target_path: path.clone() };
        refused(node().node_unstage_volume(unstaged).await, Code::InvalidArgument, &["staging_target_path"]);
        let published = NodePublishVolumeRequest { target_path: path.clone(), ..publish.clone() };
        refused(node().node_publish_volume(published).await, Code::InvalidArgument, &["target_path"]);
        let unpublished = NodeUnpublishVolumeRequest { volume_id: id.clone(), target_path: path.clone() };
        refused(node().node_unpublish_volume(unpublished).await, Code::InvalidArgument, &["target_path"]);
    }
    let staged = NodeStageVolumeRequest { volume_capability: None, ..stage.clone() };
    refused(node().node_stage_volume(staged).await, Code::InvalidArgument, &["volume_capability"]);
    let published = NodePublishVolumeRequest { volume_capability: None, ..publish.clone() };
    refused(node().node_publish_volume(published).await, Code::InvalidArgument, &["volume_capability"]);
    let published = NodePublishVolumeRequest { staging_target_path: String::new(), ..publish.clone() };
    refused(node().node_publish_volume(published).await, Code::FailedPrecondition, &["staging_target_path"]);
    refused(bench.stats(&id, String::new()).await, Code::InvalidArgument, &["volume_path"]);
    // Well-formed, but more than the volume can do.
    for capability in [mount(Mode::MultiNodeMultiWriter, "", &[]), mount(WRITER, "xfs", &[]), block(WRITER)] {
        refused(bench.stage(&id, "s", capability).await, Code::FailedPrecondition, &["volume_capability"]);
    }
    refused(bench.stage(&id, "s", mount(WRITER, "", &["loop"])).await, Code::FailedPrecondition, &["loop"]);
    assert!(bench.served().engine.device(&id.parse().unwrap()).unwrap().is_none(), "nothing was attached by all that");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_staged_has_its_own_code() {
    if !need_root("what_is_not_there_or_not_staged_has_its_own_code") {
        return;
    }
    let bench = Bench::new().await;
    let unknown = "fake-vol-id";
    refused(bench.stage(unknown, "s", plain()).await, Code::NotFound, &[unknown]);
    refused(bench.publish(bench.publication(unknown, "t/a", plain())).await, Code::NotFound, &[unknown]);
    refused(bench.stats(unknown, bench.text("t/a")).await, Code::NotFound, &[unknown]);
    refused(bench.stats(unknown, "some/path".to_owned()).await, Code::NotFound, &[unknown]);
    bench.unstage(unknown, "s").await.unwrap();
    bench.unpublish(unknown, "t/a").await.unwrap();

    let id = bench.make(create("a", 8)).await;
    refused(
        bench.publish(bench.publication(&id, "t/a", plain())).await,
        Code::FailedPrecondition,
        &["NodeStageVolume"],
    );
    refused(bench.stats(&id, bench.text("t/a")).await, Code::NotFound, &["volume_path"]);
    bench.stage(&id, "s", plain()).await.unwrap();
    fs::create_dir(bench.at("s2")).unwrap();
    refused(bench.stage(&id, "s2", plain()).await, Code::FailedPrecondition, &["already staged", &bench.text("s")]);
    refused(bench.stage(&id, "s", mount(WRITER, "", &["noatime"])).await, Code::AlreadyExists, &["volume_capability"]);
    bench.unstage(&id, "s2").await.unwrap();
    let elsewhere =
        NodePublishVolumeRequest { staging_target_path: bench.text("s2"), ..bench.publication(&id, "t/a", plain()) };
    refused(bench.publish(elsewhere).await, Code::FailedPrecondition, &["not staged at"]);
    bench.publish(bench.publication(&id, "t/a", plain())).await.unwrap();
    for path in [bench.text("t/b"), bench.text("t"), "some/path".to_owned(), "/a/../b".to_owned()] {
        refused(bench.stats(&id, path).await, Code::NotFound, &["volume_path"]);
    }
    for path in ["s", "t/a"] {
        let answer = bench.stats(&id, bench.text(path)).await.unwrap();
        let bytes = answer.usage.iter().find(|usage| usage.unit() == Unit::Bytes).unwrap();
        assert!(bytes.total > 3 * MIB && bytes.total <= 8 * MIB, "{bytes:?}");
        assert!(bytes.used + bytes.available <= bytes.total, "{bytes:?}");
        let inodes = answer.usage.iter().find(|usage| usage.unit() == Unit::Inodes).unwrap();
        assert!(inodes.total > 0 && inodes.used > 0 && inodes.used + inodes.available == inodes.total, "{inodes:?}");
        assert!(!answer.volume_condition.unwrap().abnormal);
    }
    bench.unpublish(&id, "t/a").await.unwrap();
    bench.unstage(&id, "s").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_are_somebody_elses_stay_untouched() {
    if !need_root("targets_that_are_somebody_elses_stay_untouched") {
        return;
    }
    let bench = Bench::new().await;
    let (id, other) = (bench.make(create("a", 8)).await, bench.make(create("b", 8)).await);
    bench.stage(&id, "s", plain()).await.unwrap();
    bench.stage(&other, "s2", plain()).await.unwrap();
    let publish = async |at: &str| bench.publish(bench.publication(&id, at, plain())).await;
    // Another volume's mount is somebody else's too.
    refused(publish("s2").await, Code::FailedPrecondition, &["another mount"]);
    refused(bench.unpublish(&id, "s2").await, Code::FailedPrecondition, &["another mount"]);
    refused(bench.unpublish("unknown", "s2").await, Code::NotFound, &["unknown", "mounted"]);
    std::os::unix::fs::symlink(bench.at("t"), bench.at("link")).unwrap();
    refused(publish("link").await, Code::InvalidArgument, &["symlink"]);
    refused(bench.unpublish(&id, "link").await, Code::InvalidArgument, &["symlink"]);
    fs::create_dir(bench.at("full")).unwrap();
    fs::write(bench.at("full/precious"), "x").unwrap();
    refused(publish("full").await, Code::FailedPrecondition, &["not empty"]);
    refused(bench.unpublish(&id, "full").await, Code::FailedPrecondition, &["not empty"]);
    refused(publish("full/precious").await, Code::InvalidArgument, &["not a directory"]);
    refused(publish("no/folder").await, Code::InvalidArgument, &["does not exist"]);
    assert_eq!(fs::read_to_string(bench.at("full/precious")).unwrap(), "x");
    assert!(bench.at("link").is_symlink());
    // A stage that cannot mount attaches nothing.
    let third = bench.make(create("c", 8)).await;
    refused(bench.stage(&third, "full", plain()).await, Code::FailedPrecondition, &["not empty"]);
    assert!(bench.served().engine.device(&third.parse().unwrap()).unwrap().is_none());
    bench.delete(&third).await.unwrap();
    bench.unstage(&id, "s").await.unwrap();
    bench.unstage(&other, "s2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_node_offers_works_and_what_it_does_not_says_so() {
    if !need_root("what_the_node_offers_works_and_what_it_does_not_says_so") {
        return;
    }
    let bench = Bench::new().await;
    let info = bench.served().node().node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
    let segments = info.accessible_topology.unwrap().segments;
    assert_eq!((info.node_id.as_str(), segments["topology.bedplate.dev/node"].as_str()), ("node-1", "node-1"));
    let offered =
        bench.served().node().node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap().into_inner();
    let offered: Vec<_> = offered
        .capabilities
        .into_iter()
        .map(|one| match one.r#type.unwrap() {
            NodeType::Rpc(rpc) => rpc.r#type().as_str_name(),
        })
        .collect();
    assert_eq!(offered, ["STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "VOLUME_CONDITION", "SINGLE_NODE_MULTI_WRITER"]);
    let expand = bench.served().node().node_expand_volume(NodeExpandVolumeRequest::default()).await;
    refused(expand, Code::Unimplemented, &["NodeExpandVolume"]);
}
