//! Watches: each kind is reduced as it arrives and handed on as a [`Change`]. A watch that fails is begun again, with
//! growing pauses; meanwhile the view keeps what it has.

use std::fmt::Debug;
use std::time::Duration;

use bedplate_api::{LocalVolume, StorageNode, names};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSINode, CSIStorageCapacity, StorageClass};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cluster::view::{Change, Op};

/// The first and the longest pause after a watch that failed: a CRD that comes back should not be missed for long.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// After so many failures in a row a watch begins with a new list.
const AFRESH: u32 = 3;
/// Objects a page of a list: what is held unreduced at once.
const PAGE: u32 = 250;

/// Begin all watches; they end with the set, and begin with new lists when the server went back in time.
pub fn begin(
    client: &Client,
    namespace: &str,
    changes: &mpsc::Sender<Change>,
    rewound: &watch::Receiver<u64>,
) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let to = || (changes.clone(), rewound.clone());
    let all = watcher::Config::default().page_size(PAGE);
    let ours = all.clone().labels(&format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGER_PROVISIONER));
    let capacities: Api<CSIStorageCapacity> = Api::namespaced(client.clone(), namespace);
    watches.spawn(follow(Api::<PersistentVolumeClaim>::all(client.clone()), all.clone(), to(), |op| {
        Change::Claim(reduce(op, Into::into))
    }));
    watches.spawn(follow(Api::<PersistentVolume>::all(client.clone()), all.clone(), to(), |op| {
        Change::Volume(reduce(op, Into::into))
    }));
    watches.spawn(follow(Api::<LocalVolume>::all(client.clone()), all.clone(), to(), |op| {
        Change::Local(reduce(op, Into::into))
    }));
    watches.spawn(follow(Api::<StorageClass>::all(client.clone()), all.clone(), to(), |op| {
        Change::Class(reduce(op, Into::into))
    }));
    watches.spawn(follow(Api::<Pod>::all(client.clone()), all.clone(), to(), |op| Change::Pod(reduce(op, Into::into))));
    watches
        .spawn(follow(Api::<Node>::all(client.clone()), all.clone(), to(), |op| Change::Node(reduce(op, Into::into))));
    watches.spawn(follow(Api::<CSINode>::all(client.clone()), all.clone(), to(), |op| {
        Change::Csi(reduce(op, Into::into))
    }));
    watches.spawn(follow(Api::<StorageNode>::all(client.clone()), all, to(), |op| {
        Change::Storage(reduce(op, Into::into))
    }));
    watches.spawn(follow(capacities, ours, to(), |op| Change::Capacity(reduce(op, Into::into))));
    watches
}

fn reduce<K, T>(event: Event<K>, into: impl Fn(K) -> T) -> Op<T> {
    match event {
        Event::Init => Op::Begin,
        Event::InitApply(object) => Op::Listed(into(object)),
        Event::InitDone => Op::Listing,
        Event::Apply(object) => Op::Applied(into(object)),
        Event::Delete(object) => Op::Deleted(into(object)),
    }
}

async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    (changes, mut rewound): (mpsc::Sender<Change>, watch::Receiver<u64>),
    change: impl Fn(Event<K>) -> Change + Send,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&());
    let mut pause = PAUSES.0;
    let mut failures = 0;
    let mut events = watcher(api.clone(), config.clone()).boxed();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            // The history that this watch follows is not the server's any more.
            Ok(()) = rewound.changed() => {
                events = watcher(api.clone(), config.clone()).boxed();
                continue;
            }
        };
        let Some(event) = event else { return };
        match event {
            Ok(event) => {
                // That a list is begun says nothing yet.
                if !matches!(event, Event::Init) {
                    (pause, failures) = (PAUSES.0, 0);
                }
                if changes.send(change(event)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(kind = %kind, error = %error, "watch failed; it is begun again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                failures += 1;
                if failures % AFRESH == 0 {
                    // Whatever it is that the server does not like about going on from there.
                    events = watcher(api.clone(), config.clone()).boxed();
                }
            }
        }
    }
}
