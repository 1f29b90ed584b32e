//! How long a recovery took, phase by phase: from the failure, or the start of the jobmanager's process, until all tasks
//! run.

use std::time::Duration;

use millrace_core::{
    ids::CheckpointId,
    rest::{RecoveryDetails, RecoveryPhase},
};

use super::Clock;

/// The moments of the recovery under way; time since the jobmanager started.
#[derive(Default)]
pub struct RecoveryClock {
    begun: Option<Begun>,
    allocated: Option<Duration>,
    prepared: Option<Duration>,
}

struct Begun {
    at: Duration,
    cause: String,
    taskmanager: Option<String>,
    /// When the job was taken over, if its jobmanager was what failed.
    taken_over: Option<Duration>,
}

impl RecoveryClock {
    /// A failure was noticed; `taskmanager` is the one that was lost. A failure during a recovery prolongs it.
    pub fn failed(&mut self, now: Duration, cause: &str, taskmanager: Option<String>) {
        let begun = || Begun { at: now, cause: cause.to_string(), taskmanager, taken_over: None };
        self.begun.get_or_insert_with(begun);
    }

    /// This jobmanager goes on with the job of an earlier one.
    pub fn took_over(&mut self, now: Duration, cause: String) {
        self.begun = Some(Begun { at: Duration::ZERO, cause, taskmanager: None, taken_over: Some(now) });
    }

    /// A taskmanager with tasks was lost. What its neighbours noticed of that may have been the first sign.
    pub fn lost(&mut self, taskmanager: &str) {
        if let Some(begun) = self.begun.as_mut().filter(|begun| begun.taken_over.is_none()) {
            begun.taskmanager.get_or_insert_with(|| taskmanager.to_string());
        }
    }

    /// The old tasks have ended and the new ones have their slots.
    pub fn allocated(&mut self, now: Duration) {
        self.allocated = Some(now);
    }

    /// The checkpoint and the splits are at hand.
    pub fn prepared(&mut self, now: Duration) {
        self.prepared = Some(now);
    }

    /// All tasks run. Returns how long it took, if anything had failed.
    pub fn running(&mut self, clock: Clock, restored: Option<CheckpointId>) -> Option<RecoveryDetails> {
        let Self { begun, allocated, prepared } = std::mem::take(self);
        let Begun { at, cause, taskmanager, taken_over } = begun?;
        let (allocated, prepared, running) = (allocated?, prepared?, clock.elapsed());
        let phase = |name: &str, from: Duration, to: Duration| RecoveryPhase {
            name: name.to_string(),
            duration: to.saturating_sub(from).as_millis() as u64,
        };
        let first = match taken_over {
            Some(claimed) => vec![phase("take-over", at, claimed), phase("allocate", claimed, allocated)],
            None => vec![phase("cancel-and-allocate", at, allocated)],
        };
        let rest = [phase("fetch-metadata-and-splits", allocated, prepared), phase("restore", prepared, running)];
        let details = RecoveryDetails {
            timestamp: clock.started_ms + at.as_millis() as u64,
            duration: running.saturating_sub(at).as_millis() as u64,
            phases: first.into_iter().chain(rest).collect(),
            restored_checkpoint: restored.map(|id| id.0),
            cause,
            taskmanager,
        };
        tracing::info!(
            duration_ms = details.duration,
            phases = ?details.phases.iter().map(|phase| (&phase.name, phase.duration)).collect::<Vec<_>>(),
            restored_checkpoint = details.restored_checkpoint,
            cause = details.cause,
            "recovered: all tasks run again"
        );
        Some(details)
    }
}
