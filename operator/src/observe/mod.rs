//! What there is: a job's objects, pods and jobmanager as plain data, which `decide` and `report` judge.
//!
//! Facts come from the operator's caches. They lag behind the cluster, so whatever can't be taken back is decided again
//! from a fresh look ([`cluster::fresh`]) before it is done.

pub mod cluster;
mod pod;
mod set;

pub use pod::{PodFacts, Trouble};
pub use set::SetFacts;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use millrace_api::{DeploymentStatus, Phase, StreamJob, StreamJobSpec, StreamJobStatus};

use crate::{build::Component, engine::JobFacts};

/// The finalizer: the job's checkpoints are deleted before it goes.
pub const FINALIZER: &str = "millrace.dev/checkpoints";
/// Kubernetes' own: what the object owns is deleted before it goes, whatever the operator would like to keep.
const FOREGROUND: &str = "foregroundDeletion";
/// How long after its deadline a pod that does not end is deleted by force.
pub const STUCK_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// All that is known of a job.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The object itself.
    pub job: StreamJob,
    /// What is wrong with its spec.
    pub invalid: Option<String>,
    /// The jobmanager's StatefulSet.
    pub job_manager: Option<SetFacts>,
    /// That of the taskmanagers.
    pub task_manager: Option<SetFacts>,
    /// The pods of both.
    pub pods: Vec<PodFacts>,
    /// What the jobmanager says.
    pub engine: Engine,
    /// Whether nothing can be created any more because the namespace is being deleted.
    pub namespace_terminating: bool,
    /// Whether this process has asked the jobmanager to delete the job with all its state.
    pub discard_asked: bool,
    /// What the apiserver refused of what should be applied.
    pub refused: Option<String>,
    /// The id that a new job would get.
    pub fresh_id: String,
}

/// What the jobmanager says.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Engine {
    /// None runs.
    #[default]
    Absent,
    /// One runs, and gives no answer.
    Unreachable(String),
    /// Its answer.
    Job(Box<JobFacts>),
}

impl Facts {
    /// The status that was written last.
    pub fn status(&self) -> StreamJobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    /// What is deployed.
    pub fn deployment(&self) -> Option<&DeploymentStatus> {
        self.job.status.as_ref()?.deployment.as_ref()
    }

    /// The phase that was written last.
    pub fn phase(&self) -> Phase {
        self.job.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Created)
    }

    /// The job's id.
    pub fn job_id(&self) -> Option<&str> {
        self.job.status.as_ref()?.job_id.as_deref()
    }

    /// The spec to go by: the newest valid one. None where there has never been one.
    pub fn target(&self) -> Option<&StreamJobSpec> {
        match self.invalid {
            None => Some(&self.job.spec),
            Some(_) => self.deployment().map(|deployment| &deployment.spec),
        }
    }

    /// Since when the job is being deleted.
    pub fn deleted_since(&self) -> Option<Timestamp> {
        self.job.metadata.deletion_timestamp.as_ref().map(|time| time.0)
    }

    /// Whether the object waits for the operator before it goes.
    pub fn has_finalizer(&self) -> bool {
        self.finalizers().any(|name| name == FINALIZER)
    }

    /// Whether pods of the job are deleted no matter what: a jobmanager that is gone can't be started again.
    pub fn is_doomed(&self) -> bool {
        self.namespace_terminating
            || (self.deleted_since().is_some() && self.finalizers().any(|name| name == FOREGROUND))
    }

    /// Whether somebody deletes the jobmanager's pod, but not its StatefulSet: that pod alone, or the whole namespace.
    pub fn loses_job_manager(&self) -> bool {
        let stands = self.job_manager.as_ref().is_some_and(|set| !set.deleting);
        stands && self.pods_of(Component::JobManager).any(|pod| pod.deleted_until.is_some())
    }

    fn finalizers(&self) -> impl Iterator<Item = &String> {
        self.job.metadata.finalizers.iter().flatten()
    }

    /// A component's StatefulSet.
    pub fn set(&self, component: Component) -> Option<&SetFacts> {
        match component {
            Component::JobManager => self.job_manager.as_ref(),
            Component::TaskManager => self.task_manager.as_ref(),
        }
    }

    /// The components that have a StatefulSet.
    pub fn components(&self) -> Vec<Component> {
        let all = [Component::JobManager, Component::TaskManager];
        all.into_iter().filter(|component| self.set(*component).is_some()).collect()
    }

    /// A component's pods.
    pub fn pods_of(&self, component: Component) -> impl Iterator<Item = &PodFacts> {
        self.pods.iter().filter(move |pod| pod.component == component)
    }

    /// The jobmanager's pod, if it is not on its way out.
    pub fn job_manager_pod(&self) -> Option<&PodFacts> {
        self.pods_of(Component::JobManager).find(|pod| pod.deleted_until.is_none())
    }

    /// The jobmanager's answer.
    pub fn engine_job(&self) -> Option<&JobFacts> {
        match &self.engine {
            Engine::Job(job) => Some(job),
            _ => None,
        }
    }
}
