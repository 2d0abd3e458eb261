use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bedplate_blockdev::fake::{Config as Machine, FakeHost};
use bedplate_provisioner::config::{EngineConfig, PoolConfig};
use bedplate_provisioner::surroundings::RealSurroundings;

use super::*;

/// An engine on a machine in memory.
pub(crate) fn engine() -> Engine {
    engine_on(&machine())
}

/// A machine in memory with room for a few volumes.
pub(crate) fn machine() -> FakeHost {
    FakeHost::new(Machine { blocks: 2048, ..Machine::default() })
}

/// An engine on that machine.
pub(crate) fn engine_on(host: &FakeHost) -> Engine {
    let config = EngineConfig {
        node: "n1".parse().unwrap(),
        state_dir: PathBuf::from("/state"),
        pools: vec![PoolConfig {
            reserve: bedplate_core::bytes::Bytes(0),
            ..PoolConfig::new("fast".parse().unwrap(), PathBuf::from("/pool"))
        }],
        geometry: bedplate_core::wipe::Geometry { chunk: 1 << 20, block: 4096, canaries: 1 },
        agent_version: "test".to_owned(),
    };
    Engine::open(Arc::new(host.clone()), Arc::new(RealSurroundings::new().unwrap()), config).unwrap()
}

#[test]
fn the_documented_metrics_are_the_exported_ones() {
    let text = Metrics::new().unwrap().scrape(&engine()).unwrap();
    let exported: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let page = include_str!("../../../docs/metrics.md");
    let names = page.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<&str> = names.filter(|name| name.starts_with("bedplate_agent_")).collect();
    assert_eq!(exported, documented);
    assert!(exported.len() >= 7);
}

#[test]
fn a_fresh_pool_is_present_with_room() {
    let text = Metrics::new().unwrap().scrape(&engine()).unwrap();
    assert!(text.contains("bedplate_agent_pool_present_bool{pool=\"fast\"} 1"), "{text}");
    let free = text.lines().find(|l| l.starts_with("bedplate_agent_pool_bytes{pool=\"fast\",use=\"free\"}")).unwrap();
    assert!(free.rsplit(' ').next().unwrap().parse::<f64>().unwrap() >= 1_048_576.0, "{free}");
}
