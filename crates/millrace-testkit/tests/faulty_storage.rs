//! The checkpoint store and the log over a store that fails, loses answers, refuses and is slow.

#[path = "store_suite/records.rs"]
mod records;

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use millrace_core::ids::{CheckpointId, Generation};
use millrace_state::{
    backend::BackendFile,
    log::{Claim, JobLog, LogError},
    storage::{CheckpointStorage, MetadataWrite, RetryPolicy, StorageOptions, UploadedFiles},
};
use millrace_testkit::faulty_store::{Fault, FaultyStore, Gate, Operation};
use object_store::memory::InMemory;
use records::{JOB, metadata, record};

fn faulty() -> (Arc<FaultyStore>, CheckpointStorage) {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let storage = CheckpointStorage::over(store.clone(), "memory:", &StorageOptions::default()).unwrap();
    (store, storage)
}

/// Tries again at once.
fn at_once(retries: u32) -> RetryPolicy {
    RetryPolicy { retries: Some(retries), ..RetryPolicy::NEVER }
}

async fn leader(storage: &CheckpointStorage, retries: u32) -> JobLog {
    let mut log = JobLog::open(storage, JOB, at_once(retries));
    assert!(matches!(log.claim("test", 0).await.unwrap(), Claim::Leader(_)));
    log
}

fn ids(log: &JobLog) -> Vec<u64> {
    log.view().checkpoints().map(|record| record.id.0).collect()
}

#[tokio::test]
async fn every_request_of_the_log_may_fail_or_lose_its_answer() {
    for fault in [Fault::fail as fn(Operation) -> Fault, Fault::lost_answer] {
        for operation in [Operation::Put, Operation::Get, Operation::List, Operation::Delete] {
            let (store, storage) = faulty();
            leader(&storage, 0).await;
            store.inject(fault(operation).on("log").times(2));
            let mut log = leader(&storage, 2).await;
            for id in 1..=3 {
                let record = record(&storage, id).await;
                store.heal();
                store.inject(fault(operation).on("log").times(2));
                assert_eq!(log.append_checkpoint(record, 1).await.unwrap().position, id + 2);
            }
            store.heal();
            store.inject(fault(operation).on("log").times(2));
            assert_eq!(log.trim().await.unwrap(), 3, "{operation:?}");
            log.assert_still_leader().await.unwrap();
            assert!(store.fired() >= 2, "{operation:?}");
            store.heal();
            let next = leader(&storage, 0).await;
            assert_eq!((ids(&next), next.view().generation()), (vec![3], Generation(3)));
        }
    }
}

#[tokio::test]
async fn a_conflict_while_nothing_is_there_is_tried_again() {
    let (store, storage) = faulty();
    store.inject(Fault::conflict().on("log").times(3));
    let mut log = leader(&storage, 0).await;
    store.inject(Fault::conflict().on("log").times(3));
    log.append_checkpoint(record(&storage, 1).await, 1).await.unwrap();
    assert_eq!(store.fired(), 6);
    assert_eq!(ids(&leader(&storage, 0).await), [1]);
}

#[tokio::test]
async fn an_append_that_was_given_up_is_in_doubt_and_can_be_repeated() {
    let (store, storage) = faulty();
    let mut log = leader(&storage, 1).await;
    let record = record(&storage, 1).await;
    store.inject(Fault::lost_answer(Operation::Put).on("log"));
    store.inject(Fault::fail(Operation::Put).on("log"));
    let error = log.append_checkpoint(record.clone(), 1).await.unwrap_err();
    assert!(matches!(&error, LogError::Failed(error) if error.retryable), "{error}");
    assert_eq!(log.in_doubt().collect::<Vec<_>>(), [CheckpointId(1)]);
    assert_eq!(log.append_checkpoint(record, 1).await.unwrap().position, 2);
    assert_eq!(log.in_doubt().count(), 0);
    assert_eq!(leader(&storage, 0).await.view().entries().count(), 2);
}

#[tokio::test]
async fn an_append_whose_caller_went_away_is_in_doubt() {
    let (store, storage) = faulty();
    let mut log = leader(&storage, 0).await;
    let (gate, first) = (Gate::closed(), record(&storage, 1).await);
    store.inject(Fault::hold(Operation::Put, &gate).on("log"));
    tokio::select! {
        _ = log.append_checkpoint(first, 3) => panic!("it was held"),
        () = gate.arrived() => {}
    }
    let second = record(&storage, 2).await;
    log.append_checkpoint(second, 3).await.unwrap();
    assert_eq!(ids(&log), [2]);
}

/// The reason why the log is listed once more after each create.
#[tokio::test]
async fn a_jobmanager_that_was_paused_before_its_create_does_not_announce() {
    let (store, storage) = faulty();
    let mut paused = leader(&storage, 0).await;
    let (gate, stale) = (Gate::closed(), record(&storage, 1).await);
    store.inject(Fault::hold(Operation::Put, &gate).on("log"));
    let paused = tokio::spawn(async move { paused.append_checkpoint(stale, 1).await });
    gate.arrived().await;
    leader(&storage, 0).await;
    let mut newest = leader(&storage, 0).await;
    for id in 2..=3 {
        newest.append_checkpoint(record(&storage, id).await, 1).await.unwrap();
    }
    assert_eq!(newest.trim().await.unwrap(), 3);
    gate.open_once();
    assert_eq!(paused.await.unwrap().unwrap_err(), LogError::Fenced { generation: Generation(3) });
    newest.assert_still_leader().await.unwrap();
    let next = leader(&storage, 0).await;
    assert_eq!((ids(&next), next.view().generation()), (vec![3], Generation(4)));
}

