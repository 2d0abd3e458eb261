//! The demo's cluster: an API server in this process, and what a person with a client sees and does there.
//!
//! Everything goes through the API over loopback HTTP, as against any other server. What it holds is in memory alone and
//! ends with this process.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bedplate_api::{LocalVolume, StorageNode, WipeReceipt, crds};
use bedplate_sim::ApiServer;
use bedplate_sim::apiserver::Options;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::interrupt::Interrupt;
use super::manifests::{self, NAMESPACE};
use super::volumes::DemoVolume;
use super::workshop::Workshop;

/// How often something is looked at again.
const LOOK: Duration = Duration::from_millis(20);
/// The namespace of Bedplate's own objects.
pub const SYSTEM: &str = "bedplate-system";

/// A client of the cluster.
pub struct Cluster {
    /// What everything is asked through.
    pub client: Client,
    /// Whether to stop.
    pub interrupt: Interrupt,
    url: String,
    kubeconfig: PathBuf,
}

/// Objects of a kind, in a namespace or in none.
type Kind<K> = Api<K>;

impl Cluster {
    /// Start an empty one in a run's workshop; the way to it is written down there.
    pub fn start(workshop: &mut Workshop, interrupt: Interrupt) -> anyhow::Result<Self> {
        let server = ApiServer::start(Options::default()).context("the API server cannot start")?;
        let kubeconfig = workshop.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig())?;
        let (client, url) = (server.client()?, server.url());
        workshop.server = Some(server);
        Ok(Self { client, interrupt, url, kubeconfig })
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file that leads others to it.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Make what `deploy/` ships: definitions, the driver, the classes.
    pub async fn install(&self) -> anyhow::Result<()> {
        for crd in crds::all() {
            self.create(&Api::all(self.client.clone()), &crd).await?;
        }
        for name in [SYSTEM, NAMESPACE] {
            let namespace = Namespace {
                metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
                ..Namespace::default()
            };
            self.create(&Api::all(self.client.clone()), &namespace).await?;
        }
        for driver in manifests::driver()? {
            self.create(&Api::all(self.client.clone()), &driver).await?;
        }
        for class in manifests::classes()? {
            self.create(&Api::all(self.client.clone()), &class).await?;
        }
        for wake in manifests::wake()? {
            self.create(&Api::namespaced(self.client.clone(), SYSTEM), &wake).await?;
        }
        Ok(())
    }

    /// The shop's objects of a kind.
    pub fn shop<K>(&self) -> Kind<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Make an object.
    pub async fn create<K>(&self, api: &Kind<K>, object: &K) -> anyhow::Result<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Serialize,
    {
        let made = self.interrupt.unless(api.create(&PostParams::default(), object)).await?;
        made.with_context(|| format!("{} cannot be made", object.name_any()))
    }

    /// Ask for an object's end, without waiting for it.
    pub async fn delete<K>(&self, api: &Kind<K>, name: &str) -> anyhow::Result<()>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let done = self.interrupt.unless(api.delete(name, &DeleteParams::default())).await?;
        done.map(drop).with_context(|| format!("{name} cannot be deleted"))
    }

    /// Look until there is an answer, or the time is over: then `what` is what did not happen.
    pub async fn until<T>(
        &self,
        what: &str,
        time: Duration,
        mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        let mut tick = tokio::time::interval(LOOK);
        loop {
            self.interrupt.unless(tick.tick()).await?;
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if begun.elapsed() > time {
                bail!("not after {} s: {what}", time.as_secs());
            }
        }
    }

    /// A bound claim of the shop, once it is one.
    pub async fn bound(&self, name: &str) -> anyhow::Result<Option<PersistentVolumeClaim>> {
        let claim = self.shop::<PersistentVolumeClaim>().get_opt(name).await?;
        let is_bound = |claim: &PersistentVolumeClaim| {
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
        };
        Ok(claim.filter(is_bound))
    }

    /// What nodes tell of their disks.
    pub async fn storage_nodes(&self) -> anyhow::Result<Vec<StorageNode>> {
        Ok(Api::<StorageNode>::all(self.client.clone()).list(&ListParams::default()).await?.items)
    }

    /// The volume that serves a claim.
    pub async fn volume_of(&self, claim: &PersistentVolumeClaim) -> anyhow::Result<LocalVolume> {
        let all = Api::<LocalVolume>::all(self.client.clone()).list(&ListParams::default()).await?.items;
        let uid = claim.uid().unwrap_or_default();
        let own = all.into_iter().find(|volume| volume.spec.claim_uid == uid && volume.spec.release.is_none());
        own.with_context(|| format!("claim {} is bound, but has no LocalVolume", claim.name_any()))
    }

    /// Whether nothing is left of a volume in the API.
    pub async fn is_gone(&self, volume: &DemoVolume) -> anyhow::Result<bool> {
        let volumes = Api::<LocalVolume>::all(self.client.clone());
        let persistent = Api::<PersistentVolume>::all(self.client.clone());
        Ok(volumes.get_opt(&volume.local).await?.is_none() && persistent.get_opt(&volume.persistent).await?.is_none())
    }

    /// What a volume's status says, for when it does not do what it should.
    pub async fn says(&self, volume: &DemoVolume) -> anyhow::Result<String> {
        let Some(found) = Api::<LocalVolume>::all(self.client.clone()).get_opt(&volume.local).await? else {
            return Ok(format!("LocalVolume {} is gone, PersistentVolume {} is not", volume.local, volume.persistent));
        };
        let status = found.status.unwrap_or_default();
        let phase = status.phase.map_or("no phase".to_owned(), |phase| format!("{phase:?}"));
        Ok(format!("LocalVolume {}: {phase} {}", volume.local, status.message))
    }

    /// The receipts that the agents have published.
    pub async fn receipts(&self) -> anyhow::Result<Vec<WipeReceipt>> {
        Ok(Api::<WipeReceipt>::all(self.client.clone()).list(&ListParams::default()).await?.items)
    }

    /// Why a pod is not on a node: its condition and the newest event, both as the scheduler wrote them.
    pub async fn pending(&self, name: &str) -> anyhow::Result<Option<(String, String)>> {
        let Some(pod) = self.shop::<Pod>().get_opt(name).await? else { return Ok(None) };
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        let told = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        let events = self.shop::<Event>().list(&ListParams::default()).await?.items;
        let of_pod = |event: &Event| {
            event.regarding.as_ref().and_then(|of| of.name.as_deref()) == Some(name)
                && event.reason.as_deref() == Some("FailedScheduling")
        };
        let event = events.into_iter().filter(of_pod).max_by_key(|event| event.metadata.creation_timestamp.clone());
        Ok(told.and_then(|told| told.message).zip(event.and_then(|event| event.note)))
    }

    /// What an event says last about an object of the shop, for when it does not do what it should.
    pub async fn last_word(&self, name: &str) -> String {
        let events = self.shop::<Event>().list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let of_it = |event: &Event| event.regarding.as_ref().and_then(|of| of.name.as_deref()) == Some(name);
        let last = events.into_iter().filter(of_it).max_by_key(|event| event.metadata.creation_timestamp.clone());
        last.and_then(|event| event.note).unwrap_or_else(|| "there is no event about it".to_owned())
    }
}
