//! The image, imported by containerd and run as the DaemonSet describes it: what is made inside is there outside, and stays
//! when the container goes.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bedplate_api::local_volume::Phase;
use bedplate_api::names;
use bedplate_sim::kubelet;
use bedplate_tests::cluster_node::{Cluster, eventually};
use bedplate_tests::container::{Containerd, Shape, build, exec, kill_nine};
use bedplate_tests::engine::{loops_below, mounts_below, wait};
use bedplate_tests::loopfs::{HostFs, real_dir, run};
use bedplate_tests::manifests::kustomization;
use bedplate_tests::orchestrator::Orchestrator;
use bedplate_tests::skip::need_root;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const NODE: &str = "node-1";
const PATIENCE: Duration = Duration::from_secs(30);

/// A node's folders, all on one filesystem of the test's own, which is shared as a node's root is.
struct Host {
    fs: HostFs,
}

impl Host {
    fn new() -> Self {
        let fs = HostFs::new("ext4", 512 << 20).unwrap();
        run("mount", &[Path::new("--make-shared"), fs.path()]).unwrap();
        for folder in ["state", "state/pools", "state/pools/local", "kubelet", "udev", "run", "config", "tmp"] {
            std::fs::create_dir(fs.path().join(folder)).unwrap();
        }
        Self { fs }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.fs.path().join(below)
    }

    fn shape(&self) -> Shape {
        let (documents, _) = kustomization(Path::new("kustomize/base")).unwrap();
        let agent = documents.iter().find(|d| d.kind() == "DaemonSet" && d.name() == "bedplate-agent").unwrap();
        let mut folders = BTreeMap::from([("dev", PathBuf::from("/dev")), ("sys", PathBuf::from("/sys"))]);
        for name in ["state", "kubelet", "udev", "run", "config", "tmp"] {
            folders.insert(name, self.path(name));
        }
        Shape::read(&agent.value["spec"]["template"]["spec"], &folders).unwrap()
    }

    /// The agent stand-alone, with its CSI socket where a kubelet would look for it.
    fn stand_alone(&self) -> Vec<String> {
        let config = format!(
            "node = \"node-1\"\nstate_dir = \"{state}\"\ncsi_socket = \"{csi}\"\nadmin_socket = \"/run/bedplate/admin.sock\"\n\n\
             [wipe]\nchunk = \"4Mi\"\npause_above_io_pressure_percent = 100\n\n\
             [[pool]]\nname = \"local\"\ndirectory = \"{state}/pools/local\"\nreserve = \"0\"\n",
            state = self.path("state").display(),
            csi = self.csi().display(),
        );
        std::fs::write(self.path("config/agent.toml"), config).unwrap();
        std::fs::create_dir_all(self.csi().parent().unwrap()).unwrap();
        let command = ["/usr/bin/bedplate-agent", "--standalone", "--config", "/etc/bedplate/agent.toml"];
        command.map(str::to_owned).into()
    }

    fn csi(&self) -> PathBuf {
        self.path("kubelet/plugins/bedplate.dev/csi.sock")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Only after a failure is anything left: what the agent had mounted for the kubelet that nobody plays any more.
        // The kernel names a loop's file as the container saw it, once that is gone: so by the mount, not by the file.
        for target in mounts_below(&self.path("kubelet")).iter().rev() {
            let device = run("findmnt", &["--noheadings", "--output", "SOURCE", "--mountpoint", target]);
            let _ = run("umount", &["--lazy", target]);
            if let Some(device) = device.ok().filter(|d| d.starts_with("/dev/loop")) {
                let _ = run("losetup", &["--detach", device.trim()]);
            }
        }
    }
}

fn start(
    containerd: &Containerd,
    host: &Host,
    shape: &Shape,
    id: &str,
    log: &Path,
    env: &[String],
    command: &[String],
) {
    shape.start(containerd, id, log, env, command).unwrap();
    // The probes' own commands say when it serves.
    let ready = shape.probe("readinessProbe").unwrap();
    let mut said = String::new();
    let up = wait(PATIENCE, || exec(containerd, id, &ready).inspect_err(|e| said = format!("{e:#}")).ok());
    let words = std::fs::read_to_string(log).unwrap_or_default();
    up.unwrap_or_else(|| panic!("not ready: {said}\n{words}"));
    for probe in ["startupProbe", "livenessProbe"] {
        exec(containerd, id, &shape.probe(probe).unwrap()).unwrap();
    }
    assert!(host.csi().exists());
}

