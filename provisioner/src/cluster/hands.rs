//! Carries actions out. It does not decide: what is irreversible is checked once more by [`authority`] against live,
//! uncached reads, and every write carries a precondition and stays within the leader's deadline.
//!
//! Answers come back as news for the view, so that the next decision knows them before the watch does.

mod calls;
mod ending;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bedplate_api::wipe_receipt::{WipeReceipt, WipeReceiptSpec};
use bedplate_api::{LocalVolume, StorageNode, names};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::cluster::action::{Action, ClaimName, Notice};
use crate::cluster::announce::Announcer;
use crate::cluster::authority::{self, Denied};
use crate::cluster::lease::Leadership;
use crate::cluster::metrics::Metrics;
use crate::cluster::objects::{Claim, Local, Mark, Meta, PodSeen, Volume};
use crate::cluster::template::{self, Terms};
use crate::cluster::view::{Change, Op};

/// Why an action was not done, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// This process does not lead, or cannot be sure to.
    #[error("not leading (any more)")]
    Fenced,
    /// The call took too long; it may have been done.
    #[error("{what}: no answer in time")]
    Slow {
        /// What was called.
        what: &'static str,
    },
    /// Somebody changed the object first, or it is there already, or gone.
    #[error("{what}: the object is another one by now")]
    Changed {
        /// What was called.
        what: &'static str,
    },
    /// The live reads speak against it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The API server said no, or did not answer.
    #[error("{what}")]
    Failed {
        /// What was called.
        what: &'static str,
        /// What came back.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What came of an action.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is known now.
    pub news: Vec<Change>,
    /// What went wrong, if something did.
    pub trouble: Option<Trouble>,
    /// A namespace whose pods were listed, and when the list began.
    pub looked: Option<(String, Instant)>,
    /// A LocalVolume that is done with.
    pub finished: Option<String>,
}

/// Does what was decided.
#[derive(Clone)]
pub struct Hands {
    client: Client,
    leadership: Leadership,
    announcer: Arc<Announcer>,
    metrics: Arc<Metrics>,
    namespace: String,
    call: Duration,
}

impl Hands {
    /// Ready for work.
    #[must_use]
    pub const fn new(
        client: Client,
        leadership: Leadership,
        announcer: Arc<Announcer>,
        metrics: Arc<Metrics>,
        namespace: String,
        call: Duration,
    ) -> Self {
        Self { client, leadership, announcer, metrics, namespace, call }
    }

