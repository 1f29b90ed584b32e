//! Tasks: the subtasks that a taskmanager runs, each a mailbox on a thread of its own.
//!
//! This file is the contract between a taskmanager's shell and its tasks: what a task is told to be ([`TaskSpec`]), what
//! it is told to do ([`TaskCommand`]) and what it tells ([`TaskEvent`]).

mod barriers;
mod blame;
mod chain;
mod control;
mod debloater;
mod deploy;
mod figures;
pub mod gate;
mod handle;
mod in_flight;
mod outputs;
mod restore;
mod run;
mod sizer;
mod snapshot;
mod source_head;
mod splits;
mod state_sink;
mod work;

pub use debloater::DebloatSettings;
pub use handle::{TaskDone, TaskHandle, TaskSettings, TaskSetup, input_channels, spawn_task};
pub use restore::RestoreMetrics;
pub use splits::{decode_splits, encode_splits};

use std::time::Duration;

use millrace_core::{
    Error,
    checkpoint::{CheckpointBarrier, CheckpointingMode},
    ids::{Attempt, CheckpointId, Generation, OperatorUid, TaskId, TaskManagerId},
    operator_state::OperatorListSnapshot,
};
use millrace_state::{KeyedStateHandle, OperatorSubtaskState, assignment::InFlightHandle};
use serde::{Deserialize, Serialize};

use crate::source::EncodedSplit;

/// Everything about a subtask that is not in the job graph. Sent by the jobmanager.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The subtask.
    pub task: TaskId,
    /// The jobmanager's incarnation.
    pub generation: Generation,
    /// The start of the job that this belongs to.
    pub attempt: Attempt,
    /// The slots that the job runs in: no vertex has more subtasks than that.
    pub slots: u32,
    /// How barriers are handled; `None` while checkpoints are off.
    pub barriers: Option<BarrierHandling>,
    /// Where the consumers run: for each edge out of the vertex (in the graph's order), the taskmanager of each of the
    /// consuming vertex's subtasks.
    pub consumers: Vec<Vec<TaskManagerLocation>>,
    /// What to restore, for each operator that has something.
    pub restore: Vec<OperatorRestore>,
    /// The splits that the source begins with.
    pub splits: Vec<EncodedSplit>,
    /// Whether more may be assigned later.
    pub more_splits: bool,
    /// Whether the source must not read before [`TaskCommand::Resume`]: its start positions are not in a completed
    /// checkpoint yet.
    pub hold_source: bool,
    /// The checkpoint that all tasks of the attempt start from.
    pub continues: Option<CheckpointId>,
    /// Whether state in `restore` that nothing uses is dropped instead of refused.
    pub allow_non_restored: bool,
    /// A source that has read so many records is where it was before a failure, and tells so; 0: it is there already.
    pub again: u64,
}

/// How a task handles barriers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierHandling {
    /// Whether they are aligned.
    pub mode: CheckpointingMode,
    /// How long after its trigger a checkpoint's barriers may overtake records; `None`: never.
    pub aligned_timeout: Option<Duration>,
}

/// A taskmanager and the address of its data port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskManagerLocation {
    /// The process.
    pub id: TaskManagerId,
    /// `host:port`.
    pub data_address: String,
}

/// The state of one operator for one new subtask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperatorRestore {
    /// The operator.
    pub uid: OperatorUid,
    /// Keyed state of all old subtasks whose key groups overlap the new subtask's, with the checkpoint they lie in.
    pub keyed: Vec<KeyedStateHandle>,
    /// Operator lists, dealt out already.
    pub lists: Vec<OperatorListSnapshot>,
    /// What was in flight to the old subtasks from which the new one takes over something.
    pub in_flight: Vec<InFlightHandle>,
}

/// What a task is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TaskCommand {
    /// All tasks of the attempt are deployed: connect the outputs and run.
    Start,
    /// Take a checkpoint and send the barrier on; only tasks without inputs are told so.
    TriggerCheckpoint(CheckpointBarrier),
    /// The checkpoint is complete.
    NotifyComplete(CheckpointId),
    /// The checkpoint will not complete: forget its alignment.
    NotifyAborted(CheckpointId),
    /// New splits were found.
    AddSplits(Vec<EncodedSplit>),
    /// No more splits will come.
    NoMoreSplits,
    /// The source must not read before [`TaskCommand::Resume`].
    Hold,
    /// The source may read.
    Resume,
    /// Stop reading: the source behaves as if it had reached its end (a stop with a final checkpoint).
    Drain,
    /// The input of all tasks has ended and the final checkpoint is complete (or checkpoints are off): finish.
    Finish,
    /// Tell when the next batch is put out; for tasks at the job's ends.
    TellOutput,
    /// End now.
    Cancel,
}

/// What a task tells its taskmanager.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum TaskEvent {
    /// State is restored, operators are open, inputs are registered.
    Deployed(RestoreMetrics),
    /// The source is where it was before the failure.
    CaughtUp,
    /// The first batch since [`TaskCommand::TellOutput`] has been put out.
    PutOut,
    /// The task's part of a checkpoint is durable.
    Acknowledged {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The state of each operator of the chain.
        state: Vec<OperatorSubtaskState>,
        /// How long it took.
        metrics: SubtaskCheckpointMetrics,
    },
    /// The task cannot take part in a checkpoint.
    Declined {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: Error,
    },
    /// All input has been read and everything that follows from it has been sent on. The task goes on answering
    /// barriers until it is told to finish.
    EndOfInput,
    /// It ended as it should.
    Finished,
    /// It ended because it was told to.
    Canceled,
    /// It failed and has ended.
    Failed(TaskFailure),
}

/// Why a task failed, and on what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskFailure {
    /// The error; its message names operator and record.
    pub error: Error,
    /// Where the record was read, where that is known.
    pub position: Option<String>,
}

/// What a subtask measured of its part in a checkpoint. Milliseconds and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtaskCheckpointMetrics {
    /// From the trigger to the first barrier's arrival.
    pub start_delay_ms: u64,
    /// From the first barrier to the last.
    pub alignment_ms: u64,
    /// While the task stood still for the snapshot, in microseconds.
    pub sync_us: u64,
    /// Writing the snapshot beside the running task.
    pub async_ms: u64,
    /// The snapshot's size.
    pub state_bytes: u64,
    /// How much of it was written for this checkpoint; the rest an earlier one had written.
    pub checkpointed_bytes: u64,
    /// How much of that is data that was in flight.
    pub persisted_bytes: u64,
    /// How much of what other processes had sent the task took between the first barrier and its snapshot.
    pub processed_bytes: u64,
    /// Whether barriers have overtaken data.
    pub unaligned: bool,
    /// The records that the task had taken, since its start, when it was snapshotted.
    pub records_in: u64,
}
