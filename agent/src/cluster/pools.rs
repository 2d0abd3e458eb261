//! DiskPools become pools: those that are for this node are opened, changed, drained; each is answered in its status.
//!
//! Nothing here wipes or forgets: a DiskPool that is gone or meant for others leaves its pool draining, served and wiped,
//! until its last volume is gone. Before the Node's labels are known no pool is taken from anybody.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bedplate_api::disk_pool::{DiskPool, NodeAnswer, PoolState};
use bedplate_api::names::MANAGER_AGENT_PREFIX;
use bedplate_core::bytes::Bytes;
use bedplate_core::chain::chain;
use bedplate_core::ids::PoolName;
use bedplate_provisioner::config::PoolConfig;
use bedplate_provisioner::engine::{Engine, PutPoolError};
use futures::StreamExt;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::watch::{News, follow};
use super::{Context, disks};
use crate::standalone::{demanded, tidy};
use judge::{Place, Standing, Verdict, judge};

/// Changes within this time are looked at together.
const BURST: Duration = Duration::from_millis(50);
/// When a pool that is absent, or an answer that was not taken, is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// When one that was refused is tried again: its directory may have been made meanwhile.
const LATER: Duration = Duration::from_secs(30);

/// At the start: open again what volumes of the ledger stand on, draining until its DiskPool says more.
pub async fn reopen(context: &Arc<Context>) {
    let context = context.clone();
    let opened = tokio::task::spawn_blocking(move || {
        for (name, directory) in context.engine.inhabited() {
            if context.own_pools.iter().any(|pool| pool.name == name) {
                continue;
            }
            let pool = PoolConfig { draining: true, ..PoolConfig::new(name, directory) };
            tidy(&pool);
            let name = pool.name.clone();
            if let Err(error) = context.engine.put_pool(pool) {
                tracing::error!(pool = %name, error = %chain(&error), "a pool with volumes is not there, they wait for it");
            }
        }
        if let Err(error) = context.queue.follow() {
            tracing::error!(error = %error, "no thread for the wipes of a pool");
        }
    });
    if let Err(error) = opened.await {
        tracing::error!(error = %error, "pools with volumes could not be opened");
    }
}

/// Run for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let api: Api<DiskPool> = Api::all(context.client.clone());
    let mut objects = follow(api.clone(), String::new());
    let board = &context.board;
    let (mut node, mut seen, mut looked) =
        (board.node.subscribe(), board.disks.subscribe(), board.node_looked.subscribe());
    let (mut figures, mut changes) = (board.figures.subscribe(), context.engine.changes());
    let mut wishes: BTreeMap<String, DiskPool> = BTreeMap::new();
    let mut listed = false;
    // What was answered last, so that a change by others of other nodes' answers costs nothing here.
    let mut answered: BTreeMap<String, NodeAnswer> = BTreeMap::new();
    let mut again: Option<Duration> = None;
    loop {
        tokio::select! {
            Some(news) = objects.next() => match news {
                News::Listed(objects) => {
                    wishes = objects.into_iter().map(|object| (object.name_any(), object)).collect();
                    listed = true;
                    // The API server may come back from a backup, with older answers.
                    answered.clear();
                }
                News::Applied(object) => { wishes.insert(object.name_any(), object); }
                News::Deleted(object) => { wishes.remove(&object.name_any()); }
            },
            _ = node.changed() => {}
            _ = looked.changed() => {}
            _ = seen.changed() => {}
            _ = figures.changed() => {}
            _ = changes.changed(), if drains(&context) => {}
            () = tokio::time::sleep(again.unwrap_or(LATER)), if again.is_some() => {}
        }
        tokio::time::sleep(BURST).await;
        // Nothing is decided before the API server, discovery and the Node were heard once.
        let labels = context.board.node.borrow().as_ref().map(|node| node.labels.clone());
        let ready = listed && *context.board.node_looked.borrow() && context.board.disks.borrow().is_some();
        if !ready {
            continue;
        }
        let (now, list) = (context.clone(), wishes.values().cloned().collect::<Vec<_>>());
        let settled = tokio::task::spawn_blocking(move || settle(&now, &list, labels.as_ref())).await;
        let answers = match settled {
            Ok(answers) => answers,
            Err(error) => {
                tracing::error!(error = %error, "pools could not be looked at");
                continue;
            }
        };
        let states = || answers.values().flatten().map(|answer| answer.state);
        again = if states().any(|state| state == PoolState::Absent) {
            Some(AGAIN)
        } else {
            states().any(|state| state == PoolState::Refused).then_some(LATER)
        };
        context.board.pools_known.send_if_modified(|known| !std::mem::replace(known, true));
        for (name, answer) in answers {
            let Some(object) = wishes.get(&name) else { continue };
            if let Err(error) = answer_if_new(&api, &context, object, answer, &mut answered).await {
                tracing::warn!(pool = name, error = %chain(&error), "a DiskPool could not be answered");
                again = Some(AGAIN);
            }
        }
    }
}