#[test]
fn volumes_made_in_a_container_are_the_hosts_and_outlive_it() {
    if !need_root("container.volumes_made_in_a_container_are_the_hosts_and_outlive_it") {
        return;
    }
    let scratch = real_dir().unwrap();
    let archive = scratch.path().join("image.tar");
    build(&archive, &["bedplate", "bedplate-agent"]).unwrap();
    let host = Host::new();
    let containerd = Containerd::start(&scratch.path().join("c")).unwrap();
    containerd.import(&archive).unwrap();

    let (shape, command, log) = (host.shape(), host.stand_alone(), scratch.path().join("agent.log"));
    start(&containerd, &host, &shape, "first", &log, &[], &command);
    assert!(loops_below(host.fs.path()).is_empty());

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let orchestrator = Orchestrator::new(&host.csi());
    let staging = host.path("kubelet/plugins/kubernetes.io/csi/bedplate.dev/one/globalmount");
    std::fs::create_dir_all(&staging).unwrap();
    let volume = runtime.block_on(async {
        let volume = orchestrator.create("one", 32).await.unwrap();
        orchestrator.stage(&volume, &staging).await.unwrap();
        volume
    });

    // A loop device made inside is seen outside, on a file that is the host's, and its mount has come out.
    let loops = loops_below(host.fs.path());
    assert_eq!(loops.len(), 1, "{loops:?}");
    assert_eq!(mounts_below(&host.path("kubelet")), [staging.display().to_string()]);
    std::fs::write(staging.join("marker"), "written outside").unwrap();
    assert!(std::fs::read_dir(host.path("state/pools/local")).unwrap().count() > 1);

    // What the host mounts later below the pools' folder comes in.
    let late = host.path("state/pools/late");
    std::fs::create_dir(&late).unwrap();
    run("mount", &[Path::new("-t"), Path::new("tmpfs"), Path::new("late"), &late]).unwrap();
    let inside = exec(
        &containerd,
        "first",
        &["/usr/bin/findmnt", "--noheadings", "--output", "FSTYPE", "--target"]
            .map(str::to_owned)
            .into_iter()
            .chain([late.display().to_string()])
            .collect::<Vec<_>>(),
    );
    run("umount", &[&late]).unwrap();
    assert_eq!(inside.unwrap().trim(), "tmpfs");

    // The container dies; what it mounted and attached is the host's, and the next one takes it up.
    kill_nine(&containerd, "first").unwrap();
    assert_eq!(std::fs::read_to_string(staging.join("marker")).unwrap(), "written outside");
    let device = Path::new("/sys/block").join(loops[0].file_name().unwrap());
    assert!(device.join("loop/backing_file").exists());
    start(&containerd, &host, &shape, "second", &log, &[], &command);
    assert_eq!(std::fs::read_to_string(staging.join("marker")).unwrap(), "written outside");
    runtime.block_on(async {
        orchestrator.stage(&volume, &staging).await.unwrap();
        assert_eq!(std::fs::read_to_string(staging.join("marker")).unwrap(), "written outside");
        orchestrator.unstage(&volume, &staging).await.unwrap();
        assert_eq!(mounts_below(&host.path("kubelet")), Vec::<String>::new());
        orchestrator.delete_within(&volume, Duration::from_mins(1)).await.unwrap();
    });
    assert!(!device.join("loop/backing_file").exists());
    kill_nine(&containerd, "second").unwrap();
}

