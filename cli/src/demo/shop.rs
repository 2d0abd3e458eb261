//! What runs in the cluster: a Raft group on flash, a bulk volume on a disk that turns, and a pod that fits nowhere.
//!
//! Makes the objects as a person would, follows each pod to its node, and shows why it went there.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ListParams;

use super::cluster::Cluster;
use super::manifests::{self, BULK, GROUP, MEMBERS, MISFIT, MISFITS, NAMESPACE};
use super::nodes::{Node, Sizes};
use super::placements::{Asking, Board, Chosen, Placement, title};
use super::report::Times;
use super::story::{Story, millis};
use super::volumes::{DemoVolume, ms};

/// How long a pod may take to its node, and its process to its start.
const PATIENCE: Duration = Duration::from_mins(1);

/// The workloads.
pub struct Shop<'a> {
    /// Where they run.
    pub cluster: &'a Cluster,
    /// On which nodes.
    pub nodes: &'a [Node],
    /// How large their volumes are.
    pub sizes: Sizes,
    /// The program in their containers.
    pub program: &'a Path,
    /// Where its foreman listens.
    pub foreman: &'a Path,
}

/// The pods that write, and their claims, in the order of their volumes.
pub fn writers() -> Vec<(String, String)> {
    let member = |ordinal| (format!("{GROUP}-{ordinal}"), format!("data-{GROUP}-{ordinal}"));
    (0..MEMBERS).map(member).chain([(BULK.to_owned(), BULK.to_owned())]).collect()
}

