use proptest::prelude::*;

use super::*;

fn parse(pairs: &[(&str, &str)]) -> Result<Class, BadParameter> {
    Class::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

#[test]
fn a_full_class_is_understood() {
    let class = parse(&[
        ("bedplate.dev/pool", "fast"),
        ("bedplate.dev/media", "ssd"),
        ("bedplate.dev/wipe", "clear"),
        ("bedplate.dev/verify", "full"),
        ("csi.storage.k8s.io/fstype", "xfs"),
        ("bedplate.dev/mkfs-options", "-i size=512 -m reflink=0"),
        ("csi.storage.k8s.io/pvc/name", "data-0"),
    ]);
    // `size` is a forbidden sub-option word for every flag.
    assert!(matches!(class, Err(BadParameter::Value { .. })));
    let class = parse(&[
        ("bedplate.dev/pool", "fast"),
        ("bedplate.dev/wipe", "clear"),
        ("csi.storage.k8s.io/fstype", "xfs"),
        ("bedplate.dev/mkfs-options", "-m reflink=0"),
        ("csi.storage.k8s.io/pvc/name", "data-0"),
    ])
    .unwrap();
    assert_eq!(class.wipe, Some(Level::Clear));
    assert_eq!(class.mkfs_options, ["-m", "reflink=0"]);
    assert_eq!(class.claim.name, "data-0");
}

#[test]
fn an_unknown_parameter_is_named_with_the_known_ones() {
    let error = parse(&[("bedplate.dev/pol", "x")]).unwrap_err().to_string();
    assert!(error.contains("\"bedplate.dev/pol\"") && error.contains("bedplate.dev/pool"), "{error}");
}

#[test]
fn a_bad_value_is_named_with_the_good_ones() {
    for (name, value, good) in [
        ("bedplate.dev/wipe", "purge", "crypto-erase"),
        ("bedplate.dev/media", "floppy", "nvme"),
        ("bedplate.dev/verify", "no", "sample"),
        ("csi.storage.k8s.io/fstype", "ntfs", "ext4"),
        ("bedplate.dev/pool", "../x", "pool name"),
    ] {
        let error = parse(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(value) && error.contains(good), "{error}");
    }
}

#[test]
fn mkfs_options_cannot_undo_a_promise_or_reach_the_host() {
    for options in [
        "-E discard",
        "-E nodiscard,discard",
        "-U random",
        "-F",
        "-d /etc",
        "-J device=/dev/sda",
        "-n",
        "-b",
        "-L $(id)",
    ] {
        assert!(parse(&[("bedplate.dev/mkfs-options", options)]).is_err(), "{options}");
    }
}

#[test]
fn an_xfs_log_cannot_be_sent_elsewhere_as_if_it_were_a_label() {
    for options in ["-l logdev=x", "-l file,name=vmlinuz,size=64m", "-d file,name=x", "-d name=x"] {
        let class = parse(&[("csi.storage.k8s.io/fstype", "xfs"), ("bedplate.dev/mkfs-options", options)]);
        assert!(class.is_err(), "{options}");
    }
    assert!(parse(&[("csi.storage.k8s.io/fstype", "xfs"), ("bedplate.dev/mkfs-options", "-L name")]).is_ok());
}

proptest! {
    #[test]
    fn no_option_text_panics_or_smuggles_a_path(text in ".{0,60}") {
        if let Ok(class) = parse(&[("bedplate.dev/mkfs-options", &text)]) {
            for word in class.mkfs_options {
                let has_slash = word.contains('/');
                prop_assert!(!has_slash);
            }
        }
    }
}
