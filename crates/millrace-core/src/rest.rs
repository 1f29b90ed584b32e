//! What the jobmanager's REST interface says, shared by the server and its clients. Paths and field names are Flink's
//! where the thing is the same. Times are milliseconds since the epoch, durations milliseconds, sizes bytes; -1 is "not
//! yet".

mod checkpoints;
mod job;

pub use checkpoints::*;
pub use job::*;

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, TaskManagerId};

/// Why a request was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// What is wrong.
    pub errors: Vec<String>,
}

/// `/overview`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterOverview {
    /// How many taskmanagers are registered.
    pub taskmanagers: u32,
    /// Their slots.
    pub slots_total: u32,
    /// Those that hold no subtask.
    pub slots_available: u32,
    /// Jobs that have not ended.
    pub jobs_running: u32,
    /// Jobs that read all their input.
    pub jobs_finished: u32,
    /// Jobs that a user cancelled.
    pub jobs_cancelled: u32,
    /// Jobs that failed for good.
    pub jobs_failed: u32,
    /// The engine's version.
    pub millrace_version: String,
}

/// `/config`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DashboardConfig {
    /// How often a client should ask.
    pub refresh_interval: u64,
    /// The time zone of what is shown: times are UTC.
    pub timezone_name: String,
    /// Its offset.
    pub timezone_offset: i64,
    /// The engine's version.
    pub millrace_version: String,
}

/// A setting: its value and where it came from. `/jobmanager/config` and part of `/jobs/<id>/config`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// The value; secrets are not shown.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

/// `/taskmanagers`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskManagers {
    /// Those that are registered.
    pub taskmanagers: Vec<TaskManagerInfo>,
}

/// A taskmanager. `/taskmanagers/<id>`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskManagerInfo {
    /// Its id, which no other process has ever had.
    pub id: TaskManagerId,
    /// What `taskmanager.resource-id` calls it: the name of its pod, for example. One that is started again keeps it.
    #[serde(default)]
    pub resource_id: String,
    /// The address of its data port, `host:port`.
    pub path: String,
    /// Its data port.
    pub data_port: u16,
    /// When its last heartbeat came: a time, in spite of the name, as in Flink.
    pub time_since_last_heartbeat: u64,
    /// Its slots.
    pub slots_number: u32,
    /// Those that hold no subtask.
    pub free_slots: u32,
    /// The process's id on its host, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
}

/// `/health` and `/ready`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, or why not.
    pub status: String,
}

/// What a jobmanager runs, so that more taskmanagers can be started. `/jobs/<id>/program`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobProgram {
    /// The job.
    pub jid: JobId,
    /// The executable.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The directory it runs in.
    pub working_directory: String,
    /// Where taskmanagers find the jobmanager, `host:port`.
    pub rpc_address: String,
}
