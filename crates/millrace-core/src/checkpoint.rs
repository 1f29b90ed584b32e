//! What a job says about its checkpoints.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, ids::CheckpointId};

/// How often each record counts in state after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointingMode {
    /// Barriers are aligned: each record's effect is in state once.
    #[default]
    ExactlyOnce,
    /// No alignment: no record is lost, some may be counted again after a failure.
    AtLeastOnce,
}

impl std::fmt::Display for CheckpointingMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "EXACTLY_ONCE",
            Self::AtLeastOnce => "AT_LEAST_ONCE",
        })
    }
}

impl std::str::FromStr for CheckpointingMode {
    type Err = Error;

    /// `EXACTLY_ONCE` or `AT_LEAST_ONCE`, in either case, with `_` or `-`.
    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "exactly-once" => Ok(Self::ExactlyOnce),
            "at-least-once" => Ok(Self::AtLeastOnce),
            _ => Err(Error::invalid(format!(
                "checkpointing mode {text:?} is unknown: choose EXACTLY_ONCE or AT_LEAST_ONCE"
            ))),
        }
    }
}

/// The mark that travels with the records: what is before it belongs to the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CheckpointBarrier {
    /// The checkpoint.
    pub id: CheckpointId,
    /// When it was triggered, milliseconds since the epoch.
    pub triggered_at_ms: u64,
}

/// What becomes of the checkpoints when a user cancels the job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Retention {
    /// They are deleted, as they are when the job finishes. A failed job keeps them.
    #[default]
    DeleteOnCancellation,
    /// They are kept when the job is cancelled, and when it finishes.
    RetainOnCancellation,
}

/// A job's checkpoint settings. Checkpoints are off while `interval` is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointConfig {
    /// Time between the starts of two checkpoints.
    pub interval: Option<Duration>,
    /// Exactly once or at least once.
    pub mode: CheckpointingMode,
    /// A checkpoint that takes longer is abandoned.
    pub timeout: Duration,
    /// Least time between the end of one checkpoint and the start of the next.
    pub min_pause: Duration,
    /// How many may be under way at once.
    pub max_concurrent: u32,
    /// How many may fail in a row before the job fails; `None` bears any number.
    pub tolerable_failed: Option<u32>,
    /// How many completed ones are kept.
    pub num_retained: u32,
    /// What cancelling the job does to them.
    pub retention: Retention,
    /// Whether barriers may overtake records, which then belong to the checkpoint.
    pub unaligned: bool,
    /// How long after its trigger a checkpoint's barriers are aligned before they may.
    pub aligned_timeout: Duration,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            interval: None,
            mode: CheckpointingMode::ExactlyOnce,
            timeout: Duration::from_secs(600),
            min_pause: Duration::ZERO,
            max_concurrent: 1,
            tolerable_failed: None,
            num_retained: 3,
            retention: Retention::DeleteOnCancellation,
            unaligned: false,
            aligned_timeout: Duration::ZERO,
        }
    }
}

impl CheckpointConfig {
    /// Whether the job takes checkpoints.
    pub fn is_enabled(&self) -> bool {
        self.interval.is_some()
    }

    /// Refuses values that make no sense, by name.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &str, why: &str| Err(Error::invalid(format!("checkpoint {what} {why}")));
        match self.interval {
            Some(interval) if interval < Duration::from_millis(10) => {
                return wrong(&format!("interval {interval:?}"), "is too short: choose 10 ms or more");
            }
            _ => {}
        }
        if self.timeout.is_zero() {
            return wrong("timeout 0", "would abandon every checkpoint: choose a positive duration");
        }
        if self.max_concurrent == 0 {
            return wrong("max-concurrent 0", "would allow none: choose 1 or more");
        }
        if self.unaligned && self.mode != CheckpointingMode::ExactlyOnce {
            return wrong(
                "mode AT_LEAST_ONCE",
                "has nothing to align: switch execution.checkpointing.unaligned.enabled off, or choose EXACTLY_ONCE",
            );
        }
        if self.unaligned && self.max_concurrent > 1 {
            return wrong(
                &format!("max-concurrent {}", self.max_concurrent),
                "and execution.checkpointing.unaligned.enabled don't go together: choose 1, or switch that off",
            );
        }
        if self.num_retained == 0 {
            return wrong("num-retained 0", "would keep none to restart from: choose 1 or more");
        }
        Ok(())
    }
}
