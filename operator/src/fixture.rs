//! Jobs and what there is of them, for tests of what is decided and told.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use millrace_api::{DeploymentStatus, JobState, Phase, StreamJob, StreamJobSpec, StreamJobStatus};
use millrace_core::rest::JobStatus;
use serde_json::json;

use crate::{
    build::{Component, deployment_hash},
    engine::JobFacts,
    observe::{Engine, FINALIZER, Facts, PodFacts, SetFacts, Trouble},
};

/// The time of the tests.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// A time so many seconds before [`now`].
pub fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

/// A spec that is valid.
pub fn spec() -> StreamJobSpec {
    serde_json::from_value(json!({
        "image": "jobs:1",
        "program": "/usr/bin/orders",
        "checkpointing": {"interval": "1s", "storage": "s3://bucket/jobs/"},
        "taskManager": {"replicas": 2},
    }))
    .unwrap()
}

/// A job that was just created.
pub fn created() -> Facts {
    let mut job = StreamJob::new("orders", spec());
    job.metadata.namespace = Some("shop".to_owned());
    job.metadata.uid = Some("uid".to_owned());
    job.metadata.generation = Some(1);
    Facts {
        job,
        invalid: None,
        job_manager: None,
        task_manager: None,
        pods: Vec::new(),
        engine: Engine::Absent,
        namespace_terminating: false,
        discard_asked: false,
        refused: None,
        fresh_id: "f".repeat(32),
    }
}

/// A job whose first deployment is recorded, of which nothing stands.
pub fn recorded() -> Facts {
    let mut facts = created();
    facts.job.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    let deployment = DeploymentStatus {
        number: 1,
        hash: deployment_hash(&facts.job.spec),
        deployed_at: Some(Time(ago(100))),
        spec: facts.job.spec.clone(),
        ..DeploymentStatus::default()
    };
    facts.job.status = Some(StreamJobStatus {
        phase: Some(Phase::Deploying),
        job_id: Some("a".repeat(32)),
        deployment: Some(deployment),
        ..StreamJobStatus::default()
    });
    facts
}

/// A job whose pods are starting.
pub fn starting() -> Facts {
    recorded().with_set(Component::JobManager).with_set(Component::TaskManager).with_pods(false)
}

/// A job that runs.
pub fn running() -> Facts {
    let facts = recorded().with_set(Component::JobManager).with_set(Component::TaskManager).with_pods(true);
    let mut facts = facts.saying(JobStatus::Running).in_phase(Phase::Running);
    let status = facts.job.status.as_mut().unwrap();
    status.generation = Some(1);
    status.start_time = Some(Time(ago(90)));
    facts
}

/// A job that is suspended, with nothing left of it but its checkpoints.
pub fn suspended() -> Facts {
    let mut facts = running().without_sets().in_phase(Phase::Suspended);
    facts.job.spec.state = JobState::Suspended;
    facts.deployed_mut().spec.state = JobState::Suspended;
    facts
}

impl Facts {
    pub(crate) fn with_set(mut self, component: Component) -> Self {
        let number = self.deployment().map_or(1, |deployed| deployed.number);
        let set = SetFacts {
            name: format!("orders-{}", component.as_str()),
            uid: format!("{}-{number}", component.as_str()),
            deployment: number,
            generation: 1,
            deleting: false,
            foreign: false,
        };
        match component {
            Component::JobManager => self.job_manager = Some(set),
            Component::TaskManager => self.task_manager = Some(set),
        }
        self
    }

    pub(crate) fn with_pods(mut self, ready: bool) -> Self {
        let pods = [(Component::JobManager, 0), (Component::TaskManager, 0), (Component::TaskManager, 1)];
        self.pods = pods.map(|(component, index)| self.pod(component, index, ready)).into();
        self
    }

    fn pod(&self, component: Component, index: u8, ready: bool) -> PodFacts {
        let name = format!("orders-{}-{index}", component.as_str());
        PodFacts {
            uid: name.clone(),
            name,
            component,
            deployment: self.deployment().map_or(1, |deployed| deployed.number),
            address: ready.then(|| format!("10.0.0.{index}")),
            running: ready,
            ready,
            trouble: None,
            deleted_until: None,
        }
    }

    /// Nothing of the job stands.
    pub(crate) fn without_sets(mut self) -> Self {
        (self.job_manager, self.task_manager, self.engine) = (None, None, Engine::Absent);
        self.pods.clear();
        self
    }

    /// Its sets and pods are being deleted.
    pub(crate) fn leaving(mut self) -> Self {
        for set in [&mut self.job_manager, &mut self.task_manager].into_iter().flatten() {
            set.deleting = true;
        }
        self.pods.iter_mut().for_each(|pod| pod.deleted_until = Some(ago(-30)));
        self.engine = Engine::Absent;
        self
    }

    pub(crate) fn saying(mut self, state: JobStatus) -> Self {
        let job = JobFacts {
            state: Some(state),
            generation: 1,
            start_time: 910_000_000,
            parallelism: 2,
            slots_total: 2,
            ..JobFacts::default()
        };
        self.engine = Engine::Job(Box::new(job));
        self
    }

    pub(crate) fn in_phase(mut self, phase: Phase) -> Self {
        self.job.status.as_mut().unwrap().phase = Some(phase);
        self
    }

    pub(crate) fn deleted(mut self, seconds_ago: i64) -> Self {
        self.job.metadata.deletion_timestamp = Some(Time(ago(seconds_ago)));
        self
    }

    /// The job's spec is changed by the user.
    pub(crate) fn wanting(mut self, change: impl FnOnce(&mut StreamJobSpec)) -> Self {
        change(&mut self.job.spec);
        self.job.metadata.generation = self.job.metadata.generation.map(|generation| generation + 1);
        self
    }

    pub(crate) fn invalid(mut self, problem: &str) -> Self {
        self.invalid = Some(problem.to_owned());
        self
    }

    pub(crate) fn troubled(mut self, component: Component, reason: &str, message: &str) -> Self {
        for pod in self.pods.iter_mut().filter(|pod| pod.component == component) {
            pod.trouble = Some(Trouble { reason: reason.to_owned(), message: message.to_owned() });
            (pod.ready, pod.running) = (false, false);
        }
        if component == Component::JobManager {
            self.engine = Engine::Absent;
        }
        self
    }

    pub(crate) fn deployed_mut(&mut self) -> &mut DeploymentStatus {
        self.job.status.as_mut().unwrap().deployment.as_mut().unwrap()
    }

    pub(crate) fn engine_mut(&mut self) -> &mut JobFacts {
        match &mut self.engine {
            Engine::Job(job) => job,
            other => panic!("no jobmanager answers: {other:?}"),
        }
    }
}
