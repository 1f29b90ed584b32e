mod crash;
mod deletion;
mod life;
mod upgrade;

use millrace_api::Phase;

use super::*;
use crate::fixture::*;

fn step(facts: &Facts) -> Step {
    decide(facts, now()).step
}

fn both() -> Vec<Component> {
    vec![Component::JobManager, Component::TaskManager]
}

fn record_of(step: Step) -> Record {
    match step {
        Step::Record(record) => *record,
        other => panic!("a record was expected, not {other:?}"),
    }
}

/// What was decided to be recorded is in the status.
fn recording(mut facts: Facts) -> Facts {
    let Record { job_id, deployment } = record_of(step(&facts));
    let status = facts.job.status.get_or_insert_default();
    let redeployed = status.deployment.as_ref().map(|deployed| deployed.number) != Some(deployment.number);
    if redeployed {
        status.phase = Some(Phase::Deploying);
    }
    (status.job_id, status.deployment) = (Some(job_id), Some(deployment));
    facts
}
