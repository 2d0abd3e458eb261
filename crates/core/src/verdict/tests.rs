//! Free needs every single proof; everything else is foreign, with a reason in words.

use proptest::prelude::*;

use super::*;
use crate::disk::{Partition, QueueFacts};
use crate::signature::{Contents, ENDS, Signature, Usage};

/// A disk for whose freedom everything speaks.
fn spotless() -> DiskFacts {
    let contents = Contents {
        signatures: vec![],
        data_at: None,
        head: Bytes(ENDS),
        tail: Bytes(ENDS),
        read: Bytes(2 * ENDS),
        size: Bytes(100 * GIB),
    };
    DiskFacts {
        name: "sdb".to_owned(),
        size: Some(Bytes(100 * GIB)),
        logical_sector: Some(512),
        physical_sector: Some(4096),
        removable: Some(false),
        read_only: Some(false),
        udev: UdevView::Blank,
        look: Look::Done(contents),
        exclusive: Exclusive::Opened,
        sight: Sight::Whole,
        ..DiskFacts::default()
    }
}

fn mount() -> Mount {
    Mount { target: "/".to_owned(), fs_type: "ext4".to_owned(), read_only: false, seen_by: 1 }
}

fn contents(change: impl Fn(&mut Contents)) -> impl Fn(&mut DiskFacts) {
    move |facts| {
        if let Look::Done(contents) = &mut facts.look {
            change(contents);
        }
    }
}

fn ext4() -> Signature {
    Signature { format: "ext4".into(), usage: Usage::Filesystem, label: None, uuid: None, offset: 1080 }
}

