//! Operators: synchronous, a batch at a time, on their task's thread only.

use millrace_core::{
    Batch, Result,
    clock::Clock,
    ids::{CheckpointId, InputId, JobAttempt, OperatorUid, OutputId},
    operator_state::OperatorStateStore,
};
use millrace_state::KeyedStateStore;

/// Makes the operator of one subtask. Called on the task's thread, so that operators need not be `Send`.
pub trait OperatorFactory: Send + Sync {
    /// Makes it.
    fn create(&self) -> Box<dyn Operator>;
}

/// One operator of one subtask. State is snapshotted by the runtime through the stores in [`OperatorContext`].
pub trait Operator {
    /// Called once, after state was restored and before the first record.
    fn open(&mut self, context: &mut OperatorContext) -> Result<()>;

    /// Takes a batch from an input and hands results to `out`.
    fn process(&mut self, input: InputId, batch: Batch, out: &mut dyn Output) -> Result<()>;

    /// Timers of the operator are due `now`: fires them, or the first of very many. Not called after the end of the
    /// input.
    fn on_processing_time(&mut self, _now: u64, _out: &mut dyn Output) -> Result<()> {
        Ok(())
    }

    /// Called before each snapshot: what is buffered leaves the operator now.
    fn prepare_snapshot(&mut self, _checkpoint: CheckpointId) -> Result<()> {
        Ok(())
    }

    /// All input has been read and was processed. With checkpoints on, the barrier of the final one follows.
    fn end_input(&mut self) -> Result<()> {
        Ok(())
    }

    /// The checkpoint is complete.
    fn notify_checkpoint_complete(&mut self, _checkpoint: CheckpointId) -> Result<()> {
        Ok(())
    }

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Where an operator's results go: the next operator of the chain, or the edges behind it.
pub trait Output {
    /// Hands over a batch.
    fn emit(&mut self, output: OutputId, batch: Batch) -> Result<()>;
}

/// What an operator is told and given.
pub struct OperatorContext {
    /// The operator's uid.
    pub uid: OperatorUid,
    /// Its name.
    pub name: String,
    /// Its subtask.
    pub subtask: u32,
    /// Its parallelism.
    pub parallelism: u32,
    /// The start that it belongs to.
    pub attempt: JobAttempt,
    /// Its keyed state, where it stands behind a `key_by`.
    pub keyed_state: Option<KeyedStateStore>,
    /// Its operator state.
    pub operator_state: OperatorStateStore,
    /// Whether the job takes checkpoints.
    pub checkpoints: bool,
    /// The registry of the process's metrics, for a function's own.
    pub metrics: prometheus::Registry,
    /// The processing time.
    pub clock: Clock,
}
