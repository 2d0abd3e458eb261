//! Watches that keep the index. Each object is reduced as it arrives. A watch that fails is begun again with a new list;
//! meanwhile the index keeps what it has.

use std::fmt::Debug;
use std::sync::Arc;

use bedplate_api::placement::{NodeFacts, VolumeFacts};
use bedplate_api::{LocalVolume, StorageNode};
use bedplate_edge::watch::{self, Selection};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1 as storage;
use kube::api::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::holds::{Seen, Version};
use crate::index::{Change, Index, Op};
use crate::judge::said;
use crate::wire::Condition;

/// A pod, as far as holds need it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, Resource)]
#[resource(inherit = Pod)]
struct PodState {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    nominated_node_name: Option<String>,
    #[serde(default)]
    conditions: Vec<PodCondition>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodCondition {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    last_transition_time: Option<String>,
}

impl From<PodState> for Seen {
    fn from(pod: PodState) -> Self {
        let unscheduled = pod.status.conditions.iter().find(|c| c.kind == "PodScheduled" && c.status == "False");
        let unscheduled = unscheduled.map_or(0, |c| {
            said(&Condition {
                message: c.message.as_deref().map(Into::into),
                last_transition_time: c.last_transition_time.as_deref().map(Into::into),
                ..Condition::default()
            })
        });
        let resource = pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0);
        let node = [pod.spec.node_name, pod.status.nominated_node_name].into_iter().flatten().find(|n| !n.is_empty());
        Self {
            uid: pod.metadata.uid.unwrap_or_default().into(),
            version: Version { resource, unscheduled },
            node: node.map(Into::into),
        }
    }
}

/// Begin all watches; they end with the set.
#[must_use]
pub fn begin(client: &Client, index: &Arc<Index>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let all = |watches: &mut JoinSet<()>| {
        follow::<PodState, _>(watches, client, index, Change::Pod, Into::into);
        follow::<PersistentVolumeClaim, _>(watches, client, index, Change::Claim, |claim| {
            let name = |name: &Option<String>| name.as_deref().unwrap_or_default().into();
            (name(&claim.metadata.namespace), name(&claim.metadata.name), (&claim).into())
        });
        follow::<PersistentVolume, _>(watches, client, index, Change::Volume, |volume| {
            (volume.metadata.name.as_deref().unwrap_or_default().into(), (&volume).into())
        });
        follow::<storage::StorageClass, _>(watches, client, index, Change::Class, |class| {
            (class.metadata.name.as_deref().unwrap_or_default().into(), (&class).into())
        });
        follow::<StorageNode, _>(watches, client, index, Change::Node, |node| NodeFacts::from(&node));
        follow::<LocalVolume, _>(watches, client, index, Change::Local, |volume| VolumeFacts::from(&volume));
    };
    all(&mut watches);
    watches
}

fn follow<K, T>(
    watches: &mut JoinSet<()>,
    client: &Client,
    index: &Arc<Index>,
    change: impl Fn(Op<T>) -> Change + Send + 'static,
    reduce: impl Fn(K) -> T + Send + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    T: Send + 'static,
{
    let (index, mut events) = (index.clone(), watch::follow(Api::<K>::all(client.clone()), Selection::default()));
    watches.spawn(async move {
        while let Some(event) = events.next().await {
            index.apply(change(match event {
                Event::Init => Op::Begin,
                Event::InitApply(object) => Op::Listed(reduce(object)),
                Event::InitDone => Op::Complete,
                Event::Apply(object) => Op::Applied(reduce(object)),
                Event::Delete(object) => Op::Deleted(reduce(object)),
            }));
        }
    });
}
