use jiff::Timestamp;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::extent::PhysicalMap;
use crate::filesystem::FsType;
use crate::wipe::{Geometry, Seed, VerifyDemand, WipePlan, ZeroMethod};

fn spec() -> Spec {
    Spec {
        id: "v1".parse().unwrap(),
        name: "data".into(),
        pool: "p".parse().unwrap(),
        bytes: 4096,
        mode: Mode::Filesystem(FsType::Ext4),
        file: "v1-0".into(),
        demand: None,
        verify: VerifyDemand::Full,
        mkfs_options: Vec::new(),
        claim: Claim::default(),
        parameters: std::collections::BTreeMap::new(),
        created: Timestamp::UNIX_EPOCH,
        origin: None,
    }
}

fn backing() -> Backing {
    Backing { identity: FileIdentity { inode: 1, born: 2 }, map: PhysicalMap::default() }
}

fn changes() -> Vec<Change> {
    let plan = WipePlan::new(
        4096,
        Geometry { chunk: 4096, block: 512, canaries: 1 },
        ZeroMethod::DirectWrites,
        VerifyDemand::Full,
        0,
        Seed([1; 32]),
    )
    .unwrap();
    let at = Timestamp::UNIX_EPOCH;
    let release = Release { kind: ReleaseKind::Deleted, by: "test".into(), at };
    vec![
        Change::Discarded,
        Change::Ready { backing: backing() },
        Change::Formatting { uuid: Uuid::from_u128(1) },
        Change::Formatting { uuid: Uuid::from_u128(2) },
        Change::Formatted,
        Change::Staged { staged: Staged { path: "/s".into(), boot: "b".into() } },
        Change::Unstaged,
        Change::LevelLowered { losses: Vec::new() },
        Change::Retained { by: "t".into() },
        Change::Released { release },
        Change::Quarantined { losses: Vec::new() },
        Change::WipePlanned { plan, at },
        Change::CanariesPlaced,
        Change::Wiped { offset: 0 },
        Change::Wiped { offset: 4096 },
        Change::Resumed { offset: 0 },
        Change::Flushed,
        Change::Verifying,
        Change::Freed,
        Change::Stuck { reason: StuckReason::IoError { what: "x".into() }, at },
        Change::Retried { by: "t".into() },
        Change::LevelAccepted { by: "t".into() },
        Change::Forgotten { by: "t".into() },
    ]
}

proptest! {
    /// Whatever order changes come in: without a receipt nothing is ever given back, without a release nothing is
    /// ever quarantined, and what was formatted or staged is never formatted again.
    #[test]
    fn no_order_of_changes_frees_unverified_or_formats_twice(order in prop::collection::vec(0usize..23, 0..60)) {
        let list = changes();
        let mut volume: AnyVolume = Volume { spec: spec(), state: Reserved }.into();
        let (mut released, mut staged, mut formatted) = (false, false, false);
        for i in order {
            let change = list[i].clone();
            let Ok(next) = volume.clone().apply(change.clone()) else { continue };
            match change {
                Change::Released { .. } => released = true,
                Change::Staged { .. } => staged = true,
                Change::Formatted => formatted = true,
                Change::Quarantined { .. } => prop_assert!(released),
                Change::Formatting { .. } => {
                    prop_assert!(!formatted);
                    let repeats = matches!(&volume, AnyVolume::Ready(v) if v.state.format != Format::Never);
                    prop_assert!(!staged || repeats);
                }
                _ => {}
            }
            volume = next;
            prop_assert!(!matches!(volume, AnyVolume::Freed(_) | AnyVolume::Verified(_)));
        }
    }

    #[test]
    fn a_state_survives_being_written_down(order in prop::collection::vec(0usize..23, 0..60)) {
        let list = changes();
        let mut volume: AnyVolume = Volume { spec: spec(), state: Reserved }.into();
        for i in order {
            if let Ok(next) = volume.clone().apply(list[i].clone()) {
                volume = next;
            }
            let json = serde_json::to_string(&volume).unwrap();
            prop_assert_eq!(&serde_json::from_str::<AnyVolume>(&json).unwrap(), &volume);
        }
    }
}

#[test]
fn a_killed_mkfs_may_be_repeated_and_no_other_begun() {
    let ready = Volume { spec: spec(), state: Reserved }.ready(backing()).1;
    let begun = ready.formatting(Uuid::from_u128(1)).unwrap().1;
    assert!(begun.clone().formatting(Uuid::from_u128(1)).is_some());
    assert!(begun.clone().formatting(Uuid::from_u128(2)).is_none());
    assert!(begun.formatted().unwrap().1.formatting(Uuid::from_u128(1)).is_none());
}
