//! One scheduling cycle: filter a sample of nodes, ask the extenders, score, choose, assume (kube-scheduler's
//! `schedulingCycle`). It writes nothing to the API; what it decided is bound elsewhere.

use super::bind::Binding;
use super::filter::{Nodes, Wanted};
use super::verdict::{Misfit, Out};
use super::volumes::{Claims, Lookup};
use super::{Scheduler, sample, space};
use crate::objects::{is_over, node_of};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use rand::seq::IndexedRandom;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// How far an extender's score of 10 reaches beside plugins whose scores end at 100.
const SCORE_SCALE: i64 = 10;

/// How a cycle ends without a node.
enum Miss {
    Fits(Box<Misfit>),
    Error(String),
}

impl Lookup for Scheduler {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.world.claims.get(&ObjectRef::new(name).within(namespace))
    }

    fn assumed_node(&self, namespace: &str, name: &str) -> Option<String> {
        let holds = |binding: &&Binding| {
            space(&binding.pod) == namespace && binding.claims.iter().any(|claim| claim.name_any() == name)
        };
        self.assumed.values().find(holds).map(|binding| binding.node.clone())
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.world.volumes.get(&ObjectRef::new(name))
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.world.classes.get(&ObjectRef::new(name))
    }

    fn driver(&self, name: &str) -> Option<Arc<CSIDriver>> {
        self.world.drivers.get(&ObjectRef::new(name))
    }

    fn capacities(&self) -> Vec<Arc<CSIStorageCapacity>> {
        self.world.capacities.state()
    }
}

impl Scheduler {
    /// Tries one pod. Some: it has a node in memory and is to be bound.
    pub(super) async fn attempt(&mut self, pod: &Arc<Pod>) -> Option<Binding> {
        let uid = pod.uid().unwrap_or_default();
        match self.choose(pod).await {
            Ok(binding) => {
                self.assumed.insert(uid, binding.clone());
                Some(binding)
            }
            Err(Miss::Fits(misfit)) => {
                self.queue.rejected(&uid, misfit.by_extender, Instant::now());
                self.report(pod, "Unschedulable", misfit.to_string()).await;
                None
            }
            Err(Miss::Error(text)) => {
                self.queue.failed(&uid, Instant::now());
                self.report(pod, "SchedulerError", text).await;
                None
            }
        }
    }

    async fn choose(&mut self, pod: &Arc<Pod>) -> Result<Binding, Miss> {
        let nodes = self.nodes();
        if nodes.all.is_empty() {
            return Err(Miss::Error("no nodes available to schedule pods".to_owned()));
        }
        let mut misfit = Misfit { nodes: nodes.all.len(), ..Misfit::default() };
        let claims = match Claims::of(pod, self) {
            Ok(claims) => claims,
            Err(text) => return Err(Miss::Fits(Box::new(Misfit { pod: Some(text), ..misfit }))),
        };
        let wanted = Wanted::new(pod, &nodes);
        let fits = |node: &Node| {
            wanted.fits(node, &nodes).and_then(|()| claims.fit(node)).and_then(|()| wanted.gets_along(node))
        };
        let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.clone());
        let nominated = nodes.all.iter().find(|node| nominated.as_ref().is_some_and(|name| *name == node.name_any()));
        let mut left = Vec::new();
        if let Some(node) = nominated.filter(|node| fits(node).is_ok()) {
            // A failure here only means that all nodes are looked at.
            left = self.ask(pod, vec![Arc::clone(node)], &mut Misfit::default()).await.unwrap_or_default();
        }
        if left.is_empty() {
            let enough = sample::enough(nodes.all.len(), self.options.percentage_of_nodes_to_score);
            let (found, seen) = sample::search(nodes.all.len(), self.start, enough, |at| match fits(&nodes.all[at]) {
                Ok(()) => true,
                Err(out) => {
                    misfit.out.insert(nodes.all[at].name_any(), out);
                    false
                }
            });
            self.start = (self.start + seen) % nodes.all.len();
            let found = found.into_iter().map(|at| Arc::clone(&nodes.all[at])).collect();
            left = self.ask(pod, found, &mut misfit).await.map_err(Miss::Error)?;
        }
        let node = match left.as_slice() {
            [] => return Err(Miss::Fits(Box::new(misfit))),
            [node] => node.name_any(),
            _ => self.best(pod, &left).await,
        };
        Ok(Binding { pod: Arc::clone(pod), node, claims: claims.unbound.into_iter().map(|it| it.claim).collect() })
    }

    /// All nodes, with the pods that run or are assumed to run there.
    fn nodes(&self) -> Nodes {
        let mut all = self.world.nodes.state();
        all.sort_by_key(|node| node.name_any());
        let mut pods: HashMap<String, Vec<Arc<Pod>>> = HashMap::new();
        for pod in self.world.pods.state() {
            let assumed = || self.assumed.get(&pod.uid()?).map(|binding| binding.node.clone());
            let node = node_of(&pod).map(str::to_owned).or_else(assumed);
            if let Some(node) = node.filter(|_| !is_over(&pod)) {
                pods.entry(node).or_default().push(pod);
            }
        }
        Nodes { all, pods }
    }

    /// What the extenders leave of `left`, one after the other.
    async fn ask(&self, pod: &Pod, mut left: Vec<Arc<Node>>, misfit: &mut Misfit) -> Result<Vec<Arc<Node>>, String> {
        for extender in &self.extenders {
            if left.is_empty() {
                break;
            }
            let before = left.len();
            match extender.filter(pod, left.clone()).await {
                Ok(filtered) => {
                    let failed = filtered.failed.into_iter().map(|(node, reason)| (node, Out::for_now(reason)));
                    misfit.out.extend(failed);
                    let lost = filtered.unresolvable.into_iter().map(|(node, reason)| (node, Out::for_good(reason)));
                    misfit.out.extend(lost);
                    misfit.by_extender |= filtered.fit.len() < before;
                    left = filtered.fit;
                }
                Err(error) if extender.config.ignorable => {
                    tracing::warn!(error = %error, "extender failed, going on without it");
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(left)
    }

    /// The node with the highest sum of weighted scores; one of them by chance where several have it.
    async fn best(&self, pod: &Pod, left: &[Arc<Node>]) -> String {
        let mut sums: HashMap<String, i64> = left.iter().map(|node| (node.name_any(), 0)).collect();
        let answers = join_all(self.extenders.iter().map(|extender| extender.prioritize(pod, left))).await;
        for (extender, answer) in self.extenders.iter().zip(answers) {
            match answer {
                Ok(scores) => {
                    for (node, score) in scores {
                        sums.entry(node).and_modify(|sum| *sum += score * extender.config.weight * SCORE_SCALE);
                    }
                }
                Err(error) => tracing::debug!(error = %error, "extender's scores ignored"),
            }
        }
        let most = sums.values().max().copied().unwrap_or_default();
        let best: Vec<&String> = sums.iter().filter(|(_, sum)| **sum == most).map(|(node, _)| node).collect();
        best.choose(&mut rand::rng()).map(|node| (*node).clone()).unwrap_or_default()
    }
}
