//! How a program sets its checkpoints.

use std::time::Duration;

use millrace_core::checkpoint::{CheckpointingMode, Retention};

use crate::environment::StreamExecutionEnvironment;

/// The checkpoint settings of a job, from
/// [`checkpoint_config`](StreamExecutionEnvironment::checkpoint_config). What is not set follows from the configuration.
///
/// ```
/// use std::time::Duration;
/// use millrace::prelude::*;
///
/// let mut env = StreamExecutionEnvironment::new();
/// env.enable_checkpointing(Duration::from_secs(1));
/// env.checkpoint_config()
///     .set_timeout(Duration::from_secs(60))
///     .set_min_pause(Duration::from_millis(500))
///     .set_tolerable_failures(3)
///     .set_num_retained(2)
///     .set_retention(Retention::RetainOnCancellation);
/// ```
pub struct CheckpointConfig<'a>(pub(crate) &'a mut StreamExecutionEnvironment);

impl CheckpointConfig<'_> {
    /// Time between the starts of two checkpoints.
    pub fn set_interval(self, interval: Duration) -> Self {
        self.set_duration("execution.checkpointing.interval", interval)
    }

    /// Exactly once or at least once.
    pub fn set_mode(self, mode: CheckpointingMode) -> Self {
        self.set("execution.checkpointing.mode", mode)
    }

    /// A checkpoint that takes longer is abandoned.
    pub fn set_timeout(self, timeout: Duration) -> Self {
        self.set_duration("execution.checkpointing.timeout", timeout)
    }

    /// Least time between the end of one checkpoint and the start of the next.
    pub fn set_min_pause(self, pause: Duration) -> Self {
        self.set_duration("execution.checkpointing.min-pause", pause)
    }

    /// How many may be under way at once.
    pub fn set_max_concurrent(self, checkpoints: u32) -> Self {
        self.set("execution.checkpointing.max-concurrent-checkpoints", checkpoints)
    }

    /// How many may fail in a row before the job fails. Without it any number is borne.
    pub fn set_tolerable_failures(self, failures: u32) -> Self {
        self.set("execution.checkpointing.tolerable-failed-checkpoints", failures)
    }

    /// How many completed ones are kept.
    pub fn set_num_retained(self, checkpoints: u32) -> Self {
        self.set("execution.checkpointing.num-retained", checkpoints)
    }

    /// What cancelling the job does to them.
    pub fn set_retention(self, retention: Retention) -> Self {
        let value = match retention {
            Retention::DeleteOnCancellation => "DELETE_ON_CANCELLATION",
            Retention::RetainOnCancellation => "RETAIN_ON_CANCELLATION",
        };
        self.set("execution.checkpointing.externalized-checkpoint-retention", value)
    }

    /// Whether under backpressure barriers overtake records, which then belong to the checkpoint.
    pub fn enable_unaligned_checkpoints(self, enabled: bool) -> Self {
        self.set("execution.checkpointing.unaligned.enabled", enabled)
    }

    /// With unaligned checkpoints: for so long after its trigger a checkpoint's barriers overtake nothing.
    pub fn set_aligned_checkpoint_timeout(self, timeout: Duration) -> Self {
        self.set_duration("execution.checkpointing.aligned-checkpoint-timeout", timeout)
    }

    /// Where they go: `file:///…`, `s3://bucket/…` or, with the feature `hdfs`, `hdfs://namenode:port/…`.
    pub fn set_directory(self, uri: impl Into<String>) -> Self {
        self.set("state.checkpoints.dir", uri.into())
    }

    fn set(self, key: &'static str, value: impl ToString) -> Self {
        self.0.configure(key, value);
        self
    }

    fn set_duration(self, key: &'static str, value: Duration) -> Self {
        self.0.configure(key, duration(value));
        self
    }
}

/// A duration as the configuration writes it.
pub(crate) fn duration(value: Duration) -> String {
    match value.subsec_nanos() % 1_000_000 {
        0 => format!("{} ms", value.as_millis()),
        _ => format!("{} ns", value.as_nanos()),
    }
}
