use std::collections::BTreeSet;

use super::*;

#[test]
fn the_documented_metrics_are_the_exported_ones() {
    let text = Metrics::new().unwrap().scrape().unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let exported: BTreeSet<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    let page = include_str!("../../../../docs/metrics.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<&str> = names.filter(|name| name.starts_with("bedplate_provisioner_")).collect();
    assert_eq!(exported, documented);
    assert!(exported.len() >= 12);
}
