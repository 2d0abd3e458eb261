//! Prometheus metrics: `bedplate_extender_<noun>_<unit>`, base units, closed label sets.
//!
//! Every name stands in `docs/metrics.md`; a test compares the two.

use bedplate_core::placement::Reason;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::index::Index;

/// Buckets of request durations, in seconds: the scheduler waits 0.5 at most.
const SECONDS: [f64; 10] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5];

/// The extender's registry. Not global: a test has its own.
pub struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    misfits: IntCounterVec,
    pub(crate) whole_nodes: IntCounter,
    pub(crate) fetches: IntCounter,
    pub(crate) wakes: IntCounter,
    holds: IntGaugeVec,
    evicted: IntGauge,
    objects: IntGaugeVec,
    synced: IntGauge,
    resident: IntGauge,
}

impl Metrics {
    /// Register everything.
    ///
    /// # Errors
    /// Where two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("bedplate_extender_{name}"), help);
        let histogram = HistogramOpts::from(opts("request_seconds", "Time from a request's last byte to its answer."))
            .buckets(SECONDS.to_vec());
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                opts("requests_total", "Requests by verb and what became of them."),
                &["verb", "outcome"],
            )?,
            seconds: HistogramVec::new(histogram, &["verb"])?,
            misfits: IntCounterVec::new(opts("misfits_total", "Nodes refused, by reason."), &["reason"])?,
            whole_nodes: IntCounter::with_opts(opts(
                "whole_node_requests_total",
                "Requests that carried whole nodes: nodeCacheCapable is not set in the scheduler's configuration.",
            ))?,
            fetches: IntCounter::with_opts(opts(
                "fetched_objects_total",
                "Objects that a pod named, the index lacked and the API server was asked for.",
            ))?,
            wakes: IntCounter::with_opts(opts(
                "wakes_total",
                "Times that rejected pods were woken because what was held for another came free.",
            ))?,
            holds: IntGaugeVec::new(opts("holds_count", "Pods that room is held for, by state."), &["state"])?,
            evicted: IntGauge::with_opts(opts(
                "holds_evicted_total",
                "Holds ended early because there were too many of them.",
            ))?,
            objects: IntGaugeVec::new(opts("index_objects_count", "Objects in the index, by kind."), &["kind"])?,
            synced: IntGauge::with_opts(opts("index_synced_bool", "1 when every kind was listed once."))?,
            resident: IntGauge::with_opts(opts("resident_memory_bytes", "Resident memory of the extender."))?,
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 11] = [
            Box::new(metrics.requests.clone()),
            Box::new(metrics.seconds.clone()),
            Box::new(metrics.misfits.clone()),
            Box::new(metrics.whole_nodes.clone()),
            Box::new(metrics.fetches.clone()),
            Box::new(metrics.wakes.clone()),
            Box::new(metrics.holds.clone()),
            Box::new(metrics.evicted.clone()),
            Box::new(metrics.objects.clone()),
            Box::new(metrics.synced.clone()),
            Box::new(metrics.resident.clone()),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        for reason in Reason::ALL {
            metrics.misfits.with_label_values(&[reason.label()]);
        }
        metrics.seconds.with_label_values(&["filter"]);
        metrics.requests.with_label_values(&["filter", "placed"]);
        Ok(metrics)
    }

    /// Count the refused nodes of one answer.
    pub fn misfits(&self, misfits: &[(u32, Reason)]) {
        let mut counts = [0u64; Reason::ALL.len()];
        for (_, reason) in misfits {
            if let Some(count) = counts.get_mut(*reason as usize) {
                *count += 1;
            }
        }
        for (reason, count) in Reason::ALL.into_iter().zip(counts) {
            if count > 0 {
                self.misfits.with_label_values(&[reason.label()]).inc_by(count);
            }
        }
    }

    /// Look at the index and write the exposition text.
    ///
    /// # Errors
    /// Where a family cannot be encoded.
    pub fn scrape(&self, index: &Index) -> Result<String, prometheus::Error> {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        {
            let state = index.lock();
            let pinned = state.holds.pinned();
            self.holds.with_label_values(&["pinned"]).set(signed(pinned));
            self.holds.with_label_values(&["open"]).set(signed(state.holds.len() - pinned));
            self.evicted.set(i64::try_from(state.holds.evicted()).unwrap_or(i64::MAX));
            for (kind, count) in [
                ("PersistentVolumeClaim", state.objects.claims.values().map(std::collections::HashMap::len).sum()),
                ("PersistentVolume", state.objects.volumes.len()),
                ("StorageClass", state.objects.classes.len()),
                ("StorageNode", state.ledger.nodes().count()),
                ("LocalVolume", state.ledger.volumes()),
            ] {
                self.objects.with_label_values(&[kind]).set(signed(count));
            }
        }
        self.synced.set(i64::from(index.synced()));
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
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_documented_metrics_are_the_exported_ones() {
        let text = Metrics::new().unwrap().scrape(&Index::new()).unwrap();
        let exported: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let page = include_str!("../../docs/metrics.md");
        let documented: BTreeSet<&str> = (page.lines())
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|name| name.starts_with("bedplate_extender_"))
            .collect();
        assert_eq!(exported, documented);
        assert!(exported.len() >= 11);
    }
}
