//! Sinks: where records leave the job.

use crate::{Record, Result, operator_state::OperatorStateStore};

/// A sink of records. It is created by the program, identically in every process, and must hold no open resource.
pub trait Sink: Send + Sync + 'static {
    /// What it takes.
    type Record: Record;

    /// Makes a writer; called on its task's thread.
    fn create_writer(&self, context: &mut WriterContext) -> Result<Box<dyn SinkWriter<Self::Record>>>;
}

/// What a writer is told and given.
pub struct WriterContext {
    /// The writer's subtask.
    pub subtask: u32,
    /// The sink's parallelism.
    pub parallelism: u32,
    /// Operator lists, for sinks that keep state.
    pub operator_state: OperatorStateStore,
}

/// Writes records, at least once: what was written since the last completed checkpoint is written again after a
/// failure.
pub trait SinkWriter<T> {
    /// Takes records. May buffer them.
    fn write(&mut self, records: Vec<T>) -> Result<()>;

    /// Returns when everything that was written has arrived. Called before each snapshot and at the end of the input,
    /// so that a checkpoint never covers a record that the sink could still lose.
    fn flush(&mut self) -> Result<()>;
}