#[tokio::test]
async fn metadata_survives_lost_answers_and_tells_conflicts() {
    let (store, storage) = faulty();
    store.inject(Fault::lost_answer(Operation::Put).on("_metadata"));
    assert!(storage.write_metadata(&metadata(1, 1), false).await.unwrap_err().retryable);
    assert!(matches!(storage.write_metadata(&metadata(1, 1), false).await.unwrap(), MetadataWrite::Written(_)));
    assert_eq!(storage.write_metadata(&metadata(1, 2), false).await.unwrap(), MetadataWrite::Conflict);
    // A 409 for a name under which nothing is says nothing yet.
    store.inject(Fault::conflict().on("_metadata"));
    assert!(storage.write_metadata(&metadata(2, 1), false).await.unwrap_err().retryable);
    assert!(matches!(storage.write_metadata(&metadata(2, 1), false).await.unwrap(), MetadataWrite::Written(_)));
    assert_eq!(store.fired(), 2);
}

#[tokio::test]
async fn an_unreachable_newest_checkpoint_is_not_stepped_over() {
    let (store, storage) = faulty();
    let mut log = leader(&storage, 0).await;
    for id in 1..=2 {
        log.append_checkpoint(record(&storage, id).await, 3).await.unwrap();
    }
    store.inject(Fault::fail(Operation::Get).on("chk-2"));
    assert!(storage.latest_checkpoint(JOB, log.view(), &[], true).await.unwrap_err().retryable);
    let found = storage.latest_checkpoint(JOB, log.view(), &[], true).await.unwrap().unwrap();
    assert_eq!(found.checkpoint, CheckpointId(2));
}

/// A crash between any two deletions never leaves metadata whose files are gone.
#[tokio::test]
async fn deleting_a_checkpoint_takes_its_metadata_first() {
    for survivors in 0..3 {
        let (store, storage) = faulty();
        for name in ["a.state", "b.state"] {
            storage.write_state(JOB, CheckpointId(1), name, Bytes::from_static(b"x")).await.unwrap();
        }
        let written = record(&storage, 1).await;
        store.inject(Fault::fail(Operation::Delete).after(survivors).always());
        assert!(storage.delete_checkpoint(JOB, CheckpointId(1)).await.is_err());
        assert!(store.fired() >= 1);
        store.heal();
        assert_eq!(storage.read_metadata(JOB, &written).await.is_ok(), survivors == 0);
        storage.delete_checkpoint(JOB, CheckpointId(1)).await.unwrap();
        assert!(storage.list_checkpoints(JOB).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_big_state_fails_with_any_of_its_parts() {
    for part in 0..4 {
        let (store, storage) = faulty();
        store.inject(Fault::fail(Operation::Put).after(part));
        let big = Bytes::from(vec![1u8; 40 << 20]);
        let error = storage.write_state(JOB, CheckpointId(1), "big.state", big.clone()).await.unwrap_err();
        assert!(error.retryable && error.message.contains("chk-1/big.state"), "{error}");
        assert_eq!(store.fired(), 1);
        let handle = storage.write_state(JOB, CheckpointId(1), "big-2.state", big).await.unwrap();
        assert_eq!(storage.read_state(&handle).await.unwrap().len(), 40 << 20);
    }
}

#[tokio::test]
async fn shared_files_are_fetched_at_the_same_time() {
    let (store, storage) = faulty();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = directory.path().join(name);
        fs::write(&path, name).unwrap();
        BackendFile { name: name.to_owned(), path, size: name.len() as u64, immutable: true }
    };
    let files = ["a", "b", "c"].map(file);
    let files = storage.write_shared(JOB, CheckpointId(1), &files, &UploadedFiles::default()).await.unwrap();
    let gate = Gate::closed();
    store.inject(Fault::hold(Operation::Get, &gate).times(3));
    let target = tempfile::tempdir().unwrap();
    let all_asked_for = async {
        for _ in &files {
            gate.arrived().await;
        }
        // Not one was answered before all were asked for.
        files.iter().for_each(|_| gate.open_once());
    };
    let fetched = async { tokio::join!(storage.fetch_shared(&files, target.path(), None), all_asked_for).0 };
    tokio::time::timeout(Duration::from_secs(60), fetched).await.expect("they are not asked for at once").unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(fs::read_to_string(target.path().join(name)).unwrap(), name);
    }
}

#[tokio::test]
async fn a_store_that_ignores_conditions_fails_the_probe() {
    let (store, storage) = faulty();
    store.inject(Fault::ignore_condition().always());
    let error = storage.probe().await.unwrap_err();
    assert!(!error.retryable && error.message.contains("If-None-Match"), "{error}");
    store.heal();
    storage.probe().await.unwrap();
    store.inject(Fault::fail(Operation::Put));
    assert!(storage.probe().await.unwrap_err().retryable);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_an_error_after_a_while() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let options = StorageOptions {
        connect_timeout: Duration::from_millis(200),
        request_timeout: Duration::from_millis(400),
        ..StorageOptions::default()
    };
    let storage = CheckpointStorage::over(store.clone(), "memory:", &options).unwrap();
    let mut log = leader(&storage, 0).await;
    let record = record(&storage, 1).await;
    for operation in [Operation::List, Operation::Put] {
        store.inject(Fault::hold(operation, &Gate::closed()).on("log"));
        match log.append_checkpoint(record.clone(), 1).await.unwrap_err() {
            LogError::Failed(error) => assert!(error.retryable && error.message.contains("no answer within 1s")),
            other => panic!("{other}"),
        }
    }
    log.append_checkpoint(record, 1).await.unwrap();
    assert_eq!(leader(&storage, 0).await.view().entries().count(), 2);
}
