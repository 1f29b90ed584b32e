//! What the jobmanager says, as the status shows it.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use millrace_api::{
    CheckpointStatus, CheckpointsStatus, RecoveryPhase, RecoveryStatus, SlotsStatus, StreamJobStatus, bounded,
};
use millrace_core::rest::{CheckpointStatistics, JobStatus, RecoveryDetails};

use crate::{engine::JobFacts, observe::Facts};

/// Takes over what the jobmanager says. One of an older generation than was seen is a zombie and says nothing.
pub(super) fn take(status: &mut StreamJobStatus, facts: &Facts) {
    let Some(job) = facts.engine_job().filter(|job| !is_zombie(status, job)) else { return };
    restarts(status, job);
    if status.start_time.is_none() && job.state == Some(JobStatus::Running) {
        status.start_time = time(job.start_time);
    }
    let before = status.checkpoints.take().unwrap_or_default();
    status.checkpoints = Some(CheckpointsStatus {
        latest: job.latest.as_ref().and_then(checkpoint).or(before.latest),
        completed: signed(job.completed),
        failed: signed(job.failed),
        last_failure: job.checkpoint_failure.as_deref().map(bounded).or(before.last_failure),
    });
    if let Some(recovery) = &job.last_recovery {
        status.last_recovery = recovery_status(recovery).or(status.last_recovery.take());
    }
    status.slots = Some(SlotsStatus { total: number(job.slots_total), free: number(job.slots_free) });
}

pub(super) fn is_zombie(status: &StreamJobStatus, job: &JobFacts) -> bool {
    status.generation.is_some_and(|seen| signed(job.generation) < seen)
}

/// A jobmanager counts its own restarts. One that took over from another is one more, unless the operator had it do so.
fn restarts(status: &mut StreamJobStatus, job: &JobFacts) {
    let generation = signed(job.generation);
    let mut before = status.deployment.as_ref().map_or(0, |deployed| deployed.restarts_before);
    // A jobmanager that has not taken the job over yet has no generation.
    if let Some(seen) = status.generation.filter(|seen| generation > *seen && *seen > 0) {
        before = status.restarts + generation - seen;
    }
    if generation > 0 {
        status.generation = Some(generation);
    }
    if let Some(deployed) = &mut status.deployment {
        deployed.restarts_before = before;
    }
    let restarts = before + signed(job.restarts);
    if restarts > status.restarts {
        let cause = job.last_recovery.as_ref().map(|recovery| recovery.cause.as_str()).filter(|text| !text.is_empty());
        let reason = job.failure.as_deref().filter(|_| job.restarts > 0).or(cause);
        status.last_restart_reason = reason.map(bounded).or(status.last_restart_reason.take());
    }
    status.restarts = restarts.max(status.restarts);
}

fn checkpoint(checkpoint: &CheckpointStatistics) -> Option<CheckpointStatus> {
    let completed = checkpoint.trigger_timestamp.saturating_add(checkpoint.end_to_end_duration);
    Some(CheckpointStatus {
        id: signed(checkpoint.id),
        path: checkpoint.external_path.as_deref().map(bounded),
        completed_at: time(signed(completed))?,
        size_bytes: signed(checkpoint.state_size),
        duration_ms: signed(checkpoint.end_to_end_duration),
    })
}

fn recovery_status(recovery: &RecoveryDetails) -> Option<RecoveryStatus> {
    let phases = recovery.phases.iter().take(32);
    let phases = phases.map(|phase| RecoveryPhase { name: phase.name.clone(), duration_ms: signed(phase.duration) });
    Some(RecoveryStatus {
        cause: bounded(&recovery.cause),
        started_at: time(signed(recovery.timestamp))?,
        duration_ms: Some(signed(recovery.duration)),
        phases: phases.collect(),
        restored_checkpoint: recovery.restored_checkpoint.map(signed),
    })
}

/// A time as the API keeps it: in seconds.
fn time(milliseconds: i64) -> Option<Time> {
    Timestamp::from_second(milliseconds.div_euclid(1000)).ok().map(Time)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
