//! What `deploy/` says is held against the code: names, parameters, flags and fields that only agree by hand would drift.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use bedplate_api::names;
use bedplate_core::class::{Class, MediaDemand};
use bedplate_core::filesystem::FsType;
use bedplate_tests::manifests::{Document, files, kustomization, read, unknown_fields};
use bedplate_tests::programs::program;
use serde_json::{Value, json};

const BASE: &str = "kustomize/base";

fn base() -> Vec<Document> {
    kustomization(Path::new(BASE)).unwrap().0
}

fn of_kind<'a>(documents: &'a [Document], kind: &str) -> Vec<&'a Document> {
    documents.iter().filter(|d| d.kind() == kind).collect()
}

fn one<'a>(documents: &'a [Document], kind: &str, name: &str) -> &'a Value {
    let found: Vec<_> = of_kind(documents, kind).into_iter().filter(|d| d.name() == name).collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    &found[0].value
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Every pod template of some documents, with its owner's name.
fn pods(documents: &[Document]) -> Vec<(&str, &Value)> {
    documents
        .iter()
        .filter(|d| matches!(d.kind(), "DaemonSet" | "Deployment" | "StatefulSet"))
        .map(|d| (d.name(), &d.value["spec"]["template"]["spec"]))
        .collect()
}

#[test]
fn every_file_is_reached_and_every_resource_is_there() {
    for dir in [BASE, "kustomize/components/extender-service"] {
        let (documents, seen) = kustomization(Path::new(dir)).unwrap();
        assert!(!documents.is_empty());
        let all: BTreeSet<_> = files(Path::new(dir)).unwrap().into_iter().collect();
        assert_eq!(seen, all, "files of {dir} that no kustomization names, or the reverse");
    }
    let (documents, _) = kustomization(Path::new(BASE)).unwrap();
    let mut names = BTreeSet::new();
    for document in &documents {
        assert!(names.insert((document.kind().to_owned(), document.name().to_owned())), "twice: {document:?}");
    }
}

