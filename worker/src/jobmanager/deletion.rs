//! Deleting all of a job from its store.

use millrace_core::ids::JobId;
use millrace_state::storage::{CheckpointStorage, RetryPolicy};

use crate::{config::Settings, stores};

/// Deletes all that the store has of a job that has ended; returns what was left behind, and why.
pub async fn delete_job(settings: &Settings, job: JobId) -> Option<String> {
    match stores::open(settings.checkpoint_dir.as_deref(), settings) {
        Ok(storage) => delete_from(&storage, job).await,
        Err(error) => Some(error.message),
    }
}

/// Deletes all that a store has of a job.
pub async fn delete_from(storage: &CheckpointStorage, job: JobId) -> Option<String> {
    let mut failures = 0;
    loop {
        let Err(error) = storage.delete_job(job).await else { return None };
        match RetryPolicy::default().delay_after(failures).filter(|_| error.retryable) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => {
                let left = left_behind(storage, job, &error);
                tracing::warn!(%job, "the job is not deleted: {left}");
                return Some(left);
            }
        }
        failures += 1;
    }
}

/// What is shown of something that could not be deleted.
pub fn left_behind(storage: &CheckpointStorage, job: JobId, error: &millrace_core::Error) -> String {
    format!("{}/{job}: {error}", storage.uri())
}
