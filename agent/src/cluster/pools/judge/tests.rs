use bedplate_api::DiskPoolSpec;
use bedplate_api::disk_pool::{DeviceSelector, PoolWipe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::jiff::Timestamp;

use super::*;

fn pool(name: &str, born: i64, directory: &str, change: impl FnOnce(&mut DiskPoolSpec)) -> DiskPool {
    let mut spec = DiskPoolSpec { directory: Some(directory.to_owned()), ..DiskPoolSpec::default() };
    change(&mut spec);
    let mut pool = DiskPool::new(name, spec);
    pool.metadata.creation_timestamp = Some(Time(Timestamp::from_second(born).unwrap()));
    pool
}

fn judged(pools: &[DiskPool], places: &[(&str, &str)]) -> BTreeMap<String, Verdict> {
    judged_where(&[], pools, places)
}

fn judged_where(
    standing: &[(&str, Standing)],
    pools: &[DiskPool],
    places: &[(&str, &str)],
) -> BTreeMap<String, Verdict> {
    let standing = standing.iter().map(|(name, how)| ((*name).to_owned(), *how)).collect();
    let taken = [("own".parse().unwrap(), PathBuf::from("/srv/own"))];
    let places = places
        .iter()
        .map(|(path, real)| {
            (PathBuf::from(path), Place { real: Some(PathBuf::from(real)), on_system: path.starts_with("/var") })
        })
        .collect();
    judge(pools, &Labels::from([("disk".to_owned(), "fast".to_owned())]), &taken, &standing, &places)
}

/// Why the one pool is refused.
fn refused(pool: DiskPool) -> String {
    match judged(&[pool], &[("/var/pool", "/var/pool")]).into_values().next().unwrap() {
        Verdict::Refused(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_wish_becomes_a_pool_with_its_settings() {
    let wish = pool("fast", 1, "/srv//fast/.", |spec| {
        spec.capacity = Some("1.5Gi".to_owned());
        spec.reserve = Some("500M".to_owned());
        spec.media = Some(Media::Hdd);
        spec.wipe = Some(PoolWipe { method: Some(WipeMethod::DirectWrites), verify: Some(Verify::Sample) });
        spec.encryption = Some(Encryption::None);
    });
    let Verdict::Wanted(config) = &judged(&[wish], &[])["fast"] else { panic!("refused") };
    assert_eq!(config.directory, Path::new("/srv/fast"));
    assert_eq!((config.capacity, config.reserve), (Some(Bytes(3 << 29)), Bytes(500_000_000)));
    assert_eq!((config.media, config.verify), (Some(MediaDemand::Hdd), VerifyDemand::Sample));
}

#[test]
fn what_is_not_supported_yet_or_cannot_be_is_refused_in_words_that_name_the_field() {
    let good = |name: &str, directory: &str| pool(name, 1, directory, |_| ());
    let with = |change: fn(&mut DiskPoolSpec)| pool("p", 1, "/srv/p", change);
    for (wish, says) in [
        (with(|s| s.backend = Backend::Lvm), "spec.backend lvm is not supported yet"),
        (with(|s| s.backend = Backend::Disk), "spec.backend disk is not supported yet"),
        (with(|s| s.devices = Some(DeviceSelector::default())), "spec.devices is not supported yet"),
        (with(|s| s.encryption = Some(Encryption::VolumeKey)), "spec.encryption volume-key is not supported yet"),
        (with(|s| s.wipe = Some(PoolWipe { method: Some(WipeMethod::ZeroOut), verify: None })), "spec.wipe.method"),
        (with(|s| s.capacity = Some("much".to_owned())), "spec.capacity: \"much\""),
        (with(|s| s.capacity = Some("1Ki".to_owned())), "spec.capacity is smaller"),
        (with(|s| s.reserve = Some("-1".to_owned())), "spec.reserve"),
        (with(|s| s.directory = None), "spec.directory is missing"),
        (with(|s| s.node_selector = Some(bad_selector())), "operator"),
        (good("p", "srv/p"), "must be an absolute path"),
        (good("p", "/srv/../etc"), "must be an absolute path"),
        (good("p", "/"), "not / itself"),
        (good("own", "/srv/p"), "has this name already"),
        (good("p", "/srv/own/inner"), "lie in one another"),
        (good("p", "/srv"), "lie in one another"),
        (good(&"x".repeat(64), "/srv/p"), "metadata.name"),
        (pool("p", 1, "/var/pool", |s| s.reserve = Some("0".to_owned())), "the machine runs from"),
    ] {
        let why = refused(wish);
        assert!(why.contains(says), "{says:?} is not in {why:?}");
    }
    assert!(matches!(judged(&[good("p", "/var/pool")], &[("/var/pool", "/var/pool")])["p"], Verdict::Wanted(_)));
}

fn bad_selector() -> LabelSelector {
    let expression = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
        key: "disk".to_owned(),
        operator: "Like".to_owned(),
        values: None,
    };
    LabelSelector { match_expressions: Some(vec![expression]), match_labels: None }
}

#[test]
fn of_two_that_overlap_the_earlier_wins_also_behind_a_symlink() {
    let pools = [
        pool("b", 2, "/srv/b", |_| ()),
        pool("a", 3, "/mnt/link/inner", |_| ()),
        pool("c", 2, "/srv/b/c", |_| ()),
        pool("d", 9, "/srv/bb", |_| ()),
    ];
    let verdicts = judged(&pools, &[("/mnt/link/inner", "/srv/b/inner"), ("/srv/b", "/srv/b")]);
    assert!(matches!(verdicts["b"], Verdict::Wanted(_)));
    assert!(matches!(&verdicts["a"], Verdict::Refused(why) if why.contains("DiskPool b")), "{:?}", verdicts["a"]);
    assert!(matches!(&verdicts["c"], Verdict::Refused(why) if why.contains("DiskPool b")), "equal age: by name");
    assert!(matches!(verdicts["d"], Verdict::Wanted(_)), "a name that only begins alike is another folder");
}

#[test]
fn a_wish_for_other_nodes_takes_no_place_here() {
    let select = |value: &str| LabelSelector {
        match_labels: Some([("disk".to_owned(), value.to_owned())].into()),
        match_expressions: None,
    };
    let other = pool("a", 1, "/srv/p", |spec| spec.node_selector = Some(select("slow")));
    let ours = pool("b", 2, "/srv/p", |spec| spec.node_selector = Some(select("fast")));
    let verdicts = judged(&[other, ours], &[]);
    assert_eq!(verdicts["a"], Verdict::Elsewhere);
    assert!(matches!(verdicts["b"], Verdict::Wanted(_)));
}

#[test]
fn a_pool_that_serves_is_not_drained_by_a_wish_of_the_same_second() {
    let wishes = [pool("serving", 7, "/srv/p", |_| ()), pool("below", 7, "/srv/p/below", |_| ())];
    let wanted = |verdicts: &BTreeMap<String, Verdict>| -> Vec<String> {
        verdicts.iter().filter(|(_, v)| matches!(v, Verdict::Wanted(_))).map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(wanted(&judged(&wishes, &[])), ["below"], "of two new ones the name decides");
    for standing in [Standing::Serving, Standing::Draining] {
        assert_eq!(wanted(&judged_where(&[("serving", standing)], &wishes, &[])), ["serving"], "{standing:?}");
    }
    let both = [("serving", Standing::Serving), ("below", Standing::Draining)];
    assert_eq!(wanted(&judged_where(&both, &wishes, &[])), ["serving"]);
}
