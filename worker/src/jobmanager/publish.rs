//! What the jobmanager shows of its job.

use std::sync::Arc;

use millrace_core::{
    Error,
    ids::{JobId, TaskId},
    rest::{
        CheckpointCounts, CheckpointStatistics, CheckpointStatus, CheckpointSummary, CheckpointingStatistics, Hardware,
        LatestCheckpoints, MinMaxAvg, RestoredCheckpoint, TaskManagerInfo, TaskManagerMemory,
    },
};
use millrace_runtime::{
    coordinator,
    graph::{JobGraph, JobVertex, Partitioning},
};

use super::{JobManager, TaskManager};
use crate::{
    config::Settings,
    rest::{EdgeView, JobView, SubtaskView, VertexView, exception_entry},
};

/// How many failures are kept.
const MAX_EXCEPTIONS: usize = 16;

/// What is known before anything runs.
pub fn first_view(graph: &JobGraph, settings: &Settings, job: JobId, now_ms: u64) -> JobView {
    JobView {
        max_parallelism: graph.max_parallelism,
        parallelism: settings.parallelism,
        restart_strategy: settings.restart_strategy.clone(),
        vertices: graph.vertices.iter().map(|vertex| vertex_view(graph, vertex)).collect(),
        checkpoint_config: settings.checkpoint.clone(),
        state_backend: settings.state_backend.clone(),
        checkpoint_dir: settings.checkpoint_dir.clone(),
        ..JobView::new(job, graph.name.clone(), now_ms)
    }
}

fn vertex_view(graph: &JobGraph, vertex: &JobVertex) -> VertexView {
    let inputs = graph.edges_into(vertex.id).map(|(_, edge)| EdgeView {
        from: edge.from,
        ship_strategy: match edge.partitioning {
            Partitioning::Forward => "FORWARD",
            Partitioning::Hash => "HASH",
            Partitioning::Rebalance => "REBALANCE",
            Partitioning::Broadcast => "BROADCAST",
        },
    });
    VertexView {
        id: vertex.id,
        name: vertex.name.clone(),
        parallelism: vertex.parallelism,
        tasks: Default::default(),
        start_time: None,
        subtasks: Vec::new(),
        inputs: inputs.collect(),
    }
}

impl JobManager {
    /// Publishes the job as it stands.
    pub(super) fn publish(&mut self) {
        self.view.attempt = self.scheduler.attempt();
        self.view.restarts = u64::from(self.scheduler.restarts());
        for vertex in &mut self.view.vertices {
            vertex.tasks.clear();
            vertex.subtasks.clear();
            for (id, task) in self.attempt.tasks.iter().filter(|(id, _)| id.vertex == vertex.id) {
                *vertex.tasks.entry(task.execution).or_default() += 1;
                let place = self.scheduler.last_place(*id).and_then(|place| self.taskmanagers.get(place));
                vertex.subtasks.push(SubtaskView {
                    index: id.subtask,
                    state: task.execution,
                    attempt: self.scheduler.attempt_of(*id).unwrap_or(self.view.attempt),
                    place: place.map(|there| (there.location.id.clone(), there.location.data_address.clone())),
                    counters: task.counters,
                    rates: task.rates,
                    figures: Arc::clone(&task.figures),
                });
            }
        }
        let taskmanagers = self.taskmanagers.values().map(|taskmanager| self.taskmanager_info(taskmanager));
        self.view.taskmanagers = taskmanagers.collect();
        self.view.checkpoints = statistics(self.coordinator.statistics(), |id| {
            self.settings.checkpoint_dir.as_ref().map(|_| self.storage.checkpoint_uri(self.job, id))
        });
        self.publish_checkpoint_entries();
        let newest = &mut self.view.checkpoints.latest.completed;
        *newest = newest.take().or_else(|| self.inherited.clone());
        self.published.send_replace(Arc::new(self.view.clone()));
    }

    /// Publishes each checkpoint in full; what has not changed is not copied again.
    fn publish_checkpoint_entries(&mut self) {
        let known = std::mem::take(&mut self.view.checkpoint_entries);
        let entry = |entry: &coordinator::CheckpointEntry| {
            let same = known.iter().find(|known| {
                let progress = |entry: &coordinator::CheckpointEntry| (entry.status, entry.num_acknowledged_subtasks);
                known.id == entry.id && progress(known) == progress(entry)
            });
            same.map_or_else(|| Arc::new(entry.clone()), Arc::clone)
        };
        self.view.checkpoint_entries = self.coordinator.statistics().history.iter().map(entry).collect();
    }

