//! A cluster with Bedplate in it, for stories that are written once: on the embedded API server with the stand-ins and the
//! real programs, or, by `BEDPLATE_E2E_KUBECONFIG`, on any cluster where `deploy/` is installed.
//!
//! Owns everything that a story needs and takes it away again, also when the story fails; then it shows what the programs
//! said last. On a real cluster only objects in a namespace of the story's own are made, and programs are disturbed through
//! the API. What a real cluster cannot do (an API server restored to yesterday, another machine under an old name) makes
//! the story say so and run on the embedded ground only.

mod embedded;
pub mod install;
mod kubelet;
mod node;
pub mod objects;
pub mod process;
mod real;
pub mod sight;
pub mod verbs;
pub mod wait;

use std::panic::{AssertUnwindSafe, resume_unwind};

use anyhow::{Context, Result};
use futures::FutureExt;
use kube::{Api, Client};

pub use embedded::Embedded;
pub use node::Node;
pub use real::Real;

use crate::oracle::Oracle;
use crate::skip::{need_root, skip};

/// Where the real cluster is, if there is one.
pub const KUBECONFIG: &str = "BEDPLATE_E2E_KUBECONFIG";

/// What a story needs.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Nodes with an agent, on the embedded ground.
    pub nodes: usize,
    /// Nodes that a real cluster must have.
    pub at_least: usize,
    /// MiB of each node's disk, on the embedded ground.
    pub disk: u64,
    /// Provisioners, one of which leads.
    pub provisioners: usize,
    /// Why it cannot run on a real cluster, if it cannot.
    pub embedded_only: Option<&'static str>,
}

impl Shape {
    /// So many nodes and one provisioner; on a real cluster, one node will do.
    pub const fn nodes(nodes: usize) -> Self {
        Self { nodes, at_least: 1, disk: 192, provisioners: 1, embedded_only: None }
    }

    /// A real cluster must have as many nodes, too.
    #[must_use]
    pub const fn apart(self) -> Self {
        Self { at_least: self.nodes, ..self }
    }

    /// With disks of so many MiB.
    #[must_use]
    pub const fn disk(self, mib: u64) -> Self {
        Self { disk: mib, ..self }
    }

    /// With so many provisioners.
    #[must_use]
    pub const fn provisioners(self, provisioners: usize) -> Self {
        Self { provisioners, ..self }
    }

    /// Only on the embedded ground, and why.
    #[must_use]
    pub const fn embedded_only(self, why: &'static str) -> Self {
        Self { embedded_only: Some(why), ..self }
    }
}

/// What a story plays on.
pub struct Site {
    /// A client of its API server.
    pub client: Client,
    /// The story's own namespace.
    pub namespace: String,
    /// What it finds again on raw disks.
    pub oracle: Oracle,
    /// A class of SSDs that serves ext4 and whose volumes are wiped when their claim goes.
    pub class: String,
    /// What pods run.
    image: String,
    ground: Ground,
}

/// Where.
enum Ground {
    Embedded(Box<Embedded>),
    Real(Real),
}

/// Plays a story on the ground that there is. Everything is taken away at its end.
///
/// # Panics
/// The story fails, or the cluster cannot be built.
#[expect(clippy::panic, reason = "this is how a test fails")]
pub fn story(name: &str, shape: &Shape, play: impl AsyncFnOnce(&mut Site) -> Result<()>) {
    let real = std::env::var_os(KUBECONFIG).filter(|path| !path.is_empty());
    match (&real, shape.embedded_only) {
        (Some(_), Some(why)) => return skip(name, &format!("runs on the embedded cluster only: {why}")),
        (None, _) if !need_root(name) => return,
        _ => {}
    }
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let Ok(runtime) = built else { panic!("no threads for {name}") };
    let outcome = runtime.block_on(async {
        let mut site = match real {
            Some(path) => match Site::real(path.as_ref(), name, shape).await? {
                Some(site) => site,
                None => return Ok(()),
            },
            None => Site::embedded(shape).await?,
        };
        let played = AssertUnwindSafe(play(&mut site)).catch_unwind().await;
        if !matches!(played, Ok(Ok(()))) {
            site.last_words().await;
        }
        let closed = site.close().await;
        match played {
            Err(panic) => resume_unwind(panic),
            Ok(result) => result.and(closed),
        }
    });
    if let Err(error) = outcome {
        panic!("{name}: {error:?}");
    }
}

impl Site {
    async fn embedded(shape: &Shape) -> Result<Self> {
        let embedded = Embedded::start(shape).await?;
        let client = embedded.server.client()?;
        let namespace = "story".to_owned();
        let site = Self {
            client,
            namespace,
            oracle: Oracle::new(),
            class: "ssd".to_owned(),
            image: "none".to_owned(),
            ground: Ground::Embedded(Box::new(embedded)),
        };
        if let Err(error) = site.furnish().await {
            site.last_words().await;
            return Err(error);
        }
        Ok(site)
    }

    async fn real(kubeconfig: &std::path::Path, name: &str, shape: &Shape) -> Result<Option<Self>> {
        let real = Real::reach(kubeconfig).await?;
        if real.nodes.len() < shape.at_least {
            skip(name, &format!("needs {} nodes with a pool, the cluster has {}", shape.at_least, real.nodes.len()));
            return Ok(None);
        }
        let own: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
        let short: String = name.chars().map(|c| if c == '_' { '-' } else { c }).take(40).collect();
        let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let site = Self {
            client: real.client.clone(),
            namespace: format!("e2e-{}-{own}", short.trim_matches('-')),
            oracle: Oracle::new(),
            class: variable("BEDPLATE_E2E_CLASS", "ssd"),
            image: variable("BEDPLATE_E2E_IMAGE", "busybox:1.37"),
            ground: Ground::Real(real),
        };
        site.make_namespace().await?;
        Ok(Some(site))
    }

    /// Objects of a kind in the story's namespace.
    pub fn own<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Objects of a kind that belongs to no namespace.
    pub fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// The embedded ground, for stories that say that they need it.
    pub fn ground(&mut self) -> Result<&mut Embedded> {
        match &mut self.ground {
            Ground::Embedded(embedded) => Ok(embedded),
            Ground::Real(_) => anyhow::bail!("this story needs the embedded ground and does not say so"),
        }
    }

    /// Whether the ground is the embedded one: raw disks can be searched there.
    pub fn is_embedded(&self) -> bool {
        matches!(self.ground, Ground::Embedded(_))
    }

    /// The names of the nodes that serve.
    pub fn nodes(&self) -> Vec<String> {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.nodes.iter().map(|node| node.name.clone()).collect(),
            Ground::Real(real) => real.nodes.clone(),
        }
    }

    /// Shows what all programs said last.
    async fn last_words(&self) {
        if let Err(error) = self.show_objects().await {
            println!("the objects cannot be shown: {error:#}");
        }
        match &self.ground {
            Ground::Embedded(embedded) => embedded.last_words(),
            Ground::Real(real) => real.last_words(&self.namespace).await,
        }
    }

    async fn close(self) -> Result<()> {
        match self.ground {
            Ground::Embedded(embedded) => embedded.close().await,
            Ground::Real(real) => real.close(&self.namespace).await,
        }
        .context("the ground cannot be cleared")
    }
}
