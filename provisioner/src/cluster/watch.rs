//! Watches: each kind is reduced as it arrives and handed on as a [`Change`]. A watch that fails is begun again with a new
//! list; meanwhile the view keeps what it has.

use std::fmt::Debug;

use bedplate_api::{LocalVolume, StorageNode, names};
use bedplate_edge::watch::Selection;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSINode, CSIStorageCapacity, StorageClass};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::cluster::view::{Change, Op};

/// Begin all watches; they end with the set, and begin with new lists when the server went back in time.
pub fn begin(
    client: &Client,
    namespace: &str,
    changes: &mpsc::Sender<Change>,
    rewound: &watch::Receiver<u64>,
) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let to = || (changes.clone(), rewound.clone());
    let all = Selection::default();
    let ours = Selection::labels(format!("{}={}", names::LABEL_MANAGED_BY, names::MANAGER_PROVISIONER));
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
    selection: Selection,
    (changes, mut rewound): (mpsc::Sender<Change>, watch::Receiver<u64>),
    change: impl Fn(Event<K>) -> Change + Send,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = bedplate_edge::watch::follow(api.clone(), selection.clone());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            // The history that this watch follows is not the server's any more.
            Ok(()) = rewound.changed() => {
                events = bedplate_edge::watch::follow(api.clone(), selection.clone());
                continue;
            }
        };
        let Some(event) = event else { return };
        if changes.send(change(event)).await.is_err() {
            return;
        }
    }
}
