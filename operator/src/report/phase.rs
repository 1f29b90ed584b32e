//! A job's phase.

use millrace_api::Phase;
use millrace_core::rest::JobStatus;

use super::engine::is_zombie;
use crate::{
    decide::{Decision, Situation},
    observe::{Engine, Facts},
};

pub(super) fn phase(facts: &Facts, decision: &Decision) -> Phase {
    let before = facts.phase();
    let ended = matches!(before, Phase::Finished | Phase::Failed);
    match decision.situation {
        Situation::NotDeployed => Phase::Created,
        Situation::Suspended => Phase::Suspended,
        Situation::Deleting => Phase::Deleting,
        // An end is remembered until something else is deployed: it decides what that starts from.
        Situation::Upgrading if ended => before,
        Situation::Upgrading => Phase::Deploying,
        Situation::Suspending | Situation::Ended => before,
        Situation::Deployed => deployed(facts, before),
    }
}

fn deployed(facts: &Facts, before: Phase) -> Phase {
    let state = match &facts.engine {
        Engine::Job(job) if is_zombie(&facts.status(), job) => None,
        Engine::Job(job) => job.state,
        Engine::Absent => None,
        // It may do its work all the same.
        Engine::Unreachable(_) if before == Phase::Running => return Phase::Running,
        Engine::Unreachable(_) => None,
    };
    let moving =
        if matches!(before, Phase::Running | Phase::Restarting) { Phase::Restarting } else { Phase::Deploying };
    match state {
        Some(JobStatus::Running) => Phase::Running,
        Some(JobStatus::Finished | JobStatus::Canceled) => Phase::Finished,
        Some(JobStatus::Failed) => Phase::Failed,
        _ => moving,
    }
}
