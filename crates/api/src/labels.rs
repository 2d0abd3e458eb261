//! Node labels from a StorageNode's status: few, and stable. Pure.
//!
//! A medium that is there, buckets of ×2 of its figures, filesystems, pools. Buckets keep their value until the figure
//! has clearly left them (`bedplate_core::probe::bucket`), because every change is a write to a Node. Full figures live
//! in StorageNode.

use std::collections::BTreeMap;

use bedplate_core::probe::{bucket, bucket_latency};

use crate::names::{LABEL_FS_PREFIX, LABEL_POOL_PREFIX, LABEL_PREFIX};
use crate::storage_node::{Figures, StorageNodeStatus};

/// Suffix of a medium's label for random reads a second.
pub const READ_IOPS: &str = ".read-iops";
/// Suffix of a medium's label for the 99th percentile of an fsync, in microseconds.
pub const FSYNC_P99: &str = ".fsync-p99-us";

const MEDIA: [&str; 3] = ["nvme", "ssd", "hdd"];

/// Whether a label of a Node is one that an agent keeps.
#[must_use]
pub fn family(key: &str) -> bool {
    if key.starts_with(LABEL_POOL_PREFIX) || key.starts_with(LABEL_FS_PREFIX) {
        return true;
    }
    let Some(rest) = key.strip_prefix(LABEL_PREFIX) else { return false };
    MEDIA.iter().any(|media| {
        rest.strip_prefix(media).is_some_and(|suffix| suffix.is_empty() || suffix == READ_IOPS || suffix == FSYNC_P99)
    })
}

/// The labels that a Node with this status is to carry; `there` are those it has now. The figure behind a medium's label
/// is the worst of its disks and pools, so that it holds whichever of them a volume gets. NVMe is flash: `ssd` covers it.
#[must_use]
pub fn labels(there: &BTreeMap<String, String>, status: &StorageNodeStatus) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let yes = || "true".to_owned();
    for media in MEDIA {
        let is = |found: &str| found == media || (media == "ssd" && found == "nvme");
        let disks = status.disks.iter().filter(|disk| is(&disk.media)).map(|disk| disk.figures.as_ref());
        let pools = status.pools.iter().filter(|pool| pool.absent.is_none() && is(&pool.media));
        let figures: Vec<Option<&Figures>> = disks.chain(pools.map(|pool| pool.figures.as_ref())).collect();
        if figures.is_empty() {
            continue;
        }
        let key = |suffix: &str| format!("{LABEL_PREFIX}{media}{suffix}");
        let before = |suffix: &str| there.get(&key(suffix)).and_then(|value| value.parse::<u64>().ok());
        let known = || figures.iter().copied().flatten();
        labels.insert(key(""), yes());
        let reads = known().filter_map(|f| u64::try_from(f.read_iops?).ok()).min();
        if let Some(reads) = reads.map(|iops| bucket(before(READ_IOPS), iops)).filter(|iops| *iops > 0) {
            labels.insert(key(READ_IOPS), reads.to_string());
        }
        let fsync = known().filter_map(|f| u64::try_from(f.fsync_p99_us?).ok()).max();
        if let Some(fsync) = fsync.map(|us| bucket_latency(before(FSYNC_P99), us)).filter(|us| *us > 0) {
            labels.insert(key(FSYNC_P99), fsync.to_string());
        }
    }
    for fs in &status.filesystems {
        labels.insert(format!("{LABEL_FS_PREFIX}{}", format!("{fs:?}").to_lowercase()), yes());
    }
    for pool in status.pools.iter().filter(|pool| pool.absent.is_none() && is_label_name(&pool.name)) {
        labels.insert(format!("{LABEL_POOL_PREFIX}{}", pool.name), yes());
    }
    labels
}

/// Whether a pool's name fits behind `pool.` in a label's name (63 characters, ending in a letter or digit).
fn is_label_name(name: &str) -> bool {
    let prefix = LABEL_POOL_PREFIX.len() - LABEL_PREFIX.len();
    prefix + name.len() <= 63 && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_volume::FsType;
    use crate::storage_node::{DiskStatus, PoolStatus};

    fn status(media: &str, iops: i64, fsync: i64) -> StorageNodeStatus {
        let figures = Figures { read_iops: Some(iops), fsync_p99_us: Some(fsync), ..Figures::default() };
        let pool = PoolStatus {
            name: "fast".to_owned(),
            media: media.to_owned(),
            figures: Some(figures),
            ..PoolStatus::default()
        };
        StorageNodeStatus { pools: vec![pool], filesystems: vec![FsType::Ext4], ..StorageNodeStatus::default() }
    }

    fn pairs(labels: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
        labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    #[test]
    fn a_node_says_which_media_figures_filesystems_and_pools_it_has() {
        assert_eq!(
            pairs(&labels(&BTreeMap::new(), &status("hdd", 180, 9_000))),
            [
                ("bedplate.dev/fs.ext4", "true"),
                ("bedplate.dev/hdd", "true"),
                ("bedplate.dev/hdd.fsync-p99-us", "16384"),
                ("bedplate.dev/hdd.read-iops", "128"),
                ("bedplate.dev/pool.fast", "true"),
            ]
        );
    }

    #[test]
    fn flash_behind_nvme_is_also_ssd_and_unknown_media_have_no_label() {
        let nvme = labels(&BTreeMap::new(), &status("nvme", 400_000, 90));
        assert!(nvme.contains_key("bedplate.dev/nvme") && nvme.contains_key("bedplate.dev/ssd.read-iops"));
        let unknown = labels(&BTreeMap::new(), &status("unknown", 400_000, 90));
        assert!(unknown.keys().all(|key| !key.contains("ssd") && !key.contains("hdd") && !key.contains("nvme")));
    }

    #[test]
    fn a_figure_that_wobbles_about_an_edge_leaves_the_labels_alone() {
        let first = labels(&BTreeMap::new(), &status("ssd", 33_000, 1_000));
        for (iops, fsync) in [(32_000, 1_030), (70_000, 600), (25_000, 1_200)] {
            assert_eq!(labels(&first, &status("ssd", iops, fsync)), first);
        }
        assert_ne!(labels(&first, &status("ssd", 20_000, 1_000)), first);
    }

    #[test]
    fn a_label_tells_the_worst_disk_of_its_medium() {
        let mut two = status("ssd", 100_000, 500);
        let slow = Figures { read_iops: Some(5_000), ..Figures::default() };
        two.disks.push(DiskStatus { media: "ssd".to_owned(), figures: Some(slow), ..DiskStatus::default() });
        assert_eq!(labels(&BTreeMap::new(), &two)["bedplate.dev/ssd.read-iops"], "4096");
    }

    #[test]
    fn an_absent_pool_and_one_with_a_name_too_long_have_no_label() {
        let mut odd = status("ssd", 1, 1);
        odd.pools[0].absent = Some("not mounted".to_owned());
        odd.pools.push(PoolStatus { name: "x".repeat(63), ..PoolStatus::default() });
        assert!(labels(&BTreeMap::new(), &odd).keys().all(|key| !key.contains("pool.")));
    }

    #[test]
    fn every_label_that_is_given_is_known_again_and_others_are_left_alone() {
        let given = labels(&BTreeMap::new(), &status("nvme", 400_000, 90));
        assert!(given.keys().all(|key| family(key)), "{given:?}");
        for other in ["bedplate.dev/raft-group", "bedplate.dev/node", "kubernetes.io/os", "bedplate.dev/ssdx"] {
            assert!(!family(other), "{other}");
        }
    }
}
