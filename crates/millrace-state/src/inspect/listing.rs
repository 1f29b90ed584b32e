//! The checkpoints of a job, beside what its log says of them.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::{
    Error, Result,
    ids::{CheckpointId, Generation, JobId},
};

use crate::{
    log::{CheckpointRecord, LogEntry, LogView, read_log},
    metadata::CheckpointMetadata,
    storage::CheckpointStorage,
};

/// A job in a checkpoint directory.
#[derive(Debug)]
pub struct JobListing {
    /// The job.
    pub job: JobId,
    /// Its log; an error where that is damaged.
    pub log: Result<LogView>,
    /// Its checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointListing>,
}

/// A checkpoint in a job's directory.
#[derive(Debug)]
pub struct CheckpointListing {
    /// Its id.
    pub id: CheckpointId,
    /// Its directory.
    pub uri: String,
    /// What it says of itself, where that can be read.
    pub metadata: Option<CheckpointMetadata>,
    /// When the log took it in, milliseconds since the epoch.
    pub completed_at_ms: Option<u64>,
    /// The generation of the jobmanager that took it.
    pub generation: Option<Generation>,
    /// What to think of it.
    pub standing: Standing,
}

/// What to think of a checkpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// The log knows it as complete.
    Complete,
    /// It has no metadata: it is under way, or was given up.
    Incomplete,
    /// It has metadata and the log does not name it: the log has let go of it, or never took it in.
    NotInLog,
    /// It has metadata, and the log can't be read.
    Unknown,
    /// Its metadata is damaged or missing.
    Damaged(Error),
}

/// Lists the checkpoints of a job.
pub async fn list_job(storage: &CheckpointStorage, job: JobId) -> Result<JobListing> {
    let log = match read_log(storage, job).await {
        Err(error) if error.retryable => return Err(error),
        log => log,
    };
    let mut records: BTreeMap<CheckpointId, (&CheckpointRecord, &LogEntry)> = BTreeMap::new();
    let entries = log.iter().flat_map(LogView::entries);
    records.extend(entries.filter_map(|entry| entry.checkpoint().map(|record| (record.id, (record, entry)))));
    let mut ids: BTreeSet<CheckpointId> = storage.list_checkpoints(job).await?;
    ids.extend(records.keys());
    let mut checkpoints = Vec::new();
    for id in ids {
        let record = records.get(&id);
        let found = match record {
            Some((record, _)) => storage.read_metadata(job, record).await.map(Some),
            None => storage.find_metadata(job, id).await,
        };
        let (metadata, standing) = match found {
            Err(error) if error.retryable => return Err(error),
            Err(error) => (None, Standing::Damaged(error)),
            Ok(None) => (None, Standing::Incomplete),
            Ok(metadata) if record.is_some() => (metadata, Standing::Complete),
            Ok(metadata) if log.is_ok() => (metadata, Standing::NotInLog),
            Ok(metadata) => (metadata, Standing::Unknown),
        };
        checkpoints.push(CheckpointListing {
            id,
            uri: storage.checkpoint_uri(job, id),
            completed_at_ms: record.map(|(_, entry)| entry.written_at_ms),
            generation: metadata.as_ref().map(|metadata| metadata.generation).or(record.map(|(_, e)| e.generation)),
            metadata,
            standing,
        });
    }
    Ok(JobListing { job, log, checkpoints })
}
