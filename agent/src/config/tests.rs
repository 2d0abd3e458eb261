use super::*;

const GOOD: &str = r#"
node = "laptop"
state_dir = "/var/lib/bedplate"

[[pool]]
name = "fast"
directory = "/srv/fast"
capacity = "50Gi"
reserve = "5Gi"
media = "ssd"
"#;

fn refused(text: &str) -> String {
    Config::parse(Path::new("/etc/bedplate.toml"), text, Mode::Standalone).unwrap_err().to_string()
}

#[test]
fn a_good_file_is_understood() {
    let config = Config::parse(Path::new("x"), GOOD, Mode::Standalone).unwrap();
    let engine = config.engine(&"laptop".parse().unwrap(), "1");
    assert_eq!(engine.pools[0].capacity, Some(Bytes(50 * GIB)));
    assert_eq!(engine.pools[0].media, Some(MediaDemand::Ssd));
    assert_eq!(engine.pools[0].method, ZeroMethod::DirectWrites);
}

#[test]
fn a_typo_is_answered_with_line_and_field() {
    let error = refused(&GOOD.replace("capacity", "capcity"));
    assert!(error.contains("line 8") && error.contains("capcity") && error.contains("/etc/bedplate.toml"), "{error}");
    let error = refused(&GOOD.replace("\"50Gi\"", "\"50 gigs\""));
    assert!(error.contains("line 8") && error.contains("such as 10Gi"), "{error}");
    let error = refused(&GOOD.replace("node = \"laptop\"", "node = \"../x\""));
    assert!(error.contains("line 2") && error.contains("node name"), "{error}");
}

#[test]
fn a_contradiction_names_the_field_and_the_way_out() {
    let two = format!("{GOOD}\n[[pool]]\nname = \"slow\"\ndirectory = \"/srv/fast/inner\"\n");
    assert!(refused(&two).contains("pool[1].directory"), "{}", refused(&two));
    let twice = format!("{GOOD}\n[[pool]]\nname = \"fast\"\ndirectory = \"/srv/b\"\n");
    assert!(refused(&twice).contains("pool[1].name"), "{}", refused(&twice));
    assert!(refused("node = \"a\"\n").contains("add a [[pool]]"));
    assert!(refused(&GOOD.replace("/srv/fast", "srv/fast")).contains("pool[0].directory"));
    assert!(refused(&format!("{GOOD}\n[wipe]\nchunk = 5\n")).contains("wipe.chunk"));
}

#[test]
fn in_a_cluster_node_and_pools_may_come_from_elsewhere() {
    let path = Path::new("x");
    let config = Config::parse(path, "[probe]\nenabled = false\n", Mode::Cluster).unwrap();
    assert!(config.node.is_none() && config.pools.is_empty() && !config.probe.enabled);
    assert_eq!(config.cluster.receipt_days, 90);
    assert!(Config::parse(path, "", Mode::Standalone).unwrap_err().to_string().contains("`node`"));
    assert!(Config::parse(path, "[cluster]\nreceipt_days = 0\n", Mode::Cluster).is_err());
}
