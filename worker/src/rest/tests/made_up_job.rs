//! A job that has everything that is shown.

use std::{collections::BTreeMap, time::Duration};

use millrace_core::{
    Error,
    ids::{Attempt, CheckpointId, Generation, JobId, OperatorUid, TaskManagerId, VertexId},
    rest::*,
    restart::RestartStrategy,
};
use millrace_runtime::{
    coordinator::{CheckpointEntry, SubtaskEntry, TriggerReason},
    metrics::{OperatorFigures, TaskFigures, TaskMetricsSnapshot, TaskRates},
    task::SubtaskCheckpointMetrics,
};
use millrace_state::keyed::StateFigures;

use super::super::*;

pub const JOB: JobId = JobId(0xabc);

fn checkpoint(id: u64, status: CheckpointStatus) -> CheckpointStatistics {
    CheckpointStatistics {
        id,
        status,
        is_savepoint: false,
        trigger_timestamp: 5_000,
        latest_ack_timestamp: 5_010,
        checkpointed_size: 100,
        state_size: 300,
        end_to_end_duration: 12,
        processed_data: 60,
        persisted_data: 40,
        num_subtasks: 3,
        num_acknowledged_subtasks: 3,
        external_path: Some(format!("file:///c/chk-{id}")),
        discarded: Some(false),
        failure_timestamp: None,
        failure_message: None,
    }
}

/// A subtask that is busy for most of its time.
fn subtask(index: u32) -> SubtaskView {
    let counters = TaskMetricsSnapshot { records_in: 35, records_out: 30, bytes_in: 500, ..Default::default() };
    let rates = TaskRates { busy_ms: 600.0, idle_ms: 100.0, backpressured_ms: 300.0, ..Default::default() };
    let state =
        StateFigures { state: "n".to_string(), accesses: 70, timed_accesses: 2, timed_nanos: 90, bytes: Some(4096) };
    let operator = OperatorFigures {
        uid: OperatorUid("count".to_string()),
        name: "Count".to_string(),
        states: vec![state],
        backend_bytes: None,
    };
    let figures = TaskFigures { pending_records: Some(5), operators: vec![operator] };
    SubtaskView {
        index,
        state: ExecutionState::Running,
        attempt: Attempt(3),
        place: Some((TaskManagerId("tm-1".to_string()), "localhost:4000".to_string())),
        counters,
        rates: Some(rates),
        figures: Arc::new(figures),
    }
}

/// A checkpoint that one subtask of the second vertex has answered.
fn checkpoint_entry(id: u64) -> CheckpointEntry {
    let metrics = SubtaskCheckpointMetrics {
        start_delay_ms: 3,
        alignment_ms: 2,
        sync_us: 1_500,
        async_ms: 4,
        state_bytes: 300,
        checkpointed_bytes: 100,
        persisted_bytes: 40,
        processed_bytes: 60,
        unaligned: true,
        records_in: 7,
    };
    let answer = SubtaskEntry { ack_timestamp: 5_010, end_to_end_duration: 10, metrics };
    CheckpointEntry {
        id: CheckpointId(id),
        status: millrace_runtime::coordinator::CheckpointStatus::Completed,
        trigger_reason: TriggerReason::Periodic,
        trigger_timestamp: 5_000,
        latest_ack_timestamp: Some(5_010),
        end_to_end_duration: 12,
        state_size: 300,
        checkpointed_size: 100,
        processed_data: 60,
        persisted_data: 40,
        num_subtasks: 4,
        num_acknowledged_subtasks: 1,
        failure_timestamp: None,
        failure_message: None,
        tasks: BTreeMap::from([(VertexId(1), BTreeMap::from([(1, answer)]))]),
    }
}

/// The job.
pub fn view() -> JobView {
    let vertex = |id: u32, name: &str, inputs: Vec<EdgeView>| VertexView {
        id: VertexId(id),
        name: name.to_string(),
        parallelism: 2,
        tasks: BTreeMap::from([(ExecutionState::Running, 2)]),
        start_time: Some(1_200),
        subtasks: (0..2).map(subtask).collect(),
        inputs,
    };
    let mut view = JobView::new(JOB, "clicks", 1_000);
    view.enter(JobStatus::Running, 1_500);
    view.vertices = vec![
        vertex(0, "source -> map", vec![]),
        vertex(1, "count -> print", vec![EdgeView { from: VertexId(0), ship_strategy: "HASH" }]),
    ];
    view.checkpoint_config.interval = Some(Duration::from_secs(1));
    view.restart_strategy = RestartStrategy::exponential_delay();
    view.checkpoint_dir = Some("file:///c".to_string());
    view.checkpoints.counts = CheckpointCounts { restored: 1, total: 4, in_progress: 0, completed: 3, failed: 1 };
    view.checkpoints.latest.completed = Some(checkpoint(4, CheckpointStatus::Completed));
    view.checkpoints.history = vec![checkpoint(4, CheckpointStatus::Completed)];
    let mut failure = exception_entry(&Error::user("map 1/0 panicked: odd"), 4_000);
    failure.task_name = Some("source -> map (1/2)".to_string());
    failure.position = Some("input-0@17".to_string());
    let older = exception_entry(&Error::external("taskmanager b is lost"), 3_000);
    view.exceptions = vec![failure, older];
    view.taskmanagers = vec![TaskManagerInfo {
        id: TaskManagerId("tm-1".to_string()),
        resource_id: "tm".to_string(),
        path: "localhost:4000".to_string(),
        data_port: 4000,
        time_since_last_heartbeat: 5_900,
        slots_number: 3,
        free_slots: 1,
        pid: Some(77),
        hardware: Hardware { cpu_cores: 2, physical_memory: 100 },
        memory: TaskManagerMemory { resident: 10, limit: 50, managed_total: 0, managed_used: 0, state_size: 7 },
    }];
    view.checkpoint_entries = vec![Arc::new(checkpoint_entry(4))];
    (view.generation, view.attempt, view.restarts) = (Generation(2), Attempt(3), 2);
    view.last_recovery = Some(RecoveryDetails {
        timestamp: 4_000,
        duration: 350,
        phases: vec![RecoveryPhase { name: "detect".to_string(), duration: 5 }],
        restored_checkpoint: Some(3),
        cause: "taskmanager b is lost".to_string(),
        taskmanager: Some("b".to_string()),
        ..RecoveryDetails::default()
    });
    view
}
