//! The main loop: takes changes in, decides about what they touch, has it done, and takes the answers in as changes.
//!
//! One task owns the view and decides, so decisions are serial; what they ask for runs side by side. A claim whose actions
//! are under way is not decided about again until they are done. Only a leader decides.

mod agenda;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::{Semaphore, mpsc};

use crate::cluster::action::{Action, Decision};
use crate::cluster::announce::Announcer;
use crate::cluster::config::Config;
use crate::cluster::hands::{Hands, Outcome, Trouble};
use crate::cluster::http::{Health, router};
use crate::cluster::lease::{Elector, Leadership};
use crate::cluster::metrics::Metrics;
use crate::cluster::objects::Local;
use crate::cluster::view::{Change, Key, Op, View};
use crate::cluster::{case, rebuild, watch};

use agenda::Agenda;

/// Changes that may wait to be taken in.
const QUEUE: usize = 1024;
/// Changes taken in before anything is decided, so that a burst is one piece of work.
const BATCH: usize = 256;
/// The job that Events belong to: none.
const SAID: u64 = 0;

/// Why the provisioner cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Metrics clash.
    #[error("metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
    /// Health and metrics cannot be served.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Run until `stop`; writes under way are finished or given up first, then the Lease is.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(client: Client, config: Config, stop: impl Future<Output = ()> + Send) -> Result<(), RunError> {
    let Config { namespace, identity, listen, lease, patience, parallel, call } = config;
    let metrics = Arc::new(Metrics::new().map_err(RunError::Metrics)?);
    let health = Arc::new(Health::default());
    let server = match listen {
        None => None,
        Some(address) => {
            let listen = |source| RunError::Listen { address, source };
            let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "listening");
            }
            let app = router(health.clone(), metrics.clone());
            Some(tokio::spawn(async move { axum::serve(listener, app).await }))
        }
    };
    // Two processes with one identity would both believe that they lead.
    let unique = format!("{identity}_{}", uuid::Uuid::new_v4());
    let (elector, leadership) = Elector::new(client.clone(), &namespace, unique, lease);
    let rewound = elector.rewound();
    let (step_down, stepping) = tokio::sync::oneshot::channel::<()>();
    let elector = tokio::spawn(elector.run(async move { drop(stepping.await) }));
    let (sender, changes) = mpsc::channel(QUEUE);
    let mut watches = watch::begin(&client, &namespace, &sender, &rewound);
    let announcer = Arc::new(Announcer::new(client.clone(), &identity, call));
    let hands = Hands::new(client, leadership.clone(), announcer, metrics.clone(), namespace, call);
    let main = Main {
        view: View::default(),
        agenda: Agenda::default(),
        hands,
        leadership,
        patience,
        limit: Arc::new(Semaphore::new(parallel)),
        metrics,
        health: health.clone(),
        under_way: FuturesUnordered::new(),
        looking: HashMap::new(),
        rewound,
        led: false,
    };
    main.run(changes, stop).await;
    health.ended.store(true, Ordering::Relaxed);
    watches.shutdown().await;
    drop(step_down);
    drop(elector.await);
    if let Some(server) = server {
        server.abort();
    }
    Ok(())
}

struct Main {
    view: View,
    agenda: Agenda,
    hands: Hands,
    leadership: Leadership,
    patience: crate::cluster::config::Patience,
    limit: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    under_way: FuturesUnordered<BoxFuture<'static, (u64, Outcome)>>,
    /// Claims that wait for a live list of their namespace's pods.
    looking: HashMap<String, Vec<Key>>,
    led: bool,
    rewound: tokio::sync::watch::Receiver<u64>,
}

