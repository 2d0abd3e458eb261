//! A node's agent as the API sees it: a ledger in memory that outlives API objects, orders answered through status, room
//! published in StorageNode. No disk is near.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bedplate_api::local_volume::{LocalVolumeStatus, Phase, ReleaseKind};
use bedplate_api::storage_node::{PoolStatus, StorageNodeStatus, VolumeRecord};
use bedplate_api::{LocalVolume, StorageNode};
use futures::StreamExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::world::World;

#[derive(Clone, Debug)]
pub struct Entry {
    pub record: VolumeRecord,
    pub staged: bool,
}

#[derive(Default)]
pub struct State {
    pub ledger: BTreeMap<String, Entry>,
    pub ledger_id: String,
    /// Refuse every new volume.
    pub refuses: bool,
    /// Answer nothing.
    pub silent: bool,
    /// Take releases on record but do not finish any wipe.
    pub holds_wipes: bool,
    pub capacity: i64,
    /// Room that it publishes and does not have.
    pub boast: i64,
}

impl State {
    fn used(&self) -> i64 {
        self.ledger.values().filter(|entry| !entry.record.phase.is_over()).map(|entry| entry.record.bytes).sum()
    }
}

pub struct Agent {
    pub state: Arc<Mutex<State>>,
    poke: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    /// On a new Node, with one pool of that many MiB.
    pub async fn start(world: &World, node: &str, mib: i64) -> Self {
        world.node(node).await;
        let state = State { ledger_id: uuid::Uuid::new_v4().to_string(), capacity: mib << 20, ..State::default() };
        Self::resume(world, node, Arc::new(Mutex::new(state))).await
    }

    /// With a ledger that is there already.
    pub async fn resume(world: &World, node: &str, state: Arc<Mutex<State>>) -> Self {
        let poke = Arc::new(Notify::new());
        let client = world.server.client().unwrap();
        publish(&client, node, &state).await;
        let task = tokio::spawn(serve(client, node.to_owned(), state.clone(), poke.clone()));
        Self { state, poke, task }
    }

    /// Change how it behaves, and let it look at everything again.
    pub fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.poke.notify_one();
    }

    pub fn phase(&self, local: &str) -> Option<Phase> {
        self.state.lock().unwrap().ledger.get(local).map(|entry| entry.record.phase)
    }

    /// Volumes that hold space and were not given up.
    pub fn living(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let alive = |entry: &&Entry| entry.record.phase == Phase::Ready;
        state.ledger.values().filter(alive).map(|entry| entry.record.name.clone()).collect()
    }

    pub fn used(&self) -> i64 {
        self.state.lock().unwrap().used()
    }
}

async fn serve(client: Client, node: String, state: Arc<Mutex<State>>, poke: Arc<Notify>) {
    let locals: Api<LocalVolume> = Api::all(client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut known: BTreeMap<String, LocalVolume> = BTreeMap::new();
    let mut events = watcher(locals.clone(), config.clone()).boxed();
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Apply(local) | Event::InitApply(local))) => {
                    known.insert(local.name_any(), local.clone());
                    answer(&client, &locals, &node, &state, &local).await;
                }
                Some(Ok(Event::Delete(local))) => { known.remove(&local.name_any()); }
                Some(Ok(Event::Init | Event::InitDone)) => {}
                Some(Err(_)) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    events = watcher(locals.clone(), config.clone()).boxed();
                }
                None => return,
            },
            () = poke.notified() => {
                publish(&client, &node, &state).await;
                for local in known.values() {
                    answer(&client, &locals, &node, &state, local).await;
                }
            }
        }
    }
}

async fn answer(client: &Client, locals: &Api<LocalVolume>, node: &str, state: &Mutex<State>, local: &LocalVolume) {
    let Some(status) = decide(&mut state.lock().unwrap(), local) else { return };
    if local.status.as_ref().is_some_and(|known| known.phase == status.phase) {
        return;
    }
    let patch = Patch::Merge(json!({"status": status}));
    // An object that went meanwhile is answered when it comes back.
    drop(locals.patch_status(&local.name_any(), &PatchParams::default(), &patch).await);
    publish(client, node, state).await;
}

