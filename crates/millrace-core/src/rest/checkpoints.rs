//! A job's checkpoints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `/jobs/<id>/checkpoints`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointingStatistics {
    /// How many there were.
    pub counts: CheckpointCounts,
    /// What the completed ones had in common.
    pub summary: CheckpointSummary,
    /// The newest of each kind.
    pub latest: LatestCheckpoints,
    /// The newest ones, the newest first.
    pub history: Vec<CheckpointStatistics>,
}

/// How many checkpoints there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointCounts {
    /// How often one was restored.
    pub restored: u64,
    /// All that were triggered.
    pub total: u64,
    /// Those under way.
    pub in_progress: u64,
    /// Those that are complete.
    pub completed: u64,
    /// Those that failed.
    pub failed: u64,
}

/// What completed checkpoints had in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointSummary {
    /// What was written for them.
    pub checkpointed_size: MinMaxAvg,
    /// The state that they hold.
    pub state_size: MinMaxAvg,
    /// From trigger to completion.
    pub end_to_end_duration: MinMaxAvg,
    /// Bytes from other processes that were processed between the first barrier and the last.
    #[serde(default)]
    pub processed_data: MinMaxAvg,
    /// Bytes in flight that barriers overtook, and that are part of it: only of unaligned checkpoints.
    #[serde(default)]
    pub persisted_data: MinMaxAvg,
}

/// A number's range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MinMaxAvg {
    /// The least.
    pub min: u64,
    /// The greatest.
    pub max: u64,
    /// The mean.
    pub avg: u64,
}

impl MinMaxAvg {
    /// The range of some numbers; all zero of none.
    pub fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut numbers = numbers.into_iter();
        let Some(first) = numbers.next() else { return Self::default() };
        let start = (first, first, u128::from(first), 1u128);
        let (min, max, sum, count) = numbers.fold(start, |(min, max, sum, count), number| {
            (min.min(number), max.max(number), sum + u128::from(number), count + 1)
        });
        Self { min, max, avg: (sum / count) as u64 }
    }
}

/// The newest checkpoint of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LatestCheckpoints {
    /// Completed.
    pub completed: Option<CheckpointStatistics>,
    /// Failed.
    pub failed: Option<CheckpointStatistics>,
    /// Restored.
    pub restored: Option<RestoredCheckpoint>,
    /// There are none yet.
    pub savepoint: Option<CheckpointStatistics>,
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointStatus {
    /// Under way.
    InProgress,
    /// Complete.
    Completed,
    /// Failed, abandoned or declined.
    Failed,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointStatistics {
    /// Its number.
    pub id: u64,
    /// What became of it.
    pub status: CheckpointStatus,
    /// Always false for now.
    pub is_savepoint: bool,
    /// When it was triggered.
    pub trigger_timestamp: u64,
    /// When the last subtask's answer came; -1: none came.
    pub latest_ack_timestamp: i64,
    /// What was written for it.
    pub checkpointed_size: u64,
    /// The state that it holds.
    pub state_size: u64,
    /// From the trigger to its end, or to now.
    pub end_to_end_duration: u64,
    /// Bytes from other processes that were processed between the first barrier and the last.
    #[serde(default)]
    pub processed_data: u64,
    /// Bytes in flight that barriers overtook, and that are part of it: only of unaligned checkpoints.
    #[serde(default)]
    pub persisted_data: u64,
    /// How many subtasks take part.
    pub num_subtasks: u32,
    /// How many have answered.
    pub num_acknowledged_subtasks: u32,
    /// Where it lies, once it is complete.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub external_path: Option<String>,
    /// Whether it was deleted since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub discarded: Option<bool>,
    /// When it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_timestamp: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_message: Option<String>,
}

/// The checkpoint that the job was last restored from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestoredCheckpoint {
    /// Its number.
    pub id: u64,
    /// When.
    pub restore_timestamp: u64,
    /// Always false for now.
    pub is_savepoint: bool,
    /// Where it lies.
    pub external_path: Option<String>,
}

/// `/jobs/<id>/checkpoints/config`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointConfigInfo {
    /// `exactly_once` or `at_least_once`.
    pub mode: String,
    /// Milliseconds; -1: checkpoints are off.
    pub interval: i64,
    /// Milliseconds.
    pub timeout: u64,
    /// Milliseconds.
    pub min_pause: u64,
    /// How many at once.
    pub max_concurrent: u32,
    /// What becomes of them.
    pub externalization: ExternalizationInfo,
    /// The state backend.
    pub state_backend: String,
    /// `jobmanager`, or the checkpoint directory.
    pub checkpoint_storage: String,
    /// How many may fail in a row; -1: any number.
    pub tolerable_failed_checkpoints: i64,
    /// How many are kept.
    pub num_retained: u32,
}

/// What becomes of checkpoints when the job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExternalizationInfo {
    /// Whether they outlive the jobmanager.
    pub enabled: bool,
    /// Whether cancelling deletes them.
    pub delete_on_cancellation: bool,
}

