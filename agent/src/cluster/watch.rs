//! A watch that never ends: relists after a 410, waits while the API server or the kind itself is away.

use std::fmt::Debug;
use std::time::Duration;

use bedplate_provisioner::store::chain;
use futures::StreamExt;
use futures::stream::BoxStream;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;

/// The shortest pause after a failure.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest: an API server that is back is noticed within it.
const LONGEST: Duration = Duration::from_secs(5);

/// The pause before the next try: doubled after every failure.
struct Pause(Duration);

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.0;
        self.0 = (now * 2).min(LONGEST);
        // Spread, so that a thousand agents do not come back at one moment.
        Some(now.mul_f64(rand::random_range(0.5..1.0)))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = SHORTEST;
    }
}

/// Events of a watch. Errors (the API server is away, the kind is not there, a version is too old) are waited out and
/// logged once each; an empty answer after a relist is passed on as it is, and judged by whoever asked.
pub fn follow<K>(what: &'static str, api: Api<K>, config: watcher::Config) -> BoxStream<'static, Event<K>>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut said = String::new();
    watcher(api, config)
        .backoff(Pause(SHORTEST))
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    said.clear();
                    Some(event)
                }
                Err(error) => {
                    let error = chain(&error);
                    if error != said {
                        tracing::warn!(what, error, "watch interrupted, it is taken up again");
                        said = error;
                    }
                    None
                }
            };
            std::future::ready(event)
        })
        .boxed()
}