/// The manifest's own command line against an API server, and a kubelet that looks into the same folder from outside.
#[test]
fn a_driver_in_a_container_registers_and_registers_again() {
    if !need_root("container.a_driver_in_a_container_registers_and_registers_again") {
        return;
    }
    let scratch = real_dir().unwrap();
    let archive = scratch.path().join("image.tar");
    build(&archive, &["bedplate", "bedplate-agent"]).unwrap();
    let host = Host::new();
    let containerd = Containerd::start(&scratch.path().join("c")).unwrap();
    containerd.import(&archive).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (cluster, kubelet) = runtime.block_on(async {
        let cluster = Cluster::start().await.unwrap();
        let kubelet = kubelet::start(&cluster.client, kubelet::Options::new(NODE, host.path("kubelet")));
        cluster.pool("fast", &host.path("state/pools/local"), |_| ()).await.unwrap();
        (cluster, kubelet)
    });
    std::fs::write(host.path("config/kubeconfig"), cluster.server.kubeconfig()).unwrap();
    let (shape, log) = (host.shape(), scratch.path().join("agent.log"));
    let run = |id: &str| {
        let root = host.path("kubelet").display().to_string();
        let command = shape.command(&BTreeMap::from([("NODE_NAME", NODE.to_owned()), ("KUBELET_ROOT", root)])).unwrap();
        let env = ["KUBECONFIG=/etc/bedplate/kubeconfig", "BEDPLATE_NO_PROBE=true"].map(str::to_owned);
        start(&containerd, &host, &shape, id, &log, &env, &command);
    };

    run("first");
    let staging = host.path("kubelet/plugins/kubernetes.io/csi/bedplate.dev/one/globalmount");
    std::fs::create_dir_all(&staging).unwrap();
    let orchestrator = Orchestrator::new(&host.csi());
    let socket = host.path("kubelet/plugins_registry").join(names::REGISTRATION_SOCKET);
    let (first, handle) = runtime.block_on(async {
        let registered = registered(&cluster, None).await;
        let node = cluster.api::<Node>().get(NODE).await.unwrap();
        assert_eq!(node.labels().get(names::TOPOLOGY_NODE).map(String::as_str), Some(NODE));
        let status = cluster.storage_node(NODE, "a pool", |node| node.pools.len() == 1).await.unwrap();
        let uid = uuid::Uuid::new_v4().to_string();
        let volume = cluster.volume(&status, NODE, &uid, 32, |_| ()).await.unwrap();
        let ready = cluster.phase(&volume.name_any(), Phase::Ready).await.unwrap();
        let handle = ready.status.unwrap().volume_handle.unwrap();
        orchestrator.stage(&handle, &staging).await.unwrap();
        (registered, handle)
    });
    assert_eq!(mounts_below(&host.path("kubelet")), [staging.display().to_string()]);
    let stale = std::fs::metadata(&socket).unwrap().ino();

    // Killed, it leaves its socket behind. The next one puts its own there, and the kubelet takes that.
    kill_nine(&containerd, "first").unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().ino(), stale);
    run("second");
    runtime.block_on(async {
        registered(&cluster, Some(&first)).await;
        assert_ne!(std::fs::metadata(&socket).unwrap().ino(), stale);
        orchestrator.unstage(&handle, &staging).await.unwrap();
    });
    assert_eq!(mounts_below(&host.path("kubelet")), Vec::<String>::new());
    kill_nine(&containerd, "second").unwrap();

    // Where the node's label says otherwise the kubelet refuses it. It tells so, stays, and is taken when that is mended.
    let label = |value: &str| {
        let patch = Patch::Merge(json!({ "metadata": { "labels": { names::TOPOLOGY_NODE: value } } }));
        runtime.block_on(cluster.api::<Node>().patch(NODE, &PatchParams::default(), &patch)).unwrap();
    };
    label("node-0");
    run("third");
    let words = || std::fs::read_to_string(&log).unwrap_or_default();
    let refused = wait(PATIENCE, || words().contains("topology value collision").then_some(()));
    assert!(refused.is_some(), "{}", words());
    let node = runtime.block_on(cluster.api::<CSINode>().get(NODE)).unwrap();
    assert!(node.spec.drivers.iter().all(|driver| driver.name != names::DRIVER), "{node:?}");
    exec(&containerd, "third", &shape.probe("livenessProbe").unwrap()).unwrap();
    label(NODE);
    runtime.block_on(registered(&cluster, None));
    kill_nine(&containerd, "third").unwrap();
    drop(kubelet);
}

/// Waits until the kubelet lists the driver; after a change, if there was something before.
async fn registered(cluster: &Cluster, before: Option<&str>) -> String {
    let what = "the driver in CSINode";
    let look = async || {
        let node = cluster.api::<CSINode>().get_opt(NODE).await?;
        let version = node.as_ref().and_then(|node| node.metadata.resource_version.clone()).unwrap_or_default();
        let listed = node.iter().flat_map(|node| &node.spec.drivers).any(|driver| driver.name == names::DRIVER);
        Ok(if listed && before != Some(version.as_str()) { Ok(version) } else { Err(format!("{node:?}")) })
    };
    eventually(what, look).await.unwrap()
}

#[test]
fn the_same_programs_make_the_same_image() {
    let scratch = real_dir().unwrap();
    let archives = ["a", "b"].map(|name| scratch.path().join(name));
    for archive in &archives {
        build(archive, &["bedplate"]).unwrap();
    }
    let [a, b] = archives.each_ref().map(|archive| std::fs::read(archive).unwrap());
    assert!(a == b, "two builds differ");
    let index = run("tar", &["--extract", "--to-stdout", "--file", &archives[0].display().to_string(), "./index.json"]);
    let index: Value = serde_json::from_str(&index.unwrap()).unwrap();
    let name = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
    assert_eq!(*name, bedplate_tests::container::image());
}
