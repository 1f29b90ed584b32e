//! A checkpoint that waits for its tasks.

use std::collections::BTreeSet;

use millrace_core::{
    checkpoint::CheckpointBarrier,
    ids::{Attempt, TaskId},
};
use millrace_state::OperatorSubtaskState;

use super::event::{TaskStates, TriggerReason};

/// A checkpoint under way.
#[derive(Clone, Debug)]
pub(super) struct PendingCheckpoint {
    pub barrier: CheckpointBarrier,
    pub reason: TriggerReason,
    pub attempt: Attempt,
    /// The tasks that have not answered.
    waiting: BTreeSet<TaskId>,
    states: TaskStates,
}

impl PendingCheckpoint {
    pub fn new(barrier: CheckpointBarrier, reason: TriggerReason, attempt: Attempt, tasks: BTreeSet<TaskId>) -> Self {
        Self { barrier, reason, attempt, waiting: tasks, states: TaskStates::new() }
    }

    /// Takes a task's state. Gives back one that does not belong here: a stranger's, or a second, different one.
    pub fn acknowledge(
        &mut self,
        task: TaskId,
        state: Vec<OperatorSubtaskState>,
    ) -> Result<(), Vec<OperatorSubtaskState>> {
        if self.waiting.remove(&task) {
            self.states.insert(task, state);
            return Ok(());
        }
        match self.states.get(&task) {
            // The same message once more: its files are in use.
            Some(first) if *first == state => Ok(()),
            _ => Err(state),
        }
    }

    /// Whether all tasks have answered.
    pub fn is_acknowledged(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The tasks that have not answered.
    pub fn waiting(&self) -> impl Iterator<Item = &TaskId> {
        self.waiting.iter()
    }

    /// The state of the tasks that have answered.
    pub fn into_states(self) -> TaskStates {
        self.states
    }
}
