use bedplate_api::placement::VolumeFacts;

use super::*;

fn objects() -> Objects {
    let mut objects = Objects::default();
    for (name, class) in
        [("ssd", StorageClass::Ours(Box::default())), ("bad", StorageClass::Refused), ("other", StorageClass::Other)]
    {
        objects.classes.insert(name.into(), class);
    }
    objects.volumes.insert("pv-ours".into(), Volume::Ours("n1".into()));
    objects.volumes.insert("pv-other".into(), Volume::Other);
    objects
}

fn claim(class: &str, volume: Option<&str>) -> Claim {
    Claim {
        uid: "u1".into(),
        storage: "1Gi".into(),
        class: class.into(),
        volume: volume.map(Into::into),
        ..Claim::default()
    }
}

fn ask(claim: Option<Claim>, fetched: &Fetched, ledger: &Ledger) -> Needs {
    let mut objects = objects();
    if let Some(claim) = claim {
        objects.claims.entry("d".into()).or_default().insert("c".into(), claim);
    }
    let pod: PodIn = serde_json::from_str(
        r#"{"metadata":{"name":"p","namespace":"d"},
        "spec":{"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"c"}},{"name":"e","emptyDir":{}}]}}"#,
    )
    .unwrap();
    needs(&pod, &objects, fetched, ledger)
}

fn alone(claim: Claim) -> Needs {
    ask(Some(claim), &Fetched::default(), &Ledger::default())
}

#[test]
fn a_claim_of_our_class_needs_room_and_one_of_another_nothing() {
    let Needs::Room(wanted) = alone(claim("ssd", None)) else { panic!("no room asked") };
    assert_eq!((wanted.pod.claims.len(), wanted.claims.len()), (1, 1));
    assert_eq!(alone(claim("other", None)), Needs::Nothing);
    assert_eq!(alone(claim("", None)), Needs::Nothing);
    assert_eq!(alone(claim("bad", None)), Needs::Refused(Reason::Refused));
    assert_eq!(alone(Claim { refused: true, ..claim("ssd", None) }), Needs::Refused(Reason::Refused));
    assert_eq!(alone(Claim { storage: "lots".into(), ..claim("ssd", None) }), Needs::Refused(Reason::Refused));
}

#[test]
fn a_bound_claim_only_fixes_the_node() {
    let Needs::Room(wanted) = alone(claim("ssd", Some("pv-ours"))) else { panic!("no node asked") };
    assert!(wanted.pod.claims.is_empty());
    assert_eq!(wanted.pod.fixed, ["n1".into()]);
    assert_eq!(alone(claim("ssd", Some("pv-other"))), Needs::Nothing);
    let bound_by_a_refused_class = alone(claim("bad", Some("pv-ours")));
    assert!(matches!(bound_by_a_refused_class, Needs::Room(_)), "a restart must not cost a quorum");
}

#[test]
fn a_volume_on_its_way_fixes_the_node_and_takes_no_room_twice() {
    let mut ledger = Ledger::default();
    ledger.apply_volume(&VolumeFacts {
        name: "pvc-u1-0".into(),
        claim: "u1".into(),
        node: "n7".into(),
        pool: "a".into(),
        bytes: 1,
        takes_room: true,
        serves: true,
    });
    let Needs::Room(wanted) = ask(Some(claim("ssd", None)), &Fetched::default(), &ledger) else { panic!() };
    assert!(wanted.pod.claims.is_empty());
    assert_eq!(wanted.pod.fixed, ["n7".into()]);
}

#[test]
fn what_is_not_known_is_asked_for_and_never_guessed() {
    let ledger = Ledger::default();
    let lacking = |key: Key| Needs::Lacking(vec![key]);
    let c = Key::Claim("d".into(), "c".into());
    assert_eq!(ask(None, &Fetched::default(), &ledger), lacking(c.clone()));
    assert_eq!(alone(claim("manual", None)), lacking(Key::Class("manual".into())));
    assert_eq!(alone(claim("ssd", Some("pv-new"))), lacking(Key::Volume("pv-new".into())));

    let absent = |key: &Key| Fetched { absent: [key.clone()].into(), ..Fetched::default() };
    assert_eq!(ask(None, &absent(&c), &ledger), Needs::Refused(Reason::NoClaim));
    let manual = absent(&Key::Class("manual".into()));
    assert_eq!(ask(Some(claim("manual", None)), &manual, &ledger), Needs::Nothing, "a class in name only");
    let ours = Claim { ours: true, ..claim("manual", None) };
    assert_eq!(ask(Some(ours), &manual, &ledger), Needs::Refused(Reason::NoClass));

    let mut fetched = Fetched::default();
    fetched.objects.claims.entry("d".into()).or_default().insert("c".into(), claim("ssd", None));
    assert!(matches!(ask(None, &fetched, &ledger), Needs::Room(_)), "what was fetched counts");
}
