//! Answers about one checkpoint, down to its subtasks.

use millrace_core::{ids::VertexId, rest::*};
use millrace_runtime::coordinator::{CheckpointEntry, SubtaskEntry};

use super::time;
use crate::rest::view::{JobView, VertexView};

/// A checkpoint of the history.
pub fn details(view: &JobView, id: u64) -> Option<CheckpointDetails> {
    let checkpoint = view.checkpoints.history.iter().find(|checkpoint| checkpoint.id == id)?.clone();
    let entry = view.checkpoint_entries.iter().find(|entry| entry.id.0 == id)?;
    let status = checkpoint.status;
    Some(CheckpointDetails {
        trigger_reason: serde_json::to_value(entry.trigger_reason)
            .ok()
            .and_then(|reason| reason.as_str().map(str::to_string))
            .unwrap_or_default(),
        tasks: view.vertices.iter().map(|of| (vertex_text(of.id), task(entry, status, of))).collect(),
        checkpoint,
    })
}

/// A vertex's part of it.
pub fn task_details(view: &JobView, id: u64, of: &VertexView) -> Option<TaskCheckpointDetails> {
    let status = view.checkpoints.history.iter().find(|checkpoint| checkpoint.id == id)?.status;
    let entry = view.checkpoint_entries.iter().find(|entry| entry.id.0 == id)?;
    let answered: Vec<_> = subtasks(entry, of.id).map(|(_, subtask)| subtask).collect();
    let range = |number: fn(&SubtaskEntry) -> u64| MinMaxAvg::of(answered.iter().map(|subtask| number(subtask)));
    let subtask = |index| {
        let answer = entry.tasks.get(&of.id).and_then(|subtasks| subtasks.get(&index));
        answer.map_or(SubtaskCheckpoint::PendingOrFailed { index }, |answer| completed(index, answer))
    };
    Some(TaskCheckpointDetails {
        task: task(entry, status, of),
        summary: SubtaskCheckpointSummary {
            checkpointed_size: range(|s| s.metrics.checkpointed_bytes),
            state_size: range(|s| s.metrics.state_bytes),
            end_to_end_duration: range(|s| s.end_to_end_duration),
            checkpoint_duration: CheckpointDurationSummary {
                sync: range(|s| s.metrics.sync_us / 1000),
                asynchronous: range(|s| s.metrics.async_ms),
            },
            alignment: AlignmentSummary {
                duration: range(|s| s.metrics.alignment_ms),
                processed: range(|s| s.metrics.processed_bytes),
                persisted: range(|s| s.metrics.persisted_bytes),
            },
            start_delay: range(|s| s.metrics.start_delay_ms),
        },
        subtasks: (0..of.parallelism).map(subtask).collect(),
    })
}

fn subtasks(entry: &CheckpointEntry, vertex: VertexId) -> impl Iterator<Item = (&u32, &SubtaskEntry)> {
    entry.tasks.get(&vertex).into_iter().flatten()
}

fn task(entry: &CheckpointEntry, status: CheckpointStatus, of: &VertexView) -> TaskCheckpointStatistics {
    let answered = || subtasks(entry, of.id).map(|(_, subtask)| subtask);
    TaskCheckpointStatistics {
        id: entry.id.0,
        status: match answered().count() {
            count if count == of.parallelism as usize => CheckpointStatus::Completed,
            _ => status,
        },
        latest_ack_timestamp: time(answered().map(|subtask| subtask.ack_timestamp).max()),
        checkpointed_size: answered().map(|subtask| subtask.metrics.checkpointed_bytes).sum(),
        state_size: answered().map(|subtask| subtask.metrics.state_bytes).sum(),
        end_to_end_duration: answered().map(|subtask| subtask.end_to_end_duration).max().unwrap_or(0),
        processed_data: answered().map(|subtask| subtask.metrics.processed_bytes).sum(),
        persisted_data: answered().map(|subtask| subtask.metrics.persisted_bytes).sum(),
        num_subtasks: of.parallelism,
        num_acknowledged_subtasks: answered().count() as u32,
    }
}

fn completed(index: u32, answer: &SubtaskEntry) -> SubtaskCheckpoint {
    SubtaskCheckpoint::Completed(CompletedSubtaskCheckpoint {
        index,
        ack_timestamp: answer.ack_timestamp,
        end_to_end_duration: answer.end_to_end_duration,
        checkpointed_size: answer.metrics.checkpointed_bytes,
        state_size: answer.metrics.state_bytes,
        checkpoint: CheckpointDuration { sync: answer.metrics.sync_us / 1000, asynchronous: answer.metrics.async_ms },
        alignment: Alignment {
            duration: answer.metrics.alignment_ms,
            processed: answer.metrics.processed_bytes,
            persisted: answer.metrics.persisted_bytes,
        },
        start_delay: answer.metrics.start_delay_ms,
        unaligned_checkpoint: answer.metrics.unaligned,
    })
}
