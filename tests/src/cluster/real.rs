//! A real cluster, where `deploy/kustomize/base` is installed, the scheduler asks the extender, and a pool has room.
//!
//! Owns nothing there but the story's namespace. Programs are disturbed as an administrator does: a pod is deleted, a
//! DaemonSet is sent to nodes that do not exist. Pods run `BEDPLATE_E2E_IMAGE`, which needs sh, head, tr, cmp and dd.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bedplate_api::{StorageNode, names};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::Config;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::install::NAMESPACE;
use super::wait::{SOON, until, until_gone, until_one};

/// The extender's DaemonSet.
const EXTENDER: &str = "bedplate-extender";
/// A node label that no node has.
const NOWHERE: &str = "bedplate.dev/e2e-nowhere";

/// The cluster.
pub struct Real {
    /// A client of it.
    pub client: Client,
    /// Nodes that serve.
    pub nodes: Vec<String>,
}

impl Real {
    /// Reaches it, and makes sure that it is fit.
    pub async fn reach(kubeconfig: &Path) -> Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let api: Api<StorageNode> = Api::all(client.clone());
        let nodes = until(api, Config::default(), "a node with a pool", SOON, |there| {
            let serves = |node: &&StorageNode| {
                let pools = node.status.iter().flat_map(|status| &status.pools);
                pools.into_iter().any(|pool| pool.absent.is_none() && pool.largest_volume > 0)
            };
            let nodes: Vec<String> = there.values().filter(serves).map(ResourceExt::name_any).collect();
            (!nodes.is_empty()).then_some(nodes)
        });
        Ok(Self { nodes: nodes.await?, client })
    }

    fn system<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The agent of a node is deleted; returns when another one is ready.
    pub async fn restart_agent(&self, node: &str) -> Result<()> {
        let config =
            Config::default().labels("app.kubernetes.io/component=agent").fields(&format!("spec.nodeName={node}"));
        let pods =
            self.system::<Pod>().list(&ListParams::default().labels("app.kubernetes.io/component=agent")).await?;
        let on = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
        let old = pods.iter().find(on).with_context(|| format!("no agent on {node}"))?;
        self.system::<Pod>().delete(&old.name_any(), &DeleteParams::default()).await?;
        let uid = old.uid();
        until::<Pod, _>(self.system(), config, "another agent, ready", SOON, |there| {
            there.values().any(|pod| pod.uid() != uid && ready(pod)).then_some(())
        })
        .await
    }

    /// The pod that leads is deleted with no time to say goodbye.
    pub async fn kill_leader(&self) -> Result<()> {
        let lease = self.system::<Lease>().get(names::LEASE).await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).context("nobody leads")?;
        let pod = holder.split('_').next().unwrap_or_default();
        self.system::<Pod>().delete(pod, &DeleteParams::default().grace_period(0)).await.context(holder.clone())?;
        Ok(())
    }

    /// The extender goes, or comes back.
    pub async fn extender(&self, up: bool) -> Result<()> {
        let selector = json!({ "spec": { "template": { "spec": { "nodeSelector": {
            NOWHERE: if up { None } else { Some("true") }
        } } } } });
        let sets = self.system::<DaemonSet>();
        sets.patch(EXTENDER, &PatchParams::default(), &Patch::Merge(selector)).await?;
        until_one::<DaemonSet, _>(sets, EXTENDER, if up { "up" } else { "down" }, SOON, |set| {
            let set = set?;
            let status = set.status.as_ref()?;
            let seen = status.observed_generation == set.metadata.generation;
            let there = if up {
                status.number_ready > 0 && status.number_ready == status.desired_number_scheduled
            } else {
                status.current_number_scheduled == 0
            };
            (seen && there).then_some(())
        })
        .await
    }

    /// Shows what the programs said last.
    pub async fn last_words(&self, namespace: &str) {
        for space in [NAMESPACE, namespace] {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), space);
            for pod in api.list(&ListParams::default()).await.into_iter().flatten() {
                let name = pod.name_any();
                let tail = LogParams { tail_lines: Some(60), ..LogParams::default() };
                println!("===== {space}/{name} =====\n{}", api.logs(&name, &tail).await.unwrap_or_default());
            }
        }
    }

    /// Takes the namespace away, and undoes what stories do to nodes and the extender.
    pub async fn close(&self, namespace: &str) -> Result<()> {
        let nodes: Api<KubeNode> = Api::all(self.client.clone());
        for node in &self.nodes {
            let free = Patch::Merge(json!({ "spec": { "unschedulable": null } }));
            nodes.patch(node, &PatchParams::default(), &free).await?;
        }
        let set = self.system::<DaemonSet>().get(EXTENDER).await?;
        let sent_away = serde_json::to_value(&set.spec)?["template"]["spec"]["nodeSelector"].get(NOWHERE).is_some();
        if sent_away {
            self.extender(true).await?;
        }
        let spaces: Api<Namespace> = Api::all(self.client.clone());
        spaces.delete(namespace, &DeleteParams::default()).await?;
        until_gone(spaces, namespace).await?;
        let left: Api<bedplate_api::LocalVolume> = Api::all(self.client.clone());
        let nothing = until(left.clone(), Config::default(), "no volume of the story left", SOON, |there| {
            there.values().all(|local| local.spec.claim.namespace != namespace).then_some(())
        });
        nothing.await?;
        ensure!(left.list_metadata(&ListParams::default().limit(1)).await.is_ok(), "the CRDs are gone");
        Ok(())
    }
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
