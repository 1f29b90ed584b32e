//! The mark in the job's log that a whole job's attempt begins: see [`super::adoption`].
//!
//! It costs a restart time, so it is written only where it is needed: where all tasks of the attempt before may run on
//! unseen. If one of them is known to have ended, nobody can take that attempt for a whole one any more.

use millrace_core::ids::Attempt;

use super::{Effect, JobScheduler};

impl JobScheduler {
    /// The job of an earlier jobmanager, of whose tasks nothing is known.
    pub fn taken_over(self) -> Self {
        Self { may_run_on: true, ..self }
    }

    /// Whether the attempt that is being prepared must be marked before it is deployed. Not one beside which tasks run
    /// on: these are told of it. Without checkpoints nothing is ever adopted.
    pub fn must_be_marked(&self) -> bool {
        self.may_run_on && self.plan.checkpoints && self.kept.assignment.is_empty()
    }

    pub(super) fn marked(&mut self, attempt: Attempt, effects: &mut Vec<Effect>) {
        if attempt == self.attempt {
            self.may_run_on = false;
            self.deploy(effects);
        }
    }
}
