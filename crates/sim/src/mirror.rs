//! Keeps a copy of one kind of object up to date by list and watch, and tells when it changed.
//!
//! Owns: the watching tasks of a stand-in. Never writes. A server that is away is asked again for ever, with backoff.

use futures::StreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_api};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The tasks of a running stand-in. Dropping it ends them at once, as a crash would.
#[derive(Debug, Default)]
pub struct Running {
    tasks: JoinSet<()>,
}

impl Running {
    /// One more task that ends with this.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Ends every task and waits until all have ended.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// Keeps a copy of what `api` lists; `tell` sees every change after it is in the copy, and `None` after a relist.
    pub(crate) fn mirror<K>(
        &mut self,
        api: Api<K>,
        config: Config,
        kind: K::DynamicType,
        mut tell: impl FnMut(Option<&Event<K>>) + Send + 'static,
    ) -> Store<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        let mut writer = reflector::store::Writer::new(kind);
        let store = writer.as_reader();
        self.tasks.spawn(async move {
            let events = watch_api(api, config).default_backoff();
            futures::pin_mut!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        writer.apply_watcher_event(&event);
                        match event {
                            watcher::Event::Init | watcher::Event::InitApply(_) => {}
                            watcher::Event::InitDone => tell(None),
                            watcher::Event::Apply(_) | watcher::Event::Delete(_) => tell(Some(&event)),
                        }
                    }
                    Err(error) => tracing::debug!(error = %error, "watch broke off"),
                }
            }
        });
        store
    }
}

/// A signal that something changed; what did is found by looking.
#[derive(Debug, Clone)]
pub(crate) struct Changes(watch::Sender<u64>);

impl Changes {
    pub(crate) fn new() -> (Self, watch::Receiver<u64>) {
        let (sender, receiver) = watch::channel(0);
        (Self(sender), receiver)
    }

    pub(crate) fn bump(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Keeps a copy of what `api` lists, and bumps this at every change.
    pub(crate) fn mirror<K>(&self, running: &mut Running, api: Api<K>, kind: K::DynamicType) -> Store<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Eq + Hash + Clone + Send + Sync,
    {
        let changes = self.clone();
        running.mirror(api, Config::default(), kind, move |_| changes.bump())
    }
}
