//! Which nodes a cycle looks at: not all of them in a large cluster, and not always the same (kube-scheduler's
//! `numFeasibleNodesToFind` and its moving start). This happens before the extender is asked. Pure.

/// Fewer nodes than this are never sampled.
const AT_LEAST: usize = 100;

/// How many feasible nodes end the search: `50 − nodes/125` percent, at least 5 percent and [`AT_LEAST`] nodes.
pub(super) fn enough(nodes: usize, percentage: Option<usize>) -> usize {
    let percent = percentage.unwrap_or_else(|| 50_usize.saturating_sub(nodes / 125).max(5));
    if nodes < AT_LEAST || percent >= 100 { nodes } else { (nodes * percent / 100).max(AT_LEAST) }
}

/// Looks at `nodes` nodes round robin from `start` until `wanted` are feasible. Returns the feasible ones in the order
/// found and how many were looked at.
pub(super) fn search(
    nodes: usize,
    start: usize,
    wanted: usize,
    mut feasible: impl FnMut(usize) -> bool,
) -> (Vec<usize>, usize) {
    let mut found = Vec::new();
    let mut seen = 0;
    while seen < nodes && found.len() < wanted {
        let at = (start + seen) % nodes;
        if feasible(at) {
            found.push(at);
        }
        seen += 1;
    }
    (found, seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_the_real_schedulers() {
        let known = [(99, 99), (100, 100), (250, 120), (1000, 420), (5000, 500), (6000, 300), (15_000, 750)];
        for (nodes, wanted) in known {
            assert_eq!(enough(nodes, None), wanted, "{nodes} nodes");
        }
        assert_eq!(enough(5000, Some(100)), 5000);
        assert_eq!(enough(5000, Some(1)), 100);
    }

    #[test]
    fn the_search_goes_round_and_stops_when_it_has_enough() {
        assert_eq!(search(5, 3, 3, |_| true), (vec![3, 4, 0], 3));
        assert_eq!(search(5, 3, 3, |node| node != 4), (vec![3, 0, 1], 4));
        assert_eq!(search(5, 1, 5, |node| node == 0), (vec![0], 5));
        assert_eq!(search(0, 0, 5, |_| true), (vec![], 0));
    }
}
