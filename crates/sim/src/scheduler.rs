//! Stands in for kube-scheduler: behaves as the real one does towards an extender and towards volumes, and is an
//! ordinary client of any API server.
//!
//! Owns: the queue of pods that name this scheduler, and what it assumed a moment ago. One pod at a time goes through
//! filter, extender and score; binding runs beside that. Left out: preemption, scores of its own, spread constraints.
//! Input: watches of built-in objects only. A custom resource never wakes a pod, as in the real one.

mod bind;
mod cycle;
mod extender;
mod filter;
mod queue;
mod sample;
mod verdict;
mod volumes;

use crate::mirror::{Changes, Running};
use crate::notes::Notes;
use crate::objects::{is_over, node_of, with_condition};
use bind::Binding;
use extender::Extender;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt};
use queue::Queue;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use extender::ExtenderConfig;
pub use queue::Patience;
pub(crate) use volumes::ANNOTATION_BIND_COMPLETED;

/// How a pod's binding waits for its claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindWait {
    /// Looks every so often, the first time after one interval; the real one polls each second.
    Poll(Duration),
    /// Looks at every change of a claim; for tests that measure something else.
    Watch,
}

/// How this scheduler is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pods with this `schedulerName` are its own.
    pub name: String,
    /// Asked in this order, ignorable ones last.
    pub extenders: Vec<ExtenderConfig>,
    /// Percentage of nodes that must be found feasible before the search stops; none: by the size of the cluster.
    pub percentage_of_nodes_to_score: Option<usize>,
    /// Backoff, and how long a rejected pod sleeps.
    pub patience: Patience,
    /// How binding waits for claims.
    pub bind_wait: BindWait,
    /// How long it waits at most; the real default is 600 s.
    pub bind_timeout: Duration,
    /// Writes `nominatedNodeName` before it waits for claims, as 1.35 and later do.
    pub nominate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "default-scheduler".to_owned(),
            extenders: Vec::new(),
            percentage_of_nodes_to_score: None,
            patience: Patience::default(),
            bind_wait: BindWait::Poll(Duration::from_secs(1)),
            bind_timeout: Duration::from_mins(10),
            nominate: true,
        }
    }
}

/// Why a scheduler could not start.
#[derive(Debug, thiserror::Error)]
#[error("scheduler cannot use an extender")]
pub struct StartError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// The copies of the cluster that cycles read.
struct World {
    pods: Store<Pod>,
    nodes: Store<Node>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    classes: Store<StorageClass>,
    drivers: Store<CSIDriver>,
    capacities: Store<CSIStorageCapacity>,
}

/// What wakes the loop.
enum News {
    /// A pod that is not on a node was made or changed.
    Waiting(Arc<Pod>),
    /// A pod is deleted, over, or has its node; and something moved.
    Settled(String),
    /// The pods were listed anew.
    Relisted,
    /// Some other built-in object changed.
    Moved,
    /// A binding ended.
    Bound(Box<Binding>, Result<(), String>),
}

/// A running scheduler.
struct Scheduler {
    options: Options,
    extenders: Vec<Extender>,
    client: Client,
    world: Arc<World>,
    queue: Queue,
    /// Pod uid → what was decided about it and is not yet seen in the API.
    assumed: HashMap<String, Binding>,
    /// Where the next search begins.
    start: usize,
    notes: Notes,
    news: UnboundedSender<News>,
    changed: tokio::sync::watch::Receiver<u64>,
}

/// Starts scheduling; it goes on until the handle is dropped or stopped.
///
/// # Errors
/// An extender's address or certificate cannot be used.
pub fn start(client: &Client, options: Options) -> Result<Running, StartError> {
    let made = options.extenders.iter().cloned().map(Extender::new).collect::<Result<Vec<_>, _>>();
    let mut extenders = made.map_err(|error| StartError(Box::new(error)))?;
    extenders.sort_by_key(|extender| extender.config.ignorable);
    let mut running = Running::default();
    let (news, inbox) = unbounded_channel();
    let (changes, changed) = Changes::new();
    macro_rules! mirror {
        () => {{
            let (news, changes) = (news.clone(), changes.clone());
            running.mirror(Api::all(client.clone()), Config::default(), (), move |_| {
                changes.bump();
                news.send(News::Moved).ok();
            })
        }};
    }
    let _: Store<CSINode> = mirror!();
    let world = World {
        nodes: mirror!(),
        claims: mirror!(),
        volumes: mirror!(),
        classes: mirror!(),
        drivers: mirror!(),
        capacities: mirror!(),
        pods: watch_pods(&mut running, client, &options.name, news.clone(), changes),
    };
    let scheduler = Scheduler {
        extenders,
        client: client.clone(),
        world: Arc::new(world),
        queue: Queue::new(options.patience),
        assumed: HashMap::new(),
        start: 0,
        notes: Notes::new(client, &options.name),
        news,
        changed,
        options,
    };
    running.spawn(scheduler.run(inbox));
    Ok(running)
}

