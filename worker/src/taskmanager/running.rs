//! A task that runs, and what a new jobmanager has to know of it.

use millrace_core::ids::{Attempt, CheckpointId, Generation};
use millrace_runtime::{
    scheduler::adoption::AdoptableTask,
    task::{TaskCommand, TaskHandle, TaskSpec},
};

/// A task and where it stands, as far as its jobmanager has decided that.
pub struct RunningTask {
    handle: TaskHandle,
    report: AdoptableTask,
    started: bool,
    held: bool,
    /// Others of its attempt of the job do not run yet.
    joining: bool,
    ending: bool,
    canceled: bool,
}

impl RunningTask {
    /// A task that is about to be started.
    pub fn begin(spec: &TaskSpec) -> impl FnOnce(TaskHandle) -> Self + use<> {
        let report = AdoptableTask {
            task: spec.task,
            generation: spec.generation,
            attempt: spec.attempt,
            job_attempt: spec.attempt,
            continues: spec.continues,
            triggered: None,
            unsteady: None,
            ended: false,
            splits: spec.splits.iter().map(|split| split.id.clone()).collect(),
        };
        let held = spec.hold_source;
        move |handle| Self { handle, report, started: false, held, joining: false, ending: false, canceled: false }
    }

    /// The task itself.
    pub fn handle(&self) -> &TaskHandle {
        &self.handle
    }

    /// Tells it something, and remembers what follows.
    pub fn command(&mut self, command: &TaskCommand) {
        match command {
            TaskCommand::Start => self.started = true,
            TaskCommand::Hold => self.held = true,
            TaskCommand::Resume => self.held = false,
            TaskCommand::Drain | TaskCommand::Finish => self.ending = true,
            TaskCommand::Cancel => (self.ending, self.canceled) = (true, true),
            TaskCommand::TriggerCheckpoint(barrier) => {
                self.report.triggered = self.report.triggered.max(Some(barrier.id));
            }
            TaskCommand::AddSplits(splits) => {
                self.report.splits.extend(splits.iter().map(|split| split.id.clone()));
            }
            _ => {}
        }
        self.handle.command(command.clone());
    }

    /// Whether it was told to end at once.
    pub fn is_canceled(&self) -> bool {
        self.canceled
    }

    /// It has read all its input.
    pub fn ended(&mut self) {
        self.report.ended = true;
    }

    /// It is to be a part of this attempt of the job, whose other tasks start again.
    pub fn join(&mut self, attempt: Attempt) {
        (self.report.job_attempt, self.joining) = (attempt, true);
    }

    /// All of this attempt of the job runs, and continues this checkpoint: others have started again beside it, or a new
    /// jobmanager goes on with it.
    pub fn adopted(&mut self, generation: Generation, attempt: Attempt, checkpoint: CheckpointId) {
        (self.report.generation, self.report.job_attempt) = (generation, attempt);
        (self.report.continues, self.joining) = (Some(checkpoint), false);
    }

    /// What a new jobmanager has to know.
    pub fn report(&self) -> AdoptableTask {
        let unsteady = match self {
            Self { started: false, .. } => Some("does not run yet"),
            Self { held: true, .. } => Some("is held"),
            Self { joining: true, .. } => Some("waits for tasks that start again"),
            Self { ending: true, .. } => Some("was told to end"),
            _ => None,
        };
        AdoptableTask { unsteady: unsteady.map(str::to_string), ..self.report.clone() }
    }
}
