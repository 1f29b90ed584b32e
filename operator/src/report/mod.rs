//! What is told about a job: its status, made of the facts and of what is decided, and the events that the difference
//! between two statuses makes. Pure. An operator that starts again finds the old status and so repeats no event.

mod conditions;
mod engine;
pub mod events;
mod phase;

#[cfg(test)]
mod tests;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use millrace_api::{Phase, SlotsStatus, StreamJobSpec, StreamJobStatus, TaskManagersStatus};

use crate::{
    build::{Component, selector},
    decide::{Decision, Record, Situation, Step},
    observe::Facts,
};

/// The status that the facts and the decision make.
pub fn status(facts: &Facts, decision: &Decision, now: Timestamp) -> StreamJobStatus {
    let mut status = facts.status();
    status.observed_generation = facts.job.metadata.generation;
    if let Step::Record(record) = &decision.step {
        take(&mut status, record);
    } else {
        engine::take(&mut status, facts);
        status.phase = Some(phase::phase(facts, decision));
        status.conditions = conditions::conditions(facts, decision, &status, now);
    }
    let (before, since) = facts.job.status.as_ref().map_or((None, None), |old| (old.phase, old.phase_since.clone()));
    status.phase_since = since.filter(|_| status.phase == before).or(Some(Time(now)));
    numbers(&mut status, facts, decision);
    status
}

/// What is recorded before it is done. A job with another id has no past.
fn take(status: &mut StreamJobStatus, record: &Record) {
    let redeployed = status.deployment.as_ref().map(|deployed| deployed.number) != Some(record.deployment.number);
    if status.job_id.as_ref() != Some(&record.job_id) {
        *status = StreamJobStatus {
            observed_generation: status.observed_generation,
            conditions: std::mem::take(&mut status.conditions),
            job_id: Some(record.job_id.clone()),
            ..StreamJobStatus::default()
        };
    }
    if redeployed {
        // The next jobmanager's generation is not a failure's consequence.
        status.generation = None;
        status.phase = Some(Phase::Deploying);
    }
    status.deployment = Some(record.deployment.clone());
}

/// What is counted without the engine.
fn numbers(status: &mut StreamJobStatus, facts: &Facts, decision: &Decision) {
    let spec: Option<&StreamJobSpec> =
        status.deployment.as_ref().map(|deployed| &deployed.spec).or_else(|| facts.target());
    status.parallelism = spec.map(|spec| number(spec.effective_parallelism()));
    let stands = match decision.situation {
        Situation::Deployed | Situation::Upgrading => status.deployment.is_some(),
        _ => false,
    };
    let wanted = spec.filter(|_| stands).map_or(0, |spec| number(spec.task_manager.replicas));
    let pods = || facts.pods_of(Component::TaskManager).filter(|pod| pod.deleted_until.is_none());
    let ready = count(pods().filter(|pod| pod.ready));
    status.task_managers = Some(TaskManagersStatus { ready, wanted });
    status.task_managers_ready = Some(format!("{ready}/{wanted}"));
    status.replicas = Some(count(pods()));
    let labels = selector(&facts.job, Component::TaskManager);
    let labels: Vec<String> = labels.into_iter().map(|(label, value)| format!("{label}={value}")).collect();
    status.selector = Some(labels.join(","));
    if !stands {
        status.slots = Some(SlotsStatus::default());
    }
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    i32::try_from(items.count()).unwrap_or(i32::MAX)
}
