//! This node's LocalVolumes: watched, decided about, acted on, told of.
//!
//! One loop owns everything known of the objects. The engine's work and the API's writes run beside it, at most one of
//! each a volume, and their ends wake it. What is told is durable first. An object that vanishes changes nothing here.

mod track;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate_api::LocalVolume;
use bedplate_api::local_volume::Phase;
use bedplate_api::names::MANAGER_AGENT;
use bedplate_core::chain::chain;
use bedplate_provisioner::engine::{CommandError, CreateError, Engine, Knowledge, Known, ReleaseError};
use futures::StreamExt;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Context;
use super::decide::{Order, decide};
use super::events::Notice;
use super::status::{of_none, of_volume, with_conditions};
use super::watch::{News, follow};
use track::{Tracked, write_due};

/// How many volumes are made, released or retained at once, and how many told of: enough to share fsyncs of the journal, and
/// no more connections to the API server than that.
const AT_ONCE: usize = 8;
/// When something that could not be done is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the API server may take to answer a write.
const ANSWER: Duration = Duration::from_secs(30);
/// How often a wipe's progress is looked at.
const PROGRESS: Duration = Duration::from_secs(3);

/// What ended beside the loop.
enum Done {
    /// The engine's work.
    Worked(String, Result<(), Trouble>),
    /// A write, with what the API server now has; nothing where this agent had to be silent by then.
    Written(String, Option<Box<Result<LocalVolume, kube::Error>>>),
}

/// Why the engine's work failed.
enum Trouble {
    /// It will not be made: the sentence for its status.
    Refused(String),
    /// Try again later; the sentence for its status, where a person should read it.
    Later(Option<String>),
}

/// The loop's own state.
struct Volumes {
    context: Arc<Context>,
    api: Api<LocalVolume>,
    tracked: BTreeMap<String, Tracked>,
    beside: JoinSet<Done>,
    slots: Arc<Semaphore>,
    pens: Arc<Semaphore>,
    /// Whether something was heard in a silence and not looked at.
    missed: bool,
}

/// Run for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let api: Api<LocalVolume> = Api::all(context.client.clone());
    let mut objects = follow(api.clone(), format!("spec.nodeName={}", context.node));
    let mut changes = context.engine.changes();
    let mut pools_known = context.board.pools_known.subscribe();
    let mut silence = context.board.silent_until.subscribe();
    let mut tick = tokio::time::interval(PROGRESS);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut this = Volumes {
        context,
        api,
        tracked: BTreeMap::new(),
        beside: JoinSet::new(),
        slots: Arc::new(Semaphore::new(AT_ONCE)),
        pens: Arc::new(Semaphore::new(AT_ONCE)),
        missed: false,
    };
    loop {
        let retry = this.next_retry();
        let touched: Option<String> = tokio::select! {
            Some(news) = objects.next() => this.take_in(news),
            Some(done) = this.beside.join_next(), if !this.beside.is_empty() => match done {
                Ok(done) => Some(this.take_back(done)),
                Err(error) => {
                    tracing::error!(error = %error, "work on a volume ended badly");
                    None
                }
            },
            _ = changes.changed() => None,
            _ = pools_known.changed() => None,
            _ = silence.changed() => None,
            _ = tick.tick(), if this.any_wipe() => None,
            () = tokio::time::sleep_until(retry.into()) => None,
        };
        this.look(touched.as_deref());
    }
}

impl Volumes {
    /// Take in news; the name of the one object that is to be looked at, where it is one.
    fn take_in(&mut self, news: News<LocalVolume>) -> Option<String> {
        match news {
            News::Listed(objects) => {
                let seen: BTreeSet<String> = objects.iter().map(ResourceExt::name_any).collect();
                for object in objects {
                    self.seen(object, true);
                }
                let gone: Vec<String> = self.tracked.keys().filter(|name| !seen.contains(*name)).cloned().collect();
                for name in gone {
                    self.vanished(&name);
                }
                None
            }
            News::Applied(object) => {
                let name = object.name_any();
                self.seen(object, false);
                Some(name)
            }
            News::Deleted(object) => {
                let name = object.name_any();
                self.vanished(&name);
                Some(name)
            }
        }
    }