    fn taskmanager_info(&self, taskmanager: &TaskManager) -> TaskManagerInfo {
        let id = &taskmanager.location.id;
        let used: std::collections::BTreeSet<_> = self
            .scheduler
            .assignment()
            .into_iter()
            .flatten()
            .filter(|(_, place)| *place == id)
            .map(|(task, _)| task.subtask)
            .collect();
        let address = &taskmanager.location.data_address;
        let here = |task: &TaskId| self.scheduler.last_place(*task) == Some(id);
        let states = self.attempt.tasks.iter().filter(|(task, _)| here(task)).map(|(_, task)| task);
        TaskManagerInfo {
            id: id.clone(),
            resource_id: taskmanager.resource_id.clone(),
            path: address.clone(),
            data_port: address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0),
            time_since_last_heartbeat: taskmanager.heard_at_ms,
            slots_number: taskmanager.slots,
            free_slots: taskmanager.slots.saturating_sub(used.len() as u32),
            pid: Some(taskmanager.pid),
            hardware: Hardware {
                cpu_cores: taskmanager.process.cpu_cores,
                physical_memory: taskmanager.process.physical_memory,
            },
            memory: TaskManagerMemory {
                resident: taskmanager.process.resident,
                limit: taskmanager.process.limit,
                managed_total: taskmanager.process.managed_total,
                managed_used: taskmanager.process.managed_used,
                state_size: states.map(|task| task.figures.state_bytes()).sum(),
            },
        }
    }

    /// Adds a failure to the history.
    pub(super) fn publish_failure(&mut self, error: &Error, task: Option<TaskId>) {
        let mut entry = exception_entry(error, self.clock.now_ms());
        entry.position = self.failed_position.take();
        if let Some(task) = task {
            let vertex = self.graph.vertex(task.vertex);
            entry.task_name = Some(format!("{} ({}/{})", vertex.name, task.subtask + 1, vertex.parallelism));
            let place = self.scheduler.last_place(task);
            entry.endpoint = place
                .and_then(|id| self.taskmanagers.get(id))
                .map(|taskmanager| taskmanager.location.data_address.clone());
            entry.task_manager_id = place.map(ToString::to_string);
        }
        self.view.exceptions.insert(0, entry);
        if self.view.exceptions.len() > MAX_EXCEPTIONS {
            self.view.exceptions.truncate(MAX_EXCEPTIONS);
            self.view.exceptions_truncated = true;
        }
    }
}

/// The coordinator's statistics as REST shows them.
fn statistics(
    from: &coordinator::CheckpointStatistics,
    path: impl Fn(millrace_core::ids::CheckpointId) -> Option<String>,
) -> CheckpointingStatistics {
    let entry = |entry: &coordinator::CheckpointEntry| checkpoint_statistics(entry, &path);
    let completed: Vec<_> =
        from.history.iter().filter(|entry| entry.status == coordinator::CheckpointStatus::Completed).collect();
    let of = |number: fn(&coordinator::CheckpointEntry) -> u64| MinMaxAvg::of(completed.iter().map(|e| number(e)));
    CheckpointingStatistics {
        counts: CheckpointCounts {
            restored: from.counts.restored,
            total: from.counts.total,
            in_progress: from.counts.in_progress,
            completed: from.counts.completed,
            failed: from.counts.failed,
        },
        summary: CheckpointSummary {
            checkpointed_size: of(|entry| entry.checkpointed_size),
            state_size: of(|entry| entry.state_size),
            end_to_end_duration: of(|entry| entry.end_to_end_duration),
            processed_data: of(|entry| entry.processed_data),
            persisted_data: of(|entry| entry.persisted_data),
        },
        latest: LatestCheckpoints {
            completed: from.latest.completed.as_ref().map(entry),
            failed: from.latest.failed.as_ref().map(entry),
            restored: from.latest.restored.as_ref().map(|restored| RestoredCheckpoint {
                id: restored.id.0,
                restore_timestamp: restored.restore_timestamp,
                is_savepoint: false,
                external_path: path(restored.id),
            }),
            savepoint: None,
        },
        history: from.history.iter().map(entry).collect(),
    }
}

/// A checkpoint as REST shows it; `path` tells where a completed one lies.
fn checkpoint_statistics(
    entry: &coordinator::CheckpointEntry,
    path: impl Fn(millrace_core::ids::CheckpointId) -> Option<String>,
) -> CheckpointStatistics {
    CheckpointStatistics {
        id: entry.id.0,
        status: match entry.status {
            coordinator::CheckpointStatus::InProgress => CheckpointStatus::InProgress,
            coordinator::CheckpointStatus::Completed => CheckpointStatus::Completed,
            coordinator::CheckpointStatus::Failed => CheckpointStatus::Failed,
        },
        is_savepoint: false,
        trigger_timestamp: entry.trigger_timestamp,
        latest_ack_timestamp: entry.latest_ack_timestamp.map_or(-1, |time| time as i64),
        checkpointed_size: entry.checkpointed_size,
        state_size: entry.state_size,
        end_to_end_duration: entry.end_to_end_duration,
        processed_data: entry.processed_data,
        persisted_data: entry.persisted_data,
        num_subtasks: entry.num_subtasks as u32,
        num_acknowledged_subtasks: entry.num_acknowledged_subtasks as u32,
        external_path: (entry.status == coordinator::CheckpointStatus::Completed).then(|| path(entry.id)).flatten(),
        discarded: None,
        failure_timestamp: entry.failure_timestamp,
        failure_message: entry.failure_message.clone(),
    }
}
