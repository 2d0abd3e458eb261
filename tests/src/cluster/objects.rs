//! What the people in the stories write: claims, pods, sets of pods, pools. Pure.
//!
//! A pod's container is a process that writes its volume's markers, or, where they are already there, finds them whole or
//! ends with an error; then it stays.

use bedplate_api::DiskPool;
use bedplate_api::names;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use crate::oracle::Oracle;

/// Blocks with a marker that a pod writes into each of its volumes.
pub const BLOCKS: usize = 48;
/// What the file with the markers is called.
pub const DATA: &str = "data";
/// What the file is called that a busy pod appends to.
pub const TICKS: &str = "ticks";
/// What a container says of each of its volumes, with the marker behind it.
pub const WROTE: &str = "wrote";
/// The same of one that it found whole.
pub const FOUND: &str = "found";

/// Writes or checks each volume (mount, marker), says so, and stays. Only what every small image has is used.
const WORK: &str = r#"
set -eu
blocks=$1 busy=$2; shift 2
fill=$(head -c "$((4096 - 41))" /dev/zero | tr '\0' '\267')
content() { n=0; while [ "$n" -lt "$blocks" ]; do printf '%s%s' "$1" "$fill"; n=$((n + 1)); done; }
first=$1
while [ "$#" -gt 0 ]; do
    file=$1/data mark=$2; shift 2
    if [ -e "$file" ]; then
        content "$mark" | cmp - "$file" || { echo "LOST $mark in $file"; exit 3; }
        echo "found $mark"
    else
        content "$mark" | dd of="$file.new" bs=4096 conv=fsync 2>/dev/null
        mv "$file.new" "$file"
        sync "$first" 2>/dev/null || sync
        echo "wrote $mark"
    fi
done
if [ "$busy" = busy ]; then
    n=0
    while :; do n=$((n + 1)); echo "$n" >>"$first/ticks" || exit 4; sleep 0.05; done
fi
exec sleep 2147483647
"#;

/// A claim in the making.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its class.
    pub class: &'a str,
    /// Its size.
    pub mib: u64,
}

impl Claim<'_> {
    /// As an object.
    pub fn object(&self) -> PersistentVolumeClaim {
        let Self { name, class, mib } = self;
        parse(json!({
            "metadata": { "name": name, "labels": { "story": name } },
            "spec": claim_spec(class, *mib),
        }))
    }
}

fn claim_spec(class: &str, mib: u64) -> Value {
    json!({
        "storageClassName": class,
        "accessModes": ["ReadWriteOnce"],
        "resources": { "requests": { "storage": format!("{mib}Mi") } },
    })
}

/// A pod in the making.
#[derive(Clone, Debug, Default)]
pub struct Work<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its claims, and the number of each one's marker.
    pub claims: Vec<(&'a str, u32)>,
    /// The one node that it may run on.
    pub node: Option<&'a str>,
    /// Whether it goes on writing.
    pub busy: bool,
}

impl Work<'_> {
    /// As an object.
    pub fn object(&self, oracle: &Oracle, image: &str) -> Pod {
        let volume = |index| format!("v{index}");
        let volumes: Vec<Value> = self
            .claims
            .iter()
            .enumerate()
            .map(
                |(index, (claim, _))| json!({ "name": volume(index), "persistentVolumeClaim": { "claimName": claim } }),
            )
            .collect();
        let marks: Vec<u32> = self.claims.iter().map(|(_, mark)| *mark).collect();
        let selector = self.node.map(|node| json!({ "kubernetes.io/hostname": node }));
        parse(json!({
            "metadata": { "name": self.name, "labels": { "story": self.name } },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "nodeSelector": selector,
                "containers": [container(&marks, self.busy, oracle, image)],
                "volumes": volumes,
            },
        }))
    }
}

fn container(marks: &[u32], busy: bool, oracle: &Oracle, image: &str) -> Value {
    let mount = |index: usize| format!("/mnt/v{index}");
    let mut command: Vec<String> = ["/bin/sh", "-c", WORK, "work"].map(str::to_owned).to_vec();
    command.extend([BLOCKS.to_string(), if busy { "busy" } else { "calm" }.to_owned()]);
    for (index, mark) in marks.iter().enumerate() {
        command.extend([mount(index), oracle.marker(*mark)]);
    }
    let mounts: Vec<Value> =
        (0..marks.len()).map(|index| json!({ "name": format!("v{index}"), "mountPath": mount(index) })).collect();
    json!({ "name": "work", "image": image, "imagePullPolicy": "IfNotPresent", "command": command, "volumeMounts": mounts })
}

/// A StatefulSet whose members share a marker, with one claim a member.
pub fn stateful_set(
    name: &str,
    replicas: i32,
    class: &str,
    mib: u64,
    mark: u32,
    oracle: &Oracle,
    image: &str,
) -> StatefulSet {
    let labels = json!({ "story": name });
    parse(json!({
        "metadata": { "name": name },
        "spec": {
            "serviceName": name,
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "terminationGracePeriodSeconds": 1, "containers": [container(&[mark], false, oracle, image)] },
            },
            "volumeClaimTemplates": [{ "metadata": { "name": "v0" }, "spec": claim_spec(class, mib) }],
        },
    }))
}

/// The wish for an `image` pool in this folder of this node, made of SSDs by the operator's word.
pub fn disk_pool(name: &str, node: &str, directory: &str) -> DiskPool {
    parse(json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION), "kind": "DiskPool",
        "metadata": { "name": name },
        "spec": {
            "nodeSelector": { "matchLabels": { "kubernetes.io/hostname": node } },
            "backend": "image",
            "directory": directory,
            "media": "ssd",
            "reserve": "0",
        },
    }))
}

/// An object of a test's own making.
///
/// # Panics
/// It is not of its kind: the test is wrong.
#[expect(clippy::expect_used, reason = "the objects are written in this file and in tests")]
pub fn parse<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object of the test's own making is of its kind")
}
