//! A claim's life on a real control plane: kube-apiserver, kube-controller-manager and kube-scheduler of this machine,
//! `deploy/` applied to it, and our programs with no more than the roles and tokens that they get there. Only the kubelet is
//! a stand-in. Not run where those programs are not; the same story runs on the embedded cluster everywhere.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bedplate_api::{LocalVolume, WipeReceipt, names};
use bedplate_sim::kubelet;
use bedplate_tests::agent::{Agent, Place};
use bedplate_tests::cluster_node::eventually;
use bedplate_tests::control_plane::{ControlPlane, apply, apply_base, client, programs, token};
use bedplate_tests::engine::wait;
use bedplate_tests::loopfs::HostFs;
use bedplate_tests::manifests::read;
use bedplate_tests::programs::program;
use bedplate_tests::skip::need_root;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NODE: &str = "node-1";

/// A program of the test's own; ended when dropped.
struct Part(Child);

impl Part {
    fn start(name: &str, kubeconfig: &Path, listen: SocketAddr, more: &[&str], log: &Path) -> Self {
        let log = File::create(log).unwrap();
        let child = Command::new(program(name).unwrap())
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg(format!("--listen={listen}"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        if wait(Duration::from_secs(5), || self.0.try_wait().ok().flatten()).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[test]
fn a_claim_lives_and_dies_with_no_more_than_deploy_gives() {
    let Some(programs) = programs()
        .filter(|folder| ["kube-controller-manager", "kube-scheduler"].iter().all(|name| folder.join(name).is_file()))
    else {
        println!("no control plane on this machine: the story is played on the embedded cluster only");
        return;
    };
    if !need_root("real_control_plane.a_claim_lives_and_dies_with_no_more_than_deploy_gives") {
        return;
    }
    let fs = HostFs::new("ext4", 512 << 20).unwrap();
    let folder = |name: &str| {
        let path = fs.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (plane, pool, root, machine) = (folder("plane"), folder("pool"), folder("kubelet"), folder("machine"));
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (beside, elsewhere) = (free(), free());
    let configuration = read(Path::new("scheduler/kubeadm.yaml")).unwrap().remove(0);
    let mut configuration = configuration.value;
    configuration["extenders"][0]["urlPrefix"] = json!(format!("http://{beside}"));
    configuration["clientConnection"]["kubeconfig"] = json!("$KUBECONFIG");
    configuration["leaderElection"]["leaderElect"] = json!(false);
    let plane = ControlPlane::start(&programs, &plane).unwrap().with_controllers().unwrap();
    let plane = plane.with_scheduler(&configuration.to_string()).unwrap();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (admin, _kubelet, tokens) = runtime.block_on(async {
        let admin = client(&plane.admin().unwrap()).await.unwrap();
        apply_base(&admin).await.unwrap();
        let kubelet = kubelet::start(&admin, kubelet::Options::new(NODE, &root));
        a_node_with_room(&admin).await;
        let spec = json!({ "backend": "image", "directory": pool, "media": "ssd", "reserve": "0" });
        let pool = json!({ "apiVersion": "bedplate.dev/v1alpha1", "kind": "DiskPool", "metadata": { "name": "local" }, "spec": spec });
        apply(&admin, &pool, "operator").await.unwrap();
        let mut tokens = Vec::new();
        for (name, node) in [("agent", Some(NODE)), ("provisioner", None), ("extender", None)] {
            let token = token(&admin, &format!("bedplate-{name}"), node).await.unwrap();
            tokens.push(plane.kubeconfig_with(name, &token).unwrap());
        }
        (admin, kubelet, tokens)
    });

    let place = Place::new(&machine, &machine.join("state"));
    let arguments = [
        format!("--node-name={NODE}"),
        format!("--kubelet-root={}", root.display()),
        format!("--state-dir={}", place.state().display()),
        format!("--admin-socket={}", place.admin().display()),
        format!("--kubeconfig={}", tokens[0].display()),
        "--no-probe".to_owned(),
    ];
    let agent = Agent::launch(&place, &arguments.each_ref().map(AsRef::as_ref)).unwrap();
    let logs = ["provisioner", "extender"].map(|name| machine.join(name));
    let more = ["--lease-namespace=bedplate-system", "--identity=provisioner-0"];
    let provisioner = Part::start("bedplate-provisioner", &tokens[1], elsewhere, &more, &logs[0]);
    let extender = Part::start("bedplate-extender", &tokens[2], beside, &[], &logs[1]);

    let told = runtime.block_on(a_story(&admin));
    let words = [&logs[0], &logs[1], &place.log()].map(|log| std::fs::read_to_string(log).unwrap_or_default());
    told.unwrap_or_else(|e| panic!("{e:#}\n--- {}", words.join("\n---\n")));
    // Nobody was refused anything on the way, and the scheduler did ask.
    for words in &words {
        assert!(!words.contains("orbidden"), "refused:\n{words}");
    }
    let asked = runtime.block_on(metrics(beside));
    let placed = asked.lines().find(|line| {
        line.starts_with("bedplate_extender_requests_total") && line.contains("filter") && line.contains("placed")
    });
    let count = placed.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    assert!(count.is_some_and(|count| count >= 1.0), "{asked}\n{}", words[1]);
    drop((extender, provisioner, agent));
}

async fn metrics(address: SocketAddr) -> String {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut stream, mut answer) = (stream, String::new());
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: extender\r\nConnection: close\r\n\r\n").await.unwrap();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// What a real kubelet would say of its machine.
async fn a_node_with_room(admin: &Client) {
    let nodes: Api<Node> = Api::all(admin.clone());
    eventually("the Node", async || Ok(nodes.get_opt(NODE).await?.ok_or_else(|| "none".to_owned()))).await.unwrap();
    let room = json!({ "cpu": "4", "memory": "8Gi", "pods": "110" });
    let status = json!({ "status": { "capacity": room, "allocatable": room } });
    nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

async fn a_story(admin: &Client) -> anyhow::Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(admin.clone());
    let pods: Api<Pod> = Api::default_namespaced(admin.clone());
    let (volumes, locals): (Api<PersistentVolume>, Api<LocalVolume>) =
        (Api::all(admin.clone()), Api::all(admin.clone()));
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data" },
        "spec": { "storageClassName": "ssd", "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "64Mi" } } },
    });
    apply(admin, &claim, "person").await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "writer" },
        "spec": {
            "containers": [{
                "name": "c", "image": "none", "command": ["/bin/sh", "-c", "echo marker > /data/file; exec sleep 600"],
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "data" } }],
            "tolerations": [{ "operator": "Exists" }], "terminationGracePeriodSeconds": 1,
        },
    });
    eventually("the default service account", async || {
        Ok(apply(admin, &pod, "person").await.map(drop).map_err(|e| e.to_string()))
    })
    .await?;
    eventually("the pod running", async || {
        let pod = pods.get("writer").await?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        if phase.as_deref() == Some("Running") {
            return Ok(Ok(()));
        }
        let claim = claims.get("data").await?;
        Ok(Err(format!("{:?}; claim {:?} {:?}", pod.status, claim.metadata.annotations, claim.status)))
    })
    .await?;
    let claim = claims.get("data").await?;
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    anyhow::ensure!(volumes.get(&name).await?.finalizers().iter().any(|f| f == names::FINALIZER));

    pods.delete("writer", &DeleteParams::default()).await?;
    claims.delete("data", &DeleteParams::default()).await?;
    eventually("nothing left but a receipt", async || {
        let (volumes, locals) =
            (volumes.list(&ListParams::default()).await?, locals.list(&ListParams::default()).await?);
        let seen = format!("{:?} {:?}", volumes.items, locals.items);
        Ok(if volumes.items.is_empty() && locals.items.is_empty() { Ok(()) } else { Err(seen) })
    })
    .await?;
    let receipts: Api<WipeReceipt> = Api::all(admin.clone());
    let receipts = receipts.list(&ListParams::default()).await?.items;
    anyhow::ensure!(receipts.len() == 1, "{receipts:?}");
    anyhow::ensure!(receipts[0].spec.claim_uid == claim.uid().unwrap_or_default(), "{receipts:?}");
    Ok(())
}
