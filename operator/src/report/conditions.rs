//! The conditions. Each keeps the time of its last transition.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use millrace_api::{Phase, StreamJobStatus, bounded};
use millrace_core::rest::JobStatus;

use crate::{
    build::{Component, name_of},
    decide::{Decision, Situation},
    observe::{Engine, Facts},
};

/// Whether the job does its work.
pub const READY: &str = "Ready";
/// Whether the jobmanager answers.
pub const JOB_MANAGER_READY: &str = "JobManagerReady";
/// Whether checkpoints succeed.
pub const CHECKPOINTING: &str = "Checkpointing";
/// Whether the spec can be deployed.
pub const VALID: &str = "Valid";

struct Verdict {
    status: &'static str,
    reason: String,
    message: String,
}

fn verdict(status: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Verdict {
    Verdict { status, reason: reason.into(), message: message.into() }
}

pub(super) fn conditions(
    facts: &Facts,
    decision: &Decision,
    status: &StreamJobStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let verdicts = [
        (READY, ready(facts, decision, status)),
        (JOB_MANAGER_READY, job_manager_ready(facts, decision)),
        (CHECKPOINTING, checkpointing(facts, status)),
        (VALID, valid(facts)),
    ];
    let condition = |(type_, verdict): (&str, Verdict)| {
        let before = status.conditions.iter().find(|condition| condition.type_ == type_);
        let since = before.filter(|before| before.status == verdict.status);
        Condition {
            type_: type_.to_owned(),
            status: verdict.status.to_owned(),
            reason: reason(&verdict.reason),
            message: bounded(&verdict.message),
            last_transition_time: since.map_or(Time(now), |before| before.last_transition_time.clone()),
            observed_generation: status.observed_generation,
        }
    };
    verdicts.into_iter().map(condition).collect()
}

/// Reasons are words: Kubernetes' convention, and ours where a container runtime has another.
fn reason(reason: &str) -> String {
    let word: String = reason.chars().filter(char::is_ascii_alphanumeric).take(128).collect();
    if word.is_empty() { "Unknown".to_owned() } else { word }
}

fn ready(facts: &Facts, decision: &Decision, status: &StreamJobStatus) -> Verdict {
    let phase = status.phase.unwrap_or(Phase::Created);
    match decision.situation {
        Situation::Deleting => verdict("False", "Deleting", "the job is being deleted"),
        Situation::Suspending => verdict("False", "Suspending", "the job is being stopped"),
        Situation::Suspended => verdict("False", "Suspended", "the job is stopped; its checkpoints are kept"),
        Situation::Upgrading => {
            verdict("False", "Upgrading", "the job is being stopped to start with the changed spec")
        }
        Situation::NotDeployed => match &facts.invalid {
            Some(problem) => verdict("False", "SpecInvalid", problem),
            None => verdict("False", "Deploying", "the job is about to be deployed"),
        },
        Situation::Deployed | Situation::Ended => match phase {
            Phase::Running if matches!(facts.engine, Engine::Unreachable(_)) => {
                verdict("Unknown", "JobManagerUnreachable", unreachable(facts))
            }
            Phase::Running => verdict("True", "Running", "all tasks run"),
            Phase::Finished => finished(facts, status),
            Phase::Failed => verdict("False", "Failed", failure(facts, status)),
            phase => moving(facts, phase),
        },
    }
}

fn finished(facts: &Facts, status: &StreamJobStatus) -> Verdict {
    let before = status.conditions.iter().find(|condition| condition.type_ == READY);
    let canceled = match facts.engine_job() {
        Some(job) => job.state == Some(JobStatus::Canceled),
        None => before.is_some_and(|before| before.reason == "Canceled"),
    };
    if canceled {
        verdict("False", "Canceled", "the job was cancelled at its jobmanager")
    } else {
        verdict("False", "Finished", "the job has read all its input")
    }
}

/// Why it failed: what the jobmanager says, and what it said when it is gone.
fn failure(facts: &Facts, status: &StreamJobStatus) -> String {
    let before = status.conditions.iter().find(|condition| condition.type_ == READY && condition.reason == "Failed");
    let said = facts.engine_job().and_then(|job| job.failure.clone());
    said.or_else(|| before.map(|before| before.message.clone())).unwrap_or_else(|| "the job failed".to_owned())
}

/// What a job that does not run yet, or again, waits for: the jobmanager knows best, then the pods.
fn moving(facts: &Facts, phase: Phase) -> Verdict {
    if let Some(refusal) = &facts.refused {
        return verdict("False", "ApplyFailed", refusal);
    }
    if let Some((pod, trouble)) = trouble(facts) {
        return verdict("False", trouble.reason.as_str(), format!("pod {pod}: {}", trouble.message));
    }
    let message = match &facts.engine {
        Engine::Job(job) => match (&job.waiting_for, &job.failure) {
            (Some(what), Some(failure)) => format!("waits for {what}; the last failure: {failure}"),
            (Some(what), None) => format!("waits for {what}"),
            (None, Some(failure)) => format!("the last failure: {failure}"),
            (None, None) => "tasks are being started".to_owned(),
        },
        Engine::Unreachable(_) => unreachable(facts),
        Engine::Absent if facts.job_manager_pod().is_some() => "waits for the jobmanager's pod to start".to_owned(),
        Engine::Absent => no_pod(facts),
    };
    verdict("False", phase.as_str(), message)
}

/// The pod that can't run: the jobmanager's first.
fn trouble(facts: &Facts) -> Option<(&str, &crate::observe::Trouble)> {
    let components = [Component::JobManager, Component::TaskManager].into_iter();
    let mut pods = components.flat_map(|component| facts.pods_of(component)).filter(|pod| pod.deleted_until.is_none());
    pods.find_map(|pod| Some((pod.name.as_str(), pod.trouble.as_ref()?)))
}

/// What keeps a StatefulSet from making pods, such as a quota or a policy, only its events tell.
fn no_pod(facts: &Facts) -> String {
    let set = name_of(&facts.job, Component::JobManager);
    format!("waits for the jobmanager's pod; if it does not come, kubectl describe statefulset {set} tells why")
}

fn unreachable(facts: &Facts) -> String {
    let Engine::Unreachable(why) = &facts.engine else { return String::new() };
    format!("the jobmanager does not answer: {why}")
}

fn job_manager_ready(facts: &Facts, decision: &Decision) -> Verdict {
    if facts.engine_job().is_some() {
        return verdict("True", "Answering", "the jobmanager answers");
    }
    if matches!(facts.engine, Engine::Unreachable(_)) {
        return verdict("False", "Unreachable", unreachable(facts));
    }
    match facts.job_manager_pod() {
        Some(pod) => match &pod.trouble {
            Some(trouble) => {
                verdict("False", trouble.reason.as_str(), format!("pod {}: {}", pod.name, trouble.message))
            }
            None => verdict("False", "Starting", format!("pod {} is starting", pod.name)),
        },
        None => match decision.situation {
            Situation::Deployed => verdict("False", "NoPod", no_pod(facts)),
            _ => verdict("False", "Stopped", "no jobmanager is to run"),
        },
    }
}

fn checkpointing(facts: &Facts, status: &StreamJobStatus) -> Verdict {
    let before = status.conditions.iter().find(|condition| condition.type_ == CHECKPOINTING);
    let kept = || match before {
        Some(Condition { status, reason, message, .. }) if status == "True" => {
            verdict("True", reason.clone(), message.clone())
        }
        Some(Condition { status, reason, message, .. }) if status == "False" => {
            verdict("False", reason.clone(), message.clone())
        }
        _ => verdict("Unknown", "NoCheckpoint", "no checkpoint has been taken yet"),
    };
    let Some(job) = facts.engine_job() else { return kept() };
    let old = facts.status().checkpoints.unwrap_or_default();
    let Some(new) = &status.checkpoints else { return kept() };
    let completed = new.latest.as_ref().map(|latest| latest.id) != old.latest.as_ref().map(|latest| latest.id);
    if new.failed > old.failed && !completed {
        let why = job.checkpoint_failure.as_deref().unwrap_or("a checkpoint failed");
        return verdict("False", "CheckpointFailed", why);
    }
    if completed && new.latest.is_some() {
        return verdict("True", "CheckpointCompleted", "the latest checkpoint was completed");
    }
    kept()
}

fn valid(facts: &Facts) -> Verdict {
    match &facts.invalid {
        None => verdict("True", "Valid", "the spec can be deployed"),
        Some(problem) => verdict("False", "SpecInvalid", problem),
    }
}
