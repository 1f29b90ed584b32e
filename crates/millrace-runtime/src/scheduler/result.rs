//! How a job ends.

use millrace_core::{Error, rest::JobStatus};
use serde::{Deserialize, Serialize};

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobResult {
    /// All input was read.
    Finished,
    /// A user stopped it with a final checkpoint, which is kept.
    Stopped,
    /// A user cancelled it.
    Canceled,
    /// It failed.
    Failed(Error),
}

impl JobResult {
    /// The status that stays.
    pub fn status(&self) -> JobStatus {
        match self {
            Self::Finished | Self::Stopped => JobStatus::Finished,
            Self::Canceled => JobStatus::Canceled,
            Self::Failed(_) => JobStatus::Failed,
        }
    }
}
