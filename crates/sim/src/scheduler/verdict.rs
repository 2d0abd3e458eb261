//! What a cycle says about nodes that are out, and the sentence a pod gets from it (kube-scheduler's `FitError`, word by
//! word as 1.36 says it). Pure.

use std::collections::BTreeMap;

/// Why one node is out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Out {
    /// Fixed texts; they are counted by their exact wording.
    pub reasons: Vec<String>,
    /// Evicting other pods might help.
    pub evictable: bool,
}

impl Out {
    /// For good: no eviction changes it.
    pub fn for_good(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], evictable: false }
    }

    /// Only while other pods are there.
    pub fn for_now(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()], evictable: true }
    }
}

/// Why a pod fits nowhere.
#[derive(Debug, Default)]
pub(super) struct Misfit {
    /// Nodes in the cluster.
    pub nodes: usize,
    /// Said about the pod before any node was looked at.
    pub pod: Option<String>,
    /// Said about nodes.
    pub out: BTreeMap<String, Out>,
    /// An extender took part in it: any event may change its mind.
    pub by_extender: bool,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0/{} nodes are available:", self.nodes)?;
        let mut counts = BTreeMap::<&str, usize>::new();
        if let Some(text) = &self.pod {
            // The last words are what preemption says when no node was looked at.
            return write!(f, " {text}. not found");
        }
        for reason in self.out.values().flat_map(|out| &out.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        if let Some(text) = histogram(&counts) {
            write!(f, " {text}.")?;
        }
        let hopeful = self.out.values().filter(|out| out.evictable).count();
        let hopeless = self.nodes.saturating_sub(hopeful);
        let preemption = BTreeMap::from([
            ("No preemption victims found for incoming pod", hopeful),
            ("Preemption is not helpful for scheduling", hopeless),
        ]);
        let text = histogram(&preemption).unwrap_or_default();
        write!(f, " no new claims to deallocate, preemption: 0/{} nodes are available: {text}.", self.nodes)
    }
}

/// `count text` for each that occurs, sorted as texts.
fn histogram(counts: &BTreeMap<&str, usize>) -> Option<String> {
    let occurring = counts.iter().filter(|(_, count)| **count > 0);
    let mut lines: Vec<String> = occurring.map(|(text, count)| format!("{count} {text}")).collect();
    lines.sort();
    (!lines.is_empty()).then(|| lines.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_by_text_and_sorted_as_text() {
        let mut misfit = Misfit { nodes: 14, ..Misfit::default() };
        for node in 0..12 {
            misfit.out.insert(format!("a{node}"), Out::for_good("node(s) did not have enough free storage"));
        }
        misfit.out.insert("b".into(), Out::for_now("Insufficient cpu"));
        misfit.out.insert("c".into(), Out { reasons: Vec::new(), evictable: false });
        assert_eq!(
            misfit.to_string(),
            "0/14 nodes are available: 1 Insufficient cpu, 12 node(s) did not have enough free storage. no new \
             claims to deallocate, preemption: 0/14 nodes are available: 1 No preemption victims found for incoming pod, 13 Preemption is not helpful \
             for scheduling."
        );
    }

    #[test]
    fn what_is_said_about_the_pod_stands_alone() {
        let pod = Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
        let misfit = Misfit { nodes: 2, pod, ..Misfit::default() };
        let text = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found";
        assert_eq!(misfit.to_string(), text);
    }
}
