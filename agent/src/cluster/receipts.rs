//! WipeReceipts: each receipt of the node's log as an object, made once, and taken away when its time is over.
//!
//! The log is the original and keeps all. An object that is missing is made again (its name follows from the receipt);
//! only this node's own, older than the configured time, are deleted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bedplate_api::names::{LABEL_MANAGED_BY, LABEL_NODE, MANAGER_AGENT};
use bedplate_api::wipe_receipt::{VerificationSummary, WipeReceipt, WipeReceiptSpec, name_for};
use bedplate_core::chain::chain;
use bedplate_core::receipt::Receipt;
use bedplate_core::wipe::{Verification, ZeroMethod};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};

use super::Context;
use super::convert::{claim, signed, wipe_level};

/// How often objects are compared with the log, beside the start.
const COMPARE: Duration = Duration::from_hours(1);
/// When something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Objects in one page of a list.
const PAGE: u32 = 500;

/// Why receipts are not published.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("the receipts log cannot be read")]
    Log(#[source] bedplate_provisioner::receipts::ReceiptsError),
    #[error("the receipts log could not be looked at")]
    Interrupted(#[source] tokio::task::JoinError),
    #[error("the API server did not take or give WipeReceipts")]
    Api(#[source] kube::Error),
}

/// Run for ever.
pub async fn run(context: Arc<Context>) -> std::convert::Infallible {
    let api: Api<WipeReceipt> = Api::all(context.client.clone());
    let mut changes = context.engine.changes();
    // What lies in the log before this place has its object, and how many receipts had been given when that was so.
    let mut done: Option<(u64, u64)> = None;
    let mut compare = tokio::time::interval_at(tokio::time::Instant::now() + COMPARE, COMPARE);
    let mut said = String::new();
    loop {
        let result = match done {
            None => whole(&context, &api).await,
            Some((place, _)) => publish(&context, &api, place, &BTreeSet::new()).await,
        };
        let failed = match result {
            Ok(Published { place, last }) => {
                // The log is written before a volume is freed, and after its number is given out: what is missing comes
                // with the next change.
                let before = done.map_or(0, |(_, last)| last);
                done = Some((place, before.max(last)));
                said.clear();
                false
            }
            Err(error) => {
                // The log may be another one by now, restored from a copy: places in it mean nothing then.
                if matches!(error, PublishError::Log(_)) {
                    done = None;
                }
                let error = chain(&error);
                if error != said {
                    tracing::warn!(error, "receipts could not be published, they are kept in the node's log");
                    said = error;
                }
                true
            }
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(AGAIN), if failed => break,
                _ = compare.tick() => { done = None; break }
                _ = changes.changed() => {
                    if !failed && done.is_some_and(|(_, last)| context.engine.receipts_given() > last) {
                        break;
                    }
                }
            }
        }
    }
}

/// Up to where receipts have their objects.
struct Published {
    /// Place in the log.
    place: u64,
    /// The highest number among them.
    last: u64,
}

/// Make objects for what lies in the log from `place` on, but for those that are `there`.
async fn publish(
    context: &Arc<Context>,
    api: &Api<WipeReceipt>,
    mut place: u64,
    there: &BTreeSet<String>,
) -> Result<Published, PublishError> {
    let mut last = 0;
    loop {
        let engine = context.engine.clone();
        let read = tokio::task::spawn_blocking(move || engine.receipts_from(place)).await;
        let (some, next) = read.map_err(PublishError::Interrupted)?.map_err(PublishError::Log)?;
        for receipt in some {
            if keeps(context, receipt.ended) && !there.contains(&name_for(&receipt)) {
                make(context, api, &receipt).await?;
            }
            last = last.max(receipt.number);
        }
        if next == place {
            return Ok(Published { place, last });
        }
        place = next;
    }
}

fn keeps(context: &Context, ended: Timestamp) -> bool {
    let kept = SignedDuration::from_hours(24 * i64::from(context.settings.receipt_days));
    Timestamp::now().duration_since(ended) <= kept
}

/// Compare all objects of this node with its log.
async fn whole(context: &Arc<Context>, api: &Api<WipeReceipt>) -> Result<Published, PublishError> {
    let mut there: BTreeSet<String> = BTreeSet::new();
    let mut params = ListParams::default().labels(&format!("{LABEL_NODE}={}", context.node)).limit(PAGE);
    loop {
        let page = api.list(&params).await.map_err(PublishError::Api)?;
        for object in &page.items {
            // Looked at again: only this node's own are ever taken away.
            if object.spec.node != context.node.as_str() {
                continue;
            }
            if keeps(context, object.spec.ended.0) {
                there.insert(object.name_any());
                continue;
            }
            match api.delete(&object.name_any(), &DeleteParams::default()).await {
                Ok(_) => tracing::info!(receipt = object.name_any(), "a WipeReceipt's time is over, the log keeps it"),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(PublishError::Api(error)),
            }
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            break;
        }
    }
    publish(context, api, 0, &there).await
}

async fn make(context: &Context, api: &Api<WipeReceipt>, receipt: &Receipt) -> Result<(), PublishError> {
    let mut object = WipeReceipt::new(&name_for(receipt), spec(receipt));
    object.labels_mut().insert(LABEL_NODE.to_owned(), context.node.to_string());
    object.labels_mut().insert(LABEL_MANAGED_BY.to_owned(), MANAGER_AGENT.to_owned());
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => {
            context.metrics.wrote("WipeReceipt");
            Ok(())
        }
        // Made before, by us: the name holds the volume's 128 random bits.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(PublishError::Api(error)),
    }
}

/// A receipt in the API's words.
fn spec(receipt: &Receipt) -> WipeReceiptSpec {
    let kind = match &receipt.verification.kind {
        Verification::Full => "full",
        Verification::Sample { .. } => "sample",
    };
    let time = |at: Timestamp| Time(super::status::whole_seconds(at));
    WipeReceiptSpec {
        number: signed(receipt.number),
        ledger_id: receipt.ledger.to_string(),
        node: receipt.node.to_string(),
        volume: receipt.volume.to_string(),
        local_volume: receipt.name.clone(),
        claim: claim(&receipt.claim),
        claim_uid: receipt.claim.uid.clone(),
        parameters: receipt.class.clone(),
        pool: receipt.pool.to_string(),
        serial: receipt.disk.serial.clone(),
        wwn: receipt.disk.wwn.clone(),
        model: receipt.disk.model.clone(),
        identity: receipt.disk.identity.clone(),
        bytes: signed(receipt.bytes),
        ranges: signed(receipt.ranges.extents.len() as u64),
        method: match receipt.method {
            ZeroMethod::DirectWrites => "direct-writes",
            ZeroMethod::ZeroRange => "zero-range",
        }
        .to_owned(),
        passes: i64::from(receipt.passes),
        verification: VerificationSummary {
            kind: kind.to_owned(),
            bytes: signed(receipt.verification.bytes),
            bound_ppm: i64::from(receipt.verification.bound_ppm),
            seed: String::from(receipt.seed),
        },
        level: wipe_level(receipt.level),
        level_losses: receipt.level_losses.iter().map(ToString::to_string).collect(),
        started: time(receipt.started),
        ended: time(receipt.ended),
        agent: receipt.agent.clone(),
        previous: receipt.previous.clone(),
        hash: receipt.hash.clone(),
    }
}

#[cfg(test)]
mod tests;
