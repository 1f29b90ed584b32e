//! Deleting a job: what Kubernetes can't delete, its checkpoints, goes first; for at most 30 s, whatever happens.

use k8s_openapi::jiff::Timestamp;

use super::{DISCARD_TIMEOUT, Decision, Pace, Situation, Step, stop, until};
use crate::{
    build::Component,
    observe::{Engine, Facts},
};

pub(super) fn decide(facts: &Facts, since: Timestamp, now: Timestamp) -> Decision {
    if !facts.has_finalizer() {
        return Decision::wait(Situation::Deleting, Pace::Idle);
    }
    let done = Decision::new(Step::RemoveFinalizer, Situation::Deleting);
    let Some(path) = stop::stored(facts) else { return done };
    let gives_up = |why: &str| Decision { left_behind: Some(format!("{path}: {why}")), ..done.clone() };
    let deadline = since + DISCARD_TIMEOUT;
    match &facts.engine {
        Engine::Job(job) if stop::discarded(facts) => Decision { left_behind: job.left_behind.clone(), ..done },
        _ if now >= deadline => gives_up(&obstacle(facts)),
        Engine::Job(job) => stop::ask(facts, job, Situation::Deleting),
        Engine::Unreachable(_) => Decision::wait(Situation::Deleting, Pace::Fast),
        Engine::Absent if never_ran(facts) => done,
        Engine::Absent if facts.is_doomed() => gives_up("the jobmanager is being deleted as well"),
        Engine::Absent => job_manager_alone(facts, deadline, now),
    }
}

/// A job whose namespace is being deleted, and so will be itself: the operator's rights in the namespace may go before
/// it, so its finalizer must not wait. A jobmanager that still answers can do its part.
pub(super) fn foreseen(facts: &Facts) -> Decision {
    if !facts.has_finalizer() {
        return Decision::wait(Situation::Deleting, Pace::Idle);
    }
    let done = Decision::new(Step::RemoveFinalizer, Situation::Deleting);
    let Some(path) = stop::stored(facts) else { return done };
    match &facts.engine {
        Engine::Job(job) if stop::discarded(facts) => Decision { left_behind: job.left_behind.clone(), ..done },
        Engine::Job(job) => stop::ask(facts, job, Situation::Deleting),
        _ => Decision { left_behind: Some(format!("{path}: the namespace is being deleted")), ..done },
    }
}

/// Why the jobmanager has not deleted what it should.
fn obstacle(facts: &Facts) -> String {
    match &facts.engine {
        Engine::Job(job) => match &job.waiting_for {
            Some(what) => format!("the jobmanager did not delete it within 30 s: it waits for {what}"),
            None => "the jobmanager did not delete it within 30 s".to_owned(),
        },
        Engine::Unreachable(why) => format!("the jobmanager does not answer: {why}"),
        Engine::Absent => match facts.job_manager_pod().and_then(|pod| pod.trouble.as_ref()) {
            Some(trouble) => format!("no jobmanager runs that could delete it: {}", trouble.message),
            None => "no jobmanager runs that could delete it".to_owned(),
        },
    }
}

/// Whether no jobmanager of the job has ever got as far as its store: its container can't even start.
fn never_ran(facts: &Facts) -> bool {
    let status = facts.status();
    let seen = status.generation.is_some() || status.start_time.is_some() || status.checkpoints.is_some();
    let trouble = facts.job_manager_pod().and_then(|pod| pod.trouble.as_ref());
    !seen && trouble.is_some_and(|trouble| !trouble.is_exit())
}

/// A jobmanager that is only to delete what the job has stored.
fn job_manager_alone(facts: &Facts, deadline: Timestamp, now: Timestamp) -> Decision {
    let at_deadline = Pace::After(until(deadline, now));
    let Some(deployed) = facts.deployment() else {
        return Decision::new(Step::RemoveFinalizer, Situation::Deleting);
    };
    match stop::leftovers(facts, deployed, Situation::Deleting) {
        Some(Decision { step: Step::Wait, .. }) => Decision::wait(Situation::Deleting, at_deadline),
        Some(stop) => stop,
        None => Decision {
            step: Step::Apply(vec![Component::JobManager]),
            situation: Situation::Deleting,
            pace: at_deadline,
            left_behind: None,
        },
    }
}