/// `/jobs/<id>/checkpoints/details/<checkpoint>`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointDetails {
    /// The checkpoint.
    #[serde(flatten)]
    pub checkpoint: CheckpointStatistics,
    /// Why it was taken.
    pub trigger_reason: String,
    /// Its vertices, by their ids.
    pub tasks: BTreeMap<String, TaskCheckpointStatistics>,
}

/// A vertex's part of a checkpoint: the sum of its subtasks'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskCheckpointStatistics {
    /// The checkpoint.
    pub id: u64,
    /// What became of it.
    pub status: CheckpointStatus,
    /// When the last subtask's answer came; -1: none came.
    pub latest_ack_timestamp: i64,
    /// What was written for it.
    pub checkpointed_size: u64,
    /// The state that it holds.
    pub state_size: u64,
    /// From the trigger to the last answer.
    pub end_to_end_duration: u64,
    /// Bytes from other processes that were processed between the first barrier and the last.
    #[serde(default)]
    pub processed_data: u64,
    /// Bytes in flight that barriers overtook, and that are part of it: only of unaligned checkpoints.
    #[serde(default)]
    pub persisted_data: u64,
    /// How many subtasks take part.
    pub num_subtasks: u32,
    /// How many have answered.
    pub num_acknowledged_subtasks: u32,
}

/// `/jobs/<id>/checkpoints/details/<checkpoint>/subtasks/<vertex>`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskCheckpointDetails {
    /// The vertex's part.
    #[serde(flatten)]
    pub task: TaskCheckpointStatistics,
    /// What the subtasks that have answered have in common.
    pub summary: SubtaskCheckpointSummary,
    /// Each subtask.
    pub subtasks: Vec<SubtaskCheckpoint>,
}

/// What the subtasks of a vertex measured of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubtaskCheckpointSummary {
    /// What was written for it.
    pub checkpointed_size: MinMaxAvg,
    /// The state that it holds.
    pub state_size: MinMaxAvg,
    /// From the trigger to the answer.
    pub end_to_end_duration: MinMaxAvg,
    /// Taking and writing the snapshot.
    pub checkpoint_duration: CheckpointDurationSummary,
    /// Between the first barrier and the last.
    pub alignment: AlignmentSummary,
    /// From the trigger to the first barrier.
    pub start_delay: MinMaxAvg,
}

/// How long subtasks took for their snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointDurationSummary {
    /// While the task stood still.
    pub sync: MinMaxAvg,
    /// Beside the running task.
    #[serde(rename = "async")]
    pub asynchronous: MinMaxAvg,
}

/// What subtasks did about barriers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlignmentSummary {
    /// From the first barrier to the last.
    pub duration: MinMaxAvg,
    /// Bytes from other processes that were processed meanwhile.
    #[serde(default)]
    pub processed: MinMaxAvg,
    /// Bytes in flight that barriers overtook.
    #[serde(default)]
    pub persisted: MinMaxAvg,
}

/// A subtask's part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum SubtaskCheckpoint {
    /// It has not answered, or never will.
    PendingOrFailed {
        /// Its index.
        index: u32,
    },
    /// It has answered.
    Completed(CompletedSubtaskCheckpoint),
}

/// What a subtask measured of its part in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CompletedSubtaskCheckpoint {
    /// Its index.
    pub index: u32,
    /// When its answer came.
    pub ack_timestamp: u64,
    /// From the trigger to the answer.
    pub end_to_end_duration: u64,
    /// What was written for it.
    pub checkpointed_size: u64,
    /// The state that it holds.
    pub state_size: u64,
    /// Taking and writing the snapshot.
    pub checkpoint: CheckpointDuration,
    /// Aligning barriers.
    pub alignment: Alignment,
    /// From the trigger to the first barrier.
    pub start_delay: u64,
    /// Whether barriers overtook data.
    #[serde(default)]
    pub unaligned_checkpoint: bool,
}

/// How long a subtask took for its snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointDuration {
    /// While the task stood still.
    pub sync: u64,
    /// Beside the running task.
    #[serde(rename = "async")]
    pub asynchronous: u64,
}

/// What a subtask did about barriers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Alignment {
    /// From the first barrier to the last.
    pub duration: u64,
    /// Bytes from other processes that were processed meanwhile.
    #[serde(default)]
    pub processed: u64,
    /// Bytes in flight that barriers overtook.
    #[serde(default)]
    pub persisted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_nothing_is_zero_and_large_numbers_do_not_overflow() {
        assert_eq!(MinMaxAvg::of([]), MinMaxAvg::default());
        assert_eq!(MinMaxAvg::of([u64::MAX, u64::MAX]), MinMaxAvg { min: u64::MAX, max: u64::MAX, avg: u64::MAX });
        assert_eq!(MinMaxAvg::of([2, 9, 4]), MinMaxAvg { min: 2, max: 9, avg: 5 });
    }
}
