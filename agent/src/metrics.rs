//! Prometheus metrics: `bedplate_agent_<noun>_<unit>`, base units, closed label sets; read from the engine at scrape time.
//!
//! Every name stands in `docs/metrics.md`; a test compares the two.

use bedplate_provisioner::engine::Engine;
use prometheus::{Encoder, Gauge, GaugeVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// Every phase a volume can be in, for the closed label set.
pub const PHASES: [&str; 14] = [
    "Reserved",
    "Ready",
    "Retained",
    "Released",
    "Quarantined",
    "Wiping",
    "Flushed",
    "Verifying",
    "Verified",
    "Freed",
    "Discarded",
    "Stuck",
    "Forgotten",
    "Debt",
];

/// The agent's registry. Not global: a test has its own.
pub struct Metrics {
    registry: Registry,
    volumes: GaugeVec,
    pool: GaugeVec,
    present: GaugeVec,
    receipts: Gauge,
    progress: Gauge,
    closed: IntGauge,
    resident: IntGauge,
    writes: IntCounterVec,
    registered: IntGauge,
}

/// Every kind of object that an agent writes, for the closed label set.
pub const KINDS: [&str; 5] = ["DiskPool", "LocalVolume", "Node", "StorageNode", "WipeReceipt"];

impl Metrics {
    /// Register everything.
    ///
    /// # Errors
    /// Where two metrics have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("bedplate_agent_{name}"), help);
        let metrics = Self {
            registry: Registry::new(),
            volumes: GaugeVec::new(
                opts("volumes_count", "Volumes by pool and phase; freed and discarded ones are not counted."),
                &["pool", "phase"],
            )?,
            pool: GaugeVec::new(
                opts("pool_bytes", "Bytes of a pool by use: allocated, withheld, free, reserve."),
                &["pool", "use"],
            )?,
            present: GaugeVec::new(
                opts("pool_present_bool", "1 where the pool is open, 0 where it is absent."),
                &["pool"],
            )?,
            receipts: Gauge::with_opts(opts("receipts_total", "Receipts given out by this ledger."))?,
            progress: Gauge::with_opts(opts(
                "wipe_remaining_bytes",
                "Bytes still to be overwritten or read back by wipes under way.",
            ))?,
            closed: IntGauge::with_opts(opts(
                "ledger_closed_bool",
                "1 where the ledger could not be written and closed itself.",
            ))?,
            resident: IntGauge::with_opts(opts("resident_memory_bytes", "Resident memory of the agent."))?,
            writes: IntCounterVec::new(
                opts("api_writes_total", "Writes to the API server that were answered, by kind of object."),
                &["kind"],
            )?,
            registered: IntGauge::with_opts(opts(
                "kubelet_registered_bool",
                "1 where the kubelet took the driver when it was last asked.",
            ))?,
        };
        for kind in KINDS {
            metrics.writes.with_label_values(&[kind]);
        }
        let collectors: [Box<dyn prometheus::core::Collector>; 9] = [
            Box::new(metrics.volumes.clone()),
            Box::new(metrics.pool.clone()),
            Box::new(metrics.present.clone()),
            Box::new(metrics.receipts.clone()),
            Box::new(metrics.progress.clone()),
            Box::new(metrics.closed.clone()),
            Box::new(metrics.resident.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.registered.clone()),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// The API server answered a write to an object of this kind, one of [`KINDS`].
    pub fn wrote(&self, kind: &str) {
        self.writes.with_label_values(&[kind]).inc();
    }

    /// The kubelet answered to the registration.
    pub fn registered(&self, taken: bool) {
        self.registered.set(i64::from(taken));
    }

    /// Look at the engine and write the exposition text.
    ///
    /// # Errors
    /// Where a family cannot be encoded.
    pub fn scrape(&self, engine: &Engine) -> Result<String, prometheus::Error> {
        let volumes = engine.volumes(false);
        self.volumes.reset();
        for pool in engine.pools() {
            let name = pool.name.as_str();
            for phase in PHASES {
                let count = volumes.iter().filter(|v| v.pool == pool.name && v.phase == phase).count();
                self.volumes.with_label_values(&[name, phase]).set(count as f64);
            }
            for (part, bytes) in [
                ("allocated", pool.allocated),
                ("withheld", pool.withheld),
                ("free", pool.free),
                ("reserve", pool.reserve),
            ] {
                self.pool.with_label_values(&[name, part]).set(bytes as f64);
            }
            self.present.with_label_values(&[name]).set(if pool.absent.is_none() { 1.0 } else { 0.0 });
        }
        let remaining: u64 = volumes.iter().filter_map(|v| v.progress).map(|p| p.total.saturating_sub(p.done)).sum();
        self.progress.set(remaining as f64);
        self.receipts.set(engine.receipts_given() as f64);
        self.closed.set(i64::from(engine.failure().is_some()));
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
pub(crate) mod tests;
