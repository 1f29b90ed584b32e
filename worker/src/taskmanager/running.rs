//! A task that runs, and what a new jobmanager has to know of it.

use millrace_core::ids::{CheckpointId, Generation};
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
            continues: spec.continues,
            triggered: None,
            unsteady: None,
            ended: false,
            splits: spec.splits.iter().map(|split| split.id.clone()).collect(),
        };
        let held = spec.hold_source;
        move |handle| Self { handle, report, started: false, held, ending: false, canceled: false }
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

    /// A new jobmanager goes on with it, at this checkpoint.
    pub fn adopted(&mut self, generation: Generation, checkpoint: CheckpointId) {
        (self.report.generation, self.report.continues) = (generation, Some(checkpoint));
    }

    /// What a new jobmanager has to know.
    pub fn report(&self) -> AdoptableTask {
        let unsteady = match self {
            Self { started: false, .. } => Some("does not run yet"),
            Self { held: true, .. } => Some("is held"),
            Self { ending: true, .. } => Some("was told to end"),
            _ => None,
        };
        AdoptableTask { unsteady: unsteady.map(str::to_string), ..self.report.clone() }
    }
}
