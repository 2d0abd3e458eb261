use bedplate_core::ids::LedgerId;
use bedplate_core::volume::{Claim, Mode, Origin};
use uuid::Uuid;

use super::*;

const MIB: u64 = 1 << 20;

fn volume(name: &str, phase: &'static str) -> Outline {
    Outline {
        id: format!("vol-{}", name.replace(' ', "-")).parse().unwrap(),
        name: name.to_owned(),
        pool: "fast".parse().unwrap(),
        absent: None,
        bytes: 100 * MIB,
        mode: Mode::Filesystem(bedplate_core::filesystem::FsType::Xfs),
        file: None,
        claim: Claim { uid: "u".to_owned(), ..Claim::default() },
        demand: None,
        parameters: BTreeMap::new(),
        origin: Some(Origin { class_name: "ssd".to_owned(), attempt: 2, promise: None }),
        phase,
        detail: String::new(),
        ever_staged: false,
        receipt: None,
        progress: None,
    }
}

fn portrait(free: u64, volumes: Vec<Outline>) -> Portrait {
    let sum = |live: bool| volumes.iter().filter(|v| (v.phase == "Ready") == live).map(|v| v.bytes).sum();
    let pool = PoolView {
        name: "fast".parse().unwrap(),
        directory: "/pool".to_owned(),
        backend: "image".to_owned(),
        absent: None,
        fs_type: None,
        fs_uuid: None,
        device: None,
        level: None,
        allocated: sum(true),
        withheld: sum(false),
        free,
        reserve: 0,
        found: Vec::new(),
        draining: false,
        iops: Some(1000),
        media: Some("ssd".to_owned()),
    };
    let promised = [("fast".parse().unwrap(), 400)].into();
    Portrait { ledger: LedgerId(Uuid::nil()), pools: vec![pool], volumes, promised, receipts: 0 }
}

fn told(portrait: &Portrait) -> StorageNodeStatus {
    status(Parts {
        portrait,
        disks: Vec::new(),
        beneath: BTreeMap::new(),
        figures: BTreeMap::new(),
        filesystems: Vec::new(),
        node_uid: None,
        registered: None,
    })
}

#[test]
fn a_pools_bytes_are_told_by_what_they_wait_for() {
    let adopted = Outline { origin: None, ..volume("adopted x by me", "Retained") };
    let mut portrait =
        portrait(500 * MIB, vec![volume("b", "Ready"), volume("a", "Wiping"), volume("c", "Stuck"), adopted]);
    let status = told(&portrait);
    let pool = &status.pools[0];
    let mib = |bytes: i64| bytes >> 20;
    assert_eq!([mib(pool.allocated), mib(pool.quarantined), mib(pool.dirty), mib(pool.free)], [100, 100, 200, 500]);
    assert_eq!((mib(pool.capacity), pool.largest_volume, pool.iops_left), (900, pool.free, Some(600)));
    let names: Vec<&str> = status.volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"], "in order, and only those that have an object to rebuild");
    assert_eq!((status.volumes[0].attempt, status.volumes[0].class_name.as_str()), (2, "ssd"));
    portrait.pools[0].draining = true;
    assert_eq!(told(&portrait).pools[0].free, 0, "a draining pool offers nothing");
}

#[test]
fn a_log_that_grows_on_the_host_is_no_news() {
    let first = told(&portrait(5000 * MIB, vec![volume("a", "Ready")]));
    let little = told(&portrait(4990 * MIB, vec![volume("a", "Ready")]));
    assert_eq!(steady(little, Some(&first)), first);
    let much = told(&portrait(3000 * MIB, vec![volume("a", "Ready")]));
    assert_eq!(steady(much.clone(), Some(&first)), much);
    let full = told(&portrait(0, vec![volume("a", "Ready")]));
    assert_eq!(steady(full.clone(), Some(&first)), full);
}

#[test]
fn a_volume_that_comes_or_goes_is_always_counted_exactly() {
    let first = told(&portrait(5000 * MIB, vec![volume("a", "Ready")]));
    let second = told(&portrait(4995 * MIB, vec![volume("a", "Ready"), volume("b", "Ready")]));
    assert_eq!(steady(second.clone(), Some(&first)), second);
    let wiping = told(&portrait(4999 * MIB, vec![volume("a", "Wiping")]));
    assert_eq!(steady(wiping.clone(), Some(&first)), wiping);
}

#[test]
fn the_kubelets_refusal_and_an_absent_pool_are_conditions() {
    let mut portrait = portrait(0, Vec::new());
    portrait.pools[0].absent = Some("not mounted".to_owned());
    let parts = Parts {
        portrait: &portrait,
        disks: Vec::new(),
        beneath: BTreeMap::new(),
        figures: BTreeMap::new(),
        filesystems: Vec::new(),
        node_uid: None,
        registered: Some(Err("no such driver".to_owned())),
    };
    let conditions = status(parts).conditions;
    let find =
        |kind: &str| conditions.iter().find(|c| c.type_ == kind).map(|c| (c.status.as_str(), c.message.as_str()));
    assert_eq!(find("KubeletRegistered"), Some(("False", "no such driver")));
    assert_eq!(find("PoolsPresent"), Some(("False", "fast: not mounted")));
    assert_eq!(find("Ready"), Some(("True", "")));
}
