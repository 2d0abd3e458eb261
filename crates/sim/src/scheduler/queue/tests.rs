#![allow(clippy::needless_pass_by_value)] // json!() makes values

use super::*;
use serde_json::json;

fn pod(name: &str, more: serde_json::Value) -> Arc<Pod> {
    let mut pod = json!({ "metadata": { "name": name, "uid": name }, "spec": { "containers": [] } });
    json_patch::merge(&mut pod, &more);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn next(queue: &mut Queue, now: Instant) -> Option<String> {
    queue.pop(now).map(|pod| pod.name_any())
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn higher_priority_goes_first_then_the_longest_waiting() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.offer(pod("late", json!({})), now + SECOND);
    queue.offer(pod("early", json!({})), now);
    queue.offer(pod("high", json!({ "spec": { "priority": 7 } })), now + SECOND);
    let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now + SECOND)).collect();
    assert_eq!(order, ["high", "early", "late"]);
}

#[test]
fn a_rejected_pod_sleeps_until_a_built_in_object_changes() {
    let (mut queue, start) = (Queue::new(Patience::default()), Instant::now());
    queue.offer(pod("a", json!({})), start);
    assert_eq!(next(&mut queue, start).as_deref(), Some("a"));
    assert_eq!(next(&mut queue, start), None, "it is away");
    queue.rejected("a", true, start);
    assert_eq!(next(&mut queue, start + SECOND * 299), None, "nothing happened: it sleeps");
    queue.wake_all(start);
    assert_eq!(next(&mut queue, start).as_deref(), Some("a"), "an idle scheduler does not hold it back");
    queue.rejected("a", true, start);
    assert_eq!(next(&mut queue, start + SECOND * 300).as_deref(), Some("a"), "it does not sleep for ever");
}

#[test]
fn a_woken_pod_that_is_still_held_back_lets_all_others_go_first() {
    let (mut queue, now) = (Queue::new(Patience::default()), Instant::now());
    queue.offer(pod("woken", json!({ "spec": { "priority": 9 } })), now);
    assert!(queue.pop(now).is_some());
    queue.rejected("woken", false, now);
    queue.wake_all(now);
    queue.offer(pod("new", json!({})), now);
    let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now)).collect();
    assert_eq!(order, ["new", "woken"]);
}

#[test]
fn after_an_error_the_backoff_doubles_up_to_its_limit_and_is_kept() {
    let (mut queue, mut now) = (Queue::new(Patience::default()), Instant::now());
    queue.offer(pod("a", json!({})), now);
    for backoff in [1, 2, 4, 8, 10, 10] {
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        queue.failed("a", now);
        queue.wake_all(now);
        assert_eq!(next(&mut queue, now + SECOND * (backoff - 1) + Duration::from_millis(999)), None);
        now += SECOND * backoff;
    }
    assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
}

#[test]
fn a_change_during_the_attempt_is_not_missed() {
    let (mut queue, now) = (Queue::new(Patience::default()), Instant::now());
    queue.offer(pod("a", json!({})), now);
    assert!(queue.pop(now).is_some());
    queue.wake_all(now);
    queue.rejected("a", false, now);
    assert_eq!(next(&mut queue, now + SECOND).as_deref(), Some("a"));
}

#[test]
fn its_own_new_condition_wakes_a_pod_only_if_an_extender_rejected_it() {
    let condition = json!({ "status": { "conditions": [{ "type": "PodScheduled", "status": "False" }] } });
    for (by_extender, woken) in [(true, true), (false, false)] {
        let (mut queue, now) = (Queue::new(Patience::default()), Instant::now());
        queue.offer(pod("a", json!({})), now);
        assert!(queue.pop(now).is_some());
        queue.rejected("a", by_extender, now);
        queue.offer(pod("a", condition.clone()), now);
        assert_eq!(queue.pop(now + SECOND).is_some(), woken, "rejected by an extender: {by_extender}");
    }
    let (mut queue, now) = (Queue::new(Patience::default()), Instant::now());
    queue.offer(pod("a", json!({})), now);
    assert!(queue.pop(now).is_some());
    queue.rejected("a", false, now);
    queue.offer(pod("a", json!({ "metadata": { "labels": { "b": "c" } } })), now);
    assert!(queue.pop(now + SECOND).is_some(), "a change of the pod itself always wakes it");
}

#[test]
fn an_error_is_retried_after_backoff_and_a_settled_pod_is_forgotten() {
    let (mut queue, now) = (Queue::new(Patience::default()), Instant::now());
    queue.offer(pod("a", json!({})), now);
    assert!(queue.pop(now).is_some());
    queue.failed("a", now);
    assert_eq!(queue.next(), Some(now + SECOND));
    queue.forget("a");
    assert_eq!((queue.next(), next(&mut queue, now + SECOND * 2)), (None, None));
}