impl Shop<'_> {
    /// Make the pods that write, and follow each to its node.
    pub async fn open(
        &self,
        story: &mut Story,
        board: &mut Board,
    ) -> anyhow::Result<(Vec<DemoVolume>, Vec<Placement>)> {
        let Self { cluster, sizes, program, foreman, .. } = *self;
        story
            .step("A shop moves in: a Raft group of three on ssd, an archive on hdd; every placement with its reasons");
        let (mut volumes, mut placements) = (Vec::new(), Vec::new());
        let mut begun = Instant::now();
        cluster.create(&cluster.shop(), &manifests::group(sizes.volume, program, foreman)?).await?;
        for (pod, claim) in writers() {
            if pod == BULK {
                begun = Instant::now();
                cluster.create(&cluster.shop(), &manifests::claim(&claim, "hdd", sizes.volume)?).await?;
                cluster.create(&cluster.shop(), &manifests::pod(&pod, &[claim.as_str()], program, foreman)?).await?;
            }
            let group = (pod != BULK).then_some(GROUP);
            let (volume, placement) = self.follow(story, board, (&pod, &claim, group), begun).await?;
            volumes.push(volume);
            placements.push(placement);
            // The next member is made once this one runs.
            begun = Instant::now();
        }
        Ok((volumes, placements))
    }

    async fn follow(
        &self,
        story: &Story,
        board: &mut Board,
        (pod, claim, group): (&str, &str, Option<&str>),
        begun: Instant,
    ) -> anyhow::Result<(DemoVolume, Placement)> {
        let cluster = self.cluster;
        let bound =
            cluster.until(&format!("claim {claim} is bound"), PATIENCE, async || cluster.bound(claim).await).await;
        let bound = match bound {
            Ok(bound) => bound,
            Err(error) => {
                let (pod, claim) = (cluster.last_word(pod).await, cluster.last_word(claim).await);
                return Err(error.context(format!("the pod's last word: {pod}; its claim's: {claim}")));
            }
        };
        let bound_after = begun.elapsed();
        let what = format!("pod {pod} runs");
        let node = match cluster.until(&what, PATIENCE, async || self.running(pod).await).await {
            Ok(node) => node,
            Err(error) => return Err(error.context(format!("the pod's last word: {}", cluster.last_word(pod).await))),
        };
        let running_after = begun.elapsed();
        let local = [cluster.volume_of(&bound).await?];
        let claims = [bound];
        let full = format!("{NAMESPACE}/{pod}");
        let asking = Asking { pod: &full, group, claims: &claims };
        let placement = board.decide(&asking, Some(&Chosen { node: &node, volumes: &local }))?;
        let class = claims[0].spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
        story.say(&format!(
            "{full}, claim {} (class {class}, {}): bound after {}, running after {}",
            title(&claims[0]),
            self.sizes.volume,
            millis(bound_after),
            millis(running_after)
        ));
        show(story, &placement);
        let home = self.nodes.iter().find(|known| known.name == node).with_context(|| format!("{node} is no node"))?;
        let mut volume = DemoVolume::of(&claims[0], &local[0], home).await?;
        volume.entry.milliseconds = Times { bound: ms(bound_after), running: ms(running_after), deleted: None };
        Ok((volume, placement))
    }

    /// The node of a pod, once its process runs there.
    async fn running(&self, name: &str) -> anyhow::Result<Option<String>> {
        let Some(pod) = self.cluster.shop::<Pod>().get_opt(name).await? else { return Ok(None) };
        let runs = pod.status.is_some_and(|status| status.phase.as_deref() == Some("Running"));
        Ok(pod.spec.and_then(|spec| spec.node_name).filter(|_| runs))
    }

    /// Make the pod that fits nowhere, and show what its owner sees.
    pub async fn misfit(&self, story: &mut Story, board: &mut Board) -> anyhow::Result<Placement> {
        let Self { cluster, sizes, program, foreman, .. } = *self;
        story.step("A pod that fits nowhere: either of its claims would, but both must be on one node");
        let mut claims: Vec<PersistentVolumeClaim> = Vec::new();
        for name in MISFITS {
            claims.push(cluster.create(&cluster.shop(), &manifests::claim(name, "ssd", sizes.misfit)?).await?);
        }
        cluster.create(&cluster.shop(), &manifests::pod(MISFIT, &MISFITS, program, foreman)?).await?;
        let what = format!("pod {MISFIT} is pending, and says why");
        // Before the scheduler has seen the claims it says so; that is not yet the reason.
        let told = cluster.until(&what, PATIENCE, async || {
            Ok(cluster.pending(MISFIT).await?.filter(|(condition, _)| condition.contains("bedplate: ")))
        });
        let (condition, event) = match told.await {
            Ok(told) => told,
            Err(error) => return Err(error.context(format!("its last word: {}", cluster.last_word(MISFIT).await))),
        };
        let full = format!("{NAMESPACE}/{MISFIT}");
        let placement = board.decide(&Asking { pod: &full, group: None, claims: &claims }, None)?;
        let list = claims.iter().map(title).collect::<Vec<_>>().join(" and ");
        story.say(&format!("{full}, claims {list} (class ssd, {} each): Pending", sizes.misfit));
        show(story, &placement);
        let same = if event == condition { "the same as" } else { "and, newer," };
        story.say(&format!(
            "What its owner sees, as condition PodScheduled=False (Unschedulable), {same} event FailedScheduling:\n  {event}"
        ));
        Ok(placement)
    }

    /// Delete all pods, and wait until their volumes are mounted nowhere; the claims stay.
    pub async fn close(&self, story: &mut Story, volumes: &[DemoVolume]) -> anyhow::Result<()> {
        use k8s_openapi::api::apps::v1::StatefulSet;
        let cluster = self.cluster;
        story.step("The pods are deleted; their claims stay, as do their volumes");
        let begun = Instant::now();
        cluster.delete(&cluster.shop::<StatefulSet>(), GROUP).await?;
        for pod in [BULK, MISFIT] {
            cluster.delete(&cluster.shop::<Pod>(), pod).await?;
        }
        let what = "no pod of the shop is left";
        cluster
            .until(what, PATIENCE, async || {
                let left = cluster.shop::<Pod>().list(&ListParams::default()).await?.items;
                Ok(left.is_empty().then_some(()))
            })
            .await?;
        for volume in volumes {
            let what = format!("volume {} is staged nowhere", volume.entry.id);
            cluster.until(&what, PATIENCE, async || Ok((!volume.is_staged().await?).then_some(()))).await?;
        }
        story.say(&format!("Unmounted everywhere after {}.", millis(begun.elapsed())));
        Ok(())
    }

    /// Delete all claims, without waiting for what follows.
    pub async fn give_up_claims(&self) -> anyhow::Result<()> {
        let claims = self.cluster.shop::<PersistentVolumeClaim>();
        for claim in claims.list(&ListParams::default()).await? {
            self.cluster.delete(&claims, &claim.name_any()).await?;
        }
        Ok(())
    }
}

/// A decision, node by node.
fn show(story: &Story, placement: &Placement) {
    let width = |column: usize| placement.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [node, word, room] in &placement.rows {
        story.say(&format!("  {node:<first$}  {word:<second$}  {room}"));
    }
}
