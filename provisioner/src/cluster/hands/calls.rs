//! One API call: bounded in time, fenced if it writes, its failure sorted into what a caller can do about it.

use std::fmt::Debug;

use bedplate_api::names::MANAGER_PROVISIONER;
use kube::Error;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Hands, Trouble};
use crate::cluster::objects::Meta;

impl Hands {
    /// A read. It may be done by anybody.
    pub(super) async fn read<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(self.call, call).await {
            Ok(answer) => answer.map_err(|error| sort(what, error)),
            Err(_) => Err(Trouble::Slow { what }),
        }
    }

    /// A write: begun only while this process leads, and given up when its time as leader is.
    pub(super) async fn write<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Trouble> {
        let left = self.leadership.remaining().ok_or(Trouble::Fenced)?;
        self.metrics.write();
        match tokio::time::timeout(left.min(self.call), call).await {
            Ok(answer) => answer.map_err(|error| sort(what, error)),
            Err(_) => Err(Trouble::Slow { what }),
        }
    }

    /// A merge patch, which carries its own precondition in `metadata`.
    pub(super) async fn patch<K>(
        &self,
        what: &'static str,
        api: &Api<K>,
        name: &str,
        patch: Value,
    ) -> Result<K, Trouble>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let parameters = PatchParams { field_manager: Some(MANAGER_PROVISIONER.to_owned()), ..PatchParams::default() };
        self.write(what, api.patch(name, &parameters, &Patch::Merge(patch))).await
    }

    /// Delete exactly this object; whether it is gone already is no trouble.
    pub(super) async fn delete<K>(&self, what: &'static str, api: &Api<K>, object: &Meta) -> Result<(), Trouble>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let uid = Some(object.uid.clone()).filter(|uid| !uid.is_empty());
        let parameters = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        match self.write(what, api.delete(&object.name, &parameters)).await {
            Ok(_) => Ok(()),
            Err(Trouble::Failed { source, .. }) if is_missing(&source) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }
}

fn sort(what: &'static str, error: Error) -> Trouble {
    match &error {
        Error::Api(status) if status.is_conflict() || status.is_already_exists() => Trouble::Changed { what },
        _ => Trouble::Failed { what, source: Box::new(error) },
    }
}

/// Whether the object (or its whole kind) is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.is_not_found())
}
