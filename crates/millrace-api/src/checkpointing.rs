//! Checkpoints of a job.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, StorageUri};

const ONE_PLACE: &str = "has(self.storage) != (has(self.ephemeral) && self.ephemeral)";
const ONE_PLACE_MESSAGE: &str = "set spec.checkpointing.storage (such as s3://bucket/path), or \
    spec.checkpointing.ephemeral: true if checkpoints may die with the jobmanager; one of the two";
const INTERVAL: &str = "!self.matches('^(0+(ms|s|m|min|h|d)|0*[1-9]ms)$')";
const INTERVAL_MESSAGE: &str = "the interval between checkpoints must be at least 10ms";
const TIMEOUT: &str = "!self.matches('^0+(ms|s|m|min|h|d)$')";
const TIMEOUT_MESSAGE: &str = "the timeout of checkpoints must be at least 1ms";

/// How often checkpoints are taken, and where they go.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(ONE_PLACE).message(ONE_PLACE_MESSAGE))]
#[serde(rename_all = "camelCase")]
pub struct CheckpointingSpec {
    /// Time between the starts of two checkpoints. Unset: the program says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(INTERVAL).message(INTERVAL_MESSAGE))]
    pub interval: Option<Duration>,
    /// A checkpoint that takes longer is abandoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(TIMEOUT).message(TIMEOUT_MESSAGE))]
    pub timeout: Option<Duration>,
    /// Least time between the end of a checkpoint and the start of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_pause: Option<Duration>,
    /// Whether each record's effect is in state exactly once after a failure, or may be there again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<CheckpointingMode>,
    /// How many completed checkpoints are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub retained: Option<u32>,
    /// Where checkpoints go: s3://bucket/path, hdfs://namenode:port/path (in images whose program has Millrace's feature
    /// hdfs) or file:///path. Required, unless ephemeral is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageUri>,
    /// Keep the checkpoints when the job is cancelled or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_on_cancellation: Option<bool>,
    /// Checkpoints live in the jobmanager's memory and die with it. Instead of storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<bool>,
}

impl CheckpointingSpec {
    /// Whether the checkpoints stay when the job is deleted.
    pub fn retains_on_cancellation(&self) -> bool {
        self.retain_on_cancellation.unwrap_or(false)
    }
}

/// How often a record's effect is in state after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointingMode {
    /// Once.
    ExactlyOnce,
    /// Once or more.
    AtLeastOnce,
}

impl CheckpointingMode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "EXACTLY_ONCE",
            Self::AtLeastOnce => "AT_LEAST_ONCE",
        }
    }
}
