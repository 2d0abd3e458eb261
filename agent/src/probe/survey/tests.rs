//! What a survey does with this very machine's disks, and how it words results.

use bedplate_blockdev::probe_io::EngineChoice;
use bedplate_core::media::Media;

use super::super::Progress;
use super::*;
use crate::discover::{Opened, Settings, discover};

#[test]
fn a_disk_that_may_not_be_opened_is_measured_through_a_folder_and_never_called_a_hard_disk_for_its_flag() {
    let test = "a_disk_that_may_not_be_opened_is_measured_through_a_folder_and_never_called_a_hard_disk_for_its_flag";
    let settings = Settings::default();
    let mut report = discover(&settings, &Opened).unwrap();
    let folder = tempfile::Builder::new().prefix("bedplate-survey-").tempdir_in("/var/tmp").unwrap();
    let Some(name) = beneath(&report, folder.path()) else {
        println!("SKIP {test}: /var/tmp stands on no disk that can be told");
        return;
    };
    let choice = Choice {
        disks: vec!["none".into()],
        folders: vec![folder.path().to_owned()],
        budget: ScratchBudget { bytes: 32 << 20, keep_free: 0, ..ScratchBudget::default() },
    };
    // Quiet neighbours, whatever else this machine does at the moment: the latency is what counts here.
    let sys = tempfile::tempdir_in("/var/tmp").unwrap();
    let block = sys.path().join("block").join(&name);
    std::fs::create_dir_all(&block).unwrap();
    std::fs::write(block.join("stat"), "0 0 0 0 0 0 0 0 0 0 0\n").unwrap();
    std::fs::write(block.join("inflight"), "0 0\n").unwrap();
    let roots = Roots { sys: sys.path().to_owned(), proc: sys.path().to_owned(), ..Roots::default() };
    let prober = Prober::new(roots.clone(), EngineChoice::Auto);
    let survey = survey(&mut report, &roots, &prober, &choice, 1, &mut |_: &Progress<'_>| {});
    let records = survey.records();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (records[0].disk.as_deref(), records[0].result),
        (Some(name.as_str()), "measured"),
        "{}",
        records[0].why
    );
    let disk = report.disks.iter().find(|d| d.facts.name == name).unwrap();
    let latency = disk.latency.expect("the scratch file's reads tell the disk's latency");
    assert!(latency.samples >= 30 && latency.zero_fraction < 0.5);
    if latency.p50_us < 1000 {
        assert_ne!(disk.classification.media, Media::Hdd, "{}", disk.classification.why);
    }
}

#[test]
fn a_refusal_says_what_was_tried_and_what_can_be_done_instead() {
    let refused = Outcome::Failed(ProbeIoError::Open {
        path: "/dev/vda".into(),
        source: std::io::Error::from_raw_os_error(nix::errno::Errno::EPERM as i32),
    });
    assert_eq!(
        refused.to_string(),
        "not measured: opening /dev/vda read-only for direct reads: Operation not permitted (os error 1); \
         a folder on it can be measured instead"
    );
    let busy = Outcome::Busy(Busy::Disk { inflight: 9, utilisation: 0.5 });
    assert_eq!(
        busy.to_string(),
        "not measured: it is busy for others (50 % of the time, 9 in flight); the last good figures stay"
    );
}

#[test]
fn only_real_disks_are_measured_unasked() {
    let disk = DiskFacts { name: "sda".into(), ..DiskFacts::default() };
    let looped = DiskFacts {
        name: "loop0".into(),
        device: Kind::Loop { backing: None, direct_io: None },
        ..DiskFacts::default()
    };
    assert!(chosen(&disk, &[]) && !chosen(&looped, &[]));
    assert!(chosen(&looped, &["loop0".into()]) && !chosen(&disk, &["loop0".into()]));
}
