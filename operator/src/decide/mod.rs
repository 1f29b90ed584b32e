//! What to do next about a job. Pure: facts in, one step out.
//!
//! The operator may be killed between any two steps, and may see the cluster as it was. Therefore one step at a time is
//! decided, each from what can be seen, and what the cluster can't say afterwards is in the status before anything is
//! done: the job's id before its pods, a new deployment before its StatefulSets, a job's end before its pods go. Doing a
//! step twice is doing it once.

mod deletion;
mod stop;

#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use millrace_api::{DeploymentStatus, JobState, Phase, StreamJobSpec, UpgradeMode};
use millrace_core::rest::JobStatus;

use crate::{
    build::{Component, deployment_hash},
    observe::{Engine, Facts, STUCK_AFTER},
};

/// How long a jobmanager may take to delete what a job has stored.
pub const DISCARD_TIMEOUT: SignedDuration = SignedDuration::from_secs(30);

/// What to do, and what it means for the job.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// What becomes of the job by it.
    pub situation: Situation,
    /// When to look again if nothing happens before.
    pub pace: Pace,
    /// What of the job stays in the store although nobody will look for it there.
    pub left_behind: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Have the object wait for its checkpoints' deletion when it is deleted.
    AddFinalizer,
    /// Write to the status what is deployed from now on.
    Record(Box<Record>),
    /// Make the cluster have the objects of what is deployed, with the StatefulSets of these components.
    Apply(Vec<Component>),
    /// Delete the StatefulSets of these components, and so their pods.
    Stop(Vec<Component>),
    /// Delete these pods without waiting for their nodes.
    ForceDelete(Vec<String>),
    /// Have the jobmanager cancel the job and delete all of it in the store.
    Discard,
    /// Let the object go.
    RemoveFinalizer,
}

/// What is deployed from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The job's id.
    pub job_id: String,
    /// What is deployed.
    pub deployment: DeploymentStatus,
}

/// What becomes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Situation {
    /// Nothing of it was ever deployed.
    NotDeployed,
    /// It is deployed, and the engine says how it is.
    Deployed,
    /// It is being stopped, to be started again with a changed spec.
    Upgrading,
    /// It is being stopped, to stay so.
    Suspending,
    /// It is stopped.
    Suspended,
    /// It has come to its end.
    Ended,
    /// It is being deleted.
    Deleting,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Now,
    /// Soon: something moves that can't be watched.
    Fast,
    /// At the poll interval: the job's numbers change.
    Steady,
    /// Not before something that is watched changes.
    Idle,
    /// After this time.
    After(Duration),
}

impl Decision {
    fn new(step: Step, situation: Situation) -> Self {
        let pace = if step == Step::Wait { Pace::Fast } else { Pace::Now };
        Self { step, situation, pace, left_behind: None }
    }

    fn wait(situation: Situation, pace: Pace) -> Self {
        Self { step: Step::Wait, situation, pace, left_behind: None }
    }
}

/// Decides the next step.
pub fn decide(facts: &Facts, now: Timestamp) -> Decision {
    let stuck = stuck(facts, now);
    let mut decision = match facts.deleted_since() {
        Some(since) => deletion::decide(facts, since, now),
        None if facts.namespace_terminating => deletion::foreseen(facts),
        None => living(facts, now),
    };
    if !stuck.is_empty() && matches!(decision.step, Step::Wait | Step::Apply(_)) {
        decision.step = Step::ForceDelete(stuck);
    }
    if decision.step == Step::Wait || matches!(decision.step, Step::Apply(_)) {
        decision.pace = earlier(decision.pace, next_deadline(facts, now));
    }
    decision
}

fn living(facts: &Facts, now: Timestamp) -> Decision {
    let Some(target) = facts.target() else { return Decision::wait(Situation::NotDeployed, Pace::Idle) };
    let Some(deployed) = facts.deployment() else { return first(facts, target, now) };
    let ended = matches!(facts.phase(), Phase::Finished | Phase::Failed);
    if !ended && engine_ended(facts) && deployed.discarded_at.is_none() {
        // Its end is written down before anything is done about it: pods that are gone tell nothing.
        return Decision::wait(Situation::Deployed, Pace::Fast);
    }
    if target.is_suspended() {
        return suspend(facts, deployed);
    }
    if deployed.discarded_at.is_some() || deployed.spec.is_suspended() || deployment_hash(target) != deployed.hash {
        if facts.phase() == Phase::Finished && deployed.spec.is_suspended() && same(target, deployed) {
            return stop::ended(facts);
        }
        return upgrade(facts, target, deployed, now);
    }
    if *target != deployed.spec {
        return Decision::new(
            record(facts, DeploymentStatus { spec: target.clone(), ..deployed.clone() }),
            situation(ended),
        );
    }
    if ended { stop::ended(facts) } else { run(facts, deployed) }
}

/// A job that was never deployed.
fn first(facts: &Facts, target: &StreamJobSpec, now: Timestamp) -> Decision {
    if target.is_suspended() {
        return Decision::wait(Situation::Suspended, Pace::Idle);
    }
    if !facts.has_finalizer() {
        return Decision::new(Step::AddFinalizer, Situation::NotDeployed);
    }
    let deployment = DeploymentStatus {
        number: 1,
        hash: deployment_hash(target),
        deployed_at: Some(Time(now)),
        spec: target.clone(),
        ..DeploymentStatus::default()
    };
    let record = Record { job_id: facts.fresh_id.clone(), deployment };
    Decision::new(Step::Record(Box::new(record)), Situation::Deployed)
}

