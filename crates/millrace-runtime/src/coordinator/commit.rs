//! The steps that make a fully acknowledged checkpoint a completed one, one checkpoint at a time: metadata, log entry,
//! a second look at the log. From the log entry on there is no way back: it may be in the log even when no answer
//! came, so that the steps are repeated until their outcome is known.

use std::sync::Arc;

use millrace_core::{
    Error,
    ids::{Attempt, CheckpointId},
};

use super::{
    event::{Effect, MetadataReceipt, TaskStates, TriggerReason},
    pending::PendingCheckpoint,
};

const FIRST_RETRY_MS: u64 = 100;
const LONGEST_RETRY_MS: u64 = 10_000;

/// Delays that double.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next_ms: FIRST_RETRY_MS }
    }
}

impl Backoff {
    pub fn delay_ms(&mut self) -> u64 {
        let delay = self.next_ms;
        self.next_ms = (delay * 2).min(LONGEST_RETRY_MS);
        delay
    }
}

/// The step whose answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Metadata,
    Append(MetadataReceipt),
    Relist,
}

/// The checkpoint that is being completed.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub checkpoint: CheckpointId,
    triggered_at_ms: u64,
    pub reason: TriggerReason,
    pub attempt: Attempt,
    pub states: Arc<TaskStates>,
    step: Step,
    backoff: Backoff,
    /// When the step is to be repeated, while no answer to it is awaited.
    retry_at_ms: Option<u64>,
    /// Why the step failed last.
    pub last_error: Option<Error>,
}

impl Commit {
    pub fn new(pending: PendingCheckpoint) -> Self {
        Self {
            checkpoint: pending.barrier.id,
            triggered_at_ms: pending.barrier.triggered_at_ms,
            reason: pending.reason,
            attempt: pending.attempt,
            states: Arc::new(pending.into_states()),
            step: Step::Metadata,
            backoff: Backoff::default(),
            retry_at_ms: None,
            last_error: None,
        }
    }

    /// What the present step asks for.
    pub fn effect(&self) -> Effect {
        let checkpoint = self.checkpoint;
        match self.step {
            Step::Metadata => Effect::WriteMetadata { checkpoint, states: Arc::clone(&self.states) },
            Step::Append(metadata) => Effect::AppendLog { checkpoint, triggered_at_ms: self.triggered_at_ms, metadata },
            Step::Relist => Effect::Relist { checkpoint },
        }
    }

    /// Whether an answer to a step like this one of this checkpoint is awaited.
    pub fn awaits(&self, checkpoint: CheckpointId, is_step: impl Fn(Step) -> bool) -> bool {
        self.checkpoint == checkpoint && is_step(self.step) && self.retry_at_ms.is_none()
    }

    pub fn advance(&mut self, step: Step) -> Effect {
        (self.step, self.backoff, self.last_error) = (step, Backoff::default(), None);
        self.effect()
    }

    pub fn retry_later(&mut self, now_ms: u64, error: Error) {
        self.retry_at_ms = Some(now_ms + self.backoff.delay_ms());
        self.last_error = Some(error);
    }

    pub fn retry_at_ms(&self) -> Option<u64> {
        self.retry_at_ms
    }

    /// The step once more, if it is time.
    pub fn retry(&mut self, now_ms: u64) -> Option<Effect> {
        self.retry_at_ms.take_if(|at| *at <= now_ms)?;
        Some(self.effect())
    }
}