fn drains(context: &Context) -> bool {
    context.engine.pools().iter().any(|pool| pool.draining)
}

/// Bring the engine's pools to what is wanted. The answer for each DiskPool; `None` where it is not for this node.
fn settle(
    context: &Context,
    wishes: &[DiskPool],
    labels: Option<&BTreeMap<String, String>>,
) -> BTreeMap<String, Option<NodeAnswer>> {
    let engine = &context.engine;
    let before: Vec<PoolConfig> = engine.pools().iter().filter_map(|pool| engine.pool_config(&pool.name)).collect();
    let own: BTreeSet<&PoolName> = context.own_pools.iter().map(|pool| &pool.name).collect();
    // Those of the configuration file, and those that still drain after their DiskPool is gone.
    let orphaned = |pool: &&PoolConfig| {
        !own.contains(&pool.name) && !wishes.iter().any(|wish| wish.name_any() == pool.name.as_str())
    };
    let taken = context.own_pools.iter().chain(before.iter().filter(orphaned));
    let taken: Vec<(PoolName, PathBuf)> = taken.map(|pool| (pool.name.clone(), pool.directory.clone())).collect();
    let places = places(context, wishes, &taken);
    // Without a Node nobody knows what its labels are: those that ask for some are left as they are.
    let known: Vec<DiskPool> =
        wishes.iter().filter(|wish| labels.is_some() || wish.spec.node_selector.is_none()).cloned().collect();
    let stands = |draining| if draining { Standing::Draining } else { Standing::Serving };
    let standing = engine.pools().iter().map(|pool| (pool.name.to_string(), stands(pool.draining))).collect();
    let verdicts = judge(&known, labels.unwrap_or(&BTreeMap::new()), &taken, &standing, &places);
    let mut answers = BTreeMap::new();
    let mut wanted: BTreeSet<PoolName> = own.iter().map(|name| (*name).clone()).collect();
    for wish in wishes.iter().filter(|wish| !known.iter().any(|k| k.name_any() == wish.name_any())) {
        wanted.extend(wish.name_any().parse());
    }
    for pool in &context.own_pools {
        let config = with_findings(context, pool.clone());
        if let Err(error) = engine.put_pool(config) {
            tracing::warn!(pool = %pool.name, error = %chain(&error), "a pool of the configuration file is not there");
        }
    }
    for wish in &known {
        let name = wish.name_any();
        let answer = match verdicts.get(&name) {
            None | Some(Verdict::Elsewhere) => leftover(engine, &name).map(|message| (PoolState::Draining, message)),
            Some(Verdict::Refused(why)) => match leftover(engine, &name) {
                Some(message) => Some((PoolState::Draining, format!("{why}; {message}"))),
                None => Some((PoolState::Refused, why.clone())),
            },
            Some(Verdict::Wanted(config)) => {
                wanted.insert(config.name.clone());
                Some(open(context, (**config).clone(), &before))
            }
        };
        answers.insert(
            name,
            answer.map(|(state, message)| NodeAnswer {
                node: context.node.to_string(),
                state,
                message,
                observed_generation: wish.metadata.generation.unwrap_or_default(),
            }),
        );
    }
    for config in before.iter().filter(|config| !wanted.contains(&config.name)) {
        drain(engine, config);
    }
    let after: Vec<PoolConfig> = engine.pools().iter().filter_map(|pool| engine.pool_config(&pool.name)).collect();
    if after != before {
        if let Err(error) = context.queue.follow() {
            tracing::error!(error = %error, "no thread for the wipes of a pool");
        }
        context.board.pools_changed.send_replace(());
    }
    answers
}

/// Why a pool that is not wanted here is still here.
fn leftover(engine: &Engine, name: &str) -> Option<String> {
    let name: PoolName = name.parse().ok()?;
    engine.pool_config(&name)?;
    let why = "volumes still live in it on this node: they are served and wiped, none is made";
    (!engine.is_empty(&name)).then(|| why.to_owned())
}

fn drain(engine: &Engine, config: &PoolConfig) {
    if !config.draining {
        tracing::info!(pool = %config.name, "pool is not wanted any more, it drains");
        if let Err(error) = engine.put_pool(PoolConfig { draining: true, ..config.clone() }) {
            tracing::warn!(pool = %config.name, error = %chain(&error), "a pool could not be set draining");
            return;
        }
    }
    match engine.close_pool(&config.name) {
        Ok(true) => tracing::info!(pool = %config.name, "pool let go of, nothing lives in it"),
        Ok(false) => {}
        Err(error) => tracing::debug!(pool = %config.name, error = %error, "a pool cannot be let go of now"),
    }
}