#[test]
fn every_field_is_one_that_the_api_has() {
    let mut checked = 0;
    for file in files(Path::new("")).unwrap() {
        for document in read(&file).unwrap() {
            if matches!(document.kind(), "Kustomization" | "Component" | "KubeSchedulerConfiguration") {
                continue;
            }
            let unknown = unknown_fields(&document.value).unwrap_or_else(|e| panic!("{}: {e:#}", file.display()));
            assert_eq!(unknown, Vec::<String>::new(), "{}: {}", file.display(), document.name());
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked} documents");
    // The control: a typo is found, wherever it stands.
    let mut agent = one(&base(), "DaemonSet", "bedplate-agent").clone();
    agent["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]["mountPropagtion"] = json!("Bidirectional");
    let typo = unknown_fields(&agent).unwrap();
    assert_eq!(typo, ["DaemonSet.spec.template.spec.containers[0].volumeMounts[0].mountPropagtion"]);
}

#[test]
fn names_are_the_codes_own() {
    let base = base();
    one(&base, "CSIDriver", names::DRIVER);
    one(&base, "CSIStorageCapacity", names::WAKE_OBJECT);
    for class in of_kind(&base, "StorageClass") {
        assert_eq!(class.value["provisioner"], names::DRIVER);
    }
    let wake = one(&base, "Role", "bedplate-extender");
    assert_eq!(strings(&wake["rules"][0]["resourceNames"]), [names::WAKE_OBJECT]);
    // Policies name labels and fields inside of text.
    let labels = one(&base, "ValidatingAdmissionPolicy", "agent-labels.bedplate.dev").to_string();
    assert!(labels.contains(&format!("startsWith('{}')", names::LABEL_PREFIX)), "{labels}");
    let has = |crd: &str, field: &str| {
        let crd = one(&base, "CustomResourceDefinition", &format!("{crd}.{}", names::GROUP));
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        assert!(schema[field].is_object(), "{field} is no field of {crd}");
    };
    has("localvolumes", "nodeName");
    has("localvolumes", "release");
    has("wipereceipts", "node");
    for policy in of_kind(&base, "ValidatingAdmissionPolicy") {
        let binding = one(&base, "ValidatingAdmissionPolicyBinding", policy.name());
        assert_eq!(binding["spec"]["policyName"], policy.name());
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
        assert_eq!(policy.value["spec"]["failurePolicy"], "Fail");
        // The account that the condition is about exists.
        let condition = policy.value["spec"]["matchConditions"][0]["expression"].as_str().unwrap();
        let account = condition.rsplit(':').next().unwrap().trim_end_matches('\'');
        one(&base, "ServiceAccount", account);
    }
}

#[test]
fn the_version_is_the_workspaces() {
    let own = read(&Path::new(BASE).join("kustomization.yaml")).unwrap();
    assert_eq!(own[0].value["images"], json!([{ "name": "bedplate", "newTag": env!("CARGO_PKG_VERSION") }]));
    let tag = format!("bedplate:{}", env!("CARGO_PKG_VERSION"));
    let second = read(Path::new("scheduler/second-scheduler.yaml")).unwrap();
    let images: Vec<_> = pods(&second).iter().map(|(_, pod)| pod["containers"][1]["image"].clone()).collect();
    assert_eq!(images, [json!(tag)]);
}

#[test]
fn storage_classes_are_understood() {
    let expected = BTreeMap::from([
        ("hdd", (MediaDemand::Hdd, FsType::Ext4)),
        ("nvme", (MediaDemand::Nvme, FsType::Ext4)),
        ("ssd", (MediaDemand::Ssd, FsType::Ext4)),
        ("ssd-xfs", (MediaDemand::Ssd, FsType::Xfs)),
    ]);
    let base = base();
    let classes = of_kind(&base, "StorageClass");
    assert_eq!(classes.len(), expected.len());
    for class in classes {
        let parameters: BTreeMap<String, String> = serde_json::from_value(class.value["parameters"].clone()).unwrap();
        let parsed = Class::parse(&parameters).unwrap();
        assert_eq!((parsed.media, parsed.fs_type), {
            let (media, fs) = expected[class.name()];
            (Some(media), Some(fs))
        });
        assert_eq!(class.value["volumeBindingMode"], "WaitForFirstConsumer");
        assert_eq!(class.value["reclaimPolicy"], "Delete");
        assert_eq!(class.value["allowVolumeExpansion"], false);
    }
}

#[test]
fn the_driver_is_declared_as_it_behaves() {
    let base = base();
    let spec = &one(&base, "CSIDriver", names::DRIVER)["spec"];
    assert_eq!(spec["attachRequired"], false);
    assert_eq!(spec["storageCapacity"], true);
    assert_eq!(spec["fsGroupPolicy"], "File");
    assert_eq!(spec["volumeLifecycleModes"], json!(["Persistent"]));
}

#[test]
fn the_agent_is_one_container_that_sees_the_host_where_the_host_is() {
    let base = base();
    let pod = &one(&base, "DaemonSet", "bedplate-agent")["spec"]["template"]["spec"];
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
    assert!(pod["initContainers"].is_null());
    assert_eq!(pod["hostPID"], true);
    assert!(pod["hostNetwork"].is_null());
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["privileged"], true);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let mut seen = BTreeMap::new();
    for mount in container["volumeMounts"].as_array().unwrap() {
        let volume = pod["volumes"].as_array().unwrap().iter().find(|v| v["name"] == mount["name"]).unwrap();
        if let Some(path) = volume["hostPath"]["path"].as_str() {
            assert_eq!(mount["mountPath"], path, "the kubelet and the agent name paths to each other");
            seen.insert(path, mount["mountPropagation"].as_str());
        }
    }
    let expected = BTreeMap::from([
        ("/dev", None),
        ("/run/udev", Some("HostToContainer")),
        ("/sys", None),
        ("/var/lib/bedplate", Some("HostToContainer")),
        ("/var/lib/kubelet", Some("Bidirectional")),
    ]);
    assert_eq!(seen, expected);
    let root = container["env"].as_array().unwrap().iter().find(|e| e["name"] == "KUBELET_ROOT").unwrap();
    assert_eq!(root["value"], "/var/lib/kubelet");
}

#[test]
fn nothing_else_has_any_privilege() {
    let mut documents = base();
    documents.extend(kustomization(Path::new("kustomize/components/extender-service")).unwrap().0);
    for file in ["scheduler/second-scheduler.yaml", "examples/raft-statefulset.yaml"] {
        documents.extend(read(Path::new(file)).unwrap());
    }
    let mut checked = 0;
    for (name, pod) in pods(&documents).into_iter().filter(|(name, _)| *name != "bedplate-agent") {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["runAsUser"], 65532, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert!(pod["hostPID"].is_null() && pod["hostIPC"].is_null(), "{name}");
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            assert!(volume["hostPath"].is_null(), "{name}");
        }
        for container in pod["containers"].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{name}");
            assert!(context["privileged"].is_null(), "{name}");
        }
        // The extender is where its scheduler is; then it listens on the loopback alone.
        if pod["hostNetwork"] == true {
            assert_eq!(name, "bedplate-extender");
            assert_eq!(strings(&pod["containers"][0]["args"]), ["--listen=127.0.0.1:9817"]);
        }
        checked += 1;
    }
    assert_eq!(checked, 5);
}

