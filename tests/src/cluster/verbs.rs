//! What people do in the stories: claims and pods made and deleted, nodes drained, programs disturbed.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::objects::{self, Claim, Work, parse};
use super::wait::until_gone;
use super::{Ground, Site};

impl Site {
    /// What the embedded cluster needs before a story begins.
    pub(super) async fn furnish(&self) -> Result<()> {
        self.make_namespace().await
    }

    /// Makes the story's namespace (again).
    pub async fn make_namespace(&self) -> Result<()> {
        let namespace: Namespace = parse(json!({ "metadata": { "name": self.namespace } }));
        self.all::<Namespace>()
            .create(&PostParams::default(), &namespace)
            .await
            .context("a namespace for the story")?;
        Ok(())
    }

    /// Asks for `mib` MiB of the story's class; its uid.
    pub async fn claim(&self, name: &str, mib: u64) -> Result<String> {
        self.claim_of(name, mib, &self.class).await
    }

    /// Asks for `mib` MiB of a class; the claim's uid.
    pub async fn claim_of(&self, name: &str, mib: u64, class: &str) -> Result<String> {
        let claim = Claim { name, class, mib }.object();
        let made = self.own::<PersistentVolumeClaim>().create(&PostParams::default(), &claim).await;
        made.with_context(|| format!("claim {name}"))?.uid().context("a claim without a uid")
    }

    /// Makes a pod.
    pub async fn pod(&self, work: &Work<'_>) -> Result<()> {
        let pod = work.object(&self.oracle, &self.image);
        let made = self.own::<Pod>().create(&PostParams::default(), &pod).await;
        made.with_context(|| format!("pod {}", work.name))?;
        Ok(())
    }

    /// Makes a StatefulSet whose members write marker `mark`.
    pub async fn stateful_set(&self, name: &str, replicas: i32, mib: u64, mark: u32) -> Result<()> {
        let set = objects::stateful_set(name, replicas, &self.class, mib, mark, &self.oracle, &self.image);
        let made = self.own::<StatefulSet>().create(&PostParams::default(), &set).await;
        made.with_context(|| format!("StatefulSet {name}"))?;
        Ok(())
    }

    /// Deletes a pod and waits until it is gone.
    pub async fn delete_pod(&self, name: &str) -> Result<()> {
        self.own::<Pod>().delete(name, &DeleteParams::default()).await?;
        until_gone::<Pod>(self.own(), name).await
    }

    /// Deletes a claim and waits until it is gone.
    pub async fn delete_claim(&self, name: &str) -> Result<()> {
        self.own::<PersistentVolumeClaim>().delete(name, &DeleteParams::default()).await?;
        until_gone::<PersistentVolumeClaim>(self.own(), name).await
    }

    /// Deletes a pod that never ran and its claim.
    pub async fn delete_pod_and_claim(&self, pod: &str, claim: &str) -> Result<()> {
        self.delete_pod(pod).await?;
        self.delete_claim(claim).await
    }

    /// Takes every finalizer off an object, as an impatient person does. One that is gone by then is gone.
    pub async fn strip<K>(&self, api: kube::Api<K>, name: &str) -> Result<()>
    where
        K: super::wait::Object,
    {
        let nothing = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        match api.patch(name, &PatchParams::default(), &nothing).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()).with_context(|| format!("finalizers of {name}")),
        }
    }

    /// Lets no new pod onto a node, or lets them again.
    pub async fn cordon(&self, node: &str, cordoned: bool) -> Result<()> {
        let spec = Patch::Merge(json!({ "spec": { "unschedulable": cordoned.then_some(true) } }));
        self.all::<KubeNode>().patch(node, &PatchParams::default(), &spec).await?;
        Ok(())
    }

    /// Drains a node of the story's pods, as `kubectl drain` does: cordon, then evict, then wait until they are gone.
    pub async fn drain(&self, node: &str) -> Result<Vec<String>> {
        self.cordon(node, true).await?;
        let there = self.own::<Pod>().list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await?;
        let names: Vec<String> = there.iter().map(ResourceExt::name_any).collect();
        let uids: Vec<Option<String>> = there.iter().map(ResourceExt::uid).collect();
        for name in &names {
            self.own::<Pod>().evict(name, &EvictParams::default()).await.with_context(|| format!("evict {name}"))?;
        }
        for (name, uid) in names.iter().zip(uids) {
            // A member of a set comes back under its name, as another pod.
            super::wait::until_one::<Pod, _>(self.own(), name, "evicted", super::wait::SOON, |pod| {
                pod.is_none_or(|pod| pod.uid() != uid).then_some(())
            })
            .await?;
        }
        Ok(names)
    }

    /// The agent of a node is restarted; on the embedded ground by `kill -9`. Returns when it serves again.
    pub async fn restart_agent(&mut self, node: &str) -> Result<()> {
        match &mut self.ground {
            Ground::Embedded(embedded) => {
                let node = embedded.node(node)?;
                node.agent.kill_nine()?;
                node.agent.start().await
            }
            Ground::Real(real) => real.restart_agent(node).await,
        }
    }

    /// The leading provisioner is killed as it cannot prevent.
    pub async fn kill_leader(&mut self) -> Result<()> {
        match &mut self.ground {
            Ground::Embedded(embedded) => {
                let leader = embedded.leader().await?;
                embedded.provisioners[leader].kill_nine()
            }
            Ground::Real(real) => real.kill_leader().await,
        }
    }

    /// The extender goes, or comes back.
    pub async fn extender(&mut self, up: bool) -> Result<()> {
        match &mut self.ground {
            Ground::Embedded(embedded) if up => embedded.extender.start().await,
            Ground::Embedded(embedded) => embedded.extender.kill_nine(),
            Ground::Real(real) => real.extender(up).await,
        }
    }

    /// Every provisioner goes, or comes back.
    pub async fn provisioners(&mut self, up: bool) -> Result<()> {
        let Ground::Embedded(embedded) = &mut self.ground else { bail!("only on the embedded ground") };
        for provisioner in &mut embedded.provisioners {
            if up {
                provisioner.start().await?;
            } else {
                provisioner.kill_nine()?;
            }
        }
        Ok(())
    }
}
