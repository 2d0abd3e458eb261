//! Evidence in order; unknown beats a guess.

use proptest::prelude::*;

use super::*;
use crate::disk::{RotationReport, RotationSource};

fn disk(transport: Transport, rotational: Option<bool>) -> DiskFacts {
    DiskFacts { transport, rotational, ..DiskFacts::default() }
}

fn model(mut facts: DiskFacts, vendor: Option<&str>, model: &str) -> DiskFacts {
    facts.vendor = vendor.map(str::to_owned);
    facts.model = Some(model.to_owned());
    facts
}

fn says(mut facts: DiskFacts, rotation: Rotation) -> DiskFacts {
    facts.rotation = Some(RotationReport { rotation, source: RotationSource::ScsiVpdB1 });
    facts
}

fn took(p50_us: u64) -> MeasuredLatency {
    MeasuredLatency { p50_us, samples: 500, zero_fraction: 0.0 }
}

fn of(facts: &DiskFacts, latency: Option<MeasuredLatency>) -> Classification {
    classify(&Evidence { facts, machine: &MachineIdentity::default(), operator: None, latency })
}

fn on_ec2(facts: &DiskFacts, product: &str, latency: Option<MeasuredLatency>) -> Classification {
    let machine =
        MachineIdentity { vendor: Some("Amazon EC2".into()), product: Some(product.into()), hypervisor: None };
    classify(&Evidence { facts, machine: &machine, operator: None, latency })
}

#[test]
fn a_virtio_disk_that_claims_to_turn_and_answers_in_36_us_is_an_ssd_and_unmeasured_it_is_unknown() {
    let vda = disk(Transport::Virtio, Some(true));
    let unmeasured = of(&vda, None);
    assert_eq!(
        (unmeasured.media, unmeasured.source, unmeasured.confidence),
        (Media::Unknown, Source::None, Confidence::Low)
    );
    assert!(unmeasured.why.contains("rotational=1 proves nothing on virtio disks"), "{}", unmeasured.why);
    let measured = of(&vda, Some(took(36)));
    assert_eq!(
        (measured.media, measured.source, measured.confidence),
        (Media::Ssd, Source::Latency, Confidence::Medium)
    );
}

#[test]
fn mostly_zero_blocks_lower_the_confidence_because_trimmed_space_is_quick_anyway() {
    let zeroes = Some(MeasuredLatency { p50_us: 36, samples: 500, zero_fraction: 0.9 });
    let found = of(&disk(Transport::Virtio, Some(true)), zeroes);
    assert_eq!((found.media, found.confidence), (Media::Ssd, Confidence::Low));
}

#[test]
fn a_handful_of_reads_decides_nothing() {
    let few = Some(MeasuredLatency { p50_us: 36, samples: 5, zero_fraction: 0.0 });
    assert_eq!(of(&disk(Transport::Virtio, Some(true)), few).media, Media::Unknown);
}

#[test]
fn ebs_hides_its_medium_however_it_answers_and_whatever_the_flag_says() {
    let ebs = model(disk(Transport::Nvme, Some(false)), None, "Amazon Elastic Block Store              ");
    for measured in [None, Some(took(600)), Some(took(9000))] {
        let found = on_ec2(&ebs, "m5.large", measured);
        assert_eq!((found.media, found.source, found.locality), (Media::Unknown, Source::Identity, Locality::Network));
    }
}

#[test]
fn the_instance_store_is_nvme_except_where_amazon_builds_it_of_hard_disks() {
    let store = model(disk(Transport::Nvme, Some(false)), None, "Amazon EC2 NVMe Instance Storage");
    assert_eq!(on_ec2(&store, "i4i.large", None).media, Media::Nvme);
    assert_eq!(on_ec2(&store, "d3.2xlarge", None).media, Media::Unknown);
    assert_eq!(on_ec2(&store, "d3.2xlarge", Some(took(8000))).media, Media::Hdd);
    assert_eq!(of(&store, None).media, Media::Unknown, "without DMI nobody knows the instance type");
}

