use std::convert::Infallible;
use std::future::{pending, ready};
use std::io;

use futures::stream::{once, pending as nothing};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::advance;

use super::*;

/// Longer than anything may take here.
const FOR_EVER: Duration = Duration::from_hours(1);

type Chunks = BoxStream<'static, io::Result<Frame<Bytes>>>;

/// An API server that answers one request after the other like this (`None`: not even with a head) and none after them;
/// and what it was asked. No socket: the clock, which stands still while there is work, would outrun it.
fn server(answers: impl IntoIterator<Item = Option<Chunks>>) -> (Api<ConfigMap>, UnboundedReceiver<String>) {
    let mut answers: VecDeque<Option<Chunks>> = answers.into_iter().collect();
    let (heard, asked) = unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        // Not every test wants to know.
        let _ = heard.send(request.uri().to_string());
        let answer = answers.pop_front().flatten();
        async move {
            match answer {
                Some(chunks) => Ok::<_, Infallible>(Response::new(StreamBody::new(chunks))),
                None => pending().await,
            }
        }
    });
    (Api::all(Client::new(service, "default")), asked)
}

fn line(text: &Value) -> Chunks {
    let text = Bytes::from(format!("{text}\n"));
    once(ready(Ok(Frame::data(text)))).boxed()
}

fn list(version: &str, token: &str) -> Chunks {
    line(&json!({
        "apiVersion": "v1", "kind": "ConfigMapList", "items": [],
        "metadata": {"resourceVersion": version, "continue": token},
    }))
}

fn change(version: &str) -> Chunks {
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": version}});
    line(&json!({"type": "MODIFIED", "object": object}))
}

/// Ends so long after it began to be read.
fn end(after: Duration) -> Chunks {
    once(async move { sleep(after).await }).filter_map(|()| ready(None)).boxed()
}

/// Is cut then, as by a proxy that goes away.
fn cut(after: Duration) -> Chunks {
    once(async move { sleep(after).await }).map(|()| Err(io::ErrorKind::UnexpectedEof.into())).boxed()
}

/// After so many steps that go well, the next one is given up as silent: how long that took.
async fn silence(well: usize, answers: impl IntoIterator<Item = Option<Chunks>>) -> Duration {
    let mut following = Following::new(server(answers).0, Selection::default());
    for _ in 0..well {
        timeout(FOR_EVER, following.step()).await.unwrap().unwrap();
    }
    let began = Instant::now();
    let step = timeout(FOR_EVER, following.step()).await.expect("it waits for ever");
    assert!(matches!(step, Err(Interrupted::Silent)), "{step:?}");
    began.elapsed()
}

/// The request after the list of version 5 and the watch that gets these.
async fn third(watch: Chunks) -> String {
    let (api, mut asked) = server([Some(list("5", "")), Some(watch)]);
    let follower = tokio::spawn(follow(api, Selection::default()).for_each(|_| ready(())));
    let mut requests = Vec::new();
    while requests.len() < 3 {
        requests.push(timeout(FOR_EVER, asked.recv()).await.expect("nothing is asked any more").unwrap());
    }
    follower.abort();
    assert!(!watches(&requests[0]) && watches(&requests[1]), "{requests:?}");
    assert!(requests[1].contains("resourceVersion=5"), "{requests:?}");
    requests.remove(2)
}

fn watches(request: &str) -> bool {
    request.contains("watch=true")
}

/// Timers go by the millisecond.
#[track_caller]
fn took(time: Duration, expected: Duration) {
    assert!((expected..expected + Duration::from_secs(1)).contains(&time), "{time:?} instead of {expected:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_not_answered_is_given_up() {
    took(silence(0, [None]).await, ANSWER);
    took(silence(0, [Some(nothing().boxed())]).await, ANSWER);
    took(silence(1, [Some(list("5", "more")), None]).await, ANSWER);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_begin_is_given_up() {
    took(silence(1, [Some(list("5", "")), None]).await, ANSWER);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_is_given_up_once_its_time_is_over() {
    let whole = Duration::from_secs(SECONDS.into()) + LATE;
    took(silence(1, [Some(list("5", "")), Some(nothing().boxed())]).await, whole);
    let two = change("6").chain(change("7")).chain(nothing()).boxed();
    took(silence(3, [Some(list("5", "")), Some(two)]).await, whole);
}

#[tokio::test(start_paused = true)]
async fn after_a_silence_all_is_listed_again() {
    let stream = change("6").chain(nothing()).boxed();
    let (api, _asked) = server([Some(list("5", "")), Some(stream), Some(list("9", ""))]);
    let events = follow(api, Selection::default()).take(5).collect::<Vec<_>>();
    let events = timeout(FOR_EVER, events).await.expect("it waits for ever");
    let told = matches!(
        &events[..],
        [Event::Init, Event::InitDone, Event::Apply(object), Event::Init, Event::InitDone]
            if object.resource_version().as_deref() == Some("6")
    );
    assert!(told, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_before_its_time_ends_in_a_list() {
    for after in [0, 100] {
        let request = third(change("6").chain(end(Duration::from_secs(after))).boxed()).await;
        assert!(!watches(&request), "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lived_its_whole_time_is_gone_on_with_from_its_last_version() {
    let whole = Duration::from_secs(SECONDS.into());
    for last in [end(whole), cut(whole), end(whole + LATE / 2)] {
        let request = third(change("6").chain(last).boxed()).await;
        assert!(watches(&request) && request.contains("resourceVersion=6"), "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_seen_long_after_it_came_is_not_taken_for_one_in_time() {
    let mut following = Following::new(server([Some(list("5", "")), Some(change("6"))]).0, Selection::default());
    for _ in 0..2 {
        following.step().await.unwrap();
    }
    // Whoever follows is held up, and the API server may have come back from a backup meanwhile.
    advance(FOR_EVER).await;
    let step = following.step().await;
    assert!(matches!(step, Err(Interrupted::Late)), "{step:?}");
}
