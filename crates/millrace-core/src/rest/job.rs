//! Jobs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::IoMetrics;
use crate::ids::{Attempt, Generation, JobId, VertexId};

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// The jobmanager recovers what the checkpoint store knows.
    Initializing,
    /// Its tasks are not deployed yet: it may wait for slots.
    Created,
    /// All tasks run.
    Running,
    /// A failure that no restart follows: tasks are being cancelled.
    Failing,
    /// It failed for good.
    Failed,
    /// A user cancelled it: tasks are being cancelled.
    Cancelling,
    /// A user cancelled it.
    Canceled,
    /// It read all its input, or was stopped.
    Finished,
    /// It failed and starts again.
    Restarting,
    /// This jobmanager gave it up without ending it: another goes on with it.
    Suspended,
}

impl JobStatus {
    /// Whether the job has ended for good.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled | Self::Finished)
    }
}

impl std::fmt::Display for JobStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Initializing => "INITIALIZING",
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
            Self::Finished => "FINISHED",
            Self::Restarting => "RESTARTING",
            Self::Suspended => "SUSPENDED",
        })
    }
}

/// What a subtask is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionState {
    /// Known, without a slot.
    Created,
    /// Waits for a slot.
    Scheduled,
    /// Being sent to its taskmanager.
    Deploying,
    /// Restores its state.
    Initializing,
    /// Runs.
    Running,
    /// Ended as it should.
    Finished,
    /// Was told to end.
    Canceling,
    /// Ended because it was told to.
    Canceled,
    /// Failed.
    Failed,
}

impl ExecutionState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Created,
        Self::Scheduled,
        Self::Deploying,
        Self::Initializing,
        Self::Running,
        Self::Finished,
        Self::Canceling,
        Self::Canceled,
        Self::Failed,
    ];
}

/// How many subtasks are in which state.
pub type TaskCounts = BTreeMap<ExecutionState, u32>;

/// `/jobs`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Jobs {
    /// The jobs.
    pub jobs: Vec<JobIdWithStatus>,
}

/// A job in `/jobs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobIdWithStatus {
    /// Its id.
    pub id: JobId,
    /// What it is doing.
    pub status: JobStatus,
}

/// `/jobs/<id>/status`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobStatusInfo {
    /// What it is doing.
    pub status: JobStatus,
}

/// `/jobs/overview`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobsOverview {
    /// The jobs.
    pub jobs: Vec<JobOverview>,
}

/// A job in `/jobs/overview`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobOverview {
    /// Its id.
    pub jid: JobId,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: JobStatus,
    /// When it started.
    pub start_time: i64,
    /// When it ended.
    pub end_time: i64,
    /// How long it has been running.
    pub duration: i64,
    /// When its state last changed.
    pub last_modification: i64,
    /// How many subtasks are in which state, by lower-case name, and `total`.
    pub tasks: BTreeMap<String, u32>,
}

/// `/jobs/<id>`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobDetails {
    /// Its id.
    pub jid: JobId,
    /// Its name.
    pub name: String,
    /// Whether it can be stopped with a final checkpoint.
    #[serde(rename = "isStoppable")]
    pub is_stoppable: bool,
    /// What it is doing.
    pub state: JobStatus,
    /// When it started.
    pub start_time: i64,
    /// When it ended.
    pub end_time: i64,
    /// How long it has been running.
    pub duration: i64,
    /// The number of key groups.
    #[serde(rename = "maxParallelism")]
    pub max_parallelism: u32,
    /// The time of this answer.
    pub now: i64,
    /// When it was last in which state; 0: never.
    pub timestamps: BTreeMap<JobStatus, u64>,
    /// Its vertices.
    pub vertices: Vec<JobVertexDetails>,
    /// How many vertices are in which state.
    pub status_counts: TaskCounts,
    /// How they are connected.
    pub plan: JobPlan,
    /// Which incarnation of the jobmanager this is.
    pub generation: Generation,
    /// Which start of the tasks within it.
    pub attempt: Attempt,
    /// How often the tasks were started again.
    pub restarts: u64,
    /// What the job waits for, such as slots.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting_for: Option<String>,
    /// The last recovery.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_recovery: Option<RecoveryDetails>,
    /// What of the job lies in the store still although it was to be deleted, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left_behind: Option<String>,
}

/// A vertex of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobVertexDetails {
    /// Its id.
    pub id: String,
    /// The names of its operators.
    pub name: String,
    /// The number of key groups.
    #[serde(rename = "maxParallelism")]
    pub max_parallelism: u32,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// What it is doing.
    pub status: ExecutionState,
    /// When its tasks started.
    pub start_time: i64,
    /// When they ended.
    pub end_time: i64,
    /// How long they have been running.
    pub duration: i64,
    /// How many subtasks are in which state.
    pub tasks: TaskCounts,
    /// What went through it.
    pub metrics: IoMetrics,
}

