//! What ends something: releases, deletions, finalizers, capacities. Each behind live reads.
//!
//! Order for a volume that is wiped: PersistentVolume first, while the LocalVolume still says that it was; then that.

use bedplate_api::local_volume::ReleaseKind;
use bedplate_api::names;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;

use super::{Hands, Outcome, Trouble};
use crate::cluster::action::ClaimName;
use crate::cluster::authority;
use crate::cluster::objects::{Local, Meta, Volume};
use crate::cluster::template::volume_name;
use crate::cluster::view::{Change, Op};

impl Hands {
    pub(super) async fn release(
        &self,
        local: &Meta,
        kind: ReleaseKind,
        claim: &ClaimName,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        let what = "release a LocalVolume";
        let Some(live) = self.live_local(&local.name, outcome).await?.map(Local::from) else { return Ok(()) };
        if live.meta.uid != local.uid {
            return Err(Trouble::Changed { what });
        }
        let volume = self.live_volume(&claim.uid, outcome).await?;
        let there = self.live_claim(claim, outcome).await?;
        authority::release(kind, &live, volume.as_ref(), there.as_ref())?;
        let patch = json!({
            "metadata": { "uid": live.meta.uid, "resourceVersion": live.meta.version },
            "spec": { "release": { "claimUID": claim.uid, "kind": kind } },
        });
        let done = self.patch(what, &self.locals(), &local.name, patch).await;
        self.refresh_local(&local.name, done, outcome).await?;
        self.metrics.released(kind);
        tracing::info!(local = local.name, ?kind, "volume released");
        Ok(())
    }

    pub(super) async fn drop_volume(&self, volume: &Meta, local: &str, outcome: &mut Outcome) -> Result<(), Trouble> {
        let what = "delete a PersistentVolume";
        let Some(live) = self.read(what, self.volumes().get_opt(&volume.name)).await? else {
            outcome.news.push(Change::Volume(Op::Gone(volume.name.clone())));
            return Ok(());
        };
        if live.uid().as_deref() != Some(&volume.uid) {
            return Err(Trouble::Changed { what });
        }
        let seen = Volume::from(live.clone());
        match self.live_local(local, outcome).await?.map(Local::from) {
            Some(record) => authority::drop_volume(&seen, Some(&record))?,
            None => authority::drop_volume_by(self.live_receipt(&seen).await?.as_ref(), &seen)?,
        }
        let mut live = live;
        if live.metadata.deletion_timestamp.is_none() {
            self.delete(what, &self.volumes(), volume).await?;
            let Some(now) = self.read(what, self.volumes().get_opt(&volume.name)).await? else {
                outcome.news.push(Change::Volume(Op::Gone(volume.name.clone())));
                return Ok(());
            };
            live = now;
        }
        let patch = without_finalizer(
            live.metadata.finalizers.as_ref(),
            &volume.uid,
            live.metadata.resource_version.as_deref(),
        );
        let done: PersistentVolume = self.patch(what, &self.volumes(), &volume.name, patch).await?;
        tracing::info!(volume = volume.name, "PersistentVolume let go");
        let gone = done.metadata.finalizers.as_ref().is_none_or(Vec::is_empty);
        outcome.news.push(if gone {
            Change::Volume(Op::Gone(volume.name.clone()))
        } else {
            Change::Volume(Op::Written(done.into()))
        });
        Ok(())
    }

    pub(super) async fn drop_local(&self, local: &Meta, claim_uid: &str, outcome: &mut Outcome) -> Result<(), Trouble> {
        let what = "delete a LocalVolume";
        let Some(live) = self.live_local(&local.name, outcome).await? else { return Ok(()) };
        if live.uid().as_deref() != Some(&local.uid) {
            return Err(Trouble::Changed { what });
        }
        let claim = ClaimName {
            namespace: live.spec.claim.namespace.clone(),
            name: live.spec.claim.name.clone(),
            uid: claim_uid.to_owned(),
        };
        let volume = self.live_volume(claim_uid, outcome).await?;
        let there = self.live_claim(&claim, outcome).await?;
        authority::drop_local(&Local::from(live.clone()), volume.as_ref(), there.as_ref())?;
        let mut live = live;
        if live.metadata.deletion_timestamp.is_none() {
            self.delete(what, &self.locals(), local).await?;
            outcome.finished = Some(local.name.clone());
            let Some(now) = self.live_local(&local.name, outcome).await? else { return Ok(()) };
            live = now;
        }
        let patch =
            without_finalizer(live.metadata.finalizers.as_ref(), &local.uid, live.metadata.resource_version.as_deref());
        let done = self.patch(what, &self.locals(), &local.name, patch).await?;
        tracing::info!(local = local.name, "LocalVolume let go");
        outcome.finished = Some(local.name.clone());
        let gone = done.metadata.finalizers.as_ref().is_none_or(Vec::is_empty);
        outcome.news.push(if gone {
            Change::Local(Op::Gone(local.name.clone()))
        } else {
            Change::Local(Op::Written(done.into()))
        });
        debug_assert!(volume.is_none_or(|volume| volume.meta.name == volume_name(claim_uid)));
        Ok(())
    }

    pub(super) async fn publish(
        &self,
        wanted: CSIStorageCapacity,
        present: Option<Meta>,
        outcome: &mut Outcome,
    ) -> Result<(), Trouble> {
        let what = "publish a CSIStorageCapacity";
        let done = match present {
            None => self.write(what, self.capacities().create(&PostParams::default(), &wanted)).await,
            Some(present) => {
                let patch = json!({
                    "metadata": {
                        "uid": present.uid,
                        "resourceVersion": present.version,
                        "ownerReferences": wanted.metadata.owner_references,
                    },
                    "capacity": wanted.capacity,
                    "maximumVolumeSize": wanted.maximum_volume_size,
                });
                self.patch(what, &self.capacities(), &present.name, patch).await
            }
        };
        match done {
            Ok(done) => {
                outcome.news.push(Change::Capacity(Op::Written(done.into())));
                Ok(())
            }
            Err(trouble @ Trouble::Changed { .. }) => {
                let there = self.read(what, self.capacities().get_opt(&wanted.name_any())).await?;
                outcome.news.extend(there.map(|there| Change::Capacity(Op::Written(there.into()))));
                Err(trouble)
            }
            Err(trouble) => Err(trouble),
        }
    }

    pub(super) async fn unpublish(&self, capacity: &Meta, outcome: &mut Outcome) -> Result<(), Trouble> {
        self.delete("remove a CSIStorageCapacity", &self.capacities(), capacity).await?;
        outcome.news.push(Change::Capacity(Op::Gone(capacity.name.clone())));
        Ok(())
    }
}

/// Our finalizer off, all others left, at exactly this version.
fn without_finalizer(finalizers: Option<&Vec<String>>, uid: &str, version: Option<&str>) -> serde_json::Value {
    let rest: Vec<&String> = finalizers.into_iter().flatten().filter(|f| *f != names::FINALIZER).collect();
    json!({ "metadata": { "uid": uid, "resourceVersion": version, "finalizers": rest } })
}
