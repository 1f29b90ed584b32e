//! Stopping: everything is gone before anything is started again.

use k8s_openapi::jiff::Timestamp;
use millrace_api::DeploymentStatus;
use millrace_core::rest::JobStatus;

use super::{Decision, Pace, Situation, Step};
use crate::{
    build::Component,
    engine::JobFacts,
    observe::{Engine, Facts, SetFacts},
};

/// Deletes the StatefulSets and waits until no pod is left; none when that is so.
pub(super) fn all(facts: &Facts, situation: Situation) -> Option<Decision> {
    let standing: Vec<_> = facts
        .components()
        .into_iter()
        .filter(|component| facts.set(*component).is_some_and(|set| !set.deleting))
        .collect();
    if !standing.is_empty() {
        return Some(Decision::new(Step::Stop(standing), situation));
    }
    // The sets and pods that are on their way out are watched.
    let leaving = !facts.components().is_empty() || !facts.pods.is_empty();
    leaving.then(|| Decision::wait(situation, Pace::Idle))
}

/// What another deployment, or a job that had the name before, has left, or somebody deletes: it has to be gone before
/// something takes its place. Pods whose StatefulSet is gone will be deleted as well.
pub(super) fn leftovers(facts: &Facts, deployed: &DeploymentStatus, situation: Situation) -> Option<Decision> {
    let other = |component: &Component| {
        let other = |set: &SetFacts| set.foreign || set.deployment != deployed.number;
        facts.set(*component).is_some_and(|set| !set.deleting && other(set))
    };
    let others: Vec<_> = facts.components().into_iter().filter(other).collect();
    if !others.is_empty() {
        return Some(Decision::new(Step::Stop(others), situation));
    }
    let leaving =
        [Component::JobManager, Component::TaskManager].into_iter().any(|component| match facts.set(component) {
            Some(set) => set.deleting,
            None => facts.pods_of(component).next().is_some(),
        });
    leaving.then(|| Decision::wait(situation, Pace::Idle))
}

/// A job that has ended keeps its jobmanager, which tells how, and deletes what the job has stored when that is asked of
/// it.
pub(super) fn ended(facts: &Facts) -> Decision {
    match facts.set(Component::TaskManager) {
        Some(set) if !set.deleting => Decision::new(Step::Stop(vec![Component::TaskManager]), Situation::Ended),
        _ => Decision::wait(Situation::Ended, Pace::Idle),
    }
}

/// Where the deployed job stores what is to be deleted with it. None where it stores nothing, or keeps it.
pub(super) fn stored(facts: &Facts) -> Option<String> {
    let checkpointing = &facts.deployment()?.spec.checkpointing;
    let storage = checkpointing.storage.as_ref().filter(|_| !checkpointing.retains_on_cancellation())?;
    Some(format!("{}/{}", storage.as_str().trim_end_matches('/'), facts.job_id()?))
}

/// Whether the jobmanager has done what it was asked to: deleted the job, or as much of it as it could.
pub(super) fn discarded(facts: &Facts) -> bool {
    facts.discard_asked && facts.engine_job().is_some_and(|job| job.state == Some(JobStatus::Canceled))
}

/// Asks a jobmanager that answers to delete the job, once, or waits for it. It may have ended the job otherwise in that
/// very moment, and not heard.
pub(super) fn ask(facts: &Facts, job: &JobFacts, situation: Situation) -> Decision {
    let ended = job.state.is_some_and(JobStatus::is_terminal);
    if facts.discard_asked && !ended {
        Decision::wait(situation, Pace::Fast)
    } else {
        Decision::new(Step::Discard, situation)
    }
}

/// Has the running jobmanager delete the job until `deadline`; none when that is done or can't be.
///
/// A jobmanager that does not run is not waited for: it may be what the changed spec mends.
pub(super) fn discard(facts: &Facts, deadline: Timestamp, now: Timestamp) -> Option<Decision> {
    let path = stored(facts)?;
    let standing = facts.job_manager.as_ref().is_some_and(|set| !set.deleting);
    if !standing {
        return None;
    }
    let gives_up = |left_behind: String| {
        let decision = all(facts, Situation::Upgrading)?;
        Some(Decision { left_behind: Some(left_behind), ..decision })
    };
    match &facts.engine {
        Engine::Job(job) if discarded(facts) => job.left_behind.clone().and_then(gives_up),
        _ if now >= deadline => gives_up(format!("{path}: the jobmanager did not delete it in time")),
        Engine::Job(job) => Some(ask(facts, job, Situation::Upgrading)),
        Engine::Unreachable(_) => Some(Decision::wait(Situation::Upgrading, Pace::Fast)),
        Engine::Absent => gives_up(format!("{path}: no jobmanager runs that could delete it")),
    }
}
