//! `spec.maxParallelism` beside what is deployed.

use millrace_api::{Phase, StreamJob, UpgradeMode};

/// The API server compares a spec with the one before it only: a change that came with `stateless`, and another spec that
/// took that back before the operator saw it, must not start kept state with it.
pub(super) fn problems(job: &StreamJob) -> Vec<String> {
    let status = job.status.as_ref();
    let Some(deployed) = status.and_then(|status| status.deployment.as_ref()) else { return Vec::new() };
    let (then, now) = (deployed.spec.max_parallelism, job.spec.max_parallelism);
    let finished = status.and_then(|status| status.phase) == Some(Phase::Finished);
    let starts_anew = job.spec.upgrade_mode == UpgradeMode::Stateless || deployed.discarded_at.is_some() || finished;
    if then == now || starts_anew {
        return Vec::new();
    }
    let told = |value: Option<u32>| value.map_or("unset".to_owned(), |value| value.to_string());
    vec![format!(
        "spec.maxParallelism: it is {}, and the deployed job's, whose checkpoints are cut by it, is {}: set it back, or \
         set upgradeMode: stateless to start without state",
        told(now),
        told(then)
    )]
}