    /// Do one thing.
    pub async fn act(&self, action: Action) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(trouble) = self.attempt(action, &mut outcome).await {
            self.metrics.trouble(&trouble);
            outcome.trouble = Some(trouble);
        }
        outcome
    }

    async fn attempt(&self, action: Action, outcome: &mut Outcome) -> Result<(), Trouble> {
        match action {
            Action::Order(local) => self.order(*local, outcome).await,
            Action::Bind { local, marked, terms } => self.bind(&local, marked, &terms, outcome).await,
            Action::Confirm { local } => self.mark(&local, Mark::Bound, outcome).await.map(drop),
            Action::Release { local, kind, claim } => self.release(&local, kind, &claim, outcome).await,
            Action::Bounce { claim, node, attempt, node_must_be_gone, notices } => {
                self.bounce(&claim, &node, attempt, node_must_be_gone, outcome).await?;
                self.metrics.bounced();
                self.say_all(notices).await;
                Ok(())
            }
            Action::DropVolume { volume, local } => self.drop_volume(&volume, &local, outcome).await,
            Action::DropLocal { local, claim_uid } => self.drop_local(&local, &claim_uid, outcome).await,
            Action::Rebuild { node, local } => self.rebuild(&node, &local, outcome).await,
            Action::Publish { node, owner, class, bytes, largest, present } => {
                let wanted = template::capacity(&self.namespace, (&node, &owner), &class, bytes, largest);
                self.publish(wanted, present, outcome).await
            }
            Action::Unpublish(capacity) => self.unpublish(&capacity, outcome).await,
            Action::Look { namespace } => self.look(namespace, outcome).await,
            Action::Say(notice) => {
                self.say_all(vec![notice]).await;
                Ok(())
            }
        }
    }

    async fn say_all(&self, notices: Vec<Notice>) {
        if self.leadership.remaining().is_none() {
            return;
        }
        for notice in notices {
            self.announcer.say(&notice).await;
        }
    }

    async fn order(&self, local: LocalVolume, outcome: &mut Outcome) -> Result<(), Trouble> {
        let what = "order a LocalVolume";
        let name = local.name_any();
        let made = self.write(what, self.locals().create(&PostParams::default(), &local)).await;
        match made {
            Ok(made) => {
                self.metrics.ordered();
                tracing::info!(local = name, node = made.spec.node_name, bytes = made.spec.bytes, "volume ordered");
                outcome.news.push(written_local(made));
                Ok(())
            }
            Err(Trouble::Changed { .. }) => {
                // Another leader, or this one before a restart, was first: its decision stands.
                if let Some(there) = self.read(what, self.locals().get_opt(&name)).await? {
                    outcome.news.push(written_local(there));
                }
                Err(Trouble::Changed { what })
            }
            Err(trouble) => Err(trouble),
        }
    }

    async fn bind(&self, local: &Meta, marked: bool, terms: &Terms, outcome: &mut Outcome) -> Result<(), Trouble> {
        let what = "make a PersistentVolume";
        let object = if marked {
            let there = self.read(what, self.locals().get_opt(&local.name)).await?;
            there.filter(|there| there.uid().as_deref() == Some(&local.uid)).ok_or(Trouble::Changed { what })?
        } else {
            self.mark(local, Mark::Binding, outcome).await?
        };
        if object.spec.release.is_some() {
            return Err(Denied("it was released meanwhile").into());
        }
        let volume = template::volume(&object, terms).ok_or(Denied("its agent has not named it yet"))?;
        match self.write(what, self.volumes().create(&PostParams::default(), &volume)).await {
            Ok(made) => {
                self.metrics.made();
                tracing::info!(volume = made.name_any(), local = local.name, "PersistentVolume made");
                outcome.news.push(Change::Volume(Op::Written(made.into())));
                Ok(())
            }
            Err(Trouble::Changed { .. }) => {
                let name = volume.name_any();
                let there = self.read(what, self.volumes().get_opt(&name)).await?.map(Volume::from);
                let ours = there.as_ref().is_some_and(|there| there.ours && there.local == local.name);
                outcome.news.extend(there.map(|there| Change::Volume(Op::Written(there))));
                if ours { Ok(()) } else { Err(Trouble::Changed { what }) }
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Write a mark, under the version at which it was decided.
    async fn mark(&self, local: &Meta, mark: Mark, outcome: &mut Outcome) -> Result<LocalVolume, Trouble> {
        let patch = json!({"metadata": {
            "uid": local.uid,
            "resourceVersion": local.version,
            "annotations": { names::ANNOTATION_BOUND: mark.value() },
        }});
        let done = self.patch("mark a LocalVolume", &self.locals(), &local.name, patch).await;
        self.refresh_local(&local.name, done, outcome).await
    }

    /// The object after a patch; where it lost a race, what stands there now becomes news.
    async fn refresh_local(
        &self,
        name: &str,
        done: Result<LocalVolume, Trouble>,
        outcome: &mut Outcome,
    ) -> Result<LocalVolume, Trouble> {
        match done {
            Ok(object) => {
                outcome.news.push(written_local(object.clone()));
                Ok(object)
            }
            Err(trouble @ Trouble::Changed { .. }) => {
                let there = self.read("read a LocalVolume", self.locals().get_opt(name)).await?;
                outcome.news.push(there.map_or_else(|| Change::Local(Op::Gone(name.to_owned())), written_local));
                Err(trouble)
            }
            Err(trouble) => Err(trouble),
        }
    }

    async fn bounce(
        &self,
        claim: &ClaimName,
        node: &str,
        attempt: i64,
        node_must_be_gone: bool,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        let what = "clear a claim's selected-node";
        if node_must_be_gone && self.read(what, self.nodes().get_opt(node)).await?.is_some() {
            return Err(Denied("the node is there").into());
        }
        let volume = self.live_volume(&claim.uid, outcome).await?;
        let Some(live) = self.live_claim(claim, outcome).await? else { return Ok(()) };
        authority::bounce(&live, node, volume.as_ref())?;
        let patch = json!({"metadata": {
            "uid": live.meta.uid,
            "resourceVersion": live.meta.version,
            "annotations": {
                names::ANNOTATION_SELECTED_NODE: null,
                names::ANNOTATION_ATTEMPT: attempt.to_string(),
            },
        }});
        let done = self.patch(what, &self.claims(&claim.namespace), &claim.name, patch).await?;
        tracing::info!(namespace = claim.namespace, claim = claim.name, node, "claim sent back to the scheduler");
        outcome.news.push(Change::Claim(Op::Written(done.into())));
        Ok(())
    }

    async fn rebuild(&self, node: &str, local: &str, outcome: &mut Outcome) -> Result<(), Trouble> {
        let what = "rebuild a LocalVolume";
        let storage = self.read(what, self.storages().get_opt(node)).await?;
        let status = storage.and_then(|storage| storage.status).unwrap_or_default();
        let record = status.volumes.into_iter().find(|record| record.name == local && !record.phase.is_over());
        let Some(record) = record else { return Ok(()) };
        if let Some(there) = self.read(what, self.locals().get_opt(local)).await? {
            outcome.news.push(written_local(there));
            return Ok(());
        }
        let wanted = template::rebuilt(node, &status.ledger_id, record);
        let made = self.write(what, self.locals().create(&PostParams::default(), &wanted)).await?;
        self.metrics.rebuilt();
        tracing::warn!(local, node, "LocalVolume rebuilt from its node's record");
        let made_local = Local::from(made.clone());
        let message = format!("made again from the record of node {node}: nothing about the volume has changed");
        let notice = Notice::on(crate::cluster::action::Kind::Local, &made_local.meta, names::REASON_REBUILT, message);
        outcome.news.push(written_local(made));
        self.say_all(vec![notice]).await;
        Ok(())
    }

    async fn look(&self, namespace: String, outcome: &mut Outcome) -> Result<(), Trouble> {
        let begun = Instant::now();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let list = self.read("list pods", pods.list(&ListParams::default())).await?;
        let pods = list.items.into_iter().map(PodSeen::from).filter(|pod| !pod.claims.is_empty());
        outcome.news.extend(pods.map(|pod| Change::Pod(Op::Written(pod))));
        outcome.looked = Some((namespace, begun));
        Ok(())
    }

    async fn live_claim(&self, claim: &ClaimName, outcome: &mut Outcome) -> Result<Option<Claim>, Trouble> {
        let there = self.read("read a claim", self.claims(&claim.namespace).get_opt(&claim.name)).await?;
        let there = there.map(Claim::from);
        outcome.news.push(match &there {
            Some(live) => Change::Claim(Op::Written(live.clone())),
            None => Change::Claim(Op::Gone(crate::cluster::objects::path(&claim.namespace, &claim.name))),
        });
        Ok(there.filter(|live| live.meta.uid == claim.uid))
    }

    async fn live_volume(&self, claim_uid: &str, outcome: &mut Outcome) -> Result<Option<Volume>, Trouble> {
        let name = template::volume_name(claim_uid);
        let there = self.read("read a PersistentVolume", self.volumes().get_opt(&name)).await?.map(Volume::from);
        outcome.news.push(match &there {
            Some(live) => Change::Volume(Op::Written(live.clone())),
            None => Change::Volume(Op::Gone(name)),
        });
        Ok(there)
    }

    async fn live_local(&self, name: &str, outcome: &mut Outcome) -> Result<Option<LocalVolume>, Trouble> {
        let there = self.read("read a LocalVolume", self.locals().get_opt(name)).await?;
        outcome.news.push(match &there {
            Some(live) => written_local(live.clone()),
            None => Change::Local(Op::Gone(name.to_owned())),
        });
        Ok(there)
    }

    /// The receipt of a volume's wipe, if its node gave one.
    async fn live_receipt(&self, volume: &Volume) -> Result<Option<WipeReceiptSpec>, Trouble> {
        let receipts: Api<WipeReceipt> = Api::all(self.client.clone());
        let of_it = ListParams::default().fields(&format!("spec.localVolume={}", volume.local));
        let list = self.read("list WipeReceipts", receipts.list(&of_it)).await?;
        Ok(list.items.into_iter().map(|receipt| receipt.spec).find(|receipt| receipt.volume == volume.handle))
    }

    fn locals(&self) -> Api<LocalVolume> {
        Api::all(self.client.clone())
    }
    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }
    fn storages(&self) -> Api<StorageNode> {
        Api::all(self.client.clone())
    }
    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }
    fn claims(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }
    fn capacities(&self) -> Api<CSIStorageCapacity> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn written_local(local: LocalVolume) -> Change {
    Change::Local(Op::Written(local.into()))
}
