//! The image as a node runs it: containerd and runc of the distribution, the image made by `deploy/image/build.sh` out of
//! the programs under test, and a container as the DaemonSet's manifest describes it.
//!
//! The kubelet's part (CRI) is played here by translating the manifest's mounts, with every host folder below one of the
//! test's own. containerd has folders, sockets and a namespace of its own; everything is gone when dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::engine::wait;
use crate::loopfs::run;
use crate::programs::program;

/// How long containerd may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name that the archive gives the image.
pub fn image() -> String {
    format!("docker.io/library/bedplate:{}", env!("CARGO_PKG_VERSION"))
}

/// Makes the image's archive out of programs under test.
pub fn build(archive: &Path, programs: &[&str]) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/image/build.sh");
    let mut arguments = vec![archive.to_owned(), PathBuf::from(env!("CARGO_PKG_VERSION"))];
    for name in programs {
        arguments.push(program(name)?);
    }
    run(&script.display().to_string(), &arguments).map(drop)
}

/// A containerd of the test's own.
#[derive(Debug)]
pub struct Containerd {
    child: Child,
    folder: PathBuf,
    /// Its own: runc and cgroups know containers by it and their name, whichever containerd they belong to.
    namespace: String,
}

impl Containerd {
    /// Starts one that keeps everything in `folder`, which is made.
    pub fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir(folder)?;
        // Names of sockets are short by nature; a test's folder may be deep.
        let at = folder.display();
        ensure!(folder.as_os_str().len() < 70, "{at} is too long for a socket's name");
        let config = folder.join("config.toml");
        // No CRI, no snapshotter that needs a filesystem of its own. `native` copies, which works wherever files do.
        let off = [
            "grpc.v1.cri",
            "snapshotter.v1.aufs",
            "snapshotter.v1.btrfs",
            "snapshotter.v1.devmapper",
            "snapshotter.v1.zfs",
        ]
        .map(|name| format!("\"io.containerd.{name}\""))
        .join(", ");
        std::fs::write(
            &config,
            format!(
                "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\noom_score = 0\ndisabled_plugins = [{off}]\n\
                 [grpc]\naddress = \"{at}/c.sock\"\n[ttrpc]\naddress = \"{at}/c.sock.ttrpc\"\n"
            ),
        )?;
        let log = File::create(folder.join("containerd.log"))?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start containerd")?;
        let namespace = format!("bedplate-{}", uuid::Uuid::new_v4().simple());
        let own = Self { child, folder: folder.to_owned(), namespace };
        let up = wait(PATIENCE, || own.ctr(&["version"]).is_ok().then_some(()));
        up.with_context(|| format!("containerd does not answer; see {at}/containerd.log"))?;
        Ok(own)
    }

    /// `ctr` with this containerd; its output.
    pub fn ctr<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut all = vec!["--address".into(), self.folder.join("c.sock").into_os_string()];
        all.extend(["--namespace".into(), self.namespace.clone().into()]);
        all.extend(arguments.iter().map(|a| a.as_ref().to_owned()));
        run("ctr", &all)
    }

    /// Imports an archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        self.ctr(&[Path::new("images"), Path::new("import"), Path::new("--snapshotter"), Path::new("native"), archive])
            .map(drop)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for verb in ["tasks", "containers"] {
            for id in self.ctr(&[verb, "list", "--quiet"]).unwrap_or_default().split_whitespace() {
                let _ = if verb == "tasks" {
                    self.ctr(&["tasks", "delete", "--force", id])
                } else {
                    self.ctr(&["containers", "delete", id])
                };
            }
        }
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        if wait(Duration::from_secs(10), || self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a manifest's only container is to be, with the host's folders replaced.
#[derive(Clone, Debug)]
pub struct Shape {
    mounts: Vec<String>,
    propagation: &'static str,
    read_only: bool,
    /// The host's folders, by where they are on a real node.
    moved: Vec<(String, String)>,
    pod: Value,
}

impl Shape {
    /// Reads a pod template. `folders` says where each of its host folders, empty folders and configurations is here; the
    /// place inside is then the same as outside for those that are so in the manifest.
    pub fn read(pod: &Value, folders: &BTreeMap<&str, PathBuf>) -> Result<Self> {
        let container = &pod["containers"][0];
        ensure!(container["securityContext"]["privileged"] == true, "only privileged pods are translated");
        ensure!(pod["hostPID"] == true, "the container sees the host's processes");
        let (mut mounts, mut moved, mut propagation) = (Vec::new(), Vec::new(), "private");
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let name = mount["name"].as_str().context("a mount has a name")?;
            let volumes = pod["volumes"].as_array().context("a pod has volumes")?;
            let volume = volumes.iter().find(|v| v["name"] == name).with_context(|| format!("volume {name}"))?;
            let source = folders.get(name).with_context(|| format!("where is {name} here?"))?;
            let inside = mount["mountPath"].as_str().context("a mount has a path")?;
            let mut target = Path::new(inside);
            if volume["hostPath"]["path"] == inside {
                target = source;
                moved.push((inside.to_owned(), source.display().to_string()));
            }
            // As the kubelet asks, and CRI sets up: the root's own propagation follows the strongest wish.
            let spread = match mount["mountPropagation"].as_str() {
                None => "rprivate",
                Some("HostToContainer") => "rslave",
                Some("Bidirectional") => "rshared",
                Some(other) => bail!("mountPropagation {other}"),
            };
            match spread {
                "rshared" => propagation = "rshared",
                "rslave" if propagation == "private" => propagation = "rslave",
                _ => {}
            }
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            mounts.push(format!(
                "type=bind,src={},dst={},options=rbind:{spread}:{access}",
                source.display(),
                target.display()
            ));
        }
        let read_only = container["securityContext"]["readOnlyRootFilesystem"] == true;
        Ok(Self { mounts, propagation, read_only, moved, pod: pod.clone() })
    }

    /// The command of one of its probes.
    pub fn probe(&self, kind: &str) -> Result<Vec<String>> {
        let command = &self.pod["containers"][0][kind]["exec"]["command"];
        serde_json::from_value(command.clone()).with_context(|| format!("no {kind}"))
    }

    /// The manifest's own command and arguments, with variables as `env` says them and the host's folders as they are here.
    pub fn command(&self, env: &BTreeMap<&str, String>) -> Result<Vec<String>> {
        let container = &self.pod["containers"][0];
        let words = ["command", "args"].map(|part| container[part].as_array().cloned().unwrap_or_default()).concat();
        let mut command = Vec::new();
        for word in words {
            let mut word = word.as_str().context("an argument is a string")?.to_owned();
            for (name, value) in env {
                word = word.replace(&format!("$({name})"), value);
            }
            for (there, here) in &self.moved {
                word = word.replace(there, here);
            }
            ensure!(!word.contains("$("), "{word} names a variable that nobody set");
            command.push(word);
        }
        Ok(command)
    }

    /// Runs it under `id`, detached, with a command of the test's choice and its output in `log`.
    pub fn start(
        &self,
        containerd: &Containerd,
        id: &str,
        log: &Path,
        env: &[String],
        command: &[String],
    ) -> Result<()> {
        let mut arguments: Vec<String> =
            ["run", "--detach", "--privileged", "--net-host", "--snapshotter", "native"].map(str::to_owned).into();
        // The host's processes: runc joins the namespace that it is in itself.
        arguments.extend(
            ["--with-ns", "pid:/proc/self/ns/pid", "--rootfs-propagation", self.propagation].map(str::to_owned),
        );
        arguments.extend(["--log-uri".to_owned(), format!("file://{}", log.display())]);
        if self.read_only {
            arguments.push("--read-only".to_owned());
        }
        for value in env {
            arguments.extend(["--env".to_owned(), value.clone()]);
        }
        for mount in &self.mounts {
            arguments.extend(["--mount".to_owned(), mount.clone()]);
        }
        arguments.extend([image(), id.to_owned()]);
        arguments.extend(command.iter().cloned());
        containerd.ctr(&arguments).map(drop)
    }
}

/// Runs a command inside of a running container.
pub fn exec(containerd: &Containerd, id: &str, command: &[String]) -> Result<String> {
    let name = format!("e{}", uuid::Uuid::new_v4().simple());
    let mut arguments: Vec<String> = ["tasks", "exec", "--exec-id", &name, id].map(str::to_owned).into();
    arguments.extend(command.iter().cloned());
    containerd.ctr(&arguments)
}

/// Kills a container as nobody can prevent, and waits until it is gone.
pub fn kill_nine(containerd: &Containerd, id: &str) -> Result<()> {
    containerd.ctr(&["tasks", "kill", "--signal", "SIGKILL", id])?;
    let gone = wait(PATIENCE, || containerd.ctr(&["tasks", "delete", id]).ok());
    gone.with_context(|| format!("container {id} does not end"))?;
    containerd.ctr(&["containers", "delete", id]).map(drop)
}
