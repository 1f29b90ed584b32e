//! What every store must do for checkpoints and for the log, given one that nobody else uses.

mod records;

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::ids::{CheckpointId, Generation};
use millrace_state::{
    log::{Claim, JobLog, LogError},
    storage::{CheckpointStorage, MetadataWrite, RetryPolicy, StorageOptions, open_checkpoint, unique_state_name},
};
use records::{JOB, metadata, record};
use tokio::sync::Barrier;

/// Two jobmanagers claim the same job at the same moment, again and again: exactly one of them may go on, and each
/// number of the log has one writer.
pub async fn of_two_contenders_exactly_one_writes_each_entry(storage: CheckpointStorage) {
    const ROUNDS: u64 = 10;
    let barrier = Arc::new(Barrier::new(2));
    let contenders = (0..2u64).map(|contender| {
        let (storage, barrier) = (storage.clone(), Arc::clone(&barrier));
        tokio::spawn(async move {
            let mut won = Vec::new();
            for round in 0..ROUNDS {
                let record = record(&storage, contender * 1000 + round).await;
                let mut log = JobLog::open(&storage, JOB, RetryPolicy::default());
                barrier.wait().await;
                let claim = log.claim(&format!("contender {contender}"), 0).await;
                assert!(matches!(claim, Ok(Claim::Leader(_)) | Err(LogError::Fenced { .. })), "{claim:?}");
                barrier.wait().await;
                match log.append_checkpoint(record, 100).await {
                    Ok(appended) => won.push((round, appended.position, log.view().generation())),
                    Err(LogError::Fenced { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                barrier.wait().await;
            }
            won
        })
    });
    let won = futures::future::join_all(contenders).await;
    let mut won: Vec<_> = won.into_iter().flat_map(Result::unwrap).collect();
    won.sort_unstable();
    assert_eq!(won.iter().map(|(round, ..)| *round).collect::<Vec<_>>(), (0..ROUNDS).collect::<Vec<_>>());

    let mut last = JobLog::open(&storage, JOB, RetryPolicy::default());
    assert!(matches!(last.claim("last", 0).await.unwrap(), Claim::Leader(_)));
    let written = last.view().entries().filter(|entry| entry.checkpoint().is_some());
    let written: Vec<_> = written.map(|entry| (entry.position, entry.generation)).collect();
    assert_eq!(written, won.into_iter().map(|(_, position, generation)| (position, generation)).collect::<Vec<_>>());
}

/// Metadata is never written over.
pub async fn metadata_is_created_once_and_read_back(storage: CheckpointStorage, options: &StorageOptions) {
    let written = storage.write_metadata(&metadata(1, 1), true).await.unwrap();
    let MetadataWrite::Written(record) = &written else { panic!("{written:?}") };
    assert_eq!(storage.write_metadata(&metadata(1, 1), true).await.unwrap(), written);
    assert_eq!(storage.write_metadata(&metadata(1, 2), true).await.unwrap(), MetadataWrite::Conflict);
    assert_eq!(storage.read_metadata(JOB, record).await.unwrap(), metadata(1, 1));
    let uri = storage.checkpoint_uri(JOB, CheckpointId(1));
    assert_eq!(open_checkpoint(&uri, options).await.unwrap(), metadata(1, 1));
}

/// Snapshots come back as they were.
pub async fn states_small_and_in_parts_are_written_read_and_deleted(storage: CheckpointStorage) {
    for size in [0usize, 5, 40 << 20] {
        let bytes: Bytes = (0..size).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
        let handle = storage.write_state(JOB, CheckpointId(1), &unique_state_name("s"), bytes.clone()).await.unwrap();
        assert!(storage.read_state(&handle).await.unwrap() == bytes, "{size}");
        if size > 0 {
            assert!(storage.read_state_range(&handle, 1..size as u64 / 2 + 1).await.unwrap() == bytes[1..=size / 2]);
        }
    }
    assert_eq!(storage.list_checkpoints(JOB).await.unwrap().len(), 1);
    storage.delete_checkpoint(JOB, CheckpointId(1)).await.unwrap();
    assert!(storage.list_checkpoints(JOB).await.unwrap().is_empty());
}

/// Nothing of a job stays.
pub async fn a_job_is_deleted_whole(storage: CheckpointStorage) {
    let mut log = JobLog::open(&storage, JOB, RetryPolicy::default());
    log.claim("test", 0).await.unwrap();
    for id in 1..=5 {
        log.append_checkpoint(record(&storage, id).await, 2).await.unwrap();
    }
    assert_eq!(log.trim().await.unwrap(), 3);
    assert_eq!(storage.sweep(JOB, log.view(), &Default::default()).await.unwrap().len(), 3);
    storage.delete_job(JOB).await.unwrap();
    assert!(storage.list_checkpoints(JOB).await.unwrap().is_empty());
    let mut next = JobLog::open(&storage, JOB, RetryPolicy::default());
    assert_eq!(next.claim("next", 0).await.unwrap(), Claim::Leader(Generation(1)));
}