/// A job that is to run as it is deployed.
fn run(facts: &Facts, deployed: &DeploymentStatus) -> Decision {
    if let Some(wait) = stop::leftovers(facts, deployed, Situation::Deployed) {
        return wait;
    }
    let pace = match &facts.engine {
        Engine::Job(job) if job.state == Some(JobStatus::Running) && facts.phase() == Phase::Running => Pace::Steady,
        Engine::Job(_) | Engine::Unreachable(_) => Pace::Fast,
        // Pods that come and go are watched.
        Engine::Absent => Pace::Idle,
    };
    let step = Step::Apply(vec![Component::JobManager, Component::TaskManager]);
    Decision { step, situation: Situation::Deployed, pace, left_behind: None }
}

/// A job that is to be stopped and to stay so. Its end stays its end.
fn suspend(facts: &Facts, deployed: &DeploymentStatus) -> Decision {
    if facts.phase() == Phase::Finished {
        return stop::ended(facts);
    }
    if !deployed.spec.is_suspended() {
        let spec = StreamJobSpec { state: JobState::Suspended, ..deployed.spec.clone() };
        let deployment = DeploymentStatus { spec, ..deployed.clone() };
        return Decision::new(record(facts, deployment), Situation::Suspending);
    }
    stop::all(facts, Situation::Suspending).unwrap_or_else(|| Decision::wait(Situation::Suspended, Pace::Idle))
}

/// A job that is to run otherwise than it is deployed, or again: stop all, then write down what comes, then start all.
fn upgrade(facts: &Facts, target: &StreamJobSpec, deployed: &DeploymentStatus, now: Timestamp) -> Decision {
    let without_state = target.upgrade_mode == UpgradeMode::Stateless && deployment_hash(target) != deployed.hash;
    // A job that has finished is not run again: another takes its place.
    let anew = without_state || facts.phase() == Phase::Finished;
    let discards = anew && deployed.discarded_at.is_none();
    if discards && stop::stored(facts).is_some() {
        let deployment = DeploymentStatus { discarded_at: Some(Time(now)), ..deployed.clone() };
        return Decision::new(record(facts, deployment), Situation::Upgrading);
    }
    if let Some(since) = &deployed.discarded_at
        && let Some(discard) = stop::discard(facts, since.0 + DISCARD_TIMEOUT, now)
    {
        return discard;
    }
    if let Some(stop) = stop::all(facts, Situation::Upgrading) {
        return stop;
    }
    let fresh = anew || deployed.discarded_at.is_some();
    let deployment = DeploymentStatus {
        number: deployed.number + 1,
        hash: deployment_hash(target),
        deployed_at: Some(Time(now)),
        spec: target.clone(),
        restarts_before: if fresh { 0 } else { facts.status().restarts },
        discarded_at: None,
    };
    let id = if fresh { Some(facts.fresh_id.as_str()) } else { facts.job_id() };
    let record = Record { job_id: id.unwrap_or(&facts.fresh_id).to_owned(), deployment };
    Decision::new(Step::Record(Box::new(record)), Situation::Deployed)
}

/// Another record of what is deployed, of the same job.
fn record(facts: &Facts, deployment: DeploymentStatus) -> Step {
    let job_id = facts.job_id().unwrap_or(&facts.fresh_id).to_owned();
    Step::Record(Box::new(Record { job_id, deployment }))
}

fn situation(ended: bool) -> Situation {
    if ended { Situation::Ended } else { Situation::Deployed }
}

fn same(target: &StreamJobSpec, deployed: &DeploymentStatus) -> bool {
    deployment_hash(target) == deployed.hash
}

/// Whether the jobmanager says that the job has come to its end.
fn engine_ended(facts: &Facts) -> bool {
    facts.engine_job().and_then(|job| job.state).is_some_and(JobStatus::is_terminal)
}

/// Pods that should have ended long ago: as a rule their node does not answer. Whether it does can't be told from here,
/// and need not: fencing makes it safe to replace them.
fn stuck(facts: &Facts, now: Timestamp) -> Vec<String> {
    let overdue = |until: Timestamp| now >= until + STUCK_AFTER;
    let stuck = facts.pods.iter().filter(|pod| pod.deleted_until.is_some_and(overdue));
    stuck.map(|pod| pod.name.clone()).collect()
}

/// Until the next pod counts as stuck.
fn next_deadline(facts: &Facts, now: Timestamp) -> Option<Duration> {
    let deadlines = facts.pods.iter().filter_map(|pod| pod.deleted_until).map(|until| until + STUCK_AFTER);
    deadlines.filter(|deadline| *deadline > now).min().map(|deadline| until(deadline, now))
}

/// The time until `deadline`, none if it has passed.
pub(crate) fn until(deadline: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(deadline.duration_since(now)).unwrap_or_default()
}

fn earlier(pace: Pace, deadline: Option<Duration>) -> Pace {
    match (pace, deadline) {
        (Pace::Idle, Some(deadline)) => Pace::After(deadline),
        (Pace::After(other), Some(deadline)) => Pace::After(other.min(deadline)),
        (pace, _) => pace,
    }
}
