//! The kubelet stand-in of one node, with a root and a container runtime of its own: what pods said, and where they write.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bedplate_sim::Running;
use bedplate_sim::kubelet::{self, Options, Runtime};
use kube::Client;

/// A node's containers, and its kubelet while it runs.
pub struct Kubelet {
    root: PathBuf,
    runtime: Arc<Runtime>,
    running: Option<Running>,
}

impl Kubelet {
    /// One with this root, not yet running.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), runtime: Arc::default(), running: None }
    }

    /// Starts it for the node of that name; what a predecessor left is found.
    pub fn start(&mut self, client: &Client, node: &str) {
        let options = Options { runtime: self.runtime.clone(), ..Options::new(node, &self.root) };
        self.running = Some(kubelet::start(client, options));
    }

    /// Ends it and leaves containers and mounts as they are.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Ends it, and every container with it, as a power cut does.
    pub async fn power_off(&mut self) {
        self.stop().await;
        self.runtime = Arc::default();
    }

    /// What the processes of a pod have said, all lives together.
    pub fn said(&self, namespace: &str, pod: &str) -> String {
        let mut said = String::new();
        for entry in std::fs::read_dir(self.root.join("logs")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("{namespace}_{pod}_")) {
                said.push_str(&String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()));
            }
        }
        said
    }

    /// A file of this name in one of the volumes of the pod with this uid.
    pub fn file_of(&self, uid: &str, file: &str) -> Option<PathBuf> {
        let volumes = self.root.join("pods").join(uid).join("volumes/kubernetes.io~csi");
        let mounts = std::fs::read_dir(volumes).into_iter().flatten().flatten();
        mounts.map(|entry| entry.path().join("mount").join(file)).find(|path| path.exists())
    }
}
