//! A watch that never ends: a list, then every change, and a list again wherever a change may have been missed.
//!
//! A version that is too old (410), an API server that went away, a kind that is not there: all end in a new list. So
//! does a stream that ends before its time, because an API server that comes back from a backup has nothing to say to a
//! watch of a later version. Only a stream that lived nearly its whole time (four fifths) is gone on with, and was seen to end
//! then: whoever is held up longer cannot tell. Failures are waited out and logged once each. An empty list is passed on as it is, and
//! judged by whoever asked.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::Duration;

use bedplate_core::chain::chain;
use futures::StreamExt;
use futures::stream::BoxStream;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// The shortest pause after a failure.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest: an API server that is back is noticed within it.
const LONGEST: Duration = Duration::from_secs(5);
/// How long the API server is asked to keep a stream, in seconds.
const SECONDS: u32 = 280;
/// How much longer a stream may last: a connection whose other end is gone without a word says nothing for ever.
const LATE: Duration = Duration::from_secs(15);
/// How long a page of a list, or the beginning of a stream, may take.
const ANSWER: Duration = Duration::from_mins(1);

/// Which objects, and how many at once.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Field selector; empty for none.
    pub fields: String,
    /// Label selector; empty for none.
    pub labels: String,
}

/// Objects a page of a list: what is held unreduced at once.
const PAGE: u32 = 250;

impl Selection {
    /// By fields.
    #[must_use]
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: selector.into(), ..Self::default() }
    }

    /// By labels.
    #[must_use]
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: selector.into(), ..Self::default() }
    }
}

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Where a watch is.
enum Place<K> {
    /// Before a list.
    Nowhere,
    /// Within one: where its next page begins.
    Listing(String),
    /// After the version, with or without a stream.
    After { version: String, events: Option<Events<K>>, began: Instant },
}

struct Following<K> {
    kind: String,
    api: Api<K>,
    selection: Selection,
    place: Place<K>,
    ready: VecDeque<Event<K>>,
    pause: Duration,
    /// The last failure, so that each is said once.
    said: String,
}

/// Why a watch begins anew.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("the API server cannot be asked")]
    Client(#[source] kube::Error),
    #[error("the API server ended the watch: {0}")]
    Told(String),
    #[error("the stream ended before its time")]
    Early,
    #[error("the stream's end was seen too late to tell when it was")]
    Late,
    #[error("the API server does not answer")]
    Silent,
}

/// Follow the objects of a kind for ever.
pub fn follow<K>(api: Api<K>, selection: Selection) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    futures::stream::unfold(Following::new(api, selection), |mut following| async move {
        let event = following.next().await;
        Some((event, following))
    })
    .boxed()
}

impl<K> Following<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn new(api: Api<K>, selection: Selection) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            api,
            selection,
            place: Place::Nowhere,
            ready: VecDeque::new(),
            pause: SHORTEST,
            said: String::new(),
        }
    }

    async fn next(&mut self) -> Event<K> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            if let Err(error) = self.step().await {
                self.place = Place::Nowhere;
                let said = chain(&error);
                if said != self.said {
                    tracing::warn!(kind = self.kind, error = said, "watch interrupted, it begins anew");
                    self.said = said;
                }
                // Spread, so that a thousand agents do not come back at one moment.
                sleep(self.pause.mul_f64(rand::random_range(0.5..1.0))).await;
                self.pause = (self.pause * 2).min(LONGEST);
            }
        }
    }

    async fn step(&mut self) -> Result<(), Interrupted> {
        match &mut self.place {
            Place::Nowhere => {
                self.page(None).await?;
                Ok(())
            }
            Place::Listing(token) => {
                let token = std::mem::take(token);
                self.page(Some(token)).await
            }
            Place::After { version, events, began } => {
                if events.is_none() {
                    let params = WatchParams {
                        label_selector: some(&self.selection.labels),
                        field_selector: some(&self.selection.fields),
                        ..WatchParams::default().timeout(SECONDS)
                    };
                    *began = Instant::now();
                    let stream = timeout(ANSWER, self.api.watch(&params, version)).await;
                    let stream = stream.map_err(|_| Interrupted::Silent)?.map_err(Interrupted::Client)?;
                    *events = Some(stream.boxed());
                }
                let asked = Duration::from_secs(SECONDS.into());
                let heard = match events {
                    Some(stream) => {
                        let end = *began + asked + LATE;
                        timeout_at(end, stream.next()).await.map_err(|_| Interrupted::Silent)?
                    }
                    None => None,
                };
                let Some(heard) = heard else {
                    // What is there already is taken also after the time is over: it may have come long before.
                    match began.elapsed() {
                        lived if lived < asked * 4 / 5 => return Err(Interrupted::Early),
                        lived if lived > asked + LATE => return Err(Interrupted::Late),
                        _ => {}
                    }
                    *events = None;
                    self.said.clear();
                    self.pause = SHORTEST;
                    return Ok(());
                };
                let event = match heard.map_err(Interrupted::Client)? {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        remember(version, object.resource_version());
                        Some(Event::Apply(object))
                    }
                    WatchEvent::Deleted(object) => {
                        remember(version, object.resource_version());
                        Some(Event::Delete(object))
                    }
                    WatchEvent::Bookmark(bookmark) => {
                        *version = bookmark.metadata.resource_version;
                        None
                    }
                    WatchEvent::Error(status) => return Err(Interrupted::Told(status.message)),
                };
                self.ready.extend(event);
                self.said.clear();
                self.pause = SHORTEST;
                Ok(())
            }
        }
    }

    /// The next page of a list; the first one begins it, the last one ends it.
    async fn page(&mut self, token: Option<String>) -> Result<(), Interrupted> {
        let params = ListParams {
            label_selector: some(&self.selection.labels),
            field_selector: some(&self.selection.fields),
            limit: Some(PAGE),
            continue_token: token.clone(),
            ..ListParams::default()
        };
        let page = timeout(ANSWER, self.api.list(&params)).await;
        let page = page.map_err(|_| Interrupted::Silent)?.map_err(Interrupted::Client)?;
        if token.is_none() {
            self.ready.push_back(Event::Init);
        }
        self.ready.extend(page.items.into_iter().map(Event::InitApply));
        self.place = if let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) {
            Place::Listing(token)
        } else {
            self.ready.push_back(Event::InitDone);
            let version = page.metadata.resource_version.unwrap_or_default();
            Place::After { version, events: None, began: Instant::now() }
        };
        Ok(())
    }
}

fn some(selector: &str) -> Option<String> {
    (!selector.is_empty()).then(|| selector.to_owned())
}

fn remember(version: &mut String, seen: Option<String>) {
    if let Some(seen) = seen {
        *version = seen;
    }
}

#[cfg(test)]
mod tests;
