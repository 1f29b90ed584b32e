//! What the coordinator is told and what it asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_core::{
    Error,
    checkpoint::CheckpointBarrier,
    ids::{Attempt, CheckpointId, Generation, TaskId},
};
use millrace_state::OperatorSubtaskState;
use serde::{Deserialize, Serialize};

use crate::task::SubtaskCheckpointMetrics;

/// The acknowledged state of each task of a checkpoint.
pub type TaskStates = BTreeMap<TaskId, Vec<OperatorSubtaskState>>;

/// Why a checkpoint is taken. A later reason is the stronger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TriggerReason {
    /// The interval has passed.
    Periodic,
    /// A user asked for one.
    User,
    /// The sources are held until their start positions are in a completed checkpoint.
    Initial,
    /// All input has been read, or the job is being stopped: the tasks finish when it is complete.
    Final,
}

/// What the coordinator is told.
#[derive(Clone, Debug)]
pub enum CoordinatorEvent {
    /// All tasks of an attempt run.
    TasksRunning {
        /// The attempt.
        attempt: Attempt,
        /// The tasks.
        tasks: BTreeSet<TaskId>,
        /// The checkpoint that they were restored from.
        restored: Option<CheckpointId>,
    },
    /// Tasks that an earlier jobmanager has started are this one's now.
    TasksAdopted {
        /// The attempt.
        attempt: Attempt,
        /// The tasks.
        tasks: BTreeSet<TaskId>,
        /// The highest checkpoint that was triggered: those under way are abandoned, and no id is used again.
        triggered: Option<CheckpointId>,
        /// When the newest completed checkpoint was triggered: the interval goes on from there.
        newest_at_ms: u64,
    },
    /// The tasks no longer run.
    TasksStopped,
    /// Time has passed; due at [`super::CheckpointCoordinator::next_wakeup`].
    Tick,
    /// Take a checkpoint at once, and again until one is complete.
    Trigger(TriggerReason),
    /// A task answered a barrier.
    Answered(TaskAnswer),
    /// The answer to [`Effect::WriteMetadata`].
    MetadataWritten {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What came of it.
        outcome: MetadataOutcome,
    },
    /// The answer to [`Effect::AppendLog`].
    Appended {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What came of it.
        outcome: AppendOutcome,
    },
    /// The answer to [`Effect::Relist`].
    StillLeader {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// What came of it.
        outcome: LeaderOutcome,
    },
}

/// A task's answer to a barrier, with what tells whether it is stale.
#[derive(Clone, Debug)]
pub struct TaskAnswer {
    /// The generation that the task belongs to.
    pub generation: Generation,
    /// The attempt that the task belongs to.
    pub attempt: Attempt,
    /// The task.
    pub task: TaskId,
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Its part of the checkpoint, or why there is none.
    pub outcome: Result<TaskPart, Error>,
}

/// A task's part of a checkpoint.
#[derive(Clone, Debug)]
pub struct TaskPart {
    /// The state of each operator of the chain.
    pub state: Vec<OperatorSubtaskState>,
    /// How long it took.
    pub metrics: SubtaskCheckpointMetrics,
}

/// What became of a checkpoint's metadata.
#[derive(Clone, Debug)]
pub enum MetadataOutcome {
    /// It was created, by us.
    Written(MetadataReceipt),
    /// Somebody else's is there: a jobmanager of an older generation went on, or one of a newer is at work.
    Conflict {
        /// The highest id in the store.
        highest: CheckpointId,
    },
    /// It was not created, or nobody knows. Without an entry in the log it means nothing either way.
    Failed(Error),
}

/// What the log's entry says of a checkpoint's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataReceipt {
    /// The file's size in bytes.
    pub size: u64,
    /// The CRC-32 of its bytes.
    pub crc32: u32,
    /// Whether sinks make records visible when the checkpoint is complete.
    pub commits: bool,
}

/// What became of a log entry.
#[derive(Clone, Debug)]
pub enum AppendOutcome {
    /// It is in the log.
    Appended,
    /// The log belongs to a higher generation: the entry is not in it, or void.
    Fenced,
    /// Nobody knows. It is tried again for as long as it takes, since the entry may be there already.
    Unknown(Error),
}

/// What a second look at the log showed.
#[derive(Clone, Debug)]
pub enum LeaderOutcome {
    /// Ours is the highest generation.
    Yes,
    /// It is not.
    No,
    /// The log could not be read; it is tried again.
    Unknown(Error),
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send the barrier to all tasks without inputs.
    Trigger(CheckpointBarrier),
    /// Create `_metadata` of the checkpoint if absent; answer with [`CoordinatorEvent::MetadataWritten`].
    WriteMetadata {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The state of all tasks.
        states: Arc<TaskStates>,
    },
    /// Append the checkpoint to the log; answer with [`CoordinatorEvent::Appended`].
    AppendLog {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// When it was triggered, milliseconds since the epoch.
        triggered_at_ms: u64,
        /// Its metadata.
        metadata: MetadataReceipt,
    },
    /// List the log and see whether ours is still the highest generation; answer with
    /// [`CoordinatorEvent::StillLeader`]. A shell whose append has listed the log after its create, as
    /// [`JobLog::append_checkpoint`](millrace_state::log::JobLog::append_checkpoint) does, may answer at once.
    Relist {
        /// The checkpoint that this is about.
        checkpoint: CheckpointId,
    },
    /// The checkpoint is complete for good: tell all tasks.
    Announce {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why it was taken.
        reason: TriggerReason,
    },
    /// The checkpoint will not complete: tell all tasks.
    Abort(CheckpointId),
    /// Delete these snapshots, file by file: the directory of their checkpoint may be another's.
    DiscardState(Vec<OperatorSubtaskState>),
    /// Delete these checkpoints with their directories, oldest first.
    DeleteCheckpoints(Vec<CheckpointId>),
    /// Too many checkpoints failed in a row.
    FailJob(Error),
    /// A newer generation has taken over: end this jobmanager without touching anything.
    Stop,
}