/// A pod that a scheduler of this name is to place.
fn waits(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    node_of(pod).is_none()
        && !is_over(pod)
        && pod.metadata.deletion_timestamp.is_none()
        && spec.scheduler_name.as_ref().is_none_or(|scheduler| scheduler == name)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

fn watch_pods(
    running: &mut Running,
    client: &Client,
    name: &str,
    news: UnboundedSender<News>,
    changes: Changes,
) -> Store<Pod> {
    let name = name.to_owned();
    running.mirror(Api::all(client.clone()), Config::default(), (), move |event| {
        changes.bump();
        let what = match event {
            None => News::Relisted,
            Some(Event::Apply(pod)) if waits(pod, &name) => News::Waiting(Arc::new(pod.clone())),
            Some(Event::Apply(pod) | Event::Delete(pod)) => News::Settled(pod.uid().unwrap_or_default()),
            Some(_) => return,
        };
        news.send(what).ok();
    })
}

impl Scheduler {
    async fn run(mut self, mut inbox: UnboundedReceiver<News>) {
        let world = Arc::clone(&self.world);
        let ready = async {
            world.pods.wait_until_ready().await?;
            world.nodes.wait_until_ready().await?;
            world.claims.wait_until_ready().await?;
            world.volumes.wait_until_ready().await?;
            world.classes.wait_until_ready().await?;
            world.drivers.wait_until_ready().await?;
            world.capacities.wait_until_ready().await
        };
        if ready.await.is_err() {
            return;
        }
        let mut bindings = tokio::task::JoinSet::new();
        loop {
            while let Ok(news) = inbox.try_recv() {
                self.hear(news).await;
            }
            while bindings.try_join_next().is_some() {}
            if let Some(pod) = self.queue.pop(Instant::now()) {
                if let Some(binding) = self.attempt(&pod).await {
                    bindings.spawn(self.bind(binding));
                }
                continue;
            }
            let next = self.queue.next().unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
            tokio::select! {
                news = inbox.recv() => match news {
                    Some(news) => self.hear(news).await,
                    None => return,
                },
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    async fn hear(&mut self, news: News) {
        let now = Instant::now();
        match news {
            News::Waiting(pod) => self.queue.offer(pod, now),
            News::Relisted => {
                self.relist(now);
                self.queue.wake_all(now);
            }
            News::Moved => self.queue.wake_all(now),
            News::Settled(uid) => {
                self.assumed.remove(&uid);
                self.queue.forget(&uid);
                self.queue.wake_all(now);
            }
            News::Bound(binding, Ok(())) => {
                let (pod, node) = (&binding.pod, &binding.node);
                let text = format!("Successfully assigned {}/{} to {node}", space(pod), pod.name_any());
                // It stays away, and assumed, until the API shows it on its node.
                self.notes.tell(pod, EventType::Normal, "Scheduled", "Binding", text).await;
            }
            News::Bound(binding, Err(error)) => {
                let uid = binding.pod.uid().unwrap_or_default();
                self.assumed.remove(&uid);
                self.queue.wake_all(now);
                self.queue.failed(&uid, now);
                self.report(&binding.pod, "SchedulerError", error).await;
            }
        }
    }

    /// Takes the waiting pods from the copy, and forgets the others.
    fn relist(&mut self, now: Instant) {
        let waiting = self.world.pods.state_filter(|pod| waits(pod, &self.options.name));
        let uids: HashSet<String> = waiting.iter().filter_map(|pod| pod.uid()).collect();
        self.queue.keep(&uids);
        self.assumed.retain(|uid, _| uids.contains(uid));
        for pod in waiting {
            self.queue.offer(pod, now);
        }
    }

    /// Says on the pod, and in an event, why it has no node.
    async fn report(&self, pod: &Pod, reason: &str, text: String) {
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(text.clone()),
            ..PodCondition::default()
        };
        self.notes.tell(pod, EventType::Warning, "FailedScheduling", "Scheduling", text).await;
        // The copy in hand may be older than our own last patch.
        let latest = self.world.pods.get(&ObjectRef::from_obj(pod));
        let latest = latest.filter(|latest| latest.uid() == pod.uid());
        let pod = latest.as_deref().unwrap_or(pod);
        let nominated = pod.status.as_ref().is_some_and(|status| status.nominated_node_name.is_some());
        let mut status = json!({});
        if let Some(conditions) = with_condition(pod, condition, jiff::Timestamp::now()) {
            status["conditions"] = json!(conditions);
        }
        if nominated {
            status["nominatedNodeName"] = json!(null);
        }
        if status != json!({}) {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &space(pod));
            let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
            if let Err(error) = api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await {
                tracing::debug!(error = %error, pod = pod.name_any(), "pod condition not written");
            }
        }
    }
}

fn space(pod: &Pod) -> String {
    pod.namespace().unwrap_or_default()
}
