//! A watch that never ends: a list, then every change, and a list again wherever a change may have been missed.
//!
//! A version that is too old (410), an API server that went away, a kind that is not there: all end in a new list. So
//! does a stream that ends before its time, because an API server that comes back from a backup has nothing to say to a
//! watch of a later version. Only a stream that lived its whole time is gone on with.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::time::Duration;

use bedplate_provisioner::store::chain;
use futures::StreamExt;
use futures::stream::BoxStream;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

/// The shortest pause after a failure.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest: an API server that is back is noticed within it.
const LONGEST: Duration = Duration::from_secs(5);
/// How long the API server is asked to keep a stream, in seconds; below kube's own limit of 295 for a silent connection.
const SECONDS: u32 = 280;
/// Objects in one page of a list.
const PAGE: u32 = 500;

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum News<K> {
    /// Everything there is.
    Listed(Vec<K>),
    /// It was made or changed.
    Applied(K),
    /// It is gone; as it was last.
    Deleted(K),
}

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Where a watch is.
struct Following<K> {
    what: &'static str,
    api: Api<K>,
    fields: String,
    ready: VecDeque<News<K>>,
    events: Option<Events<K>>,
    began: Instant,
    /// The version of the last thing heard; `None` before a list.
    version: Option<String>,
    pause: Duration,
    /// The last failure, so that each is said once.
    said: String,
}

/// Why a watch begins anew.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("the API server ended the watch: {0}")]
    Told(String),
    #[error("the stream ended before its time")]
    Early,
}

/// News of the objects that `fields` select. Errors are waited out and logged once each; an empty list is passed on as it
/// is, and judged by whoever asked.
pub fn follow<K>(what: &'static str, api: Api<K>, fields: String) -> BoxStream<'static, News<K>>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let following = Following {
        what,
        api,
        fields,
        ready: VecDeque::new(),
        events: None,
        began: Instant::now(),
        version: None,
        pause: SHORTEST,
        said: String::new(),
    };
    futures::stream::unfold(following, |mut following| async move {
        let news = following.next().await;
        Some((news, following))
    })
    .boxed()
}

impl<K> Following<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> News<K> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                return news;
            }
            if let Err(error) = self.step().await {
                let error = chain(&error);
                if error != self.said {
                    tracing::warn!(what = self.what, error, "watch interrupted, it begins anew");
                    self.said = error;
                }
                (self.events, self.version) = (None, None);
                // Spread, so that a thousand agents do not come back at one moment.
                sleep(self.pause.mul_f64(rand::random_range(0.5..1.0))).await;
                self.pause = (self.pause * 2).min(LONGEST);
            }
        }
    }

    async fn step(&mut self) -> Result<(), Interrupted> {
        let Some(version) = self.version.clone() else {
            let (objects, version) = self.list().await?;
            self.version = Some(version);
            self.ready.push_back(News::Listed(objects));
            return Ok(());
        };
        let events = match &mut self.events {
            Some(events) => events,
            none => {
                let params = WatchParams::default().fields(&self.fields).timeout(SECONDS);
                self.began = Instant::now();
                none.insert(self.api.watch(&params, &version).await?.boxed())
            }
        };
        let heard = match events.next().await {
            Some(heard) => heard?,
            None if self.began.elapsed().as_secs() * 10 < u64::from(SECONDS) * 8 => return Err(Interrupted::Early),
            None => {
                self.events = None;
                return Ok(());
            }
        };
        self.said.clear();
        self.pause = SHORTEST;
        let versioned = |object: &K| object.meta().resource_version.clone();
        match heard {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.version = versioned(&object).or(self.version.take());
                self.ready.push_back(News::Applied(object));
            }
            WatchEvent::Deleted(object) => {
                self.version = versioned(&object).or(self.version.take());
                self.ready.push_back(News::Deleted(object));
            }
            WatchEvent::Bookmark(bookmark) => self.version = Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(Interrupted::Told(status.message)),
        }
        Ok(())
    }

    async fn list(&mut self) -> Result<(Vec<K>, String), Interrupted> {
        let mut params = ListParams::default().fields(&self.fields).limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let page = self.api.list(&params).await?;
            objects.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok((objects, page.metadata.resource_version.unwrap_or_default()));
            }
        }
    }
}