/// How long a recovery took and where the time went. Milliseconds. It is shown as soon as all tasks run, and grows by its
/// last phases, `replay` and `first-output`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RecoveryDetails {
    /// When the failure happened, as far as that is known, or the new jobmanager's process started.
    pub timestamp: u64,
    /// All of it.
    pub duration: u64,
    /// Its phases in their order: name and duration.
    pub phases: Vec<RecoveryPhase>,
    /// The checkpoint that was restored.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub restored_checkpoint: Option<u64>,
    /// What made it necessary: a failure's message, or that the jobmanager was started again.
    #[serde(default)]
    pub cause: String,
    /// The resource id of the taskmanager whose loss was the cause.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub taskmanager: Option<String>,
    /// Bytes of state that tasks read from the checkpoint store.
    #[serde(default)]
    pub fetched_bytes: u64,
    /// Bytes of state that tasks had in local copies.
    #[serde(default)]
    pub local_bytes: u64,
    /// Records that sources read again.
    #[serde(default)]
    pub replayed_records: u64,
}

/// A phase of a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecoveryPhase {
    /// `detect` (of a new jobmanager `take-over`), `cancel`, `allocate`, `fetch`, `restore`, `replay`, `first-output`.
    pub name: String,
    /// How long it took.
    pub duration: u64,
}

/// How a job's vertices are connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobPlan {
    /// The job.
    pub jid: JobId,
    /// Its name.
    pub name: String,
    /// `STREAMING`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its vertices.
    pub nodes: Vec<PlanNode>,
}

/// `/jobs/<id>/plan`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobPlanInfo {
    /// The plan.
    pub plan: JobPlan,
}

/// A vertex in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanNode {
    /// Its id.
    pub id: String,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// The names of its operators.
    pub description: String,
    /// Where its records come from.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub inputs: Vec<PlanInput>,
}

/// An edge in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanInput {
    /// The number of the input.
    pub num: u32,
    /// The vertex that the records come from.
    pub id: String,
    /// `FORWARD`, `HASH`, `REBALANCE` or `BROADCAST`.
    pub ship_strategy: String,
    /// `pipelined_bounded`.
    pub exchange: String,
}

/// A vertex's id in a plan.
pub fn vertex_text(id: VertexId) -> String {
    format!("{:032x}", id.0)
}

/// `/jobs/<id>/config`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobConfigInfo {
    /// The job.
    pub jid: JobId,
    /// Its name.
    pub name: String,
    /// In brief, as in Flink.
    pub execution_config: ExecutionConfigInfo,
    /// Every setting and where it came from.
    pub settings: Vec<super::Setting>,
}

/// A job's configuration in brief.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ExecutionConfigInfo {
    /// What the job does after a failure.
    pub restart_strategy: String,
    /// The default parallelism.
    pub job_parallelism: u32,
    /// Every setting.
    pub user_config: BTreeMap<String, String>,
}

/// `/jobs/<id>/exceptions`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobExceptions {
    /// The newest failure's text.
    pub root_exception: Option<String>,
    /// When it happened.
    pub timestamp: Option<u64>,
    /// The failures as an older Flink shows them.
    pub all_exceptions: Vec<TaskException>,
    /// Whether there were more than are shown.
    pub truncated: bool,
    /// The failures.
    #[serde(rename = "exceptionHistory")]
    pub exception_history: ExceptionHistory,
}

/// A failure as an older Flink shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskException {
    /// What failed.
    pub exception: String,
    /// The subtask.
    pub task: Option<String>,
    /// The taskmanager's address.
    pub location: Option<String>,
    /// When.
    pub timestamp: u64,
    /// The taskmanager.
    #[serde(rename = "taskManagerId")]
    pub task_manager_id: Option<String>,
}

/// A job's failures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExceptionHistory {
    /// The newest first.
    pub entries: Vec<ExceptionEntry>,
    /// Whether there were more.
    pub truncated: bool,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExceptionEntry {
    /// Who can mend it: `user`, `external` or `internal`.
    pub exception_name: String,
    /// The whole message.
    pub stacktrace: String,
    /// When.
    pub timestamp: u64,
    /// The subtask, where one failed.
    pub task_name: Option<String>,
    /// The taskmanager's address.
    pub endpoint: Option<String>,
    /// The taskmanager.
    pub task_manager_id: Option<String>,
    /// Where the record was read that the task failed on.
    pub position: Option<String>,
    /// Whether a restart may cure it.
    pub retryable: bool,
}
