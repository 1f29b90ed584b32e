//! The end of a recovery: the sources are where the failure found them, and something new is put out.

use millrace_core::ids::TaskId;
use millrace_runtime::task::TaskCommand;

use super::{JobManager, recovery::Finished};

impl JobManager {
    /// A source is where the failure found it.
    pub(super) fn caught_up(&mut self, task: TaskId) {
        if self.recovery.caught_up(self.clock.elapsed(), task) {
            self.show_recovery();
            self.await_output();
        }
    }

    /// Has the tasks at the job's ends tell when they put something out, where that is what a recovery waits for.
    pub(super) fn await_output(&mut self) {
        if !self.recovery.awaits_output() {
            return;
        }
        // Those that ran on have put something out all the time.
        let attempt = self.scheduler.attempt();
        let ends = self.assigned(|task| {
            self.scheduler.is_current(attempt, task) && self.graph.edges_from(task.vertex).next().is_none()
        });
        self.tell(ends, &TaskCommand::TellOutput);
    }

    /// Shows how far the recovery under way is.
    pub(super) fn show_recovery(&mut self) {
        if let Some(details) = self.recovery.details(self.clock.started_ms) {
            self.view.last_recovery = Some(details);
        }
    }

    /// Tells of a recovery that is over.
    pub(super) fn tell_recovery(&mut self, finished: Option<Finished>) {
        if let Some(finished) = finished {
            self.view.last_recovery = Some(finished.tell(self.clock.started_ms));
        }
    }
}
