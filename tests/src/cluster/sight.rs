//! What people see in the stories: pods that run and what they say, claims that are bound and to what, receipts, Events,
//! room, and the raw disks beneath.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bedplate_api::local_volume::Phase;
use bedplate_api::storage_node::{PoolStatus, VolumeRecord};
use bedplate_api::{LocalVolume, StorageNode, WipeReceipt, names};
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::watcher::Config;

use super::objects::{BLOCKS, FOUND, TICKS, WROTE};
use super::wait::{SOON, until, until_gone, until_gone_within, until_one};
use super::{Ground, Site};

/// A claim and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The claim's uid.
    pub claim_uid: String,
    /// Its PersistentVolume.
    pub volume: String,
    /// The LocalVolume behind that.
    pub local: String,
    /// Where it is.
    pub node: String,
    /// Its id there.
    pub handle: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Bytes a millisecond of a disk that is slow and shared: 50 MB/s.
const SLOW: u64 = 50_000;

impl Site {
    /// Waits until a claim is bound, and says to what.
    pub async fn bound(&self, claim: &str) -> Result<Bound> {
        self.bound_within(claim, SOON).await
    }

    /// The same with a deadline of the story's choice.
    pub async fn bound_within(&self, claim: &str, within: Duration) -> Result<Bound> {
        let bound = until_one::<PersistentVolumeClaim, _>(self.own(), claim, "bound", within, |claim| {
            let claim = claim?;
            let phase = claim.status.as_ref()?.phase.as_deref();
            (phase == Some("Bound")).then(|| claim.clone())
        });
        self.behind(&bound.await?).await
    }

