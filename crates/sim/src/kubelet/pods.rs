//! The pods of the node: volumes first, then the process, then what the API is told; and all of that backwards.
//!
//! A container's command runs on this machine. Wherever a mount path occurs in its command, arguments or environment, the
//! path where the volume really is takes its place; `BEDPLATE_MOUNT_<volume>` and `BEDPLATE_DEVICE_<volume>`, upper case,
//! say it too. What it writes goes to `<root>/logs/<namespace>_<pod>_<uid>.log`.

use super::runtime::{Program, State};
use super::volumes::{self, Failure};
use super::{Kubelet, paths};
use crate::mirror::Changes;
use crate::objects::{claim_of, is_over, phase_of, with_condition};
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::EventType;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A container that exited is started again after this.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// A pod whose volumes failed is tried again after this.
const RETRY_AFTER: Duration = Duration::from_millis(500);

impl Kubelet {
    /// Looks at the pods whenever one changed, and every so often; one task a pod at a time.
    pub(super) async fn run(self: Arc<Self>, pods: Store<Pod>, mut changed: watch::Receiver<u64>, changes: Changes) {
        if pods.wait_until_ready().await.is_err() {
            return;
        }
        let busy = Arc::new(Mutex::new(HashSet::<String>::new()));
        let later = Arc::new(Mutex::new(HashMap::<String, Instant>::new()));
        let mut tasks = JoinSet::new();
        loop {
            let mut all: BTreeMap<String, Option<Arc<Pod>>> =
                pods.state().into_iter().map(|pod| (pod.uid().unwrap_or_default(), Some(pod))).collect();
            // What is here but not in the API any more is taken down too.
            for uid in volumes::pods(&self.options.root).into_iter().chain(self.options.runtime.pods()) {
                all.entry(uid).or_default();
            }
            later.lock().retain(|_, until| *until > Instant::now());
            for (uid, pod) in all {
                if later.lock().contains_key(&uid) || !busy.lock().insert(uid.clone()) {
                    continue;
                }
                let (this, busy, later, changes) = (self.clone(), busy.clone(), later.clone(), changes.clone());
                tasks.spawn(async move {
                    match this.sync(&uid, pod.as_deref()).await {
                        Ok(true) => changes.bump(),
                        Ok(false) => {}
                        Err(error) => {
                            later.lock().insert(uid.clone(), Instant::now() + RETRY_AFTER);
                            if let Some(pod) = pod {
                                let text = error.to_string();
                                this.notes.tell(&pod, EventType::Warning, "FailedMount", "Mounting", text).await;
                            }
                        }
                    }
                    busy.lock().remove(&uid);
                });
            }
            while tasks.try_join_next().is_some() {}
            tokio::select! {
                ended = changed.changed() => if ended.is_err() { return },
                () = tokio::time::sleep(self.options.look_every) => {}
            }
        }
    }