/// The agent's rules: the ledger decides, the object only asks.
fn decide(state: &mut State, local: &LocalVolume) -> Option<LocalVolumeStatus> {
    if state.silent {
        return None;
    }
    let (name, spec) = (local.name_any(), &local.spec);
    let status = |phase, message: &str| {
        Some(LocalVolumeStatus {
            phase: Some(phase),
            message: message.to_owned(),
            volume_handle: Some(handle(&name)),
            bytes: Some(spec.bytes),
            ..LocalVolumeStatus::default()
        })
    };
    let holds_wipes = state.holds_wipes;
    if let Some(entry) = state.ledger.get_mut(&name) {
        let asks = spec.release.is_none() && !local.phase().is_some_and(Phase::is_over);
        if entry.record.phase.is_over() && asks {
            return status(Phase::Lost, "it was wiped; the object comes from a backup");
        }
        let phase = match (&spec.release, entry.record.phase) {
            (Some(release), Phase::Ready) => match release.kind {
                ReleaseKind::NeverBound if entry.staged => Phase::Stuck,
                ReleaseKind::NeverBound => Phase::Discarded,
                ReleaseKind::Retained => Phase::Retained,
                ReleaseKind::Reclaimed if holds_wipes => Phase::Released,
                ReleaseKind::Reclaimed => Phase::Freed,
            },
            (_, Phase::Released) if !holds_wipes => Phase::Freed,
            (_, phase) => phase,
        };
        entry.record.phase = phase;
        return status(phase, "");
    }
    if let Some(phase) = local.phase() {
        return if phase.is_over() { None } else { status(Phase::Lost, "the ledger does not know it") };
    }
    if spec.release.is_some() {
        return status(Phase::Discarded, "");
    }
    if spec.ledger_id != state.ledger_id {
        return status(Phase::Lost, "another ledger");
    }
    if state.refuses || state.used() + spec.bytes > state.capacity {
        return status(Phase::Refused, "no room after all");
    }
    let record = VolumeRecord {
        name: name.clone(),
        volume_handle: handle(&name),
        pool: spec.pool.clone(),
        bytes: spec.bytes,
        mode: spec.mode,
        fs_type: spec.fs_type,
        class_name: spec.class_name.clone(),
        parameters: spec.parameters.clone(),
        demand: spec.demand.clone(),
        wipe: spec.wipe,
        claim_uid: spec.claim_uid.clone(),
        claim: spec.claim.clone(),
        attempt: spec.attempt,
        phase: Phase::Ready,
    };
    state.ledger.insert(name.clone(), Entry { record, staged: false });
    status(Phase::Ready, "")
}

pub fn handle(local: &str) -> String {
    format!("vol-{local}")
}

async fn publish(client: &Client, node: &str, state: &Mutex<State>) {
    let storages: Api<StorageNode> = Api::all(client.clone());
    if storages.get_opt(node).await.ok().flatten().is_none() {
        let object = StorageNode::new(node, bedplate_api::StorageNodeSpec {});
        drop(storages.create(&PostParams::default(), &object).await);
    }
    let status = {
        let state = state.lock().unwrap();
        let free = state.capacity - state.used() + state.boast;
        StorageNodeStatus {
            agent_version: "test".to_owned(),
            ledger_id: state.ledger_id.clone(),
            filesystems: vec![bedplate_api::local_volume::FsType::Ext4, bedplate_api::local_volume::FsType::Xfs],
            pools: vec![PoolStatus {
                name: "fast".to_owned(),
                backend: "image".to_owned(),
                media: "nvme".to_owned(),
                level: Some(bedplate_api::local_volume::WipeLevel::Clear),
                capacity: state.capacity + state.boast,
                free,
                largest_volume: free,
                ..PoolStatus::default()
            }],
            volumes: state
                .ledger
                .values()
                .filter(|entry| !entry.record.phase.is_over())
                .map(|entry| entry.record.clone())
                .collect(),
            ..StorageNodeStatus::default()
        }
    };
    let patch = Patch::Merge(json!({"status": status}));
    let mut tries = 0;
    // Two publications may cross: the merge patch carries whole lists, so the last one stands.
    while storages.patch_status(node, &PatchParams::default(), &patch).await.is_err() && tries < 3 {
        tries += 1;
    }
}
