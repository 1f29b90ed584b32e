//! When the next checkpoint is due.

use millrace_core::{checkpoint::CheckpointConfig, ids::CheckpointId};

use super::{commit::Backoff, event::TriggerReason};

/// A checkpoint that was asked for, and is taken again until one is complete.
#[derive(Clone, Debug)]
struct Request {
    reason: TriggerReason,
    /// The one that was triggered for it and is under way.
    checkpoint: Option<CheckpointId>,
    /// When to trigger it.
    at_ms: u64,
    backoff: Backoff,
}

/// The clockwork of the triggers. It stands still while no tasks run.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    request: Option<Request>,
    /// When the interval has passed.
    periodic_at_ms: u64,
    /// When a checkpoint last ended, for the least pause.
    ended_at_ms: Option<u64>,
    /// The final checkpoint was asked for: no periodic ones any more.
    closing: bool,
}

impl Schedule {
    /// Tasks begin to run.
    pub fn start(&mut self, now_ms: u64, config: &CheckpointConfig) {
        *self = Self { periodic_at_ms: now_ms + interval_ms(config), ..Self::default() };
    }

    /// Tasks run on under this jobmanager, and the interval with them: it began at `newest_at_ms`, by the clock of another
    /// machine maybe. The first checkpoint is not due at once, since the tasks are still being told that they are adopted.
    pub fn go_on(&mut self, now_ms: u64, newest_at_ms: u64, config: &CheckpointConfig) {
        self.start(now_ms, config);
        let due = newest_at_ms.saturating_add(interval_ms(config));
        self.periodic_at_ms = due.min(self.periodic_at_ms).max(now_ms + 1);
        // What was under way ends now.
        self.ended_at_ms = Some(now_ms);
    }

    /// A checkpoint is asked for. A weaker wish is granted by the stronger one's checkpoint.
    pub fn request(&mut self, now_ms: u64, reason: TriggerReason) {
        self.closing |= reason == TriggerReason::Final;
        if self.request.as_ref().is_none_or(|present| present.reason < reason) {
            self.request = Some(Request { reason, checkpoint: None, at_ms: now_ms, backoff: Backoff::default() });
        }
    }

    /// When the next checkpoint is due, and why; `None` while it has to wait for one under way.
    pub fn due(&self, config: &CheckpointConfig, in_progress: usize) -> Option<(u64, TriggerReason)> {
        if let Some(request) = &self.request {
            return request.checkpoint.is_none().then_some((request.at_ms, request.reason));
        }
        if self.closing || config.interval.is_none() || in_progress >= config.max_concurrent as usize {
            return None;
        }
        let rested = self.ended_at_ms.map_or(0, |ended| ended + millis(config.min_pause));
        Some((self.periodic_at_ms.max(rested), TriggerReason::Periodic))
    }

    /// A checkpoint was triggered.
    pub fn triggered(&mut self, now_ms: u64, id: CheckpointId, config: &CheckpointConfig) {
        self.periodic_at_ms = now_ms + interval_ms(config);
        if let Some(request) = &mut self.request {
            request.checkpoint.get_or_insert(id);
        }
    }

    /// A checkpoint is complete.
    pub fn completed(&mut self, now_ms: u64, id: CheckpointId) {
        self.ended_at_ms = Some(now_ms);
        self.request.take_if(|request| request.checkpoint == Some(id));
    }

    /// A checkpoint will not complete. If it was asked for, it is tried again a little later.
    pub fn failed(&mut self, now_ms: u64, id: CheckpointId) {
        self.ended_at_ms = Some(now_ms);
        if let Some(request) = self.request.as_mut().filter(|request| request.checkpoint == Some(id)) {
            request.checkpoint = None;
            request.at_ms = now_ms + request.backoff.delay_ms();
        }
    }
}

/// A duration in whole milliseconds.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
}

fn interval_ms(config: &CheckpointConfig) -> u64 {
    config.interval.map_or(0, millis)
}