    /// One step for one pod. True: look again at once.
    async fn sync(&self, uid: &str, pod: Option<&Pod>) -> Result<bool, Failure> {
        let runtime = &self.options.runtime;
        let Some(pod) = pod else {
            self.take_down(uid, Duration::ZERO).await?;
            return Ok(false);
        };
        if pod.metadata.deletion_timestamp.is_some() {
            let grace = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            self.take_down(uid, Duration::from_secs(grace.unwrap_or(30))).await?;
            let preconditions = Some(Preconditions { uid: pod.uid(), resource_version: None });
            let now = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
            match self.api(pod).delete(&pod.name_any(), &now).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                deleted => drop(deleted?),
            }
            return Ok(false);
        }
        if is_over(pod) {
            self.take_down(uid, Duration::ZERO).await?;
            return Ok(false);
        }
        let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
        let (phase, code) = match runtime.state(uid) {
            None => {
                let program = self.bring_up(uid, pod).await?;
                self.start(uid, pod, &program)?;
                return Ok(true);
            }
            Some((State::Running, _)) => {
                if !self.published.lock().contains(uid) {
                    self.bring_up(uid, pod).await?;
                }
                ("Running", None)
            }
            Some((State::Exited(0), _)) if policy != "Always" => ("Succeeded", Some(0)),
            Some((State::Exited(code), _)) if policy == "Never" => ("Failed", Some(code)),
            Some((State::Exited(code), _)) => {
                self.report(pod, "Running", Some(code)).await?;
                tokio::time::sleep(RESTART_AFTER).await;
                let program = self.bring_up(uid, pod).await?;
                self.start(uid, pod, &program)?;
                return Ok(true);
            }
        };
        self.report(pod, phase, code).await?;
        Ok(false)
    }

    fn start(&self, uid: &str, pod: &Pod, program: &Program) -> Result<(), Failure> {
        let name = format!("{}_{}_{uid}.log", pod.namespace().unwrap_or_default(), pod.name_any());
        Ok(self.options.runtime.run(uid, program, &self.options.root.join("logs").join(name))?)
    }

    /// Ends the process, then takes the volumes down.
    async fn take_down(&self, uid: &str, grace: Duration) -> Result<(), Failure> {
        self.options.runtime.stop(uid, grace).await;
        self.unmount_all(uid).await?;
        self.published.lock().remove(uid);
        Ok(())
    }

    /// All volumes of a pod, and the program with their paths in it.
    async fn bring_up(&self, uid: &str, pod: &Pod) -> Result<Program, Failure> {
        let mut paths = HashMap::<String, (PathBuf, bool)>::new();
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        for volume in volumes {
            if volume.empty_dir.is_some() {
                let path = paths::empty_dir(&self.options.root, uid, &volume.name);
                std::fs::create_dir_all(&path)?;
                paths.insert(volume.name.clone(), (path, false));
            }
            if let Some((claim, _)) = claim_of(pod, volume) {
                let source = volume.persistent_volume_claim.as_ref();
                let read_only = source.and_then(|source| source.read_only) == Some(true);
                let mounted = self.mount(pod, &claim, read_only).await;
                let failed = |error| format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name);
                paths.insert(volume.name.clone(), mounted.map_err(failed)?);
            }
        }
        self.published.lock().insert(uid.to_owned());
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let container = container.ok_or("the pod has no container")?;
        Ok(program(pod, container, &paths))
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    /// Tells the API how the pod is, if that is news.
    async fn report(&self, pod: &Pod, phase: &str, code: Option<i32>) -> Result<(), Failure> {
        let restarts = self.options.runtime.state(&pod.uid().unwrap_or_default()).map_or(0, |(_, restarts)| restarts);
        let ready = phase == "Running" && code.is_none();
        let now = jiff::Timestamp::now();
        let mut told = pod.clone();
        let mut news = phase_of(pod) != Some(phase);
        let over = matches!(phase, "Succeeded" | "Failed");
        for (kind, holds) in [("Initialized", true), ("ContainersReady", ready), ("Ready", ready)] {
            let reason = (!holds).then(|| if over { "PodCompleted" } else { "ContainersNotReady" }.to_owned());
            let (type_, status) = (kind.to_owned(), if holds { "True" } else { "False" }.to_owned());
            let condition = PodCondition { type_, status, reason, ..PodCondition::default() };
            if let Some(conditions) = with_condition(&told, condition, now) {
                news = true;
                told.status.get_or_insert_default().conditions = Some(conditions);
            }
        }
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers).take(1).map(|container| {
            let state = match code {
                None => json!({ "running": { "startedAt": now } }),
                Some(code) => json!({ "terminated": { "exitCode": code, "finishedAt": now } }),
            };
            json!({
                "name": container.name, "image": container.image, "imageID": "", "ready": ready, "started": ready,
                "restartCount": restarts, "state": state,
            })
        });
        let containers: Vec<_> = containers.collect();
        let before = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
        news |= before.is_none_or(|before| before.restart_count != restarts);
        if !news {
            return Ok(());
        }
        let started = pod.status.as_ref().and_then(|status| status.start_time.clone()).map_or(now, |time| time.0);
        let status = json!({
            "phase": phase, "conditions": told.status.and_then(|status| status.conditions), "startTime": started,
            "containerStatuses": containers, "podIP": "127.0.0.1", "podIPs": [{ "ip": "127.0.0.1" }],
            "hostIP": "127.0.0.1",
        });
        let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
        self.api(pod).patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// The container's command with real paths in it.
