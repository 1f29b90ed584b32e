//! How long a recovery took, phase by phase: from the failure until all tasks run again.

use std::time::Duration;

use millrace_core::{
    ids::CheckpointId,
    rest::{RecoveryDetails, RecoveryPhase},
};

use super::Clock;

/// The moments of the recovery under way; time since the jobmanager started.
#[derive(Default)]
pub struct RecoveryClock {
    failed: Option<Duration>,
    allocated: Option<Duration>,
    prepared: Option<Duration>,
}

impl RecoveryClock {
    /// A failure was noticed. A failure during a recovery prolongs it.
    pub fn failed(&mut self, now: Duration) {
        self.failed.get_or_insert(now);
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
        let Self { failed, allocated, prepared } = std::mem::take(self);
        let (failed, allocated, prepared, running) = (failed?, allocated?, prepared?, clock.elapsed());
        let phase = |name: &str, from: Duration, to: Duration| RecoveryPhase {
            name: name.to_string(),
            duration: to.saturating_sub(from).as_millis() as u64,
        };
        let details = RecoveryDetails {
            timestamp: clock.started_ms + failed.as_millis() as u64,
            duration: running.saturating_sub(failed).as_millis() as u64,
            phases: vec![
                phase("cancel-and-allocate", failed, allocated),
                phase("fetch-metadata-and-splits", allocated, prepared),
                phase("restore", prepared, running),
            ],
            restored_checkpoint: restored.map(|id| id.0),
        };
        tracing::info!(
            duration_ms = details.duration,
            phases = ?details.phases.iter().map(|phase| (&phase.name, phase.duration)).collect::<Vec<_>>(),
            restored_checkpoint = details.restored_checkpoint,
            "recovered: all tasks run again"
        );
        Some(details)
    }
}