    /// What stands behind a bound claim.
    pub async fn behind(&self, claim: &PersistentVolumeClaim) -> Result<Bound> {
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).context("bound to nothing")?;
        let object = self.all::<PersistentVolume>().get(&volume).await?;
        let local = object.annotations().get(names::ANNOTATION_LOCAL_VOLUME).cloned();
        let local = local.with_context(|| format!("{volume} names no LocalVolume"))?;
        let csi = object.spec.as_ref().and_then(|spec| spec.csi.as_ref()).context("no CSI volume")?;
        let spec = self.all::<LocalVolume>().get(&local).await?.spec;
        Ok(Bound {
            claim_uid: claim.uid().context("a claim without a uid")?,
            handle: csi.volume_handle.clone(),
            volume,
            local,
            node: spec.node_name,
            bytes: u64::try_from(spec.bytes)?,
        })
    }

    /// Waits until a pod runs; where.
    pub async fn running(&self, pod: &str) -> Result<String> {
        self.running_within(pod, SOON).await
    }

    /// The same with a deadline of the story's choice.
    pub async fn running_within(&self, pod: &str, within: Duration) -> Result<String> {
        let node = until_one::<Pod, _>(self.own(), pod, "running", within, |pod| {
            let pod = pod?;
            match pod.status.as_ref()?.phase.as_deref()? {
                "Running" => Some(Ok(pod.spec.as_ref()?.node_name.clone()?)),
                phase @ ("Failed" | "Succeeded") => Some(Err(anyhow::anyhow!("{phase}: {:?}", pod.status))),
                _ => None,
            }
        });
        node.await?.with_context(|| format!("pod {pod}"))
    }

    /// Waits until a pod says that the volume with this marker is written, or was found whole.
    pub async fn wrote(&self, pod: &str, mark: u32) -> Result<()> {
        self.says(pod, &format!("{WROTE} {}", self.oracle.marker(mark))).await
    }

    /// Waits until a pod says that it found the volume with this marker whole.
    pub async fn found(&self, pod: &str, mark: u32) -> Result<()> {
        self.says(pod, &format!("{FOUND} {}", self.oracle.marker(mark))).await
    }

    /// Waits until a pod's process says this line.
    async fn says(&self, pod: &str, line: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + SOON;
        // Logs are no objects: there is nothing to watch.
        let mut tick = tokio::time::interval(Duration::from_millis(25));
        loop {
            tick.tick().await;
            let said = self.said(pod).await?;
            if said.lines().any(|said| said == line) {
                return Ok(());
            }
            ensure!(!said.contains("LOST"), "pod {pod} says: {said}");
            if tokio::time::Instant::now() > deadline {
                let object = self.own::<Pod>().get_opt(pod).await?;
                anyhow::bail!(
                    "pod {pod} never says {line:?}; it says {said:?}; it is {:?}",
                    object.map(|pod| pod.status)
                );
            }
        }
    }

    /// What a pod's process has said.
    pub async fn said(&self, pod: &str) -> Result<String> {
        match &self.ground {
            Ground::Embedded(embedded) => {
                let mut said = String::new();
                for node in &embedded.nodes {
                    said.push_str(&node.kubelet.said(&self.namespace, pod));
                }
                Ok(said)
            }
            // Not there yet, or not running yet, is nothing said.
            Ground::Real(_) => {
                Ok(self.own::<Pod>().logs(pod, &kube::api::LogParams::default()).await.unwrap_or_default())
            }
        }
    }

    /// How many bytes a busy pod has written, where that can be seen from here; waits for the first.
    pub async fn ticks(&self, pod: &str) -> Result<u64> {
        self.ticks_on(pod, 0).await
    }

    /// Waits until a busy pod has written more than `before`; how much.
    pub async fn ticks_on(&self, pod: &str, before: u64) -> Result<u64> {
        let uid = self.own::<Pod>().get(pod).await?.uid().unwrap_or_default();
        let Ground::Embedded(embedded) = &self.ground else {
            // It ends when it cannot write.
            return self.running(pod).await.map(|_| 0);
        };
        let deadline = tokio::time::Instant::now() + SOON;
        let mut tick = tokio::time::interval(Duration::from_millis(25));
        loop {
            tick.tick().await;
            let file = embedded.file_of(&uid, TICKS);
            let written = file.and_then(|file| std::fs::metadata(file).ok()).map_or(0, |data| data.len());
            if written > before {
                return Ok(written);
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "pod {pod} does not write any more; it says {}",
                self.said(pod).await?
            );
        }
    }

    /// Claim, pod, marker, in one: waits until it runs and has written. What it is bound to.
    pub async fn settled(&self, pod: &str, claim: &str, mark: u32) -> Result<Bound> {
        let node = self.running(pod).await?;
        self.wrote(pod, mark).await?;
        let bound = self.bound(claim).await?;
        ensure!(bound.node == node, "pod {pod} runs on {node}, its volume is {bound:?}");
        Ok(bound)
    }

    /// Waits until a volume's LocalVolume is in this phase.
    pub async fn phase(&self, local: &str, phase: Phase) -> Result<LocalVolume> {
        until_one::<LocalVolume, _>(self.all(), local, &format!("{phase:?}"), SOON, |local| {
            local.filter(|local| local.phase() == Some(phase)).cloned()
        })
        .await
    }

    /// Waits until nothing of a volume is left in the cluster but the receipt of its claim, which it gives.
    pub async fn wiped(&self, volume: &Bound) -> Result<WipeReceipt> {
        // A story may have taken a whole disk, which is written and read once.
        let within = SOON + Duration::from_millis(2 * volume.bytes / SLOW);
        until_gone_within::<PersistentVolume>(self.all(), &volume.volume, within).await?;
        until_gone::<LocalVolume>(self.all(), &volume.local).await?;
        let receipt = until::<WipeReceipt, _>(self.all(), Config::default(), "a receipt by claim", SOON, |there| {
            there.values().find(|receipt| receipt.spec.claim_uid == volume.claim_uid).cloned()
        });
        let receipt = receipt.await?;
        ensure!(receipt.spec.node == volume.node && receipt.spec.local_volume == volume.local, "{receipt:?}");
        ensure!(receipt.spec.claim.namespace == self.namespace, "{receipt:?}");
        Ok(receipt)
    }

    /// How many receipts there are for a claim, in the API.
    pub async fn receipts(&self, claim_uid: &str) -> Result<usize> {
        let all = self.all::<WipeReceipt>().list(&ListParams::default()).await?;
        Ok(all.iter().filter(|receipt| receipt.spec.claim_uid == claim_uid).count())
    }

    /// How many receipts there are for a volume's claim in its node's own log. Zero where that cannot be seen from here.
    pub fn receipts_in_log(&self, volume: &Bound) -> Result<usize> {
        let Ground::Embedded(embedded) = &self.ground else { return Ok(0) };
        let node = embedded.nodes.iter().find(|node| node.name == volume.node).context("no such node")?;
        Ok(node.receipts()?.iter().filter(|receipt| receipt.claim.uid == volume.claim_uid).count())
    }

    /// Waits for an Event about an object with this reason; its message.
    pub async fn event(&self, kind: &str, name: &str, reason: &str) -> Result<String> {
        self.some_event(kind, name, &format!("reason {reason}"), |event| event.reason.as_deref() == Some(reason)).await
    }

    /// Waits for an Event about an object whose reason or message holds this text; its message.
    pub async fn event_says(&self, kind: &str, name: &str, text: &str) -> Result<String> {
        self.some_event(kind, name, &format!("that says {text:?}"), |event| {
            [&event.reason, &event.message].iter().any(|said| said.as_deref().is_some_and(|said| said.contains(text)))
        })
        .await
    }

    async fn some_event(&self, kind: &str, name: &str, what: &str, wanted: impl Fn(&Event) -> bool) -> Result<String> {
        let what = format!("an Event about {kind} {name}, {what}");
        until::<Event, _>(self.all(), Config::default(), &what, SOON, |there| {
            let about = |event: &&Event| {
                let object = &event.involved_object;
                object.kind.as_deref() == Some(kind) && object.name.as_deref() == Some(name)
            };
            let found = there.values().filter(about).find(|event| wanted(event))?;
            Some(found.message.clone().unwrap_or_default())
        })
        .await
    }

    /// A node's pool that the story uses, as its agent tells.
    pub async fn room(&self, node: &str) -> Result<PoolStatus> {
        self.room_when(node, "tells of its pool", |_| true).await
    }

    /// The same, as soon as it is as wanted.
    pub async fn room_when(&self, node: &str, what: &str, wanted: impl Fn(&PoolStatus) -> bool) -> Result<PoolStatus> {
        until_one::<StorageNode, _>(self.all(), node, what, SOON, |object| {
            pool(object?, node).filter(|pool| wanted(pool)).cloned()
        })
        .await
    }

    /// Waits until the ledger of a node tells this of a volume.
    pub async fn recorded(&self, volume: &Bound, phase: Phase) -> Result<VolumeRecord> {
        until_one::<StorageNode, _>(self.all(), &volume.node, &format!("{} {phase:?}", volume.local), SOON, |object| {
            let records = &object?.status.as_ref()?.volumes;
            records.iter().find(|record| record.name == volume.local && record.phase == phase).cloned()
        })
        .await
    }

    /// How many blocks with each marker lie on a node's raw disk. Nothing where the disk cannot be seen from here.
    pub async fn on_disk(&self, node: &str) -> Result<Option<BTreeMap<u32, usize>>> {
        let Ground::Embedded(embedded) = &self.ground else { return Ok(None) };
        let node = embedded.nodes.iter().find(|other| other.name == node).context("no such node")?;
        let (disk, oracle) = (node.disk.disk(), self.oracle.clone());
        Ok(Some(tokio::task::spawn_blocking(move || oracle.search(&disk)).await??))
    }

    /// The raw disk of a node must hold all blocks of each of these markers.
    pub async fn disk_holds(&self, node: &str, marks: &[u32]) -> Result<()> {
        let Some(found) = self.on_disk(node).await? else { return Ok(()) };
        for mark in marks {
            let there = found.get(mark).copied().unwrap_or_default();
            ensure!(
                there >= BLOCKS,
                "{there} of {BLOCKS} blocks of marker {mark} lie on {node}'s disk; found {found:?}"
            );
        }
        Ok(())
    }

    /// The raw disk of a node must hold none of these markers.
    pub async fn disk_lacks(&self, node: &str, marks: &[u32]) -> Result<()> {
        let Some(found) = self.on_disk(node).await? else { return Ok(()) };
        for mark in marks {
            ensure!(!found.contains_key(mark), "marker {mark} is still on {node}'s disk: {found:?}");
        }
        Ok(())
    }

    /// All LocalVolumes of the story's claims.
    pub async fn locals(&self) -> Result<Vec<LocalVolume>> {
        let all = self.all::<LocalVolume>().list(&ListParams::default()).await?;
        Ok(all.into_iter().filter(|local| local.spec.claim.namespace == self.namespace).collect())
    }

    /// Those of them that stand for something on a node.
    pub async fn living(&self) -> Result<Vec<LocalVolume>> {
        let mut all = self.locals().await?;
        all.retain(|local| !local.phase().is_some_and(Phase::is_over));
        Ok(all)
    }

    /// Waits until so many of them do, no more and no fewer.
    pub async fn living_are(&self, count: usize) -> Result<()> {
        let what = format!("{count} volumes of the story living");
        until::<LocalVolume, _>(self.all(), Config::default(), &what, SOON, |there| {
            let lives = |local: &&LocalVolume| {
                local.spec.claim.namespace == self.namespace && !local.phase().is_some_and(Phase::is_over)
            };
            (there.values().filter(lives).count() == count).then_some(())
        })
        .await
    }

    /// Prints what Bedplate's objects and the story's own are like now.
    pub(super) async fn show_objects(&self) -> Result<()> {
        let list = ListParams::default();
        for pod in self.own::<Pod>().list(&list).await? {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            let why: Vec<_> = conditions.iter().filter_map(|condition| condition.message.as_deref()).collect();
            println!("pod {} {phase:?} on {node:?} {why:?}", pod.name_any());
        }
        for claim in self.own::<PersistentVolumeClaim>().list(&list).await? {
            let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
            println!("claim {} {phase:?} {:?}", claim.name_any(), claim.annotations());
        }
        for volume in self.all::<PersistentVolume>().list(&list).await? {
            let phase = volume.status.as_ref().and_then(|status| status.phase.clone());
            let going = volume.metadata.deletion_timestamp.is_some();
            println!("volume {} {phase:?} deleting={going} {:?}", volume.name_any(), volume.finalizers());
        }
        for event in self.all::<Event>().list(&list).await? {
            let object = &event.involved_object;
            println!("event {:?} {:?} {:?}: {:?}", object.kind, object.name, event.reason, event.message);
        }
        // CRDs may be away in some stories.
        for local in self.all::<LocalVolume>().list(&list).await? {
            let going = local.metadata.deletion_timestamp.is_some();
            println!(
                "local {} on {} {:?} deleting={going} release={:?}",
                local.name_any(),
                local.spec.node_name,
                local.status,
                local.spec.release
            );
        }
        for node in self.all::<StorageNode>().list(&list).await? {
            let status = node.status.unwrap_or_default();
            println!(
                "storage node {:?} pools {:?} conditions {:?}",
                node.metadata.name, status.pools, status.conditions
            );
        }
        Ok(())
    }
}

/// The pool that stories use on a node: on the embedded ground the one called like it, else the first.
fn pool<'a>(object: &'a StorageNode, node: &str) -> Option<&'a PoolStatus> {
    let pools = &object.status.as_ref()?.pools;
    pools.iter().find(|pool| pool.name == node).or(pools.first())
}
