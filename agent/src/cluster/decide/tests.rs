use std::collections::BTreeMap;

use bedplate_api::LocalVolumeSpec;
use bedplate_api::local_volume::{ClaimReference, FsType, LocalVolumeStatus, Release};
use bedplate_core::volume::{Claim, Mode, Origin};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use uuid::Uuid;

use super::*;

const CLAIM: &str = "claim-uid";

fn own() -> LedgerId {
    LedgerId(Uuid::from_u128(7))
}

fn object() -> LocalVolume {
    let spec = LocalVolumeSpec {
        node_name: "n".to_owned(),
        ledger_id: own().to_string(),
        pool: "fast".to_owned(),
        bytes: 64 << 20,
        fs_type: Some(FsType::Ext4),
        claim_uid: CLAIM.to_owned(),
        claim: ClaimReference { namespace: "ns".to_owned(), name: "data".to_owned(), labels: BTreeMap::new() },
        ..LocalVolumeSpec::default()
    };
    LocalVolume::new("pvc-claim-uid-0", spec)
}

fn told(phase: Phase) -> LocalVolume {
    let status = LocalVolumeStatus { phase: Some(phase), ..LocalVolumeStatus::default() };
    LocalVolume { status: Some(status), ..object() }
}

fn released(mut object: LocalVolume, kind: ReleaseKind) -> LocalVolume {
    object.spec.release = Some(Release { claim_uid: CLAIM.to_owned(), kind });
    object
}

fn ledger(phase: &'static str) -> Known {
    Known::Volume(Box::new(Outline {
        id: "vol-1".parse().unwrap(),
        name: "pvc-claim-uid-0".to_owned(),
        pool: "fast".parse().unwrap(),
        absent: None,
        bytes: 64 << 20,
        mode: Mode::Block,
        file: None,
        claim: Claim { uid: CLAIM.to_owned(), ..Claim::default() },
        demand: None,
        parameters: BTreeMap::new(),
        origin: Some(Origin::default()),
        phase,
        detail: String::new(),
        ever_staged: false,
        receipt: None,
        progress: None,
    }))
}

fn staged() -> Known {
    let Known::Volume(mut volume) = ledger("Ready") else { unreachable!() };
    volume.ever_staged = true;
    Known::Volume(volume)
}

/// The order as one word.
fn word(known: &Known, object: &LocalVolume) -> &'static str {
    match decide(own(), known, object) {
        Order::Create(_) => "create",
        Order::Release(_, core::ReleaseKind::Reclaimed) => "release reclaimed",
        Order::Release(_, core::ReleaseKind::NeverBound) => "release never-bound",
        Order::Release(..) => "release",
        Order::Retain(_) => "retain",
        Order::Report(None) => "report",
        Order::Report(Some(_)) => "report with a note",
        Order::Lost(_) => "lost",
        Order::Refuse(_) => "refuse",
        Order::Discard(_) => "discard",
        Order::Leave => "leave",
    }
}

#[test]
fn a_volume_is_made_only_if_it_never_had_a_phase_nor_a_name_in_this_very_ledger() {
    assert_eq!(word(&Known::Never, &object()), "create");
    for phase in [Phase::Reserved, Phase::Ready, Phase::Released, Phase::Wiping, Phase::Retained, Phase::Stuck] {
        assert_eq!(word(&Known::Never, &told(phase)), "lost", "{phase:?}");
    }
    assert_eq!(word(&Known::UsedUp, &object()), "lost", "its tombstone is forgotten, its name is not");
    let mut elsewhere = object();
    elsewhere.spec.ledger_id = Uuid::from_u128(8).to_string();
    assert_eq!(word(&Known::Never, &elsewhere), "lost", "admitted against other disks");
    assert_eq!(word(&ledger("Ready"), &elsewhere), "lost");
    assert_eq!(word(&Known::Never, &released(elsewhere, ReleaseKind::Reclaimed)), "lost");
}

#[test]
fn what_is_lost_or_over_stays_as_it_was_told() {
    for phase in [Phase::Lost, Phase::Refused, Phase::Discarded, Phase::Freed] {
        assert_eq!(word(&Known::Never, &told(phase)), "leave", "{phase:?}");
        assert_eq!(word(&Known::UsedUp, &told(phase)), "leave", "{phase:?}");
    }
    assert_eq!(word(&ledger("Discarded"), &told(Phase::Refused)), "leave");
}

