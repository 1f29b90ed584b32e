//! Carrying decisions out: the operator's only writes, each of which may be done again.

mod children;
mod events;

pub use children::{Applied, apply};
pub use events::publish;

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use millrace_api::{StreamJob, StreamJobStatus};
use serde_json::json;

use crate::{
    error::Error,
    observe::{FINALIZER, Facts, SetFacts},
};

/// The API of the job's objects of a kind.
fn api_of<K>(client: &Client, job: &StreamJob) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    Api::namespaced(client.clone(), &job.namespace().unwrap_or_default())
}

/// Writes the status, if the object is still the one that it was made from. Returns the object as it is now.
pub async fn write_status(client: &Client, job: &StreamJob, status: StreamJobStatus) -> Result<StreamJob, Error> {
    let written = StreamJob { status: Some(status), ..job.clone() };
    let replaced =
        api_of::<StreamJob>(client, job).replace_status(&job.name_any(), &PostParams::default(), &written).await;
    replaced.map_err(Error::api("write the status"))
}

/// Adds or removes the operator's finalizer, if the object is still the one that was looked at.
pub async fn set_finalizer(client: &Client, job: &StreamJob, wanted: bool) -> Result<StreamJob, Error> {
    let mut finalizers = job.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|name| name != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    let metadata = json!({"resourceVersion": job.metadata.resource_version, "finalizers": finalizers});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let patched = api_of::<StreamJob>(client, job).patch(&job.name_any(), &PatchParams::default(), &patch).await;
    patched.map_err(Error::api("change the finalizers"))
}

/// Deletes a StatefulSet and with it its pods: it stays until they have gone.
pub async fn delete_set(client: &Client, job: &StreamJob, set: &SetFacts) -> Result<(), Error> {
    let exactly = Preconditions { uid: Some(set.uid.clone()), resource_version: None };
    let parameters = DeleteParams::foreground().preconditions(exactly);
    let deleted = api_of::<StatefulSet>(client, job).delete(&set.name, &parameters).await;
    gone(deleted.map(|_| ())).map_err(Error::api(format!("delete statefulset {}", set.name)))
}

/// Deletes pods without waiting for their nodes to end them. Another pod of the same name is left alone.
pub async fn force_delete(client: &Client, facts: &Facts, names: &[String]) -> Result<(), Error> {
    for pod in facts.pods.iter().filter(|pod| names.contains(&pod.name)) {
        let exactly = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let parameters = DeleteParams::default().grace_period(0).preconditions(exactly);
        tracing::warn!(pod = pod.name, "pod does not end: deleting it by force");
        let deleted = api_of::<Pod>(client, &facts.job).delete(&pod.name, &parameters).await;
        gone(deleted.map(|_| ())).map_err(Error::api(format!("delete pod {}", pod.name)))?;
    }
    Ok(())
}

/// What is gone need not be deleted, and what has another identity is not what was meant.
fn gone(deleted: kube::Result<()>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}