/// Who may do what, written down a second time: a change of a role has to be meant.
#[test]
fn roles_give_what_is_used_and_no_more() {
    let look = "get list watch";
    let expected = [
        ("bedplate-agent", "bedplate.dev/diskpools", look),
        ("bedplate-agent", "bedplate.dev/diskpools/status", "patch update"),
        ("bedplate-agent", "bedplate.dev/localvolumes", look),
        ("bedplate-agent", "bedplate.dev/localvolumes/status", "patch update"),
        ("bedplate-agent", "bedplate.dev/storagenodes", "create get list patch watch"),
        ("bedplate-agent", "bedplate.dev/storagenodes/status", "patch update"),
        ("bedplate-agent", "bedplate.dev/wipereceipts", "create delete list"),
        ("bedplate-agent", "events.k8s.io/events", "create patch"),
        ("bedplate-agent", "nodes", "get list patch watch"),
        ("bedplate-extender", "bedplate.dev/localvolumes", look),
        ("bedplate-extender", "bedplate.dev/storagenodes", look),
        ("bedplate-extender", "persistentvolumeclaims", look),
        ("bedplate-extender", "persistentvolumes", look),
        ("bedplate-extender", "pods", look),
        ("bedplate-extender", "storage.k8s.io/csistoragecapacities", "get patch"),
        ("bedplate-extender", "storage.k8s.io/storageclasses", look),
        ("bedplate-provisioner", "bedplate.dev/localvolumes", "create delete get list patch update watch"),
        ("bedplate-provisioner", "bedplate.dev/storagenodes", look),
        ("bedplate-provisioner", "bedplate.dev/wipereceipts", "list"),
        ("bedplate-provisioner", "coordination.k8s.io/leases", "create get update"),
        ("bedplate-provisioner", "events.k8s.io/events", "create patch"),
        ("bedplate-provisioner", "nodes", look),
        ("bedplate-provisioner", "persistentvolumeclaims", "get list patch update watch"),
        ("bedplate-provisioner", "persistentvolumes", "create delete get list patch update watch"),
        ("bedplate-provisioner", "pods", look),
        ("bedplate-provisioner", "storage.k8s.io/csinodes", look),
        ("bedplate-provisioner", "storage.k8s.io/csistoragecapacities", "create delete get list patch update watch"),
        ("bedplate-provisioner", "storage.k8s.io/storageclasses", look),
    ];
    let base = base();
    let mut given = BTreeSet::new();
    for role in base.iter().filter(|d| matches!(d.kind(), "Role" | "ClusterRole")) {
        // Each role is bound to the account of its own name, and to no other.
        let binding = one(&base, &format!("{}Binding", role.kind()), role.name());
        assert_eq!(binding["roleRef"]["name"], role.name());
        assert_eq!(
            binding["subjects"],
            json!([{ "kind": "ServiceAccount", "name": role.name(), "namespace": "bedplate-system" }])
        );
        for rule in role.value["rules"].as_array().unwrap() {
            let mut verbs = strings(&rule["verbs"]);
            verbs.sort_unstable();
            for group in strings(&rule["apiGroups"]) {
                for resource in strings(&rule["resources"]) {
                    let resource = if group.is_empty() { resource.to_owned() } else { format!("{group}/{resource}") };
                    given.insert((role.name().to_owned(), resource, verbs.join(" ")));
                }
            }
        }
    }
    let expected: BTreeSet<_> =
        expected.map(|(role, what, verbs)| (role.to_owned(), what.to_owned(), verbs.to_owned())).into();
    assert_eq!(given, expected);
}

