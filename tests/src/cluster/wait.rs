//! Waiting for what the API shows: by watches and until a deadline, never by the clock alone.
//!
//! A deadline that passes is an error that names what was waited for and shows what was there instead.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::StreamExt;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long something may take that takes a moment.
pub const SOON: Duration = Duration::from_secs(40);
/// How long a story of a hundred claims may take.
pub const LONG: Duration = Duration::from_mins(2);
/// Characters of what was there instead that are shown.
const SHOWN: usize = 6000;

/// What a story may wait for.
pub trait Object:
    Resource<DynamicType: Default> + Clone + DeserializeOwned + Serialize + Debug + Send + 'static
{
}
impl<K: Resource<DynamicType: Default> + Clone + DeserializeOwned + Serialize + Debug + Send + 'static> Object for K {}

/// The objects of a list by their names (`namespace/name` where they have one).
pub type Seen<K> = BTreeMap<String, K>;

/// Waits until `seen` finds what it looks for among the objects that `api` and `config` show.
pub async fn until<K: Object, T>(
    api: Api<K>,
    config: Config,
    what: &str,
    within: Duration,
    mut seen: impl FnMut(&Seen<K>) -> Option<T>,
) -> Result<T> {
    let mut there = Seen::new();
    let mut fresh = Seen::new();
    let mut listed = false;
    let looking = async {
        let events = watcher(api, config).default_backoff();
        futures::pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                // The server may be away for a moment, or say 410: the watcher asks again.
                Err(_) => continue,
                Ok(Event::Init) => {
                    fresh = Seen::new();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    fresh.insert(key(&object), object);
                    continue;
                }
                Ok(Event::InitDone) => {
                    there = std::mem::take(&mut fresh);
                    listed = true;
                }
                Ok(Event::Apply(object)) => {
                    there.insert(key(&object), object);
                }
                Ok(Event::Delete(object)) => {
                    there.remove(&key(&object));
                }
            }
            if let Some(found) = seen(&there) {
                return Some(found);
            }
        }
        None
    };
    let found = tokio::time::timeout(within, looking).await;
    if let Ok(Some(found)) = found {
        return Ok(found);
    }
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let shown = if listed { show(&there) } else { "nothing: the list was never answered".to_owned() };
    Err(anyhow!("not within {} s: {what}; {kind} objects there: {shown}", within.as_secs()))
}

/// The same for the one object of that name, which may be absent.
pub async fn until_one<K: Object, T>(
    api: Api<K>,
    name: &str,
    what: &str,
    within: Duration,
    mut seen: impl FnMut(Option<&K>) -> Option<T>,
) -> Result<T> {
    let config = Config::default().fields(&format!("metadata.name={name}"));
    let what = format!("{name}: {what}");
    until(api, config, &what, within, |there| seen(there.values().next())).await
}

/// Waits until there is no object of that name.
pub async fn until_gone<K: Object>(api: Api<K>, name: &str) -> Result<()> {
    until_gone_within(api, name, SOON).await
}

/// The same for what takes longer than a moment.
pub async fn until_gone_within<K: Object>(api: Api<K>, name: &str, within: Duration) -> Result<()> {
    until_one(api, name, "gone", within, |object| object.is_none().then_some(())).await
}

fn key<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

fn show<K: Serialize>(there: &Seen<K>) -> String {
    let mut text = format!("{}\n", there.len());
    for (name, object) in there {
        let mut value = serde_json::to_value(object).unwrap_or_default();
        if let Some(meta) = value.get_mut("metadata").and_then(serde_json::Value::as_object_mut) {
            meta.remove("managedFields");
        }
        let _ = writeln!(text, "  {name}: {value}");
        if text.len() > SHOWN {
            text.push_str("  …");
            break;
        }
    }
    text
}
