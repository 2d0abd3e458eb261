//! An API server in this process: a subset of Kubernetes that one generic JSON store can carry.
//!
//! Served: discovery, create, read, list with pages, watch, replace, four kinds of patch, delete with finalizers, status,
//! custom resources with structural schemas, pod binding and eviction. Not: OpenAPI, admission, CEL beyond immutable
//! fields, RBAC, propagation policies; those are tested on real servers. `tests/contract` holds it to recorded answers.
//! No code here knows a kind that a row of `resources` could describe.

mod apply;
mod call;
mod discovery;
mod faults;
mod fields;
mod lifecycle;
mod patch;
mod read;
mod refusal;
mod resources;
mod schema;
mod selector;
mod serve;
mod shape;
mod store;
#[cfg(test)]
mod tests;
mod values;
mod watching;
mod write;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use parking_lot::RwLock;
use tokio::sync::watch;

pub use faults::Fault;
pub use store::Snapshot;
pub use watching::Interruption;

/// How a server behaves where a test may want it otherwise.
#[derive(Debug, Clone)]
pub struct Options {
    /// Changes kept for each resource, for watches to resume at.
    pub history: usize,
    /// Time between bookmarks on a watch that wants them.
    pub bookmark_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: 100_000, bookmark_every: Duration::from_mins(1) }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    store: RwLock<store::Store>,
    faults: faults::Faults,
    interrupt: watch::Sender<Interruption>,
    options: Options,
    /// `host:port`.
    address: String,
}

/// A running server on a loopback port of its own. It ends, with all connections, when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    /// Its own threads, so that neither a busy nor a blocked test stops it.
    runtime: Option<tokio::runtime::Runtime>,
}

impl ApiServer {
    /// Starts a server with nothing but the usual namespaces in it.
    ///
    /// # Errors
    /// No loopback port or no thread is to be had.
    pub fn start(options: Options) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("apiserver")
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let mut store = store::Store::new(options.history);
        lifecycle::furnish(&mut store);
        let shared = Arc::new(Shared {
            store: RwLock::new(store),
            faults: faults::Faults::default(),
            interrupt: watch::channel(Interruption::Close).0,
            options,
            address: listener.local_addr()?.to_string(),
        });
        runtime.spawn(serve::run(Arc::clone(&shared), listener));
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// A kubeconfig (YAML) that names this server.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: bedplate\ncontexts:\n- name: bedplate\n  context:\n    cluster: bedplate\n    user: bedplate\nclusters:\n- name: bedplate\n  cluster:\n    server: {}\nusers:\n- name: bedplate\n  user: {{}}\n",
            self.url()
        )
    }

    /// A client of this server with connections of its own. To be called within a tokio runtime.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn client(&self) -> Result<kube::Client, kube::Error> {
        let url =
            self.url().parse().map_err(|error: axum::http::uri::InvalidUri| kube::Error::Service(error.into()))?;
        kube::Client::try_from(kube::Config::new(url))
    }

    /// The revision of the last change. Two equal readings: nothing was written between them.
    pub fn revision(&self) -> u64 {
        self.shared.store.read().revision
    }

    /// All objects as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.store.read().snapshot()
    }

    /// Back to a snapshot, as an etcd restored from a backup: objects and revision go back, watches end.
    pub fn restore(&self, snapshot: Snapshot) {
        self.shared.store.write().restore(snapshot);
    }

    /// Forgets history: new watches and pages from before now get 410. Live watches go on.
    pub fn compact(&self) {
        self.shared.store.write().compact();
    }

    /// Ends all live watches.
    pub fn interrupt_watches(&self, how: Interruption) {
        self.shared.interrupt.send_replace(how);
    }

    /// Lets the next `times` requests that match (method, path with query) meet a fault.
    pub fn inject(&self, times: usize, fault: Fault, matches: impl Fn(&Method, &str) -> bool + Send + Sync + 'static) {
        self.shared.faults.plan(times, fault, Box::new(matches));
    }

    /// No more faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
