//! Reading a log without taking part in it.

use std::collections::BTreeSet;

use millrace_core::{Error, Result, ids::JobId};

use super::{
    LogView,
    entry::{LogEntry, damaged, position_of, relative_path},
    protocol::check_follows,
};
use crate::storage::CheckpointStorage;

/// What makes no sense is read again so often: a jobmanager that appends and trims meanwhile moves the ground.
const ATTEMPTS: usize = 4;

/// What the log of a job says now; empty where there is none. Nothing is written, and a jobmanager that leads the job
/// does not notice.
pub async fn read_log(storage: &CheckpointStorage, job: JobId) -> Result<LogView> {
    let mut last = Error::internal("a log was never read");
    for _ in 0..ATTEMPTS {
        match read_once(storage, job).await {
            Err(error) if !error.retryable => last = error,
            read => return read,
        }
    }
    Err(last)
}

async fn read_once(storage: &CheckpointStorage, job: JobId) -> Result<LogView> {
    let files = storage.list(&storage.job_path(job, "log"), None).await?;
    let listed: BTreeSet<u64> = files.iter().filter_map(|path| position_of(path.filename()?)).collect();
    let mut view = LogView::default();
    let Some(&last) = listed.last() else { return Ok(view) };
    let newest = read_entry(storage, job, last).await?;
    for position in newest.floor..=last {
        if !listed.contains(&position) {
            return Err(missing(job, position));
        }
        let entry = if position == last { newest.clone() } else { read_entry(storage, job, position).await? };
        check_follows(view.newest(), &entry)?;
        view.push(entry);
    }
    Ok(view)
}

async fn read_entry(storage: &CheckpointStorage, job: JobId, position: u64) -> Result<LogEntry> {
    let bytes = storage.read(&storage.job_path(job, &relative_path(position))).await?;
    LogEntry::decode(job, position, &bytes.ok_or_else(|| missing(job, position))?)
}

fn missing(job: JobId, position: u64) -> Error {
    damaged(format!("log entry {job}/{} is missing, though later entries are there", relative_path(position)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::{Claim, JobLog, TerminalRecord, TerminalResult, entry::tests::record},
        storage::{RetryPolicy, StorageOptions},
    };

    const JOB: JobId = JobId(0xbeef);

    #[tokio::test]
    async fn what_is_read_is_what_the_writer_knows() {
        let storage = CheckpointStorage::open("memory:", &StorageOptions::default()).unwrap();
        assert_eq!(read_log(&storage, JOB).await.unwrap(), LogView::default());
        for generation in 1..3 {
            let mut log = JobLog::open(&storage, JOB, RetryPolicy::NEVER);
            assert!(matches!(log.claim("test", 0).await.unwrap(), Claim::Leader(_)));
            for id in 1..5 {
                log.append_checkpoint(record(generation * 10 + id), 2).await.unwrap();
                assert_eq!(read_log(&storage, JOB).await.unwrap(), *log.view());
            }
            log.trim().await.unwrap();
            assert_eq!(read_log(&storage, JOB).await.unwrap(), *log.view());
        }
        let mut log = JobLog::open(&storage, JOB, RetryPolicy::NEVER);
        log.claim("last", 0).await.unwrap();
        let terminal = TerminalRecord { result: TerminalResult::Finished, checkpoints_retained: true, deployment: 0 };
        log.append_terminal(terminal.clone()).await.unwrap();
        assert_eq!(read_log(&storage, JOB).await.unwrap().terminal(), Some(&terminal));
    }

    #[tokio::test]
    async fn a_gap_and_a_torn_entry_are_named() {
        let storage = CheckpointStorage::open("memory:", &StorageOptions::default()).unwrap();
        let mut log = JobLog::open(&storage, JOB, RetryPolicy::NEVER);
        log.claim("test", 0).await.unwrap();
        for id in 1..4 {
            log.append_checkpoint(record(id), 3).await.unwrap();
        }
        let path = storage.job_path(JOB, &relative_path(3));
        let bytes = storage.read(&path).await.unwrap().unwrap();
        storage.delete(&path).await.unwrap();
        let error = read_log(&storage, JOB).await.unwrap_err();
        assert!(error.message.contains(&relative_path(3)) && error.message.contains("missing"), "{error}");
        storage.create(&path, bytes.slice(..bytes.len() / 2)).await.unwrap();
        let error = read_log(&storage, JOB).await.unwrap_err();
        assert!(error.message.contains(&relative_path(3)) && error.message.contains("torn"), "{error}");
    }
}
