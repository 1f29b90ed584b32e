//! What `/jobs/<id>/checkpoints` shows. Field names are Flink's where the thing is the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_core::ids::{CheckpointId, TaskId, VertexId};
use serde::{Deserialize, Serialize};

use super::event::TriggerReason;
use crate::task::SubtaskCheckpointMetrics;

/// How many checkpoints the history holds (as in Flink).
pub const HISTORY: usize = 10;

/// Counts and history of a job's checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatistics {
    /// How many there were.
    pub counts: CheckpointCounts,
    /// The newest of each kind.
    pub latest: LatestCheckpoints,
    /// The last [`HISTORY`] ones and those still under way, newest first.
    pub history: VecDeque<CheckpointEntry>,
}

/// How many checkpoints there were since this jobmanager started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointCounts {
    /// Restores of the job from a checkpoint.
    pub restored: u64,
    /// Triggered.
    pub total: u64,
    /// Under way.
    pub in_progress: u64,
    /// Completed.
    pub completed: u64,
    /// Failed, expired, superseded, or aborted because the job restarted.
    pub failed: u64,
}

/// The newest checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatestCheckpoints {
    /// The newest completed one.
    pub completed: Option<CheckpointEntry>,
    /// The newest failed one.
    pub failed: Option<CheckpointEntry>,
    /// The last restore.
    pub restored: Option<RestoredCheckpoint>,
}

/// A restore of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredCheckpoint {
    /// The checkpoint.
    pub id: CheckpointId,
    /// When, milliseconds since the epoch.
    pub restore_timestamp: u64,
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointStatus {
    /// Under way.
    InProgress,
    /// Complete.
    Completed,
    /// It will not complete.
    Failed,
}

/// One checkpoint. Times are milliseconds since the epoch, durations milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointEntry {
    /// Its id.
    pub id: CheckpointId,
    /// What became of it.
    pub status: CheckpointStatus,
    /// Why it was taken.
    pub trigger_reason: TriggerReason,
    /// When it was triggered.
    pub trigger_timestamp: u64,
    /// When the last task answered.
    pub latest_ack_timestamp: Option<u64>,
    /// From the trigger to the end, or to the last answer while it is under way.
    pub end_to_end_duration: u64,
    /// The size of all snapshots so far, in bytes.
    pub state_size: u64,
    /// How much of them was written for this checkpoint.
    pub checkpointed_size: u64,
    /// How much of what other processes had sent tasks took between the first barrier and their snapshots.
    pub processed_data: u64,
    /// How much data in flight is in the checkpoint.
    pub persisted_data: u64,
    /// How many tasks take part.
    pub num_subtasks: usize,
    /// How many of them have answered.
    pub num_acknowledged_subtasks: usize,
    /// When it failed.
    pub failure_timestamp: Option<u64>,
    /// Why it failed.
    pub failure_message: Option<String>,
    /// What each subtask measured, by vertex and subtask, of those that have answered.
    pub tasks: BTreeMap<VertexId, BTreeMap<u32, SubtaskEntry>>,
}

/// A subtask's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubtaskEntry {
    /// When it came, milliseconds since the epoch.
    pub ack_timestamp: u64,
    /// From the trigger to the answer, in milliseconds.
    pub end_to_end_duration: u64,
    /// What the subtask measured.
    #[serde(flatten)]
    pub metrics: SubtaskCheckpointMetrics,
}

impl CheckpointStatistics {
    pub(super) fn restored(&mut self, now_ms: u64, id: CheckpointId) {
        self.counts.restored += 1;
        self.latest.restored = Some(RestoredCheckpoint { id, restore_timestamp: now_ms });
    }

    pub(super) fn triggered(&mut self, now_ms: u64, id: CheckpointId, reason: TriggerReason, tasks: &BTreeSet<TaskId>) {
        self.counts.total += 1;
        self.counts.in_progress += 1;
        self.history.push_front(CheckpointEntry {
            id,
            status: CheckpointStatus::InProgress,
            trigger_reason: reason,
            trigger_timestamp: now_ms,
            latest_ack_timestamp: None,
            end_to_end_duration: 0,
            state_size: 0,
            checkpointed_size: 0,
            processed_data: 0,
            persisted_data: 0,
            num_subtasks: tasks.len(),
            num_acknowledged_subtasks: 0,
            failure_timestamp: None,
            failure_message: None,
            tasks: BTreeMap::new(),
        });
        // One that is under way stays, however many there are: its end is still to be recorded.
        while self.history.len() > HISTORY {
            let ended = self.history.iter().rposition(|entry| entry.status != CheckpointStatus::InProgress);
            let Some(oldest) = ended else { break };
            self.history.remove(oldest);
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        now_ms: u64,
        id: CheckpointId,
        task: TaskId,
        metrics: SubtaskCheckpointMetrics,
    ) {
        let Some(entry) = self.entry(id) else { return };
        let end_to_end_duration = now_ms.saturating_sub(entry.trigger_timestamp);
        let subtask = SubtaskEntry { ack_timestamp: now_ms, end_to_end_duration, metrics };
        if entry.tasks.entry(task.vertex).or_default().insert(task.subtask, subtask).is_some() {
            return;
        }
        entry.latest_ack_timestamp = Some(now_ms);
        entry.end_to_end_duration = end_to_end_duration;
        entry.num_acknowledged_subtasks += 1;
        entry.state_size += metrics.state_bytes;
        entry.checkpointed_size += metrics.checkpointed_bytes;
        entry.processed_data += metrics.processed_bytes;
        entry.persisted_data += metrics.persisted_bytes;
    }

    pub(super) fn completed(&mut self, now_ms: u64, id: CheckpointId) {
        self.counts.in_progress = self.counts.in_progress.saturating_sub(1);
        self.counts.completed += 1;
        let Some(entry) = self.entry(id) else { return };
        entry.status = CheckpointStatus::Completed;
        entry.end_to_end_duration = now_ms.saturating_sub(entry.trigger_timestamp);
        self.latest.completed = Some(entry.clone());
    }

    pub(super) fn failed(&mut self, now_ms: u64, id: CheckpointId, message: String) {
        self.counts.in_progress = self.counts.in_progress.saturating_sub(1);
        self.counts.failed += 1;
        let Some(entry) = self.entry(id) else { return };
        entry.status = CheckpointStatus::Failed;
        entry.end_to_end_duration = now_ms.saturating_sub(entry.trigger_timestamp);
        entry.failure_timestamp = Some(now_ms);
        entry.failure_message = Some(message);
        self.latest.failed = Some(entry.clone());
    }

    fn entry(&mut self, id: CheckpointId) -> Option<&mut CheckpointEntry> {
        self.history.iter_mut().find(|entry| entry.id == id)
    }
}
