//! A node of the embedded ground: a kubelet stand-in with a root of its own, the real agent with a state folder of its
//! own, and a filesystem on a loop device as its disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bedplate_core::receipt::Receipt;
use bedplate_provisioner::receipts::{RECEIPTS, parse};

use super::kubelet::Kubelet;
use super::process::{Program, Readiness};
use crate::engine::{loops_below, mounts_below, mounts_of, wait};
use crate::loopfs::{HostFs, Recipe, run};

/// One node. Taken down in this order: agent, kubelet, then what is mounted and attached, then the disk.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its agent.
    pub agent: Program,
    /// Its kubelet, and what runs in its pods.
    pub kubelet: Kubelet,
    /// Its disk.
    pub disk: HostFs,
    folder: PathBuf,
    lives: usize,
}

impl Node {
    /// A node called `name` in `folder`, with a disk of `mib` MiB, and nothing running yet.
    pub fn new(name: &str, folder: &Path, kubeconfig: &Path, mib: u64) -> Result<Self> {
        let folder = folder.join(name);
        std::fs::create_dir_all(folder.join("k"))?;
        let disk = disk(mib)?;
        let mut node = Self {
            name: name.to_owned(),
            agent: agent(name, &folder, kubeconfig, 0)?,
            kubelet: Kubelet::new(&folder.join("k")),
            disk,
            folder,
            lives: 0,
        };
        node.configure()?;
        Ok(node)
    }

    /// Where its pool is.
    pub fn pool(&self) -> PathBuf {
        self.disk.path().join("pool")
    }

    /// Its kubelet's root.
    pub fn root(&self) -> PathBuf {
        self.folder.join("k")
    }

    /// Where its ledger and receipts lie.
    pub fn state(&self) -> PathBuf {
        state(&self.folder, self.lives)
    }

    /// Where its agent answers people.
    pub fn admin(&self) -> PathBuf {
        admin(&self.folder)
    }

    /// Another machine under the same name: a new disk, a new ledger. Agent and kubelet must be stopped.
    pub fn replace_machine(&mut self, kubeconfig: &Path, mib: u64) -> Result<()> {
        self.let_go()?;
        self.disk = disk(mib)?;
        self.lives += 1;
        self.agent = agent(&self.name, &self.folder, kubeconfig, self.lives)?;
        self.configure()
    }

    /// Every receipt in its log.
    pub fn receipts(&self) -> Result<Vec<Receipt>> {
        match std::fs::read(self.state().join(RECEIPTS)) {
            Ok(bytes) => Ok(parse(&bytes)?.0),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// What a machine that lost its power leaves of mounts and loop devices: nothing. Agent and kubelet must be stopped.
    pub fn let_go(&self) -> Result<()> {
        for target in mounts_below(&self.root()).iter().rev() {
            unmount(target)?;
        }
        for device in loops_below(self.disk.path()) {
            for target in mounts_of(&device) {
                unmount(&target)?;
            }
            run("losetup", &[Path::new("--detach"), &device])?;
        }
        Ok(())
    }

    fn configure(&mut self) -> Result<()> {
        std::fs::create_dir_all(self.state())?;
        // Wipes pause for nobody: the machine that tests run on is busy with other things.
        let text =
            "[wipe]\nchunk = \"1Mi\"\npause_above_io_pressure_percent = 100\n\n[cluster]\nrescan_seconds = 3600\n";
        Ok(std::fs::write(self.folder.join("agent.toml"), text)?)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut attempt = || {
            self.agent.kill_nine()?;
            // Its tasks end here, or, where this thread is none of the runtime's, with the runtime; its containers now.
            self.kubelet = Kubelet::new(&self.root());
            self.let_go()
        };
        if let Err(error) = attempt() {
            eprintln!("left behind on node {}: {error:#}", self.name);
        }
    }
}

fn unmount(target: &str) -> Result<()> {
    // A process that was just killed holds its files for a moment longer.
    if wait(Duration::from_secs(2), || run("umount", &[target]).ok()).is_none() {
        // Somebody else looks at it; what it stands on is let go all the same.
        run("umount", &["--lazy", target])?;
    }
    Ok(())
}

fn disk(mib: u64) -> Result<HostFs> {
    let disk = HostFs::make(Recipe::new("ext4", mib << 20))?;
    disk.pool("pool")?;
    Ok(disk)
}

fn state(folder: &Path, life: usize) -> PathBuf {
    folder.join(format!("state-{life}"))
}

fn admin(folder: &Path) -> PathBuf {
    folder.join("admin.sock")
}

fn agent(name: &str, folder: &Path, kubeconfig: &Path, life: usize) -> Result<Program> {
    let admin = admin(folder);
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let arguments = vec![
        format!("--node-name={name}"),
        flag("config", &folder.join("agent.toml")),
        flag("kubeconfig", kubeconfig),
        flag("kubelet-root", &folder.join("k")),
        flag("state-dir", &state(folder, life)),
        flag("admin-socket", &admin),
        "--no-probe".to_owned(),
    ];
    let folder = folder.parent().unwrap_or(folder);
    Program::new(&format!("agent-{name}"), "bedplate-agent", folder, arguments, Readiness::Socket(admin))
}