/// What discovery and measurements add to a wish.
fn with_findings(context: &Context, config: PoolConfig) -> PoolConfig {
    let seen = context.board.disks.borrow().clone().unwrap_or_default();
    let media = config.media.or_else(|| demanded(disks::medium(&seen.disks, &config.directory)));
    let iops = context.board.figures.borrow().budget(config.name.as_str());
    PoolConfig { media, iops, ..config }
}

fn open(context: &Context, config: PoolConfig, before: &[PoolConfig]) -> (PoolState, String) {
    let name = config.name.clone();
    let config = with_findings(context, config);
    if !before.iter().any(|known| known.name == name) {
        tidy(&config);
    }
    match context.engine.put_pool(config.clone()) {
        Ok(()) => {
            let view = context.engine.pools().into_iter().find(|pool| pool.name == name);
            let (used, free) = view.map_or((0, 0), |pool| (pool.allocated.saturating_add(pool.withheld), pool.free));
            (PoolState::Ready, roomless(&config, used, free))
        }
        Err(error) => {
            let why = chain(&error);
            match error {
                PutPoolError::Absent { .. } | PutPoolError::Busy(_) => (PoolState::Absent, why),
                PutPoolError::Moved { .. } | PutPoolError::Refused(_) | PutPoolError::Open(_) => {
                    (PoolState::Refused, why)
                }
            }
        }
    }
}

/// Why a pool that is ready can take no volume, where that is the wish's own doing.
fn roomless(config: &PoolConfig, used: u64, free: u64) -> String {
    let (directory, reserve) = (config.directory.display(), config.reserve);
    match config.capacity {
        Some(capacity) if capacity.get() < used => format!(
            "spec.capacity {capacity} is below the {} in use in {directory}: no volume is made until less is in use; set \
             spec.capacity to more, or release volumes there",
            Bytes(used)
        ),
        _ if free == 0 && used == 0 => format!(
            "no room for any volume in {directory}: spec.reserve keeps {reserve} of its filesystem for the host, which is \
             all that is available; set spec.reserve to less, or use a larger filesystem"
        ),
        _ => String::new(),
    }
}

/// What every directory in question is on this node.
fn places(context: &Context, wishes: &[DiskPool], taken: &[(PoolName, PathBuf)]) -> BTreeMap<PathBuf, Place> {
    // The first process's root is the machine's, also where this one has another.
    let system =
        std::fs::metadata(context.settings.discover.roots.proc.join("1/root/.")).or_else(|_| std::fs::metadata("/"));
    let system = system.ok().map(|metadata| metadata.dev());
    let asked = wishes.iter().filter_map(|wish| judge::lexical(Path::new(wish.spec.directory.as_deref()?)));
    let all = asked.chain(taken.iter().map(|(_, directory)| directory.clone()));
    all.map(|directory| {
        let device = std::fs::metadata(&directory).ok().map(|metadata| metadata.dev());
        let place =
            Place { real: std::fs::canonicalize(&directory).ok(), on_system: device.is_some() && device == system };
        (directory, place)
    })
    .collect()
}

async fn answer_if_new(
    api: &Api<DiskPool>,
    context: &Context,
    object: &DiskPool,
    answer: Option<NodeAnswer>,
    answered: &mut BTreeMap<String, NodeAnswer>,
) -> Result<(), kube::Error> {
    let name = object.name_any();
    let own = |answer: &&NodeAnswer| answer.node == context.node.as_str();
    let there = object.status.as_ref().and_then(|status| status.nodes.iter().find(own));
    // An older event may still be under way: what was answered last counts as there.
    if there == answer.as_ref() || (answer.is_some() && answered.get(&name) == answer.as_ref() && there.is_some()) {
        return Ok(());
    }
    let manager = format!("{MANAGER_AGENT_PREFIX}{}", context.node);
    let how = PatchParams::apply(&manager).force();
    let nodes: Vec<&NodeAnswer> = answer.iter().collect();
    let body = json!({
        "apiVersion": DiskPool::api_version(&()),
        "kind": DiskPool::kind(&()),
        "metadata": { "name": name },
        "status": { "nodes": nodes },
    });
    api.patch_status(&name, &how, &Patch::Apply(&body)).await?;
    context.metrics.wrote("DiskPool");
    match answer {
        Some(answer) => answered.insert(name, answer),
        None => answered.remove(&name),
    };
    Ok(())
}

#[cfg(test)]
mod tests;
