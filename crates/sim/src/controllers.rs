//! Stands in for the parts of kube-controller-manager that the stories need: claims bound to volumes and protected,
//! StatefulSets, ephemeral claims, owners' garbage, pods of nodes that are gone.
//!
//! Owns: nothing; each pass reads copies of the cluster and returns jobs, which are carried out as an ordinary client.
//! Not for a real cluster, which has the real ones. Left out: namespaces (the embedded server empties
//! them itself), rolling updates, foreground deletion, static volumes found by size, reclaim of anything but CSI volumes (which is the provisioner's).

mod act;
mod binder;
mod owners;
mod sets;
mod volumes_in_use;

use crate::mirror::{Changes, Running};
use act::Job;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::reflector::Store;
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A job that changed nothing visible is not repeated before this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Jobs carried out at once.
const AT_ONCE: usize = 32;

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Binds claims and volumes, names provisioners, protects what is in use.
    pub volumes: bool,
    /// StatefulSets and ephemeral claims.
    pub workloads: bool,
    /// Objects whose owners are gone, pods of nodes that are.
    pub garbage: bool,
    /// Pods on nodes that are gone are removed after this.
    pub orphans_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { volumes: true, workloads: true, garbage: true, orphans_after: Duration::from_secs(40) }
    }
}

/// The copies of the cluster.
struct Stores {
    pods: Store<Pod>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    classes: Store<StorageClass>,
    nodes: Store<Node>,
    sets: Store<StatefulSet>,
    capacities: Store<CSIStorageCapacity>,
    custom: Vec<(ApiResource, Store<DynamicObject>)>,
}

/// What one pass sees.
#[derive(Default)]
pub(crate) struct World {
    pods: Vec<Arc<Pod>>,
    claims: Vec<Arc<PersistentVolumeClaim>>,
    volumes: Vec<Arc<PersistentVolume>>,
    classes: Vec<Arc<StorageClass>>,
    sets: Vec<Arc<StatefulSet>>,
}

/// Starts the controllers; they go on until the handle is dropped or stopped.
pub fn start(client: &Client, options: Options) -> Running {
    let mut running = Running::default();
    let (changes, mut changed) = Changes::new();
    macro_rules! mirror {
        () => {
            changes.mirror(&mut running, Api::all(client.clone()), ())
        };
    }
    let stores = Stores {
        pods: mirror!(),
        claims: mirror!(),
        volumes: mirror!(),
        classes: mirror!(),
        nodes: mirror!(),
        sets: mirror!(),
        capacities: mirror!(),
        custom: owners::custom_kinds()
            .into_iter()
            .filter(|_| options.garbage)
            .map(|kind| {
                let api = Api::all_with(client.clone(), &kind);
                let store = changes.mirror(&mut running, api, kind.clone());
                (kind, store)
            })
            .collect(),
    };
    let client = client.clone();
    running.spawn(async move {
        let mut done = HashMap::<String, Instant>::new();
        let mut missing = HashMap::<String, Instant>::new();
        if stores.ready().await.is_err() {
            return;
        }
        loop {
            changed.mark_unchanged();
            let now = Instant::now();
            done.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
            let jobs = stores.pass(&options, &mut missing, now).into_iter();
            let fresh = jobs.filter(|job| done.insert(format!("{job:?}"), now).is_none());
            let fresh: Vec<_> = fresh.map(|job| act::carry_out(client.clone(), job)).collect();
            futures::stream::iter(fresh).for_each_concurrent(AT_ONCE, |work| work).await;
            // Whatever was written comes back as a change; what failed is tried again after a moment.
            if tokio::time::timeout(AGAIN_AFTER, changed.changed()).await.is_ok_and(|ended| ended.is_err()) {
                return;
            }
        }
    });
    running
}

impl Stores {
    async fn ready(&self) -> Result<(), kube::runtime::reflector::store::WriterDropped> {
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.volumes.wait_until_ready().await?;
        self.classes.wait_until_ready().await?;
        self.nodes.wait_until_ready().await?;
        self.sets.wait_until_ready().await
    }

    fn pass(&self, options: &Options, missing: &mut HashMap<String, Instant>, now: Instant) -> Vec<Job> {
        let world = World {
            pods: self.pods.state(),
            claims: self.claims.state(),
            volumes: self.volumes.state(),
            classes: self.classes.state(),
            sets: self.sets.state(),
        };
        let mut jobs = Vec::new();
        if options.volumes {
            jobs.extend(binder::pass(&world, jiff::Timestamp::now()));
            jobs.extend(volumes_in_use::pass(&world));
        }
        if options.workloads {
            jobs.extend(sets::pass(&world));
            jobs.extend(sets::ephemeral(&world));
        }
        if options.garbage {
            jobs.extend(owners::orphans(&world, &self.nodes.state(), missing, options.orphans_after, now));
            jobs.extend(owners::garbage(&world, &self.nodes.state(), &self.capacities.state(), &self.custom));
        }
        jobs
    }
}
