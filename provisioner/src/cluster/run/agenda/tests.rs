use super::*;

fn key(name: &str) -> Key {
    Key::Case(name.to_owned())
}

#[test]
fn a_key_touched_while_busy_comes_again_when_it_is_done() {
    let (mut agenda, now) = (Agenda::default(), Instant::now());
    agenda.touch(key("a"));
    assert_eq!(agenda.next(), Some(key("a")));
    let job = agenda.begin(vec![key("a")], 2);
    agenda.touch(key("a"));
    assert_eq!(agenda.next(), None);
    assert!(!agenda.finish(job, false, now));
    assert_eq!(agenda.next(), None, "one action is still under way");
    assert!(agenda.finish(job, false, now));
    assert_eq!(agenda.next(), Some(key("a")));
}

#[test]
fn a_group_waits_for_the_member_that_is_busy() {
    let (mut agenda, now) = (Agenda::default(), Instant::now());
    let job = agenda.begin(vec![key("b")], 1);
    assert!(agenda.is_any_busy(&[key("a"), key("b")]));
    agenda.touch_after(key("a"), &[key("a"), key("b")]);
    assert_eq!(agenda.next(), None);
    agenda.finish(job, false, now);
    assert_eq!(agenda.next(), Some(key("a")));
    assert_eq!(agenda.busy(), 0);
}

#[test]
fn a_failure_waits_longer_each_time_and_forgets_after_success() {
    let (mut agenda, now) = (Agenda::default(), Instant::now());
    let mut waits = Vec::new();
    for _ in 0..12 {
        let job = agenda.begin(vec![key("a")], 1);
        agenda.finish(job, true, now);
        assert_eq!(agenda.next(), None);
        let at = agenda.next_wake().unwrap();
        waits.push(at - now);
        agenda.wake(at);
        assert_eq!(agenda.next(), Some(key("a")));
    }
    assert!(waits.is_sorted() && waits[0] == PAUSES.0 && waits[11] == PAUSES.1, "{waits:?}");
    let job = agenda.begin(vec![key("a")], 1);
    agenda.finish(job, false, now);
    let job = agenda.begin(vec![key("a")], 1);
    agenda.finish(job, true, now);
    assert_eq!(agenda.next_wake(), Some(now + PAUSES.0));
}

#[test]
fn an_earlier_wake_replaces_a_later_one() {
    let (mut agenda, now) = (Agenda::default(), Instant::now());
    let second = Duration::from_secs(1);
    agenda.wake_at(key("a"), now + second * 5);
    agenda.wake_at(key("a"), now + second);
    agenda.wake_at(key("a"), now + second * 9);
    assert_eq!(agenda.next_wake(), Some(now + second));
    agenda.wake(now + second);
    assert_eq!((agenda.next(), agenda.next_wake()), (Some(key("a")), None));
}