fn program(pod: &Pod, container: &Container, paths: &HashMap<String, (PathBuf, bool)>) -> Program {
    let mut environment = vec![("HOSTNAME".to_owned(), pod.name_any())];
    let mounts = container.volume_mounts.iter().flatten();
    let mounts = mounts.map(|mount| (&mount.name, &mount.mount_path, mount.sub_path.as_deref(), "MOUNT"));
    let devices = container.volume_devices.iter().flatten();
    let devices = devices.map(|device| (&device.name, &device.device_path, None, "DEVICE"));
    let mut places: Vec<(&str, String)> = Vec::new();
    for (name, path, below, kind) in mounts.chain(devices) {
        let Some((here, _)) = paths.get(name) else { continue };
        let here = below.map_or_else(|| here.clone(), |below| here.join(below)).display().to_string();
        let upper: String =
            name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        environment.push((format!("BEDPLATE_{kind}_{upper}"), here.clone()));
        places.push((path, here));
    }
    // The longest first, and through a mark: one mount path may begin another, or be part of a real one.
    places.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    let real = |word: &String| {
        let mark = |at: usize| format!("\u{0}{at}\u{0}");
        let marked =
            places.iter().enumerate().fold(word.clone(), |word, (at, (path, _))| word.replace(path, &mark(at)));
        places.iter().enumerate().fold(marked, |word, (at, (_, here))| word.replace(&mark(at), here))
    };
    let said = container.env.iter().flatten();
    environment.extend(said.filter_map(|env| Some((env.name.clone(), real(env.value.as_ref()?)))));
    let words = container.command.iter().flatten().chain(container.args.iter().flatten());
    let mut command: Vec<String> = words.map(real).collect();
    if command.is_empty() {
        command = vec!["sleep".to_owned(), "infinity".to_owned()];
    }
    Program { command, environment }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_a_command_become_the_real_ones() {
        let container = json!({
            "name": "c",
            "command": ["sh", "-c", "cat /data/a /data-two/b /dev/raw"],
            "args": ["/data"],
            "env": [{ "name": "E", "value": "e=/data-two" }],
            "volumeMounts": [
                { "name": "one", "mountPath": "/data", "subPath": "s" }, { "name": "two-x", "mountPath": "/data-two" },
            ],
            "volumeDevices": [{ "name": "raw", "devicePath": "/dev/raw" }],
        });
        let paths = [("one", "/k/data/1"), ("two-x", "/k/2"), ("raw", "/k/3")];
        let paths = paths.into_iter().map(|(name, path)| (name.to_owned(), (PathBuf::from(path), false))).collect();
        let program = program(&Pod::default(), &serde_json::from_value(container).unwrap(), &paths);
        assert_eq!(program.command, ["sh", "-c", "cat /k/data/1/s/a /k/2/b /k/3", "/k/data/1/s"]);
        let environment: HashMap<_, _> = program.environment.into_iter().collect();
        let said = |name: &str| environment[name].as_str();
        assert_eq!(said("BEDPLATE_MOUNT_ONE"), "/k/data/1/s");
        assert_eq!(said("BEDPLATE_MOUNT_TWO_X"), "/k/2");
        assert_eq!((said("BEDPLATE_DEVICE_RAW"), said("E")), ("/k/3", "e=/k/2"));
    }
}