#[test]
fn google_numbers_its_local_disks_and_sells_network_disks_under_nearly_the_same_name() {
    let nvme = |name| of(&model(disk(Transport::Nvme, Some(false)), None, name), None);
    for local in ["nvme_card", "nvme_card0", "nvme_card15"] {
        assert_eq!((nvme(local).media, nvme(local).source), (Media::Nvme, Source::Identity), "{local}");
    }
    assert_eq!((nvme("nvme_card-pd").media, nvme("nvme_card-pd").locality), (Media::Unknown, Locality::Network));
    let scsi = model(disk(Transport::Virtio, Some(true)), Some("Google"), "PersistentDisk");
    assert_eq!(of(&scsi, None).locality, Locality::Network);
}

#[test]
fn a_raid_logical_drive_is_unknown_until_measured_or_until_it_answers_itself() {
    let perc = model(disk(Transport::Raid, Some(true)), Some("DELL"), "PERC H730P Mini");
    assert_eq!(of(&perc, None).media, Media::Unknown);
    assert_eq!(
        (of(&perc, Some(took(120))).media, of(&perc, Some(took(120))).confidence),
        (Media::Ssd, Confidence::Medium)
    );
    assert_eq!(
        (of(&perc, Some(took(8000))).media, of(&perc, Some(took(8000))).confidence),
        (Media::Hdd, Confidence::Low)
    );
    let answers = of(&says(perc, Rotation::Solid), None);
    assert_eq!(
        (answers.media, answers.source, answers.confidence),
        (Media::Ssd, Source::DeviceData, Confidence::Medium)
    );
}

#[test]
fn the_devices_own_answer_beats_latency_unless_it_is_impossible() {
    let sata = disk(Transport::Sata, Some(true));
    let hdd = of(&says(sata.clone(), Rotation::Rpm(7200)), Some(took(9000)));
    assert_eq!((hdd.media, hdd.source, hdd.confidence), (Media::Hdd, Source::DeviceData, Confidence::High));
    let liar = of(&says(sata.clone(), Rotation::Rpm(7200)), Some(took(80)));
    assert_eq!(liar.media, Media::Unknown);
    assert!(liar.why.contains("one of the two is wrong"), "{}", liar.why);
    let silent = of(&says(sata, Rotation::NotReported), None);
    assert_eq!(silent.media, Media::Unknown, "the kernel takes silence for turning: {}", silent.why);
}

#[test]
fn the_kernels_flag_counts_only_where_the_kernel_asked_a_real_device() {
    let by = |transport, flag| of(&disk(transport, Some(flag)), None);
    assert_eq!(by(Transport::Sata, false).media, Media::Ssd);
    assert_eq!((by(Transport::Sata, true).media, by(Transport::Sata, true).source), (Media::Hdd, Source::Rotational));
    for transport in [
        Transport::Virtio,
        Transport::Raid,
        Transport::Vmware,
        Transport::HyperV,
        Transport::Xen,
        Transport::Usb,
        Transport::Loop,
        Transport::Iscsi,
        Transport::Scsi,
        Transport::Unknown,
    ] {
        assert_eq!(by(transport, true).media, Media::Unknown, "{transport} true");
        assert_eq!(by(transport, false).media, Media::Unknown, "{transport} false");
    }
}

#[test]
fn optical_drives_loops_and_made_up_devices_are_of_no_medium_however_fast() {
    for device in [Kind::Drive, Kind::Loop { backing: None, direct_io: None }, Kind::Virtual] {
        let facts = DiskFacts { device, ..disk(Transport::Sata, Some(false)) };
        assert_eq!(of(&facts, Some(took(60))).media, Media::Unknown);
    }
}

#[test]
fn a_virtual_nvme_disk_is_not_taken_for_real_flash() {
    let qemu = model(disk(Transport::Nvme, Some(false)), None, "QEMU NVMe Ctrl");
    assert_eq!(of(&qemu, None).media, Media::Unknown);
    assert_eq!(of(&qemu, Some(took(90))).media, Media::Ssd);
}