type Spoiler = (&'static str, Box<dyn Fn(&mut DiskFacts)>);

/// Every way in which a proof can be missing or spoilt, with the code it must be told by.
fn spoilers() -> Vec<Spoiler> {
    vec![
        ("mounted", Box::new(|f| f.mounts = vec![mount()])),
        ("mounted", Box::new(|f| f.partitions = vec![Partition { mounts: vec![mount()], ..Partition::default() }])),
        (
            "mounted",
            Box::new(|f| {
                let top = Layer { name: "dm-1".into(), mounts: vec![mount()], ..Layer::default() };
                f.holders = vec![Layer { name: "dm-0".into(), holders: vec![top], ..Layer::default() }];
            }),
        ),
        ("swap", Box::new(|f| f.swap = true)),
        ("swap", Box::new(|f| f.partitions = vec![Partition { swap: true, ..Partition::default() }])),
        ("partitions", Box::new(|f| f.partitions = vec![Partition::default()])),
        ("holder", Box::new(|f| f.holders = vec![Layer::default()])),
        ("stacked", Box::new(|f| f.slaves = vec!["sda".into()])),
        ("stacked", Box::new(|f| f.device = Kind::Md { level: None, uuid: None })),
        ("stacked", Box::new(|f| f.device = Kind::DeviceMapper { name: None, uuid: Some("CRYPT-x".into()) })),
        ("stacked", Box::new(|f| f.device = Kind::Virtual)),
        ("loop", Box::new(|f| f.device = Kind::Loop { backing: None, direct_io: None })),
        ("drive", Box::new(|f| f.device = Kind::Drive)),
        ("usb", Box::new(|f| f.transport = Transport::Usb)),
        ("not-probed", Box::new(|f| f.look = Look::NotDone)),
        ("probe-failed", Box::new(|f| f.look = Look::Failed("EIO".into()))),
        ("probe-incomplete", Box::new(|f| f.look = Look::Done(Contents::default()))),
        ("probe-incomplete", Box::new(contents(|c| c.head = Bytes(ENDS - 1)))),
        ("probe-incomplete", Box::new(contents(|c| c.tail = Bytes(0)))),
        ("content", Box::new(contents(|c| c.signatures = vec![ext4()]))),
        ("unknown-data", Box::new(contents(|c| c.data_at = Some(77)))),
        ("not-in-udev", Box::new(|f| f.udev = UdevView::NotRecorded)),
        ("udev-content", Box::new(|f| f.udev = UdevView::Content("xfs".into()))),
        ("udev-failed", Box::new(|f| f.udev = UdevView::Failed("EACCES".into()))),
        ("busy", Box::new(|f| f.exclusive = Exclusive::Busy)),
        ("not-opened", Box::new(|f| f.exclusive = Exclusive::NotTried)),
        ("open-failed", Box::new(|f| f.exclusive = Exclusive::Failed("ENXIO".into()))),
        ("read-only", Box::new(|f| f.read_only = Some(true))),
        ("unread", Box::new(|f| f.read_only = None)),
        ("removable", Box::new(|f| f.removable = Some(true))),
        ("unread", Box::new(|f| f.removable = None)),
        ("too-small", Box::new(|f| f.size = Some(Bytes(GIB - 1)))),
        ("unread", Box::new(|f| f.size = None)),
        ("unread", Box::new(|f| f.logical_sector = None)),
        ("zoned", Box::new(|f| f.queue = QueueFacts { zoned: Some("host-managed".into()), ..QueueFacts::default() })),
        ("unseen", Box::new(|f| f.sight = Sight::None)),
        ("unseen", Box::new(|f| f.sight = Sight::Partial(vec!["no".into()]))),
        ("contradiction", Box::new(|f| f.contradictions = vec!["its size changed".into()])),
    ]
}

#[test]
fn a_verdict_is_foreign_by_default_and_says_why() {
    let verdict = Verdict::default();
    assert!(matches!(&verdict, Verdict::Foreign { reasons } if reasons == &[Reason::NotExamined]));
    assert!(!judge(&DiskFacts::default(), &[], None).is_free());
}

#[test]
fn a_disk_for_which_everything_speaks_is_free_with_or_without_udev() {
    assert!(judge(&spotless(), &[], None).is_free());
    let without = DiskFacts { udev: UdevView::Absent, ..spotless() };
    assert!(judge(&without, &[], None).is_free());
}

#[test]
fn every_single_missing_proof_makes_a_disk_foreign_and_is_named() {
    for (i, (code, spoil)) in spoilers().into_iter().enumerate() {
        let mut facts = spotless();
        spoil(&mut facts);
        let verdict = judge(&facts, &[], None);
        assert!(verdict.reasons().iter().any(|r| r.code() == code), "spoiler {i}: expected {code}, got {verdict:?}");
    }
}

#[test]
fn a_clash_of_identities_outweighs_our_own_records() {
    let clash = Clash::Duplicate { what: "WWN", value: "5000".into(), other: "sdc".into() };
    let verdict = judge(&spotless(), &[clash], Some("fast"));
    assert_eq!(verdict.reasons()[0].to_string(), "has the same WWN 5000 as sdc");
    assert_eq!(judge(&spotless(), &[], Some("fast")), Verdict::Ours { pool: "fast".to_owned() });
}

#[test]
fn reasons_read_as_sentences() {
    let mut facts = spotless();
    facts.mounts = vec![mount(), Mount { target: "/var/lib".into(), ..mount() }];
    facts.look = Look::Failed("cannot read /dev/sdb: permission denied".into());
    let said: Vec<String> = judge(&facts, &[], None).reasons().iter().map(ToString::to_string).collect();
    assert_eq!(said[0], "carries a mounted ext4 at / and 1 more");
    assert!(said.contains(&"signature probe failed: cannot read /dev/sdb: permission denied".to_owned()), "{said:?}");
}

#[test]
fn a_reason_in_json_has_a_code_for_programs_and_a_text_for_people() {
    let json = serde_json::to_value(Verdict::default()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"is": "foreign", "reasons": [{"code": "not-examined", "text": "has not been examined"}]})
    );
}

proptest! {
    #[test]
    fn free_is_never_said_while_any_evidence_is_missing(picks in proptest::collection::vec(any::<bool>(), 38)) {
        let mut facts = spotless();
        let spoilers = spoilers();
        prop_assert_eq!(spoilers.len(), picks.len());
        for (_, spoil) in spoilers.iter().zip(&picks).filter(|(_, picked)| **picked).map(|(s, _)| s) {
            spoil(&mut facts);
        }
        let verdict = judge(&facts, &[], None);
        prop_assert_eq!(verdict.is_free(), !picks.contains(&true));
        prop_assert_eq!(verdict.reasons().is_empty(), verdict.is_free());
    }
}
