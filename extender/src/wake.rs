//! Waking pods that were turned away: the scheduler looks at them again when an object of a built-in kind changes, never
//! for one of ours. One CSIStorageCapacity exists only to be touched, at most once a second.

use std::sync::Arc;
use std::time::Duration;

use bedplate_api::names;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::json;

use crate::index::Index;
use crate::metrics::Metrics;

/// The least time between two touches.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Touch the object whenever the index says so; never returns.
pub async fn run(client: Client, namespace: &str, index: Arc<Index>, metrics: Arc<Metrics>) {
    let api: Api<CSIStorageCapacity> = Api::namespaced(client, namespace);
    loop {
        index.wake.notified().await;
        match touch(&api).await {
            Ok(()) => {
                metrics.wakes.inc();
                tracing::debug!(object = names::WAKE_OBJECT, "rejected pods woken");
            }
            Err(error) => {
                let why = &error as &dyn std::error::Error;
                tracing::warn!(error = why, object = names::WAKE_OBJECT, namespace, "rejected pods could not be woken");
                // Room is free all the same: try again with the next one, or after the pause.
                index.wake.notify_one();
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn touch(api: &Api<CSIStorageCapacity>) -> Result<(), Error> {
    let now = jiff::Timestamp::now().to_string();
    let annotations = json!({ names::ANNOTATION_WAKE: now });
    let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
    let parameters = PatchParams { field_manager: Some(names::MANAGER_EXTENDER.to_owned()), ..PatchParams::default() };
    match api.patch(names::WAKE_OBJECT, &parameters, &patch).await {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 => {
            // The manifests bring it; on a cluster made by hand it is made here. It stands for no room: nobody has the class.
            let object = CSIStorageCapacity {
                metadata: ObjectMeta {
                    name: Some(names::WAKE_OBJECT.to_owned()),
                    annotations: Some([(names::ANNOTATION_WAKE.to_owned(), now)].into()),
                    ..ObjectMeta::default()
                },
                storage_class_name: names::WAKE_OBJECT.to_owned(),
                ..CSIStorageCapacity::default()
            };
            api.create(&PostParams::default(), &object).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}