#[test]
fn an_api_server_restored_from_yesterday_brings_no_wiped_volume_back() {
    assert_eq!(word(&ledger("Freed"), &told(Phase::Ready)), "lost");
    assert_eq!(word(&ledger("Freed"), &object()), "lost");
    assert_eq!(word(&ledger("Discarded"), &told(Phase::Ready)), "lost");
    // Its own release, or a person's, led there: that is no backup.
    assert_eq!(word(&ledger("Freed"), &released(told(Phase::Ready), ReleaseKind::Reclaimed)), "report");
    assert_eq!(word(&ledger("Freed"), &told(Phase::Wiping)), "report");
    assert_eq!(word(&ledger("Discarded"), &told(Phase::Reserved)), "report");
}

#[test]
fn only_the_volumes_own_claim_gives_it_up() {
    assert_eq!(word(&ledger("Ready"), &told(Phase::Ready)), "report");
    assert_eq!(word(&staged(), &released(told(Phase::Ready), ReleaseKind::Reclaimed)), "release reclaimed");
    let mut other = released(told(Phase::Ready), ReleaseKind::Reclaimed);
    other.spec.release.as_mut().unwrap().claim_uid = "another".to_owned();
    assert_eq!(word(&ledger("Ready"), &other), "report with a note");
    // Spec and release agree with each other, and not with the ledger.
    other.spec.claim_uid = "another".to_owned();
    assert_eq!(word(&ledger("Ready"), &other), "lost");
}

#[test]
fn never_bound_is_believed_only_of_what_was_never_handed_out() {
    let object = released(told(Phase::Ready), ReleaseKind::NeverBound);
    assert_eq!(word(&ledger("Ready"), &object), "release never-bound");
    assert_eq!(word(&staged(), &object), "report with a note");
}

#[test]
fn a_retained_volume_keeps_its_bytes_whatever_is_asked_later() {
    assert_eq!(word(&staged(), &released(told(Phase::Ready), ReleaseKind::Retained)), "retain");
    assert_eq!(word(&ledger("Retained"), &released(told(Phase::Retained), ReleaseKind::Reclaimed)), "report");
}

#[test]
fn a_deletion_timestamp_is_no_authority() {
    let mut dying = told(Phase::Ready);
    dying.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(word(&staged(), &dying), "report");
    dying.status = None;
    assert_eq!(word(&Known::Never, &dying), "refuse");
    dying.metadata.deletion_timestamp = None;
    assert_eq!(word(&Known::Never, &released(dying, ReleaseKind::NeverBound)), "discard");
}

#[test]
fn a_spec_that_contradicts_itself_is_refused_in_words() {
    for (change, says) in [
        (Box::new(|s: &mut LocalVolumeSpec| s.bytes = 0) as Box<dyn Fn(&mut LocalVolumeSpec)>, "spec.bytes"),
        (Box::new(|s| s.mode = bedplate_api::local_volume::VolumeMode::Block), "spec.fsType"),
        (Box::new(|s| s.pool = "../x".to_owned()), "spec.pool"),
        (Box::new(|s| drop(s.parameters.insert("bedplate.dev/wat".to_owned(), "1".to_owned()))), "bedplate.dev/wat"),
        (Box::new(|s| s.attempt = -1), "spec.attempt"),
    ] {
        let mut object = object();
        change(&mut object.spec);
        let Order::Refuse(why) = decide(own(), &Known::Never, &object) else { panic!("{says} was not refused") };
        assert!(why.contains(says), "{why}");
    }
}

#[test]
fn what_chose_the_place_is_no_obstacle_to_making_the_volume() {
    let mut object = object();
    for name in ["bedplate.dev/profile", "bedplate.dev/spread", "bedplate.dev/exclusive-disk"] {
        object.spec.parameters.insert(name.to_owned(), "raft-small".to_owned());
    }
    let Order::Create(wish) = decide(own(), &Known::Never, &object) else { panic!("not made") };
    assert_eq!(wish.parameters.len(), 3, "kept for the receipt");
    assert_eq!(wish.class.claim.uid, CLAIM);
}
