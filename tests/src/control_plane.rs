//! A real control plane of the test's own, where its programs are: etcd and kube-apiserver on the loopback, and on wish
//! kube-controller-manager and kube-scheduler. Nothing is downloaded and nothing is needed: without the programs there is
//! none, and the suites have the embedded one.
//!
//! The programs are looked for in `KUBEBUILDER_ASSETS`, else in `/usr/local/kubebuilder/bin`, where the usual tools put them.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, ResourceExt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::engine::wait;
use crate::manifests::{Document, kustomization};

/// The namespace of `deploy/kustomize/base`.
const NAMESPACE: &str = "bedplate-system";
/// How long a part may take to answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// Who may ask: name, token, group.
const PEOPLE: [(&str, &str, &str); 3] = [
    ("admin", "token-of-admin", "system:masters"),
    ("system:kube-controller-manager", "token-of-controllers", "none"),
    ("system:kube-scheduler", "token-of-scheduler", "none"),
];

/// A running control plane; its programs end when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    // Ended from the last to the first.
    children: Vec<(String, Child)>,
}

/// Where a control plane's programs are on this machine, if they are.
pub fn programs() -> Option<PathBuf> {
    let folder =
        std::env::var_os("KUBEBUILDER_ASSETS").map_or_else(|| "/usr/local/kubebuilder/bin".into(), PathBuf::from);
    ["etcd", "kube-apiserver"].iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver from `programs`, with everything they write below `folder`.
    pub fn start(programs: &Path, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut own = Self { programs: programs.to_owned(), folder: folder.to_owned(), port, children: Vec::new() };
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(folder.join("accounts.key"), key.serialize_pem())?;
        std::fs::write(folder.join("accounts.pub"), key.public_key_pem())?;
        let people = PEOPLE.map(|(name, token, group)| {
            format!(
                "{token},{name},{name},{group}
"
            )
        });
        std::fs::write(folder.join("people.csv"), people.concat())?;

        let (client, peer) = (free_port()?, free_port()?);
        let etcd = format!("http://127.0.0.1:{client}");
        let between = format!("http://127.0.0.1:{peer}");
        own.run(
            "etcd",
            &[
                ("--data-dir", folder.join("etcd").display().to_string()),
                ("--listen-client-urls", etcd.clone()),
                ("--advertise-client-urls", etcd.clone()),
                ("--listen-peer-urls", between.clone()),
                ("--initial-advertise-peer-urls", between.clone()),
                ("--initial-cluster", format!("default={between}")),
                ("--unsafe-no-fsync", "true".to_owned()),
            ],
        )?;
        let at = |name: &str| folder.join(name).display().to_string();
        own.run(
            "kube-apiserver",
            &[
                ("--etcd-servers", etcd),
                ("--bind-address", "127.0.0.1".to_owned()),
                ("--advertise-address", "127.0.0.1".to_owned()),
                ("--endpoint-reconciler-type", "none".to_owned()),
                ("--secure-port", port.to_string()),
                ("--cert-dir", at("certificates")),
                ("--token-auth-file", at("people.csv")),
                ("--service-account-issuer", "https://kubernetes.default.svc".to_owned()),
                ("--service-account-key-file", at("accounts.pub")),
                ("--service-account-signing-key-file", at("accounts.key")),
                ("--service-cluster-ip-range", "10.96.0.0/16".to_owned()),
                ("--authorization-mode", "Node,RBAC".to_owned()),
                ("--allow-privileged", "true".to_owned()),
            ],
        )?;
        own.until_ready()?;
        Ok(own)
    }

    /// Starts kube-controller-manager: service accounts, garbage collection, binding and protection of volumes.
    pub fn with_controllers(mut self) -> Result<Self> {
        let kubeconfig = self.kubeconfig("system:kube-controller-manager")?;
        let (port, key) = (free_port()?.to_string(), self.folder.join("accounts.key"));
        self.run(
            "kube-controller-manager",
            &[
                ("--kubeconfig", kubeconfig.display().to_string()),
                ("--use-service-account-credentials", "true".to_owned()),
                ("--service-account-private-key-file", key.display().to_string()),
                ("--leader-elect", "false".to_owned()),
                ("--bind-address", "127.0.0.1".to_owned()),
                ("--secure-port", port),
            ],
        )?;
        Ok(self)
    }

    /// Starts kube-scheduler with a configuration; `$KUBECONFIG` in it stands for the scheduler's own.
    pub fn with_scheduler(mut self, configuration: &str) -> Result<Self> {
        let kubeconfig = self.kubeconfig("system:kube-scheduler")?;
        let file = self.folder.join("scheduler.yaml");
        std::fs::write(&file, configuration.replace("$KUBECONFIG", &kubeconfig.display().to_string()))?;
        let port = free_port()?.to_string();
        self.run(
            "kube-scheduler",
            &[
                ("--config", file.display().to_string()),
                ("--bind-address", "127.0.0.1".to_owned()),
                ("--secure-port", port),
            ],
        )?;
        Ok(self)
    }

    /// A kubeconfig file of the administrator.
    pub fn admin(&self) -> Result<PathBuf> {
        self.kubeconfig("admin")
    }

    /// A kubeconfig file for whoever holds a token, named after `name`.
    pub fn kubeconfig_with(&self, name: &str, token: &str) -> Result<PathBuf> {
        // The certificate is the server's own, made a moment ago on this machine, and asked over the loopback.
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: \"https://127.0.0.1:{}\", insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{token: \"{token}\"}}}}]\n",
            self.port
        );
        let path = self.folder.join(format!("{}.kubeconfig", name.replace(':', "-")));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Answers that this is one's own, for `name` of the people that are known from the start.
    fn kubeconfig(&self, name: &str) -> Result<PathBuf> {
        let (_, token, _) = PEOPLE.iter().find(|(known, _, _)| *known == name).context("nobody of that name")?;
        self.kubeconfig_with(name, token)
    }

    fn run(&mut self, name: &str, flags: &[(&str, String)]) -> Result<()> {
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        let child = Command::new(self.programs.join(name))
            .args(flags.iter().map(|(flag, value)| format!("{flag}={value}")))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        self.children.push((name.to_owned(), child));
        Ok(())
    }

    fn until_ready(&mut self) -> Result<()> {
        let kubeconfig = self.admin()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut ended = None;
        let ready = wait(PATIENCE, || {
            for (name, child) in &mut self.children {
                if let Ok(Some(status)) = child.try_wait() {
                    ended = Some(format!("{name} ended: {status}"));
                    return Some(());
                }
            }
            let asked = runtime.block_on(async {
                let request = axum::http::Request::get("/readyz").body(Vec::new())?;
                anyhow::Ok(client(&kubeconfig).await?.request_text(request).await?)
            });
            asked.is_ok_and(|answer| answer == "ok").then_some(())
        });
        match (ready, ended) {
            (Some(()), None) => Ok(()),
            (_, ended) => {
                let words = std::fs::read_to_string(self.folder.join("kube-apiserver.log")).unwrap_or_default();
                let lines: Vec<&str> = words.lines().collect();
                bail!("no control plane: {ended:?}\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
            }
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for (_, child) in self.children.iter_mut().rev() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            if wait(Duration::from_secs(5), || child.try_wait().ok().flatten()).is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// A client by a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?)
}

/// What `deploy/kustomize/base` holds, in the order that kustomize and kubectl give it: what others need comes first.
pub fn base() -> Result<Vec<Document>> {
    let mut documents = kustomization(Path::new("kustomize/base"))?.0;
    documents.sort_by_key(|d| match d.kind() {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "Role" | "ClusterRole" => 2,
        _ => 3,
    });
    Ok(documents)
}

/// Applies that, as `kubectl apply -k` does.
pub async fn apply_base(client: &Client) -> Result<()> {
    for document in base()? {
        let applied = apply(client, &document.value, "deploy").await;
        applied.with_context(|| format!("{} {}", document.kind(), document.name()))?;
    }
    Ok(())
}

/// Applies one object as its manifest says; tries again while its kind is not served yet.
pub async fn apply(client: &Client, value: &Value, manager: &str) -> Result<DynamicObject, kube::Error> {
    let group = value["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = group.split_once('/').unwrap_or(("", group));
    let gvk = GroupVersionKind::gvk(group, version, value["kind"].as_str().unwrap_or_default());
    let deadline = Instant::now() + Duration::from_secs(30);
    let (resource, capabilities) = loop {
        match pinned_kind(client, &gvk).await {
            Ok(found) => break found,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = value["metadata"]["namespace"].as_str().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    api.patch(name, &PatchParams::apply(manager), &Patch::Apply(value)).await
}

/// A token of one of the base's accounts, issued as for a pod on `node`.
pub async fn token(admin: &Client, account: &str, node: Option<&str>) -> Result<String> {
    let mut bound = None;
    if let Some(name) = node {
        let node = Api::<Node>::all(admin.clone()).get(name).await?;
        bound = Some(BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(name.into()),
            uid: node.uid(),
        });
    }
    let spec = TokenRequestSpec { bound_object_ref: bound, expiration_seconds: Some(3600), ..Default::default() };
    let request = TokenRequest { spec, ..Default::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), NAMESPACE);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("a token")?.token)
}
