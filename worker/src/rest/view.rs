//! What the jobmanager shows of its job: plain data, put together by its main loop and published as a whole, so that an
//! answer never mixes two moments and a request never waits for the job.

use std::{collections::BTreeMap, sync::Arc};

use millrace_core::{
    Error,
    checkpoint::CheckpointConfig,
    ids::{Attempt, Generation, JobId, TaskManagerId, VertexId},
    rest::{
        CheckpointingStatistics, ExceptionEntry, ExecutionState, JobStatus, RecoveryDetails, TaskCounts,
        TaskManagerInfo,
    },
    restart::RestartStrategy,
};
use millrace_runtime::{
    coordinator::CheckpointEntry,
    metrics::{TaskFigures, TaskMetricsSnapshot, TaskRates},
};

/// A job as its jobmanager sees it. Times are milliseconds since the epoch.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Its id.
    pub job_id: JobId,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: JobStatus,
    /// When it started.
    pub start_time: u64,
    /// When it ended.
    pub end_time: Option<u64>,
    /// When it last came into which state.
    pub timestamps: BTreeMap<JobStatus, u64>,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// The default parallelism.
    pub parallelism: u32,
    /// What it does after a failure.
    pub restart_strategy: RestartStrategy,
    /// Its vertices, in the graph's order.
    pub vertices: Vec<VertexView>,
    /// Its checkpoint settings.
    pub checkpoint_config: CheckpointConfig,
    /// The state backend's name.
    pub state_backend: String,
    /// Where checkpoints go; `None`: into the jobmanager's memory.
    pub checkpoint_dir: Option<String>,
    /// Its checkpoints.
    pub checkpoints: CheckpointingStatistics,
    /// Each checkpoint of the history in full.
    pub checkpoint_entries: Vec<Arc<CheckpointEntry>>,
    /// Its failures, the newest first.
    pub exceptions: Vec<ExceptionEntry>,
    /// Whether there were more failures than are kept.
    pub exceptions_truncated: bool,
    /// The taskmanagers that are registered.
    pub taskmanagers: Vec<TaskManagerInfo>,
    /// This incarnation of the jobmanager.
    pub generation: Generation,
    /// The start of the tasks within it.
    pub attempt: Attempt,
    /// How often the tasks were started again.
    pub restarts: u64,
    /// What the job waits for.
    pub waiting_for: Option<String>,
    /// The last recovery.
    pub last_recovery: Option<RecoveryDetails>,
    /// What was to be deleted and is still in the store, and why.
    pub left_behind: Option<String>,
}

/// A vertex of the job.
#[derive(Clone, Debug)]
pub struct VertexView {
    /// Its id.
    pub id: VertexId,
    /// The names of its operators.
    pub name: String,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// How many subtasks are in which state; states that none is in may be left out.
    pub tasks: TaskCounts,
    /// When its tasks started.
    pub start_time: Option<u64>,
    /// Its subtasks, of those that were deployed.
    pub subtasks: Vec<SubtaskView>,
    /// The edges into it.
    pub inputs: Vec<EdgeView>,
}

/// A subtask.
#[derive(Clone, Debug)]
pub struct SubtaskView {
    /// Its index.
    pub index: u32,
    /// What it is doing.
    pub state: ExecutionState,
    /// Which start of the job's tasks it belongs to.
    pub attempt: Attempt,
    /// Where it runs: the taskmanager and its address.
    pub place: Option<(TaskManagerId, String)>,
    /// What it has counted.
    pub counters: TaskMetricsSnapshot,
    /// How it spends its time, once that is known.
    pub rates: Option<TaskRates>,
    /// What it published last.
    pub figures: Arc<TaskFigures>,
}

/// An edge into a vertex.
#[derive(Clone, Debug)]
pub struct EdgeView {
    /// The vertex that it comes from.
    pub from: VertexId,
    /// `FORWARD`, `HASH`, `REBALANCE` or `BROADCAST`.
    pub ship_strategy: &'static str,
}

impl JobView {
    /// A job of which nothing is known yet: its jobmanager has just started.
    pub fn new(job_id: JobId, name: impl Into<String>, start_time: u64) -> Self {
        Self {
            job_id,
            name: name.into(),
            state: JobStatus::Initializing,
            start_time,
            end_time: None,
            timestamps: BTreeMap::from([(JobStatus::Initializing, start_time)]),
            max_parallelism: millrace_core::key::DEFAULT_MAX_PARALLELISM,
            parallelism: 1,
            restart_strategy: RestartStrategy::None,
            vertices: Vec::new(),
            checkpoint_config: CheckpointConfig::default(),
            state_backend: "memory".to_string(),
            checkpoint_dir: None,
            checkpoints: CheckpointingStatistics::default(),
            checkpoint_entries: Vec::new(),
            exceptions: Vec::new(),
            exceptions_truncated: false,
            taskmanagers: Vec::new(),
            generation: Generation(0),
            attempt: Attempt(0),
            restarts: 0,
            waiting_for: None,
            last_recovery: None,
            left_behind: None,
        }
    }

    /// Notes a change of the job's state.
    pub fn enter(&mut self, state: JobStatus, now: u64) {
        if self.state != state || !self.timestamps.contains_key(&state) {
            self.timestamps.insert(state, now);
        }
        self.state = state;
        if state.is_terminal() && self.end_time.is_none() {
            self.end_time = Some(now);
        }
    }

    /// How many subtasks of the whole job are in which state.
    pub fn task_counts(&self) -> TaskCounts {
        let mut counts: TaskCounts = ExecutionState::ALL.into_iter().map(|state| (state, 0)).collect();
        for (state, count) in self.vertices.iter().flat_map(|vertex| &vertex.tasks) {
            *counts.entry(*state).or_default() += count;
        }
        counts
    }
}

impl VertexView {
    /// What the vertex as a whole is doing: the state of the task that is furthest from running well.
    pub fn status(&self) -> ExecutionState {
        common_status(&self.tasks)
    }
}

/// The state of the task that is furthest from running well.
pub fn common_status(tasks: &TaskCounts) -> ExecutionState {
    use ExecutionState as E;
    let has = |state: &E| tasks.get(state).is_some_and(|count| *count > 0);
    let order =
        [E::Failed, E::Canceling, E::Canceled, E::Created, E::Scheduled, E::Deploying, E::Initializing, E::Running];
    let found = order.into_iter().find(has);
    found.unwrap_or(if has(&E::Finished) { E::Finished } else { E::Created })
}

/// A failure as `/jobs/<id>/exceptions` shows it.
pub fn exception_entry(error: &Error, timestamp: u64) -> ExceptionEntry {
    let domain = serde_json::to_value(error.domain).ok();
    ExceptionEntry {
        exception_name: domain.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default(),
        stacktrace: error.message.clone(),
        timestamp,
        task_name: None,
        endpoint: None,
        task_manager_id: None,
        position: None,
        retryable: error.retryable,
    }
}
