//! Prometheus metrics: `bedplate_provisioner_<noun>_<unit>`, base units, closed label sets. Injected, not global.
//!
//! Every name stands in `docs/metrics.md`; a test compares the two.

use std::time::Duration;

use bedplate_api::local_volume::ReleaseKind;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::cluster::hands::Trouble;

/// The provisioner's registry.
pub struct Metrics {
    registry: Registry,
    leads: IntGauge,
    objects: IntGaugeVec,
    open: IntGauge,
    ordered: IntCounter,
    made: IntCounter,
    bounced: IntCounter,
    rebuilt: IntCounter,
    released: IntCounterVec,
    writes: IntCounter,
    troubles: IntCounterVec,
    seconds: Histogram,
    resident: IntGauge,
}

impl Metrics {
    /// Register everything.
    ///
    /// # Errors
    /// Where two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("bedplate_provisioner_{name}"), help);
        let metrics = Self {
            registry: Registry::new(),
            leads: IntGauge::with_opts(opts("leader_bool", "1 where this process leads and may write."))?,
            objects: IntGaugeVec::new(opts("objects_count", "Objects held in memory, by kind."), &["kind"])?,
            open: IntGauge::with_opts(opts("keys_busy_count", "Claims and nodes with API calls under way."))?,
            ordered: IntCounter::with_opts(opts("orders_total", "LocalVolumes ordered from nodes."))?,
            made: IntCounter::with_opts(opts("volumes_made_total", "PersistentVolumes made."))?,
            bounced: IntCounter::with_opts(opts("claims_bounced_total", "Claims sent back to the scheduler."))?,
            rebuilt: IntCounter::with_opts(opts("rebuilt_total", "LocalVolumes made again from a node's record."))?,
            released: IntCounterVec::new(opts("releases_total", "Releases written, by kind."), &["kind"])?,
            writes: IntCounter::with_opts(opts("writes_total", "Writes begun, Events and the Lease not counted."))?,
            troubles: IntCounterVec::new(opts("troubles_total", "Actions not done at once, by cause."), &["cause"])?,
            seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "bedplate_provisioner_claim_seconds",
                    "From a claim's selected-node being seen to its PersistentVolume being made.",
                )
                .buckets(vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]),
            )?,
            resident: IntGauge::with_opts(opts("resident_memory_bytes", "Resident memory of the provisioner."))?,
        };
        for kind in ["reclaimed", "never-bound", "retained"] {
            metrics.released.with_label_values(&[kind]);
        }
        for cause in ["fenced", "slow", "changed", "denied", "failed"] {
            metrics.troubles.with_label_values(&[cause]);
        }
        metrics.objects.with_label_values(&["PersistentVolumeClaim"]);
        let collectors: [Box<dyn prometheus::core::Collector>; 12] = [
            Box::new(metrics.leads.clone()),
            Box::new(metrics.objects.clone()),
            Box::new(metrics.open.clone()),
            Box::new(metrics.ordered.clone()),
            Box::new(metrics.made.clone()),
            Box::new(metrics.bounced.clone()),
            Box::new(metrics.rebuilt.clone()),
            Box::new(metrics.released.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.troubles.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.resident.clone()),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }
    pub(super) fn objects(&self, kind: &str, count: usize) {
        self.objects.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    pub(super) fn busy(&self, count: usize) {
        self.open.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    pub(super) fn ordered(&self) {
        self.ordered.inc();
    }
    pub(super) fn made(&self) {
        self.made.inc();
    }
    pub(super) fn bounced(&self) {
        self.bounced.inc();
    }
    pub(super) fn rebuilt(&self) {
        self.rebuilt.inc();
    }
    pub(super) fn write(&self) {
        self.writes.inc();
    }
    pub(super) fn claim_took(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }
    pub(super) fn released(&self, kind: ReleaseKind) {
        let kind = match kind {
            ReleaseKind::Reclaimed => "reclaimed",
            ReleaseKind::NeverBound => "never-bound",
            ReleaseKind::Retained => "retained",
        };
        self.released.with_label_values(&[kind]).inc();
    }
    pub(super) fn trouble(&self, trouble: &Trouble) {
        let cause = match trouble {
            Trouble::Fenced => "fenced",
            Trouble::Slow { .. } => "slow",
            Trouble::Changed { .. } => "changed",
            Trouble::Denied(_) => "denied",
            Trouble::Failed { .. } => "failed",
        };
        self.troubles.with_label_values(&[cause]).inc();
    }

    /// The exposition text.
    ///
    /// # Errors
    /// Where a family cannot be encoded.
    pub fn scrape(&self) -> Result<String, prometheus::Error> {
        self.resident.set(resident().unwrap_or_default());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Resident bytes of this process.
fn resident() -> Option<i64> {
    let pages = procfs::process::Process::myself().ok()?.statm().ok()?.resident;
    i64::try_from(pages.checked_mul(procfs::page_size())?).ok()
}

#[cfg(test)]
mod tests;
