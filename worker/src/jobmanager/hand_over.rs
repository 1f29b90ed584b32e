//! Planned restarts: the tasks of a taskmanager that was told to end, or of a job that gets more slots, go on from a
//! checkpoint at which the sources stopped, so that nothing is read twice.

use millrace_core::ids::{Attempt, CheckpointId, TaskManagerId};
use millrace_runtime::{
    STEP,
    coordinator::{CoordinatorEvent, TriggerReason},
    scheduler::Event as SchedulerEvent,
    task::TaskCommand,
};

use super::JobManager;
use crate::rpc::ToTaskManager;

/// A hand-over under way.
#[derive(Default)]
pub struct HandOver {
    /// The first checkpoint at which the sources stopped.
    at: Option<CheckpointId>,
}

impl JobManager {
    /// A taskmanager was told to end.
    pub(super) fn leaving(&mut self, id: TaskManagerId) {
        tracing::info!(taskmanager = %id, "the taskmanager was told to end: its tasks are handed over");
        if let Some(taskmanager) = self.taskmanagers.get_mut(&id) {
            taskmanager.leaving = true;
        }
        self.schedule(SchedulerEvent::TaskManagerLeaving(id));
    }

    /// It holds no tasks any more.
    pub(super) fn release(&mut self, id: &TaskManagerId) {
        self.send(id, &ToTaskManager::Release);
    }

    pub(super) fn begin_hand_over(&mut self, attempt: Attempt) {
        tracing::debug!(target: STEP, step = "hand-over", %attempt);
        self.hand_over = Some(HandOver::default());
        self.coordinate(CoordinatorEvent::Trigger(TriggerReason::User));
    }

    /// A checkpoint is triggered: the sources stop at its barrier where it is one to hand over at.
    pub(super) fn stop_sources_at(&mut self, checkpoint: CheckpointId) {
        if let Some(hand_over) = &mut self.hand_over {
            hand_over.at.get_or_insert(checkpoint);
            self.tell_sources(&TaskCommand::Hold);
        }
    }

    /// A checkpoint is complete.
    pub(super) fn hand_over_at(&mut self, checkpoint: CheckpointId) {
        let is_due = |hand_over: &mut HandOver| hand_over.at.is_some_and(|at| at <= checkpoint);
        if self.hand_over.take_if(is_due).is_none() {
            return;
        }
        let leaving = self.taskmanagers.values().find(|taskmanager| taskmanager.leaving);
        let lost = leaving.map(|taskmanager| taskmanager.resource_id.clone());
        let cause = match leaving {
            Some(taskmanager) => format!("taskmanager {} was told to end", taskmanager.location.id),
            None => "more slots have come: the job goes on at a higher parallelism".to_string(),
        };
        let now = self.clock.elapsed();
        let before = self.recovery.failed(now, now, &cause, lost);
        self.tell_recovery(before);
        self.schedule(SchedulerEvent::HandedOver(self.scheduler.attempt()));
    }

    /// A checkpoint will not complete: the sources go on until the next.
    pub(super) fn resume_after(&mut self, checkpoint: CheckpointId) {
        let failed = |hand_over: &&mut HandOver| hand_over.at.is_some_and(|at| at <= checkpoint);
        if let Some(hand_over) = self.hand_over.as_mut().filter(failed) {
            hand_over.at = None;
            self.tell_sources(&TaskCommand::Resume);
        }
    }
}
