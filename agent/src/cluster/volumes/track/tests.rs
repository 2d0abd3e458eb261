use bedplate_api::LocalVolumeSpec;
use bedplate_api::local_volume::{Phase, WipeProgress};

use super::*;

fn object(version: &str, status: Option<LocalVolumeStatus>) -> LocalVolume {
    let mut object = LocalVolume::new("pvc-1-0", LocalVolumeSpec::default());
    object.metadata.uid = Some("u".to_owned());
    object.metadata.resource_version = Some(version.to_owned());
    object.status = status;
    object
}

fn status(phase: Phase, done: Option<i64>) -> LocalVolumeStatus {
    let wipe = done.map(|done| WipeProgress { stage: "wiping".to_owned(), done, total: 100 });
    LocalVolumeStatus { phase: Some(phase), wipe, ..LocalVolumeStatus::default() }
}

const PACE: Duration = Duration::from_secs(3);

#[test]
fn what_is_there_or_was_just_written_is_not_written_again() {
    let now = Instant::now();
    let ready = status(Phase::Ready, None);
    let mut tracked = Tracked::new(object("5", None));
    assert!(write_due(&tracked, &ready, now, PACE));
    tracked.wrote(ready.clone(), now);
    assert!(!write_due(&tracked, &ready, now, PACE), "under way");
    tracked.written_back(object("9", Some(ready.clone())));
    assert!(!write_due(&tracked, &ready, now, PACE));
    // An event of before our write comes late: it is no news.
    tracked.seen(object("7", None), false);
    assert!(!write_due(&tracked, &ready, now, PACE));
    // Somebody takes the status away.
    tracked.seen(object("11", None), false);
    assert!(write_due(&tracked, &ready, now, PACE));
}

#[test]
fn a_list_is_the_truth_also_where_it_is_older() {
    let now = Instant::now();
    let freed = status(Phase::Freed, None);
    let mut tracked = Tracked::new(object("90", Some(freed.clone())));
    tracked.wrote(freed.clone(), now);
    tracked.seen(object("20", Some(status(Phase::Ready, None))), true);
    assert_eq!(tracked.object.phase(), Some(Phase::Ready));
    assert!(write_due(&tracked, &freed, now, PACE));
}

#[test]
fn a_rebuilt_object_of_the_same_name_is_told_everything_again() {
    let now = Instant::now();
    let ready = status(Phase::Ready, None);
    let mut tracked = Tracked::new(object("9", Some(ready.clone())));
    tracked.wrote(ready.clone(), now);
    let mut rebuilt = object("3", None);
    rebuilt.metadata.uid = Some("another".to_owned());
    tracked.seen(rebuilt, false);
    assert!(write_due(&tracked, &ready, now, PACE));
}

#[test]
fn progress_alone_is_written_at_its_pace_and_a_new_phase_at_once() {
    let now = Instant::now();
    let mut tracked = Tracked::new(object("5", Some(status(Phase::Wiping, Some(5)))));
    tracked.wrote(status(Phase::Wiping, Some(5)), now);
    assert!(!write_due(&tracked, &status(Phase::Wiping, Some(10)), now, PACE));
    assert!(write_due(&tracked, &status(Phase::Wiping, Some(10)), now + PACE, PACE));
    assert!(write_due(&tracked, &status(Phase::Verifying, Some(0)), now, PACE));
}
