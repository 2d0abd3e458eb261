//! Why each pod went where it did: every decision judged again by the function that extender and admission call, on the
//! room as it was then, and shown node by node.
//!
//! Reads objects, decides nothing. What was chosen must be among what this allows: the demo checks that too.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use bedplate_api::local_volume::VolumeMode;
use bedplate_api::placement::{Ledger, NodeFacts, demand};
use bedplate_api::{LocalVolume, StorageNode};
use bedplate_core::bytes::Bytes;
use bedplate_core::class::Class;
use bedplate_core::placement::{ClaimDemand, Detail, Explanation, PodDemand, PoolView, explain};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use serde::Serialize;

/// Why a node that the disks allow is not free for a member of a group.
const APART: &str = "another member is there (required anti-affinity)";

/// Where a pod went, or that it went nowhere, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// The pod, as namespace/name.
    pub pod: String,
    /// Its claims, as namespace/name.
    pub claims: Vec<String>,
    /// The node, unless it is pending.
    pub node: Option<String>,
    /// The pool there.
    pub pool: Option<String>,
    /// What its disk is made of.
    pub media: Option<String>,
    /// Node by node, why or why not.
    pub reasons: Vec<String>,
    /// The same as columns: node, verdict, room.
    #[serde(skip)]
    pub rows: Vec<[String; 3]>,
    /// How many nodes were turned down, by the reason.
    pub rejected: BTreeMap<String, u32>,
}

/// What is known of every node's room.
pub struct Board {
    ledger: Ledger,
    classes: BTreeMap<String, Class>,
    /// Nodes in the order in which they are shown.
    nodes: Vec<String>,
    /// Where the members of a group are: (group, member, node).
    members: Vec<(String, String, String)>,
}

/// Where a pod's volumes are.
pub struct Chosen<'a> {
    /// Its node.
    pub node: &'a str,
    /// Its volumes.
    pub volumes: &'a [LocalVolume],
}

/// Who asks.
pub struct Asking<'a> {
    /// The pod, as namespace/name.
    pub pod: &'a str,
    /// The group that it keeps apart from, if any.
    pub group: Option<&'a str>,
    /// Its claims.
    pub claims: &'a [PersistentVolumeClaim],
}

impl Board {
    /// As the nodes' agents say.
    pub fn of(nodes: &[StorageNode], classes: &[StorageClass]) -> anyhow::Result<Self> {
        let mut ledger = Ledger::default();
        for node in nodes {
            ledger.apply_node(NodeFacts::from(node));
        }
        let parse = |class: &StorageClass| {
            let name = class.name_any();
            let parsed = Class::parse(&class.parameters.clone().unwrap_or_default());
            parsed.with_context(|| format!("StorageClass {name}")).map(|parsed| (name, parsed))
        };
        Ok(Self {
            ledger,
            classes: classes.iter().map(parse).collect::<anyhow::Result<_>>()?,
            nodes: nodes.iter().map(ResourceExt::name_any).collect(),
            members: Vec::new(),
        })
    }

    /// Judge every node for a pod, note where it went, and take that room.
    ///
    /// # Errors
    /// It went where it should not be, or nowhere although it fits somewhere.
    pub fn decide(&mut self, asking: &Asking<'_>, chosen: Option<&Chosen<'_>>) -> anyhow::Result<Placement> {
        let demand = PodDemand { claims: self.demands(asking.claims)?, fixed: Vec::new() };
        let told: Vec<Explanation> =
            self.nodes.iter().map(|node| explain(node, self.ledger.node(node), &demand, &[])).collect();
        let best =
            |node: &str| told.iter().find(|told| *told.node == *node).and_then(|told| told.verdict.as_ref().ok());
        let best = chosen.and_then(|chosen| best(chosen.node)).map(|(_, score)| *score);
        let mut placement = Placement { pod: asking.pod.to_owned(), ..Placement::default() };
        placement.claims = asking.claims.iter().map(title).collect();
        let mut fit = Vec::new();
        for told in &told {
            let node = &*told.node;
            let member = self.members.iter().find(|(group, _, at)| Some(group.as_str()) == asking.group && at == node);
            let (word, rejected) = match (&told.verdict, member) {
                // What the scheduler itself looks at first.
                (_, Some((_, member, _))) => (format!("no: {member} is there, members stay apart"), Some(APART)),
                (Ok((_, score)), None) => {
                    fit.push(node);
                    let word = match best {
                        _ if chosen.is_some_and(|chosen| chosen.node == node) => "chosen",
                        Some(best) if best > *score => "less good",
                        Some(best) if best < *score => "better, but the scheduler weighs more than disks",
                        _ => "as good",
                    };
                    (format!("fits, score {score} of 10: {word}"), None)
                }
                (Err(reason), None) => {
                    let text = reason.text().trim_start_matches("bedplate: ");
                    (format!("no: {text}"), Some(text))
                }
            };
            if let Some(reason) = rejected {
                *placement.rejected.entry(reason.to_owned()).or_default() += 1;
            }
            let room = room(told);
            placement.reasons.push(format!("{node}: {word} ({room})"));
            placement.rows.push([node.to_owned(), word, room]);
        }
        let pod = asking.pod;
        match chosen {
            None => ensure!(fit.is_empty(), "pod {pod} is pending although it fits on {}", fit.join(", ")),
            Some(Chosen { node, volumes }) => {
                let list = placement.reasons.join("; ");
                ensure!(fit.contains(node), "pod {pod} went to {node}, where it should not be: {list}");
                placement.node = Some((*node).to_owned());
                self.take(&mut placement, asking, volumes);
            }
        }
        Ok(placement)
    }