    fn seen(&mut self, object: LocalVolume, listed: bool) {
        // Selected by the API server; looked at again, because one that cannot select sends everything.
        if object.spec.node_name != self.context.node.as_str() {
            return;
        }
        match self.tracked.get_mut(&object.name_any()) {
            Some(tracked) => tracked.seen(object, listed),
            None => {
                self.tracked.insert(object.name_any(), Tracked::new(object));
            }
        }
    }

    /// An object is gone. That is no order: what the ledger has goes on.
    fn vanished(&mut self, name: &str) {
        let Some(tracked) = self.tracked.remove(name) else { return };
        let Known::Volume(volume) = self.context.engine.named(name) else { return };
        let over = matches!(volume.phase, "Freed" | "Discarded" | "Forgotten");
        if over || tracked.object.spec.release.is_some() {
            return;
        }
        tracing::warn!(name, volume = %volume.id, "a LocalVolume vanished without a release, its volume keeps serving");
        self.context.events.tell(Notice::warning(
            tracked.object.object_ref(&()),
            "VanishedWithoutRelease",
            format!(
                "LocalVolume {name} was deleted without a release: volume {} keeps its bytes and keeps serving on node {}",
                volume.id, self.context.node
            ),
        ));
    }

    /// Take back what ended beside the loop; the name it was about.
    fn take_back(&mut self, done: Done) -> String {
        match done {
            Done::Worked(name, result) => {
                if let Some(tracked) = self.tracked.get_mut(&name) {
                    tracked.working = false;
                    match result {
                        Ok(()) => {
                            tracked.note = None;
                            tracked.retry = None;
                        }
                        Err(Trouble::Refused(why)) => tracked.refusal = Some(why),
                        Err(Trouble::Later(note)) => {
                            if let Some(why) = note.as_ref().filter(|why| tracked.note.as_ref() != Some(why)) {
                                tracing::warn!(name, why, "what a LocalVolume asks for is tried again");
                            }
                            tracked.note = note;
                            tracked.retry = Some(Instant::now() + AGAIN);
                        }
                    }
                }
                name
            }
            Done::Written(name, result) => {
                if let Some(tracked) = self.tracked.get_mut(&name) {
                    tracked.writing = false;
                    match result.map(|result| *result) {
                        None => {
                            tracked.written = None;
                            tracked.retry = Some(Instant::now() + AGAIN);
                        }
                        Some(Ok(object)) => {
                            self.context.metrics.wrote("LocalVolume");
                            tracked.written_back(object);
                        }
                        Some(Err(error)) => {
                            tracked.written = None;
                            tracked.retry = Some(Instant::now() + AGAIN);
                            // Let go of between the last word and now: the watch says so in a moment.
                            if matches!(&error, kube::Error::Api(status) if status.code == 404) {
                                tracing::debug!(name, "a LocalVolume was gone before its status was written");
                            } else {
                                tracing::warn!(name, error = %chain(&error), "a LocalVolume's status could not be written");
                            }
                        }
                    }
                }
                name
            }
        }
    }

    /// Until when nothing is made and nothing told, because another agent speaks under this name.
    fn silent_until(&self) -> Option<Instant> {
        silent_until(&self.context)
    }

    fn any_wipe(&self) -> bool {
        let wiping = [Phase::Released, Phase::Quarantined, Phase::Wiping, Phase::Verifying, Phase::Verified];
        self.tracked.values().any(|tracked| tracked.object.phase().is_some_and(|phase| wiping.contains(&phase)))
    }

    fn next_retry(&self) -> Instant {
        if let Some(until) = self.silent_until() {
            return until;
        }
        let far = Instant::now() + Duration::from_hours(1);
        self.tracked.values().filter_map(|tracked| tracked.retry).min().unwrap_or(far)
    }