#[test]
fn the_scheduler_asks_the_extender_as_it_wants_to_be_asked() {
    let second = read(Path::new("scheduler/second-scheduler.yaml")).unwrap();
    let embedded = one(&second, "ConfigMap", "bedplate-scheduler")["data"]["config.yaml"].as_str().unwrap().to_owned();
    let mut configurations: Vec<(String, Value)> =
        vec![("second-scheduler".into(), serde_saphyr::from_str(&embedded).unwrap())];
    for name in ["kubeadm", "kubeadm-tls", "k3s"] {
        let documents = read(Path::new(&format!("scheduler/{name}.yaml"))).unwrap();
        configurations.push((name.into(), documents[0].value.clone()));
    }
    for (name, configuration) in configurations {
        assert_eq!(configuration["apiVersion"], "kubescheduler.config.k8s.io/v1", "{name}");
        assert_eq!(configuration["kind"], "KubeSchedulerConfiguration", "{name}");
        let mut extender = configuration["extenders"][0].clone();
        let url = extender["urlPrefix"].take();
        let tls = extender["tlsConfig"].take();
        let https = extender["enableHTTPS"].take();
        let expected = json!({
            "urlPrefix": null, "tlsConfig": null, "enableHTTPS": null,
            "filterVerb": "filter", "prioritizeVerb": "prioritize", "weight": 5,
            "nodeCacheCapable": true, "ignorable": true, "httpTimeout": "500ms",
        });
        // Neither managedResources, which would look at requests and never at claims, nor a verb that is not served.
        let strip = |mut v: Value| {
            v.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            v
        };
        assert_eq!(strip(extender), strip(expected), "{name}");
        if https == true {
            // Without a CA the scheduler would silently check nothing.
            assert!(url.as_str().unwrap().starts_with("https://"), "{name}");
            assert!(tls["caFile"].is_string() && tls["insecure"] == false, "{name}");
        } else {
            assert_eq!(url, "http://127.0.0.1:9817", "{name}");
            assert!(tls.is_null(), "{name}");
        }
    }
    // The address of the Service is the one that the scheduler is told.
    let service = read(Path::new("kustomize/components/extender-service/service.yaml")).unwrap();
    let address = service[0].value["spec"]["clusterIP"].as_str().unwrap();
    let tls = read(Path::new("scheduler/kubeadm-tls.yaml")).unwrap();
    assert_eq!(tls[0].value["extenders"][0]["urlPrefix"], format!("https://{address}"));
}

/// Each program is asked for its flags; one that a manifest names and a program lacks would only show in a crash loop.
#[test]
fn every_flag_is_one_that_the_program_has() {
    let mut documents = base();
    documents.extend(kustomization(Path::new("kustomize/components/extender-service")).unwrap().0);
    documents.extend(read(Path::new("scheduler/second-scheduler.yaml")).unwrap());
    let mut asked = BTreeSet::new();
    for (_, pod) in pods(&documents) {
        for container in pod["containers"].as_array().unwrap() {
            let Some(name) = strings(&container["command"])[0].strip_prefix("/usr/bin/") else { continue };
            let help = Command::new(program(name).unwrap()).arg("--help").output().unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            let known: BTreeSet<&str> = help.split_whitespace().filter(|word| word.starts_with("--")).collect();
            for argument in strings(&container["args"]) {
                let flag = argument.split('=').next().unwrap();
                assert!(known.contains(flag), "{name} has no {flag}; it has {known:?}");
            }
            asked.insert(name.to_owned());
        }
    }
    let expected = ["bedplate-agent", "bedplate-extender", "bedplate-provisioner"].map(str::to_owned);
    assert_eq!(asked, BTreeSet::from(expected));
}

#[test]
fn kubelet_roots_move_as_a_whole() {
    for component in ["microk8s", "k0s"] {
        let path = Path::new("kustomize/components").join(component).join("kustomization.yaml");
        let documents = read(&path).unwrap();
        let patch = documents[0].value["patches"][0]["patch"].as_str().unwrap();
        let steps: Vec<Value> = serde_saphyr::from_str(patch).unwrap();
        let agent = one(&base(), "DaemonSet", "bedplate-agent").clone();
        let mut roots = BTreeSet::new();
        for step in &steps {
            let at = agent.pointer(step["path"].as_str().unwrap()).unwrap_or_else(|| panic!("{component}: {step}"));
            match step["op"].as_str().unwrap() {
                "test" => assert_eq!(*at, step["value"], "{component}"),
                "replace" => {
                    assert_eq!(*at, "/var/lib/kubelet", "{component}: {step}");
                    roots.insert(step["value"].as_str().unwrap().to_owned());
                }
                other => panic!("{component}: {other}"),
            }
        }
        assert_eq!((steps.len(), roots.len()), (6, 1), "{component}");
    }
}
