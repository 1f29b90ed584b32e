//! Reading the cluster: from the caches, and past them.

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Pod, Service, ServiceSpec},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
    runtime::reflector::{ObjectRef, Store, store::WriterDropped},
};
use millrace_api::StreamJob;

use super::{PodFacts, SetFacts, pod, set};
use crate::{
    build::{Component, JOB_LABEL, name_of},
    error::Error,
};

/// The caches of one scope: a namespace, or all.
#[derive(Clone)]
pub struct Caches {
    /// The jobs.
    pub jobs: Store<StreamJob>,
    /// Their StatefulSets.
    pub sets: Store<StatefulSet>,
    /// Their pods.
    pub pods: Store<Pod>,
}

impl Caches {
    /// Waits until they hold what the API server had when they began: before, what is missing in them says nothing. It
    /// fails when the watches have ended, which they do with the operator.
    pub async fn filled(&self) -> Result<(), WriterDropped> {
        self.jobs.wait_until_ready().await?;
        self.sets.wait_until_ready().await?;
        self.pods.wait_until_ready().await
    }
}

/// A job and what it consists of.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The object.
    pub job: StreamJob,
    /// The jobmanager's StatefulSet.
    pub job_manager: Option<SetFacts>,
    /// That of the taskmanagers.
    pub task_manager: Option<SetFacts>,
    /// The pods of both.
    pub pods: Vec<PodFacts>,
}

/// What the caches have of a job.
pub fn cached(caches: &Caches, job: &StreamJob) -> Sight {
    let namespace = job.namespace().unwrap_or_default();
    let set = |component| {
        let reference = ObjectRef::new(&name_of(job, component)).within(&namespace);
        caches.sets.get(&reference).map(|set| SetFacts::of(&set, job))
    };
    let name = job.name_any();
    let pods = caches.pods.state_filter(|pod| {
        pod.metadata.namespace.as_deref() == Some(&namespace) && PodFacts::job_of(pod) == Some(&name)
    });
    Sight {
        job: job.clone(),
        job_manager: set(Component::JobManager),
        task_manager: set(Component::TaskManager),
        pods: pods.iter().filter_map(|pod| PodFacts::of(pod, &name)).collect(),
    }
}

/// What the API server has of a job now; none when the job is gone, or another has its name.
pub async fn fresh(client: &Client, job: &StreamJob) -> Result<Option<Sight>, Error> {
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    let jobs: Api<StreamJob> = Api::namespaced(client.clone(), &namespace);
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    // A list without a resource version is never served from a cache.
    let of_job = ListParams::default().labels(&format!("{JOB_LABEL}={name}"));
    let found = jobs.get_opt(&name).await.map_err(Error::api("read the streamjob"))?;
    let Some(found) = found.filter(|found| found.uid() == job.uid()) else { return Ok(None) };
    let sets = sets.list(&of_job).await.map_err(Error::api("list the statefulsets"))?;
    let pods = pods.list(&of_job).await.map_err(Error::api("list the pods"))?;
    let set = |component| {
        let wanted = name_of(&found, component);
        sets.iter().find(|set| set.name_any() == wanted).map(|set| SetFacts::of(set, &found))
    };
    Ok(Some(Sight {
        job_manager: set(Component::JobManager),
        task_manager: set(Component::TaskManager),
        pods: pods.iter().filter_map(|pod| PodFacts::of(pod, &name)).collect(),
        job: found,
    }))
}

/// Whether the namespace of a job is being deleted. The operator may not read namespaces, but admission tells who would
/// create something in one, also in a dry run.
pub async fn namespace_terminates(client: &Client, job: &StreamJob) -> bool {
    let namespace = job.namespace().unwrap_or_default();
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let service = Service {
        metadata: ObjectMeta { name: Some(format!("{}-probe", job.name_any())), ..ObjectMeta::default() },
        spec: Some(ServiceSpec { cluster_ip: Some("None".to_owned()), ..ServiceSpec::default() }),
        ..Service::default()
    };
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let answer = services.create(&parameters, &service).await;
    answer.map_err(Error::api("probe the namespace")).is_err_and(|error| error.is_namespace_terminating())
}

/// What is kept of a job in the cache.
pub fn trim_job(job: &mut StreamJob) {
    job.metadata.managed_fields = None;
    if let Some(annotations) = &mut job.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// What is kept of a StatefulSet in the cache.
pub fn trim_set(set: &mut StatefulSet) {
    set::trim(set);
}

/// What is kept of a pod in the cache.
pub fn trim_pod(pod: &mut Pod) {
    pod::trim(pod);
}
