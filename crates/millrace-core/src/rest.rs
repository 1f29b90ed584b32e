//! What the jobmanager's REST interface says, shared by the server and its clients. Paths and field names are Flink's
//! where the thing is the same. Times are milliseconds since the epoch, durations milliseconds, sizes bytes; -1 is "not
//! yet".

mod checkpoints;
mod job;
mod taskmanager;
mod vertex;

pub use checkpoints::*;
pub use job::*;
pub use taskmanager::*;
pub use vertex::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::JobId;

/// Why a request was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorResponse {
    /// What is wrong.
    pub errors: Vec<String>,
}

/// A request was taken up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {}

/// `/overview`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    /// The key.
    pub key: String,
    /// The value; secrets are not shown.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

/// `/health` and `/ready`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok`, or why not.
    pub status: String,
}

/// What a jobmanager runs, so that more taskmanagers can be started. `/jobs/<id>/program`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