    /// Look at one object, or at all, and do what is to be done.
    fn look(&mut self, only: Option<&str>) {
        if self.silent_until().is_some() {
            self.missed = true;
            return;
        }
        let only = if std::mem::take(&mut self.missed) { None } else { only };
        let names: Vec<String> = match only {
            Some(name) => self.tracked.contains_key(name).then(|| name.to_owned()).into_iter().collect(),
            None => self.tracked.keys().cloned().collect(),
        };
        let knowledge = self.context.engine.knowledge(&names);
        for (name, known) in names.iter().zip(&knowledge.known) {
            self.look_at(name, known, &knowledge);
        }
    }

    fn look_at(&mut self, name: &str, known: &Known, knowledge: &Knowledge) {
        let Some(tracked) = self.tracked.get_mut(name) else { return };
        let waits = tracked.retry.is_some_and(|at| at > Instant::now());
        if !waits {
            tracked.retry = None;
        }
        if tracked.working {
            return;
        }
        let mut order = decide(knowledge.ledger, known, &tracked.object);
        let unmade = match known {
            Known::Never => true,
            Known::Volume(volume) => volume.phase == "Discarded",
            Known::UsedUp => false,
        };
        if let (Some(why), true, Order::Create(_) | Order::Report(_)) = (&tracked.refusal, unmade, &order) {
            order = Order::Refuse(why.clone());
        }
        let mut absent = false;
        let status = match order {
            Order::Create(wish) => {
                // Before the pools of this node are known, "fits nowhere" would be a lie.
                if !waits && *self.context.board.pools_known.borrow() {
                    tracked.working = true;
                    self.work(name, move |engine| engine.create(&wish).map(|_| ()).map_err(|error| refused(&error)));
                }
                return;
            }
            Order::Release(id, kind) if !waits => {
                tracked.working = true;
                self.work(name, move |engine| {
                    engine.release(&id, kind, "LocalVolume spec.release").map_err(|error| not_released(&error))
                });
                return;
            }
            Order::Retain(id) if !waits => {
                tracked.working = true;
                self.work(name, move |engine| {
                    engine.retain(&id, "LocalVolume spec.release").map_err(|error| not_retained(&error))
                });
                return;
            }
            Order::Leave => return,
            Order::Lost(why) => of_none(Phase::Lost, &why),
            Order::Refuse(why) => of_none(Phase::Refused, &why),
            Order::Discard(why) => of_none(Phase::Discarded, &why),
            Order::Report(_) | Order::Release(..) | Order::Retain(_) => {
                let Known::Volume(volume) = known else { return };
                let note = match &order {
                    Order::Report(note) => note.as_deref(),
                    _ => tracked.note.as_deref(),
                };
                absent = volume.absent.is_some();
                of_volume(volume, note, knowledge.directories.get(&volume.pool).map(String::as_str))
            }
        };
        if tracked.writing || waits && tracked.written.is_none() && tracked.note.is_none() {
            return;
        }
        let before = tracked.object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
        let generation = tracked.object.metadata.generation;
        let status = with_conditions(status, &before, generation, absent, jiff::Timestamp::now());
        if !write_due(tracked, &status, Instant::now(), PROGRESS) {
            return;
        }
        if let Some(notice) = notice(&tracked.object, &status) {
            self.context.events.tell(notice);
        }
        tracked.writing = true;
        tracked.wrote(status.clone(), Instant::now());
        self.write(name, status);
    }

    /// Do something on a thread that may block.
    fn work(&mut self, name: &str, what: impl FnOnce(&Engine) -> Result<(), Trouble> + Send + 'static) {
        let (name, engine, slots) = (name.to_owned(), self.context.engine.clone(), self.slots.clone());
        self.beside.spawn(async move {
            // Never closed; without a slot the work is only less orderly.
            let _slot = slots.acquire_owned().await.ok();
            let result = tokio::task::spawn_blocking(move || what(&engine)).await;
            Done::Worked(name, result.unwrap_or_else(|error| Err(Trouble::Later(Some(error.to_string())))))
        });
    }

