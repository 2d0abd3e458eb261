//! Filter and prioritize: from a request's bytes to an answer's bytes.
//!
//! Pods without claims of ours are echoed and never suffer from anything that happens here. Pods that have some get an answer
//! from the index alone, under its lock; where the answer cannot be found, they get no node and a reason: they wait, and
//! nobody is placed by guess. Input: a scheduler's request, never trusted.

mod place;

pub(crate) use place::said;

use std::sync::Arc;
use std::time::Duration;

use bedplate_core::placement::Reason;
use tokio::time::Instant;

use crate::fetch::{Fetcher, PATIENCE};
use crate::index::Index;
use crate::metrics::Metrics;
use crate::needs::{Fetched, Needs, needs};
use crate::wire::{self, Arguments, Form, Malformed, Nodes, PodIn};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Which nodes fit; holds room on them.
    Filter,
    /// How well they fit; narrows the hold.
    Prioritize,
    /// Filter without holding anything.
    SimulateFilter,
    /// Prioritize without narrowing anything.
    SimulatePrioritize,
}

impl Verb {
    /// The word in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Prioritize => "prioritize",
            Self::SimulateFilter => "simulate-filter",
            Self::SimulatePrioritize => "simulate-prioritize",
        }
    }

    const fn filters(self) -> bool {
        matches!(self, Self::Filter | Self::SimulateFilter)
    }

    const fn dry(self) -> bool {
        matches!(self, Self::SimulateFilter | Self::SimulatePrioritize)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pod is none of ours.
    Echoed,
    /// Some node fits.
    Placed,
    /// None does.
    Nowhere,
    /// A claim can be met nowhere.
    Refused,
    /// It could not be found out.
    Internal,
}

impl Outcome {
    /// The word in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Echoed => "echoed",
            Self::Placed => "placed",
            Self::Nowhere => "nowhere",
            Self::Refused => "refused",
            Self::Internal => "internal",
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// JSON.
    pub body: Vec<u8>,
    /// What became of the request.
    pub outcome: Outcome,
}

/// Answers requests.
pub struct Judge {
    /// What is known.
    pub index: Arc<Index>,
    /// Where the rest is asked for.
    pub fetcher: Fetcher,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Judge {
    /// Answer a request; what the index lacks may be waited for `within` that time.
    ///
    /// # Errors
    /// Where the body is no request.
    pub async fn answer(&self, verb: Verb, body: &[u8], within: Duration) -> Result<Answer, Malformed> {
        let arguments = Arguments::read(body)?;
        let pod = arguments.pod()?;
        self.notice_form(&arguments.nodes);
        let found = self.needs(&pod, within).await;
        if found == (Needs::Nothing, false) {
            if verb.filters() {
                return Ok(Answer { body: wire::echo(&arguments.nodes), outcome: Outcome::Echoed });
            }
            return Ok(Answer { body: wire::no_scores(), outcome: Outcome::Echoed });
        }
        let nodes = arguments.nodes.nodes()?;
        let answer = match found {
            (_, true) => turned_away(verb, &nodes, Reason::Internal, Outcome::Internal),
            (Needs::Room(_), _) if !self.index.lock().room_known() => {
                tracing::warn!(pod = pod.name(), namespace = pod.namespace(), "index is not ready, pod has to wait");
                turned_away(verb, &nodes, Reason::Internal, Outcome::Internal)
            }
            (Needs::Room(wanted), _) if verb.filters() => self.filter(verb, &pod, &wanted, &nodes),
            (Needs::Room(wanted), _) => self.prioritize(verb, &pod, &wanted, &nodes),
            (Needs::Refused(reason), _) => {
                if !verb.dry() {
                    self.index.lock().holds.end(pod.uid());
                }
                turned_away(verb, &nodes, reason, Outcome::Refused)
            }
            (Needs::Nothing | Needs::Lacking(_), false) => {
                turned_away(verb, &nodes, Reason::Internal, Outcome::Internal)
            }
        };
        let (body, outcome, misfits) = answer;
        self.metrics.misfits(&misfits);
        tracing::debug!(
            verb = verb.label(),
            namespace = pod.namespace(),
            pod = pod.name(),
            uid = pod.uid(),
            nodes = nodes.names.len(),
            misfits = misfits.len(),
            reason = misfits.first().map(|(_, reason)| reason.label()),
            outcome = outcome.label(),
            "decided"
        );
        Ok(Answer { body, outcome })
    }

    /// What the pod needs, and whether that could not be found out.
    async fn needs(&self, pod: &PodIn<'_>, within: Duration) -> (Needs, bool) {
        if pod.sources().all(|source| source == crate::wire::Source::Other) {
            return (Needs::Nothing, false);
        }
        let begun = Instant::now();
        let (patience, deadline) = (begun + PATIENCE.min(within / 4), begun + within);
        let mut fetched = Fetched::default();
        loop {
            // Subscribed before the look, so that no change falls between.
            let mut changes = self.index.watch();
            let found = {
                let state = self.index.lock();
                needs(pod, &state.objects, &fetched, &state.ledger)
            };
            let Needs::Lacking(keys) = found else { return (found, false) };
            let known = fetched.absent.len();
            self.fetcher.known_absent(&keys, &mut fetched);
            if fetched.absent.len() > known {
                continue;
            }
            // A lagging watch; before the first list there is none to wait for.
            if self.index.synced()
                && Instant::now() < patience
                && tokio::time::timeout_at(patience, changes.changed()).await.is_ok()
            {
                continue;
            }
            self.metrics.fetches.inc_by(keys.len() as u64);
            match tokio::time::timeout_at(deadline, self.fetcher.fetch(&keys, &mut fetched)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let why = &error as &dyn std::error::Error;
                    tracing::warn!(
                        pod = pod.name(),
                        namespace = pod.namespace(),
                        error = why,
                        "what the pod names cannot be read"
                    );
                    return (Needs::Lacking(keys), true);
                }
                Err(_) => {
                    tracing::warn!(
                        pod = pod.name(),
                        namespace = pod.namespace(),
                        ?keys,
                        "what the pod names was not read in time"
                    );
                    return (Needs::Lacking(keys), true);
                }
            }
        }
    }

    fn notice_form(&self, nodes: &Form) {
        if matches!(nodes, Form::Objects(_)) {
            if self.metrics.whole_nodes.get() == 0 {
                tracing::warn!(
                    "the scheduler sends whole nodes: set nodeCacheCapable: true for this extender in its \
                     KubeSchedulerConfiguration and restart it"
                );
            }
            self.metrics.whole_nodes.inc();
        }
    }
}

/// No node, and why.
fn turned_away(verb: Verb, nodes: &Nodes, reason: Reason, outcome: Outcome) -> (Vec<u8>, Outcome, wire::Misfits) {
    let misfits: wire::Misfits = (0..).zip(&nodes.names).map(|(place, _)| (place, reason)).collect();
    let body = if verb.filters() {
        wire::filtered(nodes, &[], &misfits)
    } else {
        wire::scores(nodes.names.iter().map(|name| (name, 0)))
    };
    (body, outcome, misfits)
}
