//! Where volumes can be reached from: one key, this node's name.

use super::request::{BadField, bad};
use bedplate_core::ids::NodeName;
use bedplate_core::names::TOPOLOGY_NODE;
use bedplate_csi::v1::{Topology, TopologyRequirement};

/// This node, as a topology.
pub fn of(node: &NodeName) -> Topology {
    Topology { segments: [(TOPOLOGY_NODE.to_owned(), node.to_string())].into() }
}

/// Whether a volume on `node` meets `topology`. Keys other than ours are somebody else's promise, not ours to give.
pub fn matches(topology: &Topology, node: &NodeName) -> bool {
    !topology.segments.is_empty()
        && topology
            .segments
            .iter()
            .all(|(key, value)| key.eq_ignore_ascii_case(TOPOLOGY_NODE) && value == node.as_str())
}

/// Whether a volume on `node` meets the requirement: one of `requisite`, or, without those, anything (preferences are
/// wishes).
pub fn admits(required: Option<&TopologyRequirement>, node: &NodeName) -> Result<bool, BadField> {
    let Some(required) = required else { return Ok(true) };
    if required.requisite.is_empty() && required.preferred.is_empty() {
        return bad(
            "accessibility_requirements",
            "is empty; name a topology in requisite or preferred, or leave it out",
        );
    }
    Ok(required.requisite.is_empty() || required.requisite.iter().any(|one| matches(one, node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(pairs: &[(&str, &str)]) -> Topology {
        Topology { segments: pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect() }
    }

    #[test]
    fn only_requirements_that_name_this_node_admit_it() {
        let node: NodeName = "n1".parse().unwrap();
        let (here, there) = (topology(&[(TOPOLOGY_NODE, "n1")]), topology(&[(TOPOLOGY_NODE, "n2")]));
        let admits = |requisite: &[&Topology], preferred: &[&Topology]| {
            let own = |list: &[&Topology]| list.iter().map(|one| (*one).clone()).collect();
            let required = TopologyRequirement { requisite: own(requisite), preferred: own(preferred) };
            admits(Some(&required), &node)
        };
        assert_eq!(super::admits(None, &node), Ok(true));
        assert_eq!(admits(&[&there, &here], &[&here]), Ok(true));
        assert_eq!(admits(&[&there], &[]), Ok(false));
        assert_eq!(admits(&[], &[&there]), Ok(true), "a preference is a wish");
        assert_eq!(admits(&[&topology(&[(TOPOLOGY_NODE, "n1"), ("zone", "z")])], &[]), Ok(false));
        assert_eq!(admits(&[&topology(&[])], &[]), Ok(false));
        assert!(admits(&[], &[]).is_err());
        assert_eq!(of(&node), here);
    }
}
