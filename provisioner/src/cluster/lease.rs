//! Who leads: one Lease, renewed in time, and a deadline that fences whoever is late.
//!
//! Times of other machines are never compared: a rival counts as gone when its Lease has not changed for its whole duration
//! by *this* process's monotonic clock, and this process stops writing a good while before others may conclude the same.

use std::time::{Duration, Instant};

use bedplate_api::names;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;

use crate::cluster::config::LeaseTimes;

/// Until when this process may write.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Somebody who leads until then, for tests.
    #[must_use]
    pub fn until(instant: Option<Instant>) -> Self {
        Self(watch::channel(instant).1)
    }

    /// How long a write that begins now may take; `None` where none may begin.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let until = (*self.0.borrow())?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Whether it leads now.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.remaining().is_some()
    }

    /// Wait for a change of leadership.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Takes part in the election.
pub struct Elector {
    leases: Api<Lease>,
    identity: String,
    times: LeaseTimes,
    until: watch::Sender<Option<Instant>>,
    /// The rival's Lease as last seen to change: its version, and when that was here.
    observed: Option<(String, Instant)>,
    /// The latest version that any Lease was seen at, and who wants to know when the server goes back behind it.
    latest: u64,
    rewound: watch::Sender<u64>,
}

impl Elector {
    /// A candidate.
    #[must_use]
    pub fn new(client: Client, namespace: &str, identity: String, times: LeaseTimes) -> (Self, Leadership) {
        let (until, receiver) = watch::channel(None);
        let leases = Api::namespaced(client, namespace);
        let rewound = watch::channel(0).0;
        (Self { leases, identity, times, until, observed: None, latest: 0, rewound }, Leadership(receiver))
    }

    /// Changes when the API server is found to have gone back in time, as one restored from a backup does. A watch of
    /// before would be silent until the new history has passed the old one.
    #[must_use]
    pub fn rewound(&self) -> watch::Receiver<u64> {
        self.rewound.subscribe()
    }

    fn note(&mut self, lease: &Lease) {
        let Some(version) = lease.metadata.resource_version.as_ref().and_then(|version| version.parse().ok()) else {
            return;
        };
        if version < self.latest {
            tracing::warn!(version, latest = self.latest, "the API server went back in time; all is listed anew");
            self.rewound.send_modify(|times| *times += 1);
        }
        self.latest = version;
    }

    /// Stand for election, until `stop`; then stop writing at once and give the Lease up.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let round = async {
                let led = *self.until.borrow() > Some(Instant::now());
                match tokio::time::timeout(self.times.deadline, self.round()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(error = %error, "lease could not be read or written"),
                    Err(_) => tracing::warn!("lease could not be read or written in time"),
                }
                let leads = *self.until.borrow() > Some(Instant::now());
                match (led, leads) {
                    (false, true) => tracing::info!(identity = self.identity, "leading"),
                    (true, false) => tracing::warn!(identity = self.identity, "not leading any more"),
                    _ => {}
                }
                tokio::time::sleep(self.times.retry).await;
            };
            tokio::select! {
                () = round => {}
                () = &mut stop => break,
            }
        }
        let led = self.until.send_replace(None) > Some(Instant::now());
        if led && let Err(error) = self.give_up().await {
            tracing::warn!(error = %error, "lease could not be given up; it runs out by itself");
        }
    }

    async fn round(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let Some(lease) = self.leases.get_opt(names::LEASE).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(names::LEASE.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            return match self.leases.create(&PostParams::default(), &lease).await {
                Ok(made) => {
                    self.note(&made);
                    self.lead_from(begun);
                    Ok(())
                }
                Err(error) => lost_race(error),
            };
        };
        self.note(&lease);
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let own = holder == self.identity;
        if !own {
            self.until.send_if_modified(|until| until.take().is_some());
        }
        if !own && !holder.is_empty() && !self.has_run_out(&lease, begun) {
            return Ok(());
        }
        // The version read is the precondition: whoever writes second loses.
        let next = Lease { spec: Some(self.spec(lease.spec.as_ref())), metadata: lease.metadata.clone() };
        match self.leases.replace(names::LEASE, &PostParams::default(), &next).await {
            Ok(renewed) => {
                self.note(&renewed);
                self.lead_from(begun);
                Ok(())
            }
            Err(error) => lost_race(error),
        }
    }

    fn has_run_out(&mut self, lease: &Lease, now: Instant) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let said = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let duration = self.times.duration.max(Duration::from_secs(u64::try_from(said).unwrap_or(0)));
        match &self.observed {
            Some((seen, at)) if *seen == version => now.saturating_duration_since(*at) > duration,
            _ => {
                self.observed = Some((version, now));
                false
            }
        }
    }

    fn lead_from(&mut self, begun: Instant) {
        self.observed = None;
        let until = begun + self.times.deadline;
        // Only a change from and to leading wakes anybody; a renewal just moves the deadline.
        self.until.send_if_modified(|current| {
            let led = current.is_some_and(|current| current > begun);
            *current = Some(until);
            !led
        });
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.is_some_and(|before| before.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        let seconds = i32::try_from(self.times.duration.as_secs().max(1)).unwrap_or(i32::MAX);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: if mine { before.and_then(|before| before.acquire_time.clone()) } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if mine { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    async fn give_up(&self) -> Result<(), Error> {
        let Some(mut lease) = self.leases.get_opt(names::LEASE).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut() else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.leases.replace(names::LEASE, &PostParams::default(), &lease).await.map(drop)
    }
}

/// Whoever was second has nothing to complain about.
fn lost_race(error: Error) -> Result<(), Error> {
    match &error {
        Error::Api(status) if status.is_conflict() || status.is_already_exists() => Ok(()),
        _ => Err(error),
    }
}