#[test]
fn a_stacked_device_is_what_all_disks_beneath_it_are() {
    let ssd = Classification { media: Media::Ssd, confidence: Confidence::High, ..Classification::default() };
    let weaker = Classification { media: Media::Ssd, confidence: Confidence::Medium, ..Classification::default() };
    let hdd = Classification { media: Media::Hdd, ..Classification::default() };
    let both = inherit(&[&ssd, &weaker]);
    assert_eq!((both.media, both.source, both.confidence), (Media::Ssd, Source::Inherited, Confidence::Medium));
    assert_eq!(inherit(&[&ssd, &hdd]).media, Media::Unknown);
    assert_eq!(inherit(&[]).media, Media::Unknown);
}

#[test]
fn media_are_read_as_they_are_written() {
    for media in [Media::Nvme, Media::Ssd, Media::Hdd, Media::Unknown] {
        assert_eq!(media.as_str().parse(), Ok(media));
    }
    assert_eq!(
        "SSD".parse::<Media>().unwrap_err().to_string(),
        "\"SSD\" is not a medium: write nvme, ssd, hdd or unknown"
    );
}

fn any_facts() -> impl Strategy<Value = DiskFacts> {
    let transport = prop::sample::select(vec![
        Transport::Nvme,
        Transport::NvmeFabrics,
        Transport::Sata,
        Transport::Sas,
        Transport::Raid,
        Transport::Scsi,
        Transport::Usb,
        Transport::Mmc,
        Transport::Virtio,
        Transport::Xen,
        Transport::HyperV,
        Transport::Vmware,
        Transport::Iscsi,
        Transport::FibreChannel,
        Transport::NetworkBlock,
        Transport::Loop,
        Transport::Pmem,
        Transport::Unknown,
    ]);
    let models = prop::sample::select(vec![
        None,
        Some("Amazon Elastic Block Store"),
        Some("Amazon EC2 NVMe Instance Storage"),
        Some("QEMU HARDDISK"),
        Some("PERC H740P"),
        Some("Samsung SSD 980"),
        Some("nvme_card"),
    ]);
    let rotation = prop::option::of((0u16..=0xffff).prop_filter_map("reserved", Rotation::from_code));
    (transport, any::<Option<bool>>(), models, rotation).prop_map(|(transport, rotational, model, rotation)| {
        DiskFacts {
            transport,
            rotational,
            model: model.map(str::to_owned),
            rotation: rotation.map(|rotation| RotationReport { rotation, source: RotationSource::AtaWord217 }),
            ..DiskFacts::default()
        }
    })
}

fn any_latency() -> impl Strategy<Value = Option<MeasuredLatency>> {
    prop::option::of((1u64..40_000, 1u32..2000, 0.0..=1.0f64))
        .prop_map(|l| l.map(|(p50_us, samples, zero_fraction)| MeasuredLatency { p50_us, samples, zero_fraction }))
}

proptest! {
    #[test]
    fn nothing_that_answers_in_less_than_a_millisecond_is_ever_called_a_hard_disk(
        facts in any_facts(), p50_us in 1u64..NEVER_HDD_BELOW_US, samples in 1u32..2000, zero_fraction in 0.0..=1.0f64,
    ) {
        let found = of(&facts, Some(MeasuredLatency { p50_us, samples, zero_fraction }));
        prop_assert_ne!(found.media, Media::Hdd, "{}", found.why);
    }

    #[test]
    fn the_operator_always_wins(
        facts in any_facts(), latency in any_latency(),
        media in prop::sample::select(vec![Media::Nvme, Media::Ssd, Media::Hdd]),
    ) {
        let machine = MachineIdentity::default();
        let found = classify(&Evidence { facts: &facts, machine: &machine, operator: Some(media), latency });
        prop_assert_eq!((found.media, found.source, found.confidence), (media, Source::Operator, Confidence::High));
    }

    #[test]
    fn every_answer_has_a_reason_and_unknown_is_never_sure(facts in any_facts(), latency in any_latency()) {
        let found = of(&facts, latency);
        prop_assert!(!found.why.is_empty());
        if found.media == Media::Unknown {
            prop_assert_eq!(found.confidence, Confidence::Low);
        } else {
            prop_assert_ne!(found.source, Source::None);
        }
    }
}
