//! Taking a job over: the store is reached and shows that it can be relied on, and the log is claimed.

use std::time::Duration;

use millrace_core::{
    Result,
    ids::{Attempt, CheckpointId, Generation, JobId},
    rest::{CheckpointStatistics, CheckpointStatus},
};
use millrace_runtime::scheduler::adoption::NewestCheckpoint;
use millrace_state::{
    log::{Claim, JobLog, LogView, TerminalRecord, TerminalResult},
    metadata::CheckpointMetadata,
    storage::{CheckpointStorage, RetryPolicy},
};

use super::{JobOutcome, ending::recorded};
use crate::{
    config::Settings,
    rest::{JobView, exception_entry},
    stores,
};

/// How a store that can't be reached is tried again.
const PATIENCE: RetryPolicy =
    RetryPolicy { retries: None, initial: Duration::from_millis(500), max: Duration::from_secs(5) };

/// What is found in the log.
pub enum Found {
    /// The job is this jobmanager's.
    Leader(Box<Taken>),
    /// It has ended.
    Ended(Box<Ended>),
}

/// A job that was taken over.
pub struct Taken {
    /// Where its checkpoints are.
    pub storage: CheckpointStorage,
    /// Its log.
    pub log: JobLog,
    /// This incarnation.
    pub generation: Generation,
    /// The id of the next checkpoint.
    pub next_id: CheckpointId,
    /// Its newest checkpoint.
    pub newest: Option<CheckpointStatistics>,
    /// Whose that is.
    pub continues: Option<NewestCheckpoint>,
    /// The newest attempt of the whole job that is marked in the log.
    pub marked: Option<(Generation, Attempt)>,
}

/// A job that had ended before.
pub struct Ended {
    record: TerminalRecord,
    at_ms: u64,
    generation: Generation,
    newest: Option<CheckpointStatistics>,
}

impl Ended {
    /// How it ended.
    pub fn outcome(&self) -> JobOutcome {
        JobOutcome {
            result: recorded(&self.record),
            retained_checkpoint: self.newest.as_ref().and_then(|newest| newest.external_path.clone()),
            left_behind: None,
        }
    }

    /// Shows it as it ended.
    pub fn show(&self, view: &mut JobView) {
        view.waiting_for = None;
        view.generation = self.generation;
        view.checkpoints.latest.completed = self.newest.clone();
        if let TerminalResult::Failed { error } = &self.record.result {
            view.exceptions = vec![exception_entry(error, self.at_ms)];
        }
        view.enter(recorded(&self.record).status(), self.at_ms);
    }
}

/// Reaches the store and claims the job. What may pass is tried again for ever, and `wait` is told what is waited for;
/// what only somebody's change can mend is an error.
pub async fn take_over(settings: &Settings, job: JobId, wait: impl Fn(String)) -> Result<Found> {
    let storage = stores::open(settings.checkpoint_dir.as_deref(), settings)?;
    let wait = Wait { what: format!("checkpoint storage {}", storage.uri()), tell: wait };
    (wait.tell)(wait.what.clone());
    wait.until(async || storage.probe().await).await?;
    let mut log = JobLog::open(&storage, job, RetryPolicy::default());
    let owner = format!("process {}", std::process::id());
    let claim = wait.until(async || Ok(log.claim(&owner, settings.deployment).await?)).await?;
    let found = wait.until(async || newest(&storage, job, log.view()).await).await?;
    let (newest, continues) = found.map_or((None, None), |(newest, continues)| (Some(newest), continues));
    match claim {
        Claim::Leader(generation) => {
            let highest = wait.until(async || storage.list_checkpoints(job).await).await?.into_iter().max();
            let next_id = highest.map_or(CheckpointId(1), CheckpointId::next);
            let marked = log.view().newest_attempt();
            Ok(Found::Leader(Box::new(Taken { storage, log, generation, next_id, newest, continues, marked })))
        }
        Claim::Ended(record) => {
            let at_ms = log.view().newest().map_or(0, |entry| entry.written_at_ms);
            let newest = newest.filter(|_| record.checkpoints_retained);
            Ok(Found::Ended(Box::new(Ended { record, at_ms, generation: log.view().generation(), newest })))
        }
    }
}

/// The log's newest checkpoint as REST shows it, and whose it is, where its metadata can be read.
async fn newest(
    storage: &CheckpointStorage,
    job: JobId,
    log: &LogView,
) -> Result<Option<(CheckpointStatistics, Option<NewestCheckpoint>)>> {
    let entry = log.entries().rev().find_map(|entry| Some((entry.written_at_ms, entry.checkpoint()?)));
    let Some((completed_at_ms, record)) = entry else { return Ok(None) };
    let metadata = match storage.read_metadata(job, record).await {
        Ok(metadata) => Some(metadata),
        Err(error) if error.retryable => return Err(error),
        // Whoever restores it says what is wrong with it.
        Err(_) => None,
    };
    let subtasks = metadata.iter().flat_map(|metadata| &metadata.operators).map(|operator| operator.parallelism).max();
    let state_size = metadata.as_ref().map_or(0, |metadata| metadata.state_size());
    let continues = metadata.as_ref().map(|metadata| NewestCheckpoint {
        id: record.id,
        generation: metadata.generation,
        attempt: metadata.attempt,
        triggered_at_ms: record.created_at_ms,
    });
    let newest = CheckpointStatistics {
        id: record.id.0,
        status: CheckpointStatus::Completed,
        is_savepoint: false,
        trigger_timestamp: record.created_at_ms,
        latest_ack_timestamp: -1,
        checkpointed_size: state_size,
        state_size,
        end_to_end_duration: completed_at_ms.saturating_sub(record.created_at_ms),
        // What was processed meanwhile stands nowhere.
        processed_data: 0,
        persisted_data: metadata.as_ref().map_or(0, CheckpointMetadata::in_flight_size),
        num_subtasks: subtasks.unwrap_or(0),
        num_acknowledged_subtasks: subtasks.unwrap_or(0),
        external_path: (!storage.is_volatile()).then(|| storage.checkpoint_uri(job, record.id)),
        discarded: None,
        failure_timestamp: None,
        failure_message: None,
    };
    Ok(Some((newest, continues)))
}

/// Somebody who waits for the store.
struct Wait<F> {
    what: String,
    tell: F,
}

impl<F: Fn(String)> Wait<F> {
    /// Does a step until it succeeds, or fails for good.
    async fn until<T>(&self, mut step: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            let error = match step().await {
                Err(error) if error.retryable => error,
                other => return other,
            };
            let why = match error.message.starts_with(&self.what) {
                true => error.message,
                false => format!("{}: {}", self.what, error.message),
            };
            let pause = PATIENCE.delay_after(failures).unwrap_or(PATIENCE.max);
            failures += 1;
            tracing::warn!(?pause, "waiting for {why}");
            (self.tell)(why);
            tokio::time::sleep(pause).await;
        }
    }
}