    /// Tell the API server, once everything told is durable.
    fn write(&mut self, name: &str, status: bedplate_api::LocalVolumeStatus) {
        let (name, context, api, pens) = (name.to_owned(), self.context.clone(), self.api.clone(), self.pens.clone());
        self.beside.spawn(async move {
            // Never closed.
            let _pen = pens.acquire_owned().await.ok();
            if silent_until(&context).is_some() {
                return Done::Written(name, None);
            }
            let engine = context.engine.clone();
            let durable = tokio::task::spawn_blocking(move || engine.durable()).await;
            let result = match durable {
                Ok(Ok(())) => {
                    let body = json!({
                        "apiVersion": LocalVolume::api_version(&()),
                        "kind": LocalVolume::kind(&()),
                        "metadata": { "name": name },
                        "status": status,
                    });
                    let how = PatchParams::apply(MANAGER_AGENT).force();
                    // A server that never answers must not keep the pen.
                    let patch = Patch::Apply(&body);
                    let patched = tokio::time::timeout(ANSWER, api.patch_status(&name, &how, &patch)).await;
                    patched.unwrap_or_else(|error| Err(kube::Error::Service(Box::new(error))))
                }
                // The agent is about to end: nothing that is not durable is told.
                Ok(Err(error)) => Err(kube::Error::Service(Box::new(error))),
                Err(error) => Err(kube::Error::Service(Box::new(error))),
            };
            Done::Written(name, Some(Box::new(result)))
        });
    }
}

/// Until when nothing may be told under this node's name.
fn silent_until(context: &Context) -> Option<Instant> {
    let until = (*context.board.silent_until.borrow())?.into_std();
    (until > Instant::now()).then_some(until)
}

/// What an event should say when a volume's phase becomes this.
fn notice(object: &LocalVolume, status: &bedplate_api::LocalVolumeStatus) -> Option<Notice> {
    if status.phase == object.phase() {
        return None;
    }
    let reference = object.object_ref(&());
    let message = status.message.clone();
    match status.phase? {
        Phase::Refused => Some(Notice::warning(reference, "VolumeRefused", message)),
        Phase::Lost => Some(Notice::warning(reference, "VolumeLost", message)),
        Phase::Stuck => Some(Notice::warning(reference, "WipeStuck", message)),
        Phase::Debt => Some(Notice::warning(reference, "WipeOwed", message)),
        Phase::Freed => Some(Notice::normal(
            reference,
            "Wiped",
            format!("wiped and read back, receipt {}", status.receipt.unwrap_or_default()),
        )),
        _ => None,
    }
}

fn refused(error: &CreateError) -> Trouble {
    let why = chain(error);
    match error {
        // Used up since it was decided: decided again, it is lost.
        CreateError::Busy(_) | CreateError::UsedUp { .. } => Trouble::Later(None),
        CreateError::Commit { .. } | CreateError::Crowded { .. } => Trouble::Later(Some(why)),
        CreateError::Taken { .. }
        | CreateError::BeingDeleted { .. }
        | CreateError::Contradiction { .. }
        | CreateError::LimitTooSmall { .. }
        | CreateError::TooLarge { .. }
        | CreateError::Misfit { .. }
        | CreateError::Host { .. }
        | CreateError::HostAndCleanup { .. } => Trouble::Refused(why),
    }
}

fn not_released(error: &ReleaseError) -> Trouble {
    match error {
        ReleaseError::Busy(_) => Trouble::Later(None),
        ReleaseError::InUse { .. }
        | ReleaseError::Retained { .. }
        | ReleaseError::WasStaged { .. }
        | ReleaseError::PoolAbsent { .. }
        | ReleaseError::Host { .. }
        | ReleaseError::Commit { .. } => Trouble::Later(Some(chain(error))),
    }
}

fn not_retained(error: &CommandError) -> Trouble {
    match error {
        CommandError::Busy(_) => Trouble::Later(None),
        other => Trouble::Later(Some(chain(other))),
    }
}
