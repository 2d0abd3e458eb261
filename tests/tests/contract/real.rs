//! A real API server to replay against, if there is one: a cluster named by `BEDPLATE_E2E_KUBECONFIG`, or a
//! kube-apiserver with its etcd in `KUBEBUILDER_ASSETS` (else `/usr/local/kubebuilder/bin`), started here on loopback
//! ports and ended by its process id. Writes only to the namespace, node, class and volume of the recorded cases.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;
use tempfile::TempDir;

use crate::setup;

const TOKEN: &str = "bedplate-contract";
const CONTROLLERS: &str = "kube-controller-manager";

/// A server that answers.
pub struct Real {
    pub client: Client,
    /// True if kube-controller-manager runs beside it.
    pub controllers: bool,
    _started: Option<Started>,
}

/// Processes and files of a server of our own; dropped, they are gone.
struct Started {
    children: Vec<Child>,
    _dir: TempDir,
}

impl Drop for Started {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The server to replay against; None if there is none.
pub async fn server() -> Option<Real> {
    if let Some(path) = std::env::var_os("BEDPLATE_E2E_KUBECONFIG") {
        let file = Kubeconfig::read_from(path).expect("BEDPLATE_E2E_KUBECONFIG");
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("its context");
        let client = setup::client(config).expect("a client");
        return Some(Real { client, controllers: true, _started: None });
    }
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").unwrap_or_else(|| "/usr/local/kubebuilder/bin".into());
    let assets = PathBuf::from(assets);
    if !assets.join("kube-apiserver").exists() {
        return None;
    }
    let (started, config) = start(&assets);
    let client = setup::client(config).expect("a client");
    let begun = Instant::now();
    while !matches!(client.send(setup::http("GET", "/readyz", "", &serde_json::Value::Null)).await,
        Ok(answer) if answer.status() == 200)
    {
        assert!(begun.elapsed() < Duration::from_mins(2), "the API server does not get ready");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Some(Real { client, controllers: assets.join(CONTROLLERS).exists(), _started: Some(started) })
}

fn start(assets: &Path) -> (Started, Config) {
    let dir = TempDir::new().expect("a folder");
    let [etcd_port, peer_port, port] = [(); 3].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("its address").port()
    });
    let file = |name: &str| dir.path().join(name).display().to_string();
    let write = |name: &str, text: &str| std::fs::write(file(name), text).expect("a file");
    let key = rcgen::KeyPair::generate().expect("a key for service accounts");
    write("sa.key", &key.serialize_pem());
    write("sa.pub", &key.public_key_pem());
    write("tokens.csv", &format!("{TOKEN},contract,1,system:masters\n"));
    let url = format!("https://127.0.0.1:{port}");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "c", "user": {"token": TOKEN}}],
    });
    write("kubeconfig", &kubeconfig.to_string());
    let etcd = if assets.join("etcd").exists() { assets.join("etcd") } else { PathBuf::from("etcd") };
    let (client_url, peer_url) = (format!("http://127.0.0.1:{etcd_port}"), format!("http://127.0.0.1:{peer_port}"));
    let run = |program: &Path, flags: &[(&str, String)]| {
        let flags = flags.iter().map(|(name, value)| format!("--{name}={value}"));
        let mut command = Command::new(program);
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
    };
    let etcd_flags = [
        ("data-dir", file("etcd")),
        ("listen-client-urls", client_url.clone()),
        ("advertise-client-urls", client_url.clone()),
        ("listen-peer-urls", peer_url.clone()),
        ("initial-advertise-peer-urls", peer_url.clone()),
        ("initial-cluster", format!("default={peer_url}")),
    ];
    let flags = [
        ("etcd-servers", client_url),
        ("bind-address", "127.0.0.1".to_owned()),
        ("secure-port", port.to_string()),
        ("cert-dir", file("certs")),
        ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
        ("service-account-issuer", "https://localhost".to_owned()),
        ("service-account-key-file", file("sa.pub")),
        ("service-account-signing-key-file", file("sa.key")),
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ("authorization-mode", "AlwaysAllow".to_owned()),
        ("token-auth-file", file("tokens.csv")),
    ];
    let mut children = vec![run(&etcd, &etcd_flags), run(&assets.join("kube-apiserver"), &flags)];
    if assets.join(CONTROLLERS).exists() {
        let flags = [
            ("kubeconfig", file("kubeconfig")),
            ("leader-elect", "false".to_owned()),
            ("secure-port", "0".to_owned()),
            ("service-account-private-key-file", file("sa.key")),
        ];
        children.push(run(&assets.join(CONTROLLERS), &flags));
    }
    let mut config = Config::new(url.parse().expect("a URL"));
    config.accept_invalid_certs = true; // its certificate is its own, made a moment ago
    config.auth_info.token = Some(TOKEN.to_owned().into());
    (Started { children, _dir: dir }, config)
}
