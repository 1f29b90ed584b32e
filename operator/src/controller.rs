//! Which changes in the cluster lead to which job's reconcile.

use std::{fmt::Debug, sync::Arc};

use futures::{
    FutureExt, Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::{
        Config, Predicate, WatchStreamExt, applier, predicates,
        reflector::{self, ObjectRef},
        watcher::{self, Event},
    },
};
use millrace_api::StreamJob;
use serde::de::DeserializeOwned;

use crate::{
    build::{JOB_LABEL, MANAGER},
    context::{Context, error_policy},
    memory::Memory,
    observe::cluster::{Caches, trim_job, trim_pod, trim_set},
    reconcile::reconcile,
};

/// Requests for reconciles.
type Triggers = BoxStream<'static, watcher::Result<ObjectRef<StreamJob>>>;

/// The watches of one scope, and the caches that they fill.
pub struct Scope {
    client: Client,
    namespace: Option<String>,
    memory: Arc<Memory>,
    triggers: Vec<Triggers>,
    caches: Caches,
}

impl Scope {
    /// Watches a namespace, or all.
    pub fn new(client: Client, namespace: Option<String>, memory: Arc<Memory>) -> Self {
        let (jobs, jobs_writer) = reflector::store();
        let (sets, sets_writer) = reflector::store();
        let (pods, pods_writer) = reflector::store();
        let caches = Caches { jobs, sets, pods };
        let mut scope = Self { client, namespace, memory, triggers: Vec::new(), caches };

        let memory = Arc::clone(&scope.memory);
        let jobs = watcher::watcher(scope.api::<StreamJob>(), watcher::Config::default())
            .default_backoff()
            .modify(trim_job)
            .reflect(jobs_writer)
            .inspect_ok(move |event| {
                if let (Event::Delete(job), memory) = (event, &memory)
                    && let Some(uid) = &job.metadata.uid
                {
                    memory.forget(uid);
                }
            })
            .applied_objects()
            // Its status is the operator's own.
            .predicate_filter(predicates::generation.combine(predicates::finalizers), predicates_config());
        scope.triggers.push(jobs.map_ok(|job| ObjectRef::from_obj(&job)).boxed());

        let sets = watcher::watcher(scope.api::<StatefulSet>(), owned())
            .default_backoff()
            .modify(trim_set)
            .reflect(sets_writer)
            .touched_objects();
        scope.triggers.push(to_jobs(sets).boxed());
        let pods = watcher::watcher(scope.api::<Pod>(), owned())
            .default_backoff()
            .modify(trim_pod)
            .reflect(pods_writer)
            .touched_objects();
        scope.triggers.push(to_jobs(pods).boxed());

        scope.restore::<Service>();
        scope.restore::<PodDisruptionBudget>();
        scope.restore::<NetworkPolicy>();
        scope
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Has objects of a kind come back when somebody deletes them. Nothing of them is kept.
    fn restore<K>(&mut self)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let memory = Arc::clone(&self.memory);
        let deleted = watcher::watcher(self.api::<PartialObjectMeta<K>>(), owned()).default_backoff();
        let deleted = deleted.try_filter_map(move |event| {
            let deleted = match event {
                Event::Delete(object) => Some(object),
                _ => None,
            };
            if let Some(owners) = deleted.as_ref().and_then(|object| object.metadata.owner_references.as_ref()) {
                owners.iter().for_each(|owner| memory.update(&owner.uid, |memory| memory.applied = None));
            }
            futures::future::ok(deleted)
        });
        self.triggers.push(to_jobs(deleted).boxed());
    }

    /// What is known of the scope.
    pub fn caches(&self) -> Caches {
        self.caches.clone()
    }

    /// Reconciles jobs until `shutdown` is done and what was begun has ended.
    pub async fn run(self, context: Arc<Context>, concurrency: u16, shutdown: impl Future<Output = ()> + Send) {
        let Self { triggers, caches, .. } = self;
        let queue = stream::select_all(triggers).take_until(shutdown.boxed());
        let config = Config::default().concurrency(concurrency);
        let run = |job, context| reconcile(job, context).boxed();
        applier(run, error_policy, context, caches.jobs, queue, config)
            .for_each(|result| async move {
                use kube::runtime::controller::Error;
                match result {
                    // The error policy has logged it.
                    Ok(_) | Err(Error::ReconcilerFailed(..)) => {}
                    // A pod's last words, after its job is gone.
                    Err(Error::ObjectNotFound(object)) => tracing::debug!("{object} is gone"),
                    Err(Error::QueueError(error)) => tracing::warn!("a watch failed and is tried again: {error}"),
                    Err(Error::RunnerError(error)) => tracing::error!("{error}"),
                }
            })
            .await;
    }
}

/// The objects of jobs.
fn owned() -> watcher::Config {
    watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER},{JOB_LABEL}"))
}

fn predicates_config() -> kube::runtime::PredicateConfig {
    kube::runtime::PredicateConfig::default()
}

/// The jobs that objects say they belong to.
fn to_jobs<K>(
    objects: impl Stream<Item = watcher::Result<K>> + Send + 'static,
) -> impl Stream<Item = watcher::Result<ObjectRef<StreamJob>>> + Send + 'static
where
    K: Resource + Send + 'static,
{
    objects.try_filter_map(|object| {
        let metadata = object.meta();
        let job = metadata.labels.as_ref().and_then(|labels| labels.get(JOB_LABEL));
        let namespace = metadata.namespace.clone().unwrap_or_default();
        futures::future::ok(job.map(|job| ObjectRef::new(job).within(&namespace)))
    })
}
