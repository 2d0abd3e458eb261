//! What a pass wants done, as values, and the thin layer that does it.
//!
//! Every patch of what somebody else may write carries the resourceVersion that was judged: a conflict means that the
//! next pass judges again. A job whose condition does not hold on the server itself is dropped.

use crate::objects::claims_of;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

/// An object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    kind: ApiResource,
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
}

impl Target {
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let (namespace, name, uid) = (object.namespace(), object.name_any(), object.uid());
        Self { kind: ApiResource::erase::<K>(&()), namespace, name, uid }
    }

    pub fn named(kind: ApiResource, namespace: Option<String>, name: String, uid: Option<String>) -> Self {
        Self { kind, namespace, name, uid }
    }

    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.kind),
            None => Api::all_with(client.clone(), &self.kind),
        }
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Act {
    /// It is fine if it exists.
    Create(Target, Value),
    /// A merge patch.
    Patch(Target, Value),
    /// A merge patch of the status.
    Status(Target, Value),
    /// With this grace period in seconds, if any is said.
    Delete(Target, Option<u32>),
}

/// What must hold on the server itself, whatever the copies say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Check {
    /// None of these objects (with these uids) exists.
    Gone(Vec<Target>),
    /// No pod of the namespace that is on a node uses this claim.
    Unused(String, String),
}

/// Writes that belong together, in order; the first failure ends it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    pub only_if: Option<Check>,
    pub acts: Vec<Act>,
}

impl From<Vec<Act>> for Job {
    fn from(acts: Vec<Act>) -> Self {
        Self { only_if: None, acts }
    }
}

/// A change of metadata that fails if somebody else changed the object since.
pub(super) fn metadata<K: Resource<DynamicType = ()>>(object: &K, mut fields: Value) -> Act {
    fields["resourceVersion"] = json!(object.resource_version());
    Act::Patch(Target::of(object), json!({ "metadata": fields }))
}

/// Does a job; what fails is logged and left to a later pass.
pub(super) async fn carry_out(client: Client, job: Job) {
    let work = async {
        if let Some(check) = &job.only_if
            && !holds(&client, check).await?
        {
            return Ok(());
        }
        for act in &job.acts {
            perform(&client, act).await?;
        }
        Ok::<_, kube::Error>(())
    };
    if let Err(error) = work.await {
        tracing::debug!(error = %error, job = ?job, "controller job not done");
    }
}

async fn holds(client: &Client, check: &Check) -> Result<bool, kube::Error> {
    match check {
        Check::Gone(targets) => {
            for target in targets {
                let found = target.api(client).get_opt(&target.name).await?;
                if found.is_some_and(|found| target.uid.is_none() || found.uid() == target.uid) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Check::Unused(namespace, claim) => {
            let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let pods = pods.list(&ListParams::default()).await?;
            Ok(!pods.iter().any(|pod| uses(pod, claim)))
        }
    }
}

/// Whether a pod keeps a claim: it is on a node and names it, whether it still runs or not.
pub(super) fn uses(pod: &Pod, claim: &str) -> bool {
    let shut_down = pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0);
    let named = |(_, name, ephemeral): (&str, String, bool)| name == claim && !(ephemeral && shut_down);
    crate::objects::node_of(pod).is_some() && claims_of(pod).any(named)
}

async fn perform(client: &Client, act: &Act) -> Result<(), kube::Error> {
    let params = PatchParams::default();
    match act {
        Act::Create(target, object) => {
            let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
            unless(409, target.api(client).create(&PostParams::default(), &object).await)
        }
        Act::Patch(target, patch) => {
            unless(404, target.api(client).patch(&target.name, &params, &Patch::Merge(patch)).await)
        }
        Act::Status(target, patch) => {
            let patch = Patch::Merge(json!({ "status": patch }));
            unless(404, target.api(client).patch_status(&target.name, &params, &patch).await)
        }
        Act::Delete(target, grace) => {
            let uid = target.uid.clone();
            let preconditions = uid.map(|uid| Preconditions { uid: Some(uid), resource_version: None });
            let params = DeleteParams { grace_period_seconds: *grace, preconditions, ..DeleteParams::background() };
            unless(404, target.api(client).delete(&target.name, &params).await)
        }
    }
}

/// An answer with this code is as good as done.
fn unless<T>(code: u16, result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == code => Ok(()),
        other => other.map(|_| ()),
    }
}