impl Main {
    async fn run(mut self, mut changes: mpsc::Receiver<Change>, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let wake = self.agenda.next_wake();
            tokio::select! {
                () = &mut stop => break,
                count = changes.recv_many(&mut batch, BATCH) => {
                    if count == 0 { break }
                    if self.rewound.has_changed().unwrap_or(false) {
                        self.rewound.mark_unchanged();
                        self.view.distrust(Instant::now());
                    }
                    for change in batch.drain(..) {
                        self.take(change);
                    }
                }
                Some((job, outcome)) = self.under_way.next(), if !self.under_way.is_empty() => self.done(job, outcome),
                () = self.leadership.changed() => {}
                () = sleep_until(wake) => {}
            }
            self.look_up();
            self.decide();
        }
        // What is under way may finish; nothing new begins.
        while let Some((job, outcome)) = self.under_way.next().await {
            self.done(job, outcome);
        }
    }

    fn take(&mut self, change: Change) {
        for key in self.view.apply(change, Instant::now()) {
            self.agenda.touch(key);
        }
    }

    /// Notice a change of leadership and what is due.
    fn look_up(&mut self) {
        let now = Instant::now();
        let leads = self.leadership.leads();
        if leads && !self.led {
            for key in self.view.everything() {
                self.agenda.touch(key);
            }
        }
        self.led = leads;
        self.metrics.leads(leads);
        self.health.complete.store(self.view.is_complete(), Ordering::Relaxed);
        for (kind, count) in self.view.sizes() {
            self.metrics.objects(kind, count);
        }
        self.agenda.wake(now);
    }

    fn decide(&mut self) {
        if !self.led || !self.view.is_complete() {
            return;
        }
        let now = Instant::now();
        while let Some(key) = self.agenda.next() {
            let decision = match &key {
                Key::Case(uid) => case::decide(&self.view, uid, now, &self.patience),
                Key::Node(node) => rebuild::decide(&self.view, node, now, &self.patience),
            };
            self.carry_out(key, decision, now);
        }
        self.metrics.busy(self.agenda.busy());
    }

    fn carry_out(&mut self, key: Key, decision: Decision, now: Instant) {
        let Decision { actions, holds, again, follow } = decision;
        if let Some(lead) = follow {
            self.agenda.touch(Key::Case(lead));
        }
        if let Some(wait) = again {
            self.agenda.wake_at(key.clone(), now + wait);
        }
        // What is only said holds nothing up.
        let (said, actions): (Vec<_>, Vec<_>) = actions.into_iter().partition(|a| matches!(a, Action::Say(_)));
        for action in said {
            let hands = self.hands.clone();
            self.under_way.push(Box::pin(async move { (SAID, hands.act(action).await) }));
        }
        if actions.is_empty() {
            self.agenda.calm(&key);
            return;
        }
        let mut held: Vec<Key> = holds.into_iter().map(Key::Case).filter(|held| *held != key).collect();
        held.push(key.clone());
        if self.agenda.is_any_busy(&held) {
            self.agenda.touch_after(key, &held);
            return;
        }
        if let Key::Node(_) = &key
            && self.agenda.is_too_soon(&key, now, self.patience.capacity)
        {
            return;
        }
        let mut jobs = Vec::new();
        for action in actions {
            if let Action::Look { namespace } = &action {
                if let Some(waiting) = self.looking.get_mut(namespace) {
                    waiting.push(key.clone());
                    continue;
                }
                self.looking.insert(namespace.clone(), vec![key.clone()]);
            }
            jobs.push(action);
        }
        if jobs.is_empty() {
            return;
        }
        let job = self.agenda.begin(held, jobs.len());
        for action in jobs {
            if let Action::Order(local) = &action {
                self.view.promise(job, &Local::from((**local).clone()));
            }
            let (hands, limit) = (self.hands.clone(), self.limit.clone());
            self.under_way.push(Box::pin(async move {
                // The semaphore is never closed.
                let _permit = limit.acquire().await;
                (job, hands.act(action).await)
            }));
        }
    }

    fn done(&mut self, job: u64, outcome: Outcome) {
        let now = Instant::now();
        let Outcome { news, trouble, looked, finished } = outcome;
        if let Some(local) = finished {
            self.view.finish(&local, now);
        }
        for change in news {
            if let Change::Volume(Op::Written(volume)) = &change
                && let Some((_, _, uid)) = &volume.claim
                && self.view.volume_of(uid).is_none()
                && let Some(since) = self.view.wanted_since(uid)
            {
                self.metrics.claim_took(now.saturating_duration_since(since));
            }
            self.take(change);
        }
        if let Some((namespace, begun)) = looked {
            self.view.looked(&namespace, begun);
            for key in self.looking.remove(&namespace).unwrap_or_default() {
                self.agenda.touch(key);
            }
        }
        let failed = trouble.is_some();
        if let Some(trouble) = trouble {
            if let Trouble::Failed { source, .. } = &trouble {
                tracing::warn!(trouble = %trouble, cause = %source, "action failed; it is decided about again");
            } else {
                tracing::debug!(trouble = %trouble, "action not done; it is decided about again");
            }
            // A list that failed has told nobody anything: whoever waited for it asks again.
            for key in self.looking.drain().flat_map(|(_, keys)| keys) {
                self.agenda.wake_at(key, now + agenda::PAUSES.0);
            }
        }
        if self.agenda.finish(job, failed, now) {
            self.view.kept(job);
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
