//! The program itself: started on a kubeconfig, asked over HTTP, stopped by a signal.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use bedplate_api::names;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::agent::Agent;
use super::binder::Binder;
use super::world::{PATIENCE, SYSTEM, World, until};

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_serves_says_how_it_is_stays_small_and_gives_the_lease_up() {
    let world = World::new().await;
    let (_agent, _binder) = (Agent::start(&world, "n1", 4096).await, Binder::start(&world));
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, world.server.kubeconfig()).unwrap();
    let mut program = Program(
        Command::new(env!("CARGO_BIN_EXE_bedplate-provisioner"))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["--listen", "127.0.0.1:0", "--identity", "program", "--lease-namespace", SYSTEM])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(program.0.stderr.take().unwrap()).lines();
    let port = tokio::task::spawn_blocking(move || {
        let said = log.by_ref().map_while(Result::ok).find(|line| line.contains("listening")).unwrap();
        // What it says from now on is read and let go, so that it can go on saying it.
        std::thread::spawn(move || log.for_each(drop));
        said.rsplit(':').next().unwrap().trim().parse::<u16>().unwrap()
    })
    .await
    .unwrap();
    until("it is ready", || async { get(port, "/readyz").is_some_and(|answer| answer.contains("200 OK")) }).await;
    assert!(get(port, "/healthz").unwrap().contains("200 OK"));
    let names: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
    futures::future::join_all(names.iter().map(|name| world.claim(name, "ssd", "1Mi", "n1"))).await;
    for name in &names {
        world.until_bound(name).await;
    }
    let metrics = get(port, "/metrics").unwrap();
    let figure = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!((figure("bedplate_provisioner_volumes_made_total") - 100.0).abs() < 0.5, "{metrics}");
    assert!((figure("bedplate_provisioner_leader_bool") - 1.0).abs() < 0.5);
    let resident = figure("bedplate_provisioner_resident_memory_bytes") / f64::from(1 << 20);
    eprintln!("resident with 100 claims (not optimised): {resident:.1} MiB");
    assert!(resident < 96.0, "{resident} MiB");

    kill(Pid::from_raw(i32::try_from(program.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    until("it ends", || {
        let ended = program.0.try_wait().unwrap();
        async move { ended.is_some_and(|status| status.success()) }
    })
    .await;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), SYSTEM);
    let holder = leases.get(names::LEASE).await.unwrap().spec.unwrap().holder_identity;
    assert_eq!(holder.as_deref(), Some(""), "the next one need not wait");
}
