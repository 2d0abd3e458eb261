use std::borrow::Cow;

use bedplate_core::placement::Reason;
use serde_json::{Value, json};

use super::*;

fn read(body: &str) -> Result<Vec<String>, Malformed> {
    let arguments = Arguments::read(body.as_bytes())?;
    arguments.pod()?;
    Ok(arguments.nodes.nodes()?.names.into_iter().map(Cow::into_owned).collect())
}

#[test]
fn a_request_is_read_as_the_scheduler_writes_it() {
    let body = r#"{"Pod":{"metadata":{"name":"p","namespace":"d","uid":"u","resourceVersion":"7","creationTimestamp":null},
        "spec":{"volumes":[{"name":"a","persistentVolumeClaim":{"claimName":"c"}},
        {"name":"b","ephemeral":{"volumeClaimTemplate":{"metadata":{"creationTimestamp":null},"spec":{}}}},
        {"name":"e","emptyDir":{}}],"containers":null},
        "status":{"conditions":[{"type":"PodScheduled","status":"False","lastProbeTime":null,"message":"m"}]}},
        "Nodes":null,"NodeNames":["n1","n2"]}"#;
    let arguments = Arguments::read(body.as_bytes()).unwrap();
    let pod = arguments.pod().unwrap();
    assert_eq!((pod.name(), pod.namespace(), pod.uid(), pod.version()), ("p", "d", "u", "7"));
    let sources: Vec<Source> = pod.sources().collect();
    assert_eq!(sources, [Source::Claim("c".into()), Source::Claim("p-b".into()), Source::Other]);
    assert_eq!(pod.unscheduled().unwrap().message.as_deref(), Some("m"));
    assert_eq!(read(body).unwrap(), ["n1", "n2"]);
}

#[test]
fn names_are_read_alike_with_and_without_escapes() {
    for (names, expected) in [
        (r"[]", Some(vec![])),
        (r#"[ "a" , "b"]"#, Some(vec!["a", "b"])),
        (r#"["a\u0062","c"]"#, Some(vec!["ab", "c"])),
        (r#"["[a]"]"#, Some(vec!["[a]"])),
        (r#"["a",]"#, None),
        (r#"["a" "b"]"#, None),
        (r#"["a"]]"#, None),
        (r#"["a"],"Nodes":null,"NodeNames":["b"]"#, None),
        (r"[1]", None),
        (r#"["a",1]"#, None),
        (r#"["a",null,"b"]"#, None),
        (r#"{"a":"b"}"#, None),
        (r#""a""#, None),
    ] {
        let expected: Option<Vec<String>> = expected.map(|names| names.into_iter().map(ToOwned::to_owned).collect());
        for between in ["", r#""Nodes":null,"#] {
            let found = read(&format!(r#"{{"Pod":{{}},{between}"NodeNames":{names}}}"#)).ok();
            assert_eq!(found, expected, "{between} {names}");
        }
    }
}

#[test]
fn malformed_requests_are_told_apart() {
    assert!(matches!(read(""), Err(Malformed::Json(_))));
    assert!(matches!(read(r#"{"Pod":{},"NodeNames":["a""#), Err(Malformed::Json(_))));
    assert!(matches!(read("[]"), Err(Malformed::NoPod | Malformed::Json(_))));
    assert!(matches!(read(r#"{"Pod":null,"NodeNames":[]}"#), Err(Malformed::NoPod)));
    assert!(matches!(read(r#"{"Pod":3,"NodeNames":[]}"#), Err(Malformed::Json(_))));
    assert!(matches!(read(r#"{"Pod":{},"NodeNames":null,"Nodes":null}"#), Err(Malformed::NoNodes)));
    assert!(matches!(read(r#"{"Pod":{},"NodeNames":[],"Nodes":{"items":[]}}"#), Err(Malformed::BothForms)));
    assert!(matches!(read(r#"{"pod":{},"nodenames":[]}"#), Err(Malformed::NoPod)), "requests are PascalCase");
}

#[test]
fn whole_nodes_come_back_as_they_went() {
    let body = r#"{"Pod":{},"NodeNames":null,"Nodes":{"metadata":{},"items":[
        {"metadata":{"name":"n1","labels":{"a":"\u00e9"}},"spec":{}},{"metadata":{"name":"n2"}}]}}"#;
    let arguments = Arguments::read(body.as_bytes()).unwrap();
    let echoed = echo(&arguments.nodes);
    let nodes = arguments.nodes.nodes().unwrap();
    let answer: Value = serde_json::from_slice(&filtered(&nodes, &[0], &vec![(1, Reason::NoRoom)])).unwrap();
    assert_eq!(answer["Nodes"]["items"], json!([{ "metadata": { "name": "n1", "labels": { "a": "é" } }, "spec": {} }]));
    assert_eq!(answer["NodeNames"], Value::Null);
    assert_eq!(answer["FailedAndUnresolvableNodes"], json!({ "n2": Reason::NoRoom.text() }));
    let echoed: Value = serde_json::from_slice(&echoed).unwrap();
    assert_eq!(echoed["Nodes"]["items"].as_array().unwrap().len(), 2);
}

#[test]
fn every_key_of_an_answer_is_there() {
    let arguments = Arguments::read(br#"{"Pod":{},"NodeNames":["a","b\"c"]}"#).unwrap();
    let echoed = echo(&arguments.nodes);
    let nodes = arguments.nodes.nodes().unwrap();
    for answer in [echoed, filtered(&nodes, &[0], &vec![(1, Reason::Media)]), filtered(&nodes, &[], &vec![])] {
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["Error", "FailedAndUnresolvableNodes", "FailedNodes", "NodeNames", "Nodes"]);
        assert!(answer["NodeNames"].is_array() && answer["Nodes"].is_null() && answer["Error"] == "");
    }
    let given: Value =
        serde_json::from_slice(&scores([(&"a".into(), 10), (&"b\"c".to_owned().into(), 3)].into_iter())).unwrap();
    assert_eq!(given, json!([{ "Host": "a", "Score": 10 }, { "Host": "b\"c", "Score": 3 }]));
    assert_eq!(no_scores(), b"[]");
}

#[test]
fn names_within_the_pod_are_never_taken_for_the_requests() {
    let text = r#","Nodes":null,"NodeNames":["evil"]}"#;
    let quoted = serde_json::to_string(text).unwrap();
    for (pod, names) in [
        (format!(r#"{{"metadata":{{"name":{quoted}}}}}"#), r#"["good"]"#),
        (r#"{"x":{"Pod":1,"Nodes":null,"NodeNames":["evil"]}}"#.to_owned(), r#"["good"]"#),
    ] {
        let body = format!(r#"{{"Pod":{pod},"Nodes":null,"NodeNames":{names}}}"#);
        assert_eq!(read(&body).unwrap(), ["good"], "{body}");
        let nested = format!(r#"{{"NodeNames":{names},"Pod":{pod}}}"#);
        assert_eq!(read(&nested).unwrap(), ["good"], "{nested}");
    }
    assert!(read(r#"{"Pod":{},"NodeNames":["a"],"Nodes":null,"NodeNames":["b"]}"#).is_err(), "named twice");
}
