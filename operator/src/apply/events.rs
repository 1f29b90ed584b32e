//! Events in the cluster.

use k8s_openapi::{
    api::events::v1::Event as ClusterEvent, apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use millrace_api::StreamJob;

use crate::{build::MANAGER, report::events::Event};

/// Publishes events. One that can't be published, because the namespace is being deleted for example, is logged: nothing
/// may hang on it.
///
/// Each is an object of its own: kube's recorder folds events with the same reason into the first one's text, and the
/// durations of recoveries would be lost. Transitions are rare enough.
pub async fn publish(client: &Client, job: &StreamJob, reporter: &str, events: Vec<Event>) {
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    let api: Api<ClusterEvent> = Api::namespaced(client.clone(), &namespace);
    for event in events {
        tracing::info!(namespace, name, reason = event.reason, "{}", event.note);
        let reason = event.reason;
        if let Err(error) = api.create(&PostParams::default(), &object(job, reporter, event)).await {
            tracing::warn!(namespace, name, reason, "the event is not published: {error}");
        }
    }
}

fn object(job: &StreamJob, reporter: &str, event: Event) -> ClusterEvent {
    let now = Timestamp::now();
    ClusterEvent {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", job.name_any(), now.as_nanosecond())),
            namespace: job.namespace(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(event.reason.to_owned()),
        action: Some(event.reason.to_owned()),
        note: Some(event.note),
        regarding: Some(job.object_ref(&())),
        reporting_controller: Some(MANAGER.to_owned()),
        reporting_instance: Some(reporter.to_owned()),
        ..ClusterEvent::default()
    }
}