    fn take(&mut self, placement: &mut Placement, asking: &Asking<'_>, volumes: &[LocalVolume]) {
        for volume in volumes {
            let node = self.ledger.node(&volume.spec.node_name);
            let pool = node.and_then(|node| node.pools.iter().find(|pool| *pool.name == *volume.spec.pool));
            placement.pool = Some(volume.spec.pool.clone());
            placement.media = pool.map(|pool| pool.media.to_string());
            if let Some(group) = asking.group {
                let member = asking.pod.rsplit('/').next().unwrap_or_default().to_owned();
                self.members.push((group.to_owned(), member, volume.spec.node_name.clone()));
            }
            self.ledger.apply_volume(&volume.into());
        }
    }

    fn demands(&self, claims: &[PersistentVolumeClaim]) -> anyhow::Result<Vec<ClaimDemand>> {
        let one = |claim: &PersistentVolumeClaim| {
            let (name, spec) = (claim.name_any(), claim.spec.clone().unwrap_or_default());
            let class = spec.storage_class_name.unwrap_or_default();
            let class = self.classes.get(&class).with_context(|| format!("there is no StorageClass {class}"))?;
            let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
            let storage = requests.get("storage").map(|quantity| quantity.0.clone()).unwrap_or_default();
            demand(&name, &storage, VolumeMode::Filesystem, class).with_context(|| format!("claim {name}"))
        };
        claims.iter().map(one).collect()
    }
}

/// A claim's name for people.
pub fn title(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{}", claim.namespace().unwrap_or_default(), claim.name_any())
}

/// What its pools have.
fn room(told: &Explanation) -> String {
    let pools = told.claims.first().map_or(&[][..], |claim| &claim.pools);
    let one = |pool: &PoolView| {
        let Detail { pool, media, free, promised, .. } = &pool.detail;
        format!("{pool}: {media}, {} left", Bytes(free.saturating_sub(*promised)))
    };
    pools.iter().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::demo::manifests;

    const MIB: i64 = 1 << 20;

    fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn node(name: &str, media: &str) -> StorageNode {
        typed(json!({
            "apiVersion": "bedplate.dev/v1alpha1", "kind": "StorageNode", "metadata": { "name": name }, "spec": {},
            "status": {
                "ledgerID": "l", "filesystems": ["ext4"],
                "pools": [{
                    "name": format!("pool-{name}"), "backend": "image", "media": media, "level": "clear",
                    "capacity": 560 * MIB, "free": 560 * MIB, "largestVolume": 560 * MIB
                }]
            }
        }))
    }

    fn volume(claim: &str, node: &str) -> LocalVolume {
        typed(json!({
            "apiVersion": "bedplate.dev/v1alpha1", "kind": "LocalVolume", "metadata": { "name": format!("pvc-{claim}-0") },
            "spec": {
                "nodeName": node, "ledgerID": "l", "pool": format!("pool-{node}"), "bytes": 320 * MIB,
                "mode": "Filesystem", "className": "ssd", "claimUID": claim,
                "claim": { "namespace": "shop", "name": claim }
            }
        }))
    }

    fn board() -> Board {
        let nodes = [node("a", "ssd"), node("b", "nvme"), node("c", "hdd")];
        Board::of(&nodes, &manifests::classes().unwrap()).unwrap()
    }

    fn claim(name: &str, class: &str, mib: u64) -> PersistentVolumeClaim {
        manifests::claim(name, class, Bytes(mib << 20)).unwrap()
    }

    #[test]
    fn a_decision_has_a_reason_for_every_node_and_takes_its_room() {
        let mut board = board();
        let (first, second) = ([claim("one", "ssd", 320)], [claim("two", "ssd", 320)]);
        let asking = Asking { pod: "shop/orders-0", group: Some("orders"), claims: &first };
        let told = board.decide(&asking, Some(&Chosen { node: "a", volumes: &[volume("one", "a")] })).unwrap();
        assert_eq!((told.node.as_deref(), told.media.as_deref(), told.reasons.len()), (Some("a"), Some("ssd"), 3));
        assert!(told.reasons[0].ends_with("chosen (pool-a: ssd, 560 MiB left)"), "{told:?}");
        assert!(told.reasons[1].contains("less good"), "{told:?}");
        assert_eq!(told.rejected, BTreeMap::from([("no pool on the medium asked for".to_owned(), 1)]));

        let asking = Asking { pod: "shop/orders-1", group: Some("orders"), claims: &second };
        let error = board.decide(&asking, Some(&Chosen { node: "a", volumes: &[] })).unwrap_err().to_string();
        assert!(error.contains("where it should not be") && error.contains("orders-0 is there"), "{error}");
        let told = board.decide(&asking, Some(&Chosen { node: "b", volumes: &[volume("two", "b")] })).unwrap();
        assert_eq!(told.rejected.get(APART), Some(&1), "{told:?}");

        let both = [claim("x", "ssd", 160), claim("y", "ssd", 160)];
        let told = board.decide(&Asking { pod: "shop/w", group: None, claims: &both }, None).unwrap();
        assert_eq!(told.rejected.get("the pod's claims do not fit together"), Some(&2), "{told:?}");
        let error = board.decide(&Asking { pod: "shop/w", group: None, claims: &both[..1] }, None).unwrap_err();
        assert!(error.to_string().contains("is pending although it fits on a, b"), "{error}");
    }
}
