//! A job's vertices and their subtasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ExecutionState, TaskCounts};

/// What went through a vertex or subtask, and how its time was spent, since its tasks started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct IoMetrics {
    /// Bytes that came in from other processes.
    pub read_bytes: u64,
    /// Bytes that went out to other processes.
    pub write_bytes: u64,
    /// Records that came in.
    pub read_records: u64,
    /// Records that went out.
    pub write_records: u64,
    /// Milliseconds spent waiting for consumers.
    pub accumulated_backpressured_time: u64,
    /// Milliseconds spent waiting for input.
    pub accumulated_idle_time: u64,
    /// Milliseconds spent on records and snapshots.
    pub accumulated_busy_time: u64,
}

/// `/jobs/<id>/vertices/<vertex>`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobVertexInfo {
    /// Its id.
    pub id: String,
    /// The names of its operators.
    pub name: String,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// The number of key groups.
    #[serde(rename = "maxParallelism")]
    pub max_parallelism: u32,
    /// The time of this answer.
    pub now: i64,
    /// Its subtasks.
    pub subtasks: Vec<SubtaskInfo>,
}

/// A subtask. `/jobs/<id>/vertices/<vertex>/subtasks/<index>`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SubtaskInfo {
    /// Its index.
    pub subtask: u32,
    /// What it is doing.
    pub status: ExecutionState,
    /// Which start of the job's tasks it belongs to.
    pub attempt: u32,
    /// The address of its taskmanager.
    pub endpoint: Option<String>,
    /// When it started.
    pub start_time: i64,
    /// When it ended.
    pub end_time: i64,
    /// How long it has been running.
    pub duration: i64,
    /// What went through it.
    pub metrics: IoMetrics,
    /// Its taskmanager.
    pub taskmanager_id: Option<String>,
    /// The bytes of its keyed state where it runs.
    pub state_size: u64,
    /// How many records its source has not read yet, where the source knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pending_records: Option<u64>,
}

/// `/jobs/<id>/vertices/<vertex>/backpressure`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BackPressureInfo {
    /// `ok`; `deprecated`, as in Flink, while nothing is known yet.
    pub status: String,
    /// The worst of its subtasks'.
    #[serde(rename = "backpressureLevel")]
    pub backpressure_level: BackPressureLevel,
    /// The time of this answer.
    pub end_timestamp: i64,
    /// Its subtasks.
    pub subtasks: Vec<SubtaskBackPressure>,
}

/// How much of its time a subtask waits for its consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackPressureLevel {
    /// Up to a tenth.
    Ok,
    /// Up to half.
    Low,
    /// More.
    High,
}

impl BackPressureLevel {
    /// The level of a share between 0 and 1, with Flink's bounds.
    pub fn of(ratio: f64) -> Self {
        match ratio {
            ratio if ratio <= 0.10 => Self::Ok,
            ratio if ratio <= 0.5 => Self::Low,
            _ => Self::High,
        }
    }
}

/// How a subtask spends its time: shares between 0 and 1 of the last second or so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubtaskBackPressure {
    /// Its index.
    pub subtask: u32,
    /// Which start of the job's tasks it belongs to.
    #[serde(rename = "attempt-number")]
    pub attempt_number: u32,
    /// The level of `ratio`.
    #[serde(rename = "backpressureLevel")]
    pub backpressure_level: BackPressureLevel,
    /// Waiting for consumers.
    pub ratio: f64,
    /// Waiting for input.
    #[serde(rename = "idleRatio")]
    pub idle_ratio: f64,
    /// Working.
    #[serde(rename = "busyRatio")]
    pub busy_ratio: f64,
}

/// `/jobs/<id>/vertices/<vertex>/taskmanagers`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobVertexTaskManagers {
    /// The vertex.
    pub id: String,
    /// The names of its operators.
    pub name: String,
    /// The time of this answer.
    pub now: i64,
    /// Those that run subtasks of it.
    pub taskmanagers: Vec<VertexTaskManager>,
}

/// What a taskmanager runs of a vertex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct VertexTaskManager {
    /// The taskmanager's address.
    pub endpoint: String,
    /// What the subtasks are doing together.
    pub status: ExecutionState,
    /// What went through them.
    pub metrics: IoMetrics,
    /// How many of them are in which state.
    pub status_counts: TaskCounts,
    /// The taskmanager.
    pub taskmanager_id: String,
}

/// A metric by Flink's name. `/jobs/<id>/metrics`, `/jobs/<id>/vertices/<vertex>/metrics`, `/taskmanagers/<id>/metrics`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetricValue {
    /// Its name; of a subtask's metric `<subtask>.<name>`.
    pub id: String,
    /// Its value, where it was asked for with `get`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
}
