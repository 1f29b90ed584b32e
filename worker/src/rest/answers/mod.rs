//! Answers, made from the job's view. Pure.

pub mod checkpoints;
pub mod metrics;
pub mod taskmanagers;
pub mod vertices;

use std::collections::BTreeMap;

use millrace_core::{
    checkpoint::{CheckpointConfig, CheckpointingMode, Retention},
    rest::*,
};

use super::view::{JobView, VertexView};

/// Flink's word for "not yet" in a time.
const NOT_YET: i64 = -1;
/// How often a client should ask, in milliseconds.
const REFRESH_INTERVAL: u64 = 1000;

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_string()
}

fn time(time: Option<u64>) -> i64 {
    time.map_or(NOT_YET, signed)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn duration(view: &JobView, now: u64) -> i64 {
    signed(view.end_time.unwrap_or(now).saturating_sub(view.start_time))
}

pub fn cluster_overview(view: &JobView) -> ClusterOverview {
    let is = |state: JobStatus| u32::from(view.state == state);
    ClusterOverview {
        taskmanagers: view.taskmanagers.len() as u32,
        slots_total: view.taskmanagers.iter().map(|taskmanager| taskmanager.slots_number).sum(),
        slots_available: view.taskmanagers.iter().map(|taskmanager| taskmanager.free_slots).sum(),
        jobs_running: u32::from(!view.state.is_terminal()),
        jobs_finished: is(JobStatus::Finished),
        jobs_cancelled: is(JobStatus::Canceled),
        jobs_failed: is(JobStatus::Failed),
        millrace_version: version(),
    }
}

pub fn dashboard_config() -> DashboardConfig {
    DashboardConfig {
        refresh_interval: REFRESH_INTERVAL,
        timezone_name: "UTC".to_string(),
        timezone_offset: 0,
        millrace_version: version(),
    }
}

pub fn jobs(view: &JobView) -> Jobs {
    Jobs { jobs: vec![JobIdWithStatus { id: view.job_id, status: view.state }] }
}

pub fn jobs_overview(view: &JobView, now: u64) -> JobsOverview {
    let counts = view.task_counts();
    let total = counts.values().sum();
    let name = |state: ExecutionState| format!("{state:?}").to_lowercase();
    let mut tasks: BTreeMap<String, u32> = counts.into_iter().map(|(state, count)| (name(state), count)).collect();
    tasks.insert("total".to_string(), total);
    let overview = JobOverview {
        jid: view.job_id,
        name: view.name.clone(),
        state: view.state,
        start_time: signed(view.start_time),
        end_time: time(view.end_time),
        duration: duration(view, now),
        last_modification: signed(view.timestamps.values().copied().max().unwrap_or(view.start_time)),
        tasks,
    };
    JobsOverview { jobs: vec![overview] }
}

pub fn job_details(view: &JobView, now: u64) -> JobDetails {
    let mut status_counts: TaskCounts = ExecutionState::ALL.into_iter().map(|state| (state, 0)).collect();
    for vertex in &view.vertices {
        *status_counts.entry(vertex.status()).or_default() += 1;
    }
    JobDetails {
        jid: view.job_id,
        name: view.name.clone(),
        is_stoppable: view.state == JobStatus::Running,
        state: view.state,
        start_time: signed(view.start_time),
        end_time: time(view.end_time),
        duration: duration(view, now),
        max_parallelism: view.max_parallelism,
        now: signed(now),
        timestamps: view.timestamps.clone(),
        vertices: view.vertices.iter().map(|vertex| vertex_details(view, vertex, now)).collect(),
        status_counts,
        plan: plan(view),
        generation: view.generation,
        attempt: view.attempt,
        restarts: view.restarts,
        waiting_for: view.waiting_for.clone(),
        last_recovery: view.last_recovery.clone(),
        left_behind: view.left_behind.clone(),
    }
}

fn vertex_details(view: &JobView, vertex: &VertexView, now: u64) -> JobVertexDetails {
    let mut tasks: TaskCounts = ExecutionState::ALL.into_iter().map(|state| (state, 0)).collect();
    tasks.extend(&vertex.tasks);
    let lasted = |start: u64| signed(view.end_time.unwrap_or(now).saturating_sub(start));
    JobVertexDetails {
        id: vertex_text(vertex.id),
        name: vertex.name.clone(),
        max_parallelism: view.max_parallelism,
        parallelism: vertex.parallelism,
        status: vertex.status(),
        start_time: time(vertex.start_time),
        end_time: if vertex.start_time.is_some() { time(view.end_time) } else { NOT_YET },
        duration: vertex.start_time.map_or(NOT_YET, lasted),
        tasks,
        metrics: vertices::io_metrics(&vertex.subtasks),
    }
}

pub fn plan(view: &JobView) -> JobPlan {
    let node = |vertex: &VertexView| PlanNode {
        id: vertex_text(vertex.id),
        parallelism: vertex.parallelism,
        description: vertex.name.clone(),
        inputs: (0u32..)
            .zip(&vertex.inputs)
            .map(|(num, edge)| PlanInput {
                num,
                id: vertex_text(edge.from),
                ship_strategy: edge.ship_strategy.to_string(),
                exchange: "pipelined_bounded".to_string(),
            })
            .collect(),
    };
    JobPlan {
        jid: view.job_id,
        name: view.name.clone(),
        kind: "STREAMING".to_string(),
        nodes: view.vertices.iter().map(node).collect(),
    }
}

pub fn job_config(view: &JobView, settings: &[Setting]) -> JobConfigInfo {
    JobConfigInfo {
        jid: view.job_id,
        name: view.name.clone(),
        execution_config: ExecutionConfigInfo {
            restart_strategy: view.restart_strategy.name().to_string(),
            job_parallelism: view.parallelism,
            user_config: settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect(),
        },
        settings: settings.to_vec(),
    }
}

pub fn checkpoint_config(view: &JobView) -> CheckpointConfigInfo {
    let config: &CheckpointConfig = &view.checkpoint_config;
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    CheckpointConfigInfo {
        mode: match config.mode {
            CheckpointingMode::ExactlyOnce => "exactly_once".to_string(),
            CheckpointingMode::AtLeastOnce => "at_least_once".to_string(),
        },
        interval: config.interval.map_or(NOT_YET, |interval| signed(millis(interval))),
        timeout: millis(config.timeout),
        min_pause: millis(config.min_pause),
        max_concurrent: config.max_concurrent,
        externalization: ExternalizationInfo {
            enabled: view.checkpoint_dir.is_some(),
            delete_on_cancellation: config.retention == Retention::DeleteOnCancellation,
        },
        state_backend: view.state_backend.clone(),
        checkpoint_storage: view.checkpoint_dir.clone().unwrap_or_else(|| "jobmanager".to_string()),
        tolerable_failed_checkpoints: config.tolerable_failed.map_or(-1, i64::from),
        num_retained: config.num_retained,
    }
}

/// The failures, at most `limit` of them.
pub fn exceptions(view: &JobView, limit: usize) -> JobExceptions {
    let entries: Vec<ExceptionEntry> = view.exceptions.iter().take(limit).cloned().collect();
    let truncated = view.exceptions_truncated || view.exceptions.len() > entries.len();
    let older = |entry: &ExceptionEntry| TaskException {
        exception: entry.stacktrace.clone(),
        task: entry.task_name.clone(),
        location: entry.endpoint.clone(),
        timestamp: entry.timestamp,
        task_manager_id: entry.task_manager_id.clone(),
    };
    JobExceptions {
        root_exception: view.exceptions.first().map(|entry| entry.stacktrace.clone()),
        timestamp: view.exceptions.first().map(|entry| entry.timestamp),
        all_exceptions: entries.iter().map(older).collect(),
        truncated,
        exception_history: ExceptionHistory { entries, truncated },
    }
}

/// Whether the job does its work, and if not, why.
pub fn readiness(view: &JobView) -> Result<(), String> {
    let counts = view.task_counts();
    let total: u32 = counts.values().sum();
    let working = counts[&ExecutionState::Running] + counts[&ExecutionState::Finished];
    match (view.state, &view.waiting_for) {
        (JobStatus::Running, _) if working == total => Ok(()),
        (JobStatus::Running, _) => Err(format!("{working} of {total} tasks run")),
        (state, Some(reason)) => Err(format!("job is {state}: {reason}")),
        (state, None) => Err(format!("job is {state}")),
    }
}
