//! What the operator answers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{StreamJobSpec, crd};

/// The longest text in a status, in bytes.
pub const MAX_TEXT: usize = 4096;

/// A text cut to [`MAX_TEXT`] bytes.
pub fn bounded(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    const CUT: &str = " …";
    format!("{}{CUT}", &text[..text.floor_char_boundary(MAX_TEXT - CUT.len())])
}

/// How a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamJobStatus {
    /// The generation of the spec that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the job is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Since when it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Time>,
    /// Ready, JobManagerReady, Checkpointing and Valid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crd::conditions")]
    pub conditions: Vec<Condition>,
    /// The job's id, which names its folder in the checkpoint storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub job_id: Option<String>,
    /// How many jobmanagers have taken the job over so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the job first ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// How often it was restarted after a failure.
    #[serde(default)]
    pub restarts: i64,
    /// Why it was restarted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub last_restart_reason: Option<String>,
    /// Its checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints: Option<CheckpointsStatus>,
    /// The last time it was restarted. While it is restarted again, that is the time before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_recovery: Option<RecoveryStatus>,
    /// Its taskmanagers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_managers: Option<TaskManagersStatus>,
    /// Taskmanagers ready and wanted, such as 2/3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub task_managers_ready: Option<String>,
    /// Its slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<SlotsStatus>,
    /// The parallelism that it is deployed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<i32>,
    /// How many taskmanagers there are, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// The taskmanagers' labels, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// What is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentStatus>,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing of it is deployed yet.
    Created,
    /// Its pods start, or are replaced.
    Deploying,
    /// It runs.
    Running,
    /// It recovers from a failure.
    Restarting,
    /// It is stopped, its checkpoints stay.
    Suspended,
    /// It failed for good.
    Failed,
    /// Its sources have ended and all is done.
    Finished,
    /// It is being deleted.
    Deleting,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 8] = [
        Self::Created,
        Self::Deploying,
        Self::Running,
        Self::Restarting,
        Self::Suspended,
        Self::Failed,
        Self::Finished,
        Self::Deleting,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Deploying => "Deploying",
            Self::Running => "Running",
            Self::Restarting => "Restarting",
            Self::Suspended => "Suspended",
            Self::Failed => "Failed",
            Self::Finished => "Finished",
            Self::Deleting => "Deleting",
        }
    }
}

/// The checkpoints of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointsStatus {
    /// The latest completed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<CheckpointStatus>,
    /// How many were completed.
    #[serde(default)]
    pub completed: i64,
    /// How many failed.
    #[serde(default)]
    pub failed: i64,
    /// Why one failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub last_failure: Option<String>,
}

/// A completed checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// Its number.
    pub id: i64,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub path: Option<String>,
    /// When it was complete.
    pub completed_at: Time,
    /// How much state it holds.
    pub size_bytes: i64,
    /// How long it took.
    pub duration_ms: i64,
}

/// A recovery of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// What had failed.
    #[schemars(length(max = 4096))]
    pub cause: String,
    /// When it began.
    pub started_at: Time,
    /// How long it took. It is shown once all tasks run, and grows until something new is put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i64>,
    /// What took how long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub phases: Vec<RecoveryPhase>,
    /// The checkpoint that the job went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_checkpoint: Option<i64>,
}

/// A part of a recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryPhase {
    /// Its name.
    #[schemars(length(max = 128))]
    pub name: String,
    /// How long it took.
    pub duration_ms: i64,
}

/// How many taskmanagers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskManagersStatus {
    /// Ready ones.
    pub ready: i32,
    /// As many as there should be.
    pub wanted: i32,
}

/// How many slots there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotsStatus {
    /// All.
    pub total: i32,
    /// Those without tasks.
    pub free: i32,
}

/// What is deployed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// Rises with each deployment of a changed spec.
    pub number: i64,
    /// Of all in the spec whose change needs a restart.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// When it was deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed_at: Option<Time>,
    /// The spec, so that an invalid newer one never touches the running job.
    #[schemars(schema_with = "crd::deployed_spec")]
    pub spec: StreamJobSpec,
    /// How often the job had been restarted before.
    #[serde(default)]
    pub restarts_before: i64,
    /// Since when the job is given up with all its state, by an upgrade without state: its id never runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded_at: Option<Time>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded("short"), "short");
        assert_eq!(bounded(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
        let cut = bounded(&"ü".repeat(MAX_TEXT));
        assert!(cut.len() <= MAX_TEXT && cut.ends_with("ü …"), "{} bytes", cut.len());
    }
}
