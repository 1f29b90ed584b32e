//! The checkpoint store and the log against a real S3 server.

use std::sync::Arc;

use bytes::Bytes;
use millrace_core::{
    checkpoint::CheckpointingMode,
    ids::{Attempt, CheckpointId, Generation, JobId},
};
use millrace_state::{
    log::{CheckpointRecord, Claim, JobLog, LogError},
    metadata::CheckpointMetadata,
    storage::{CheckpointStorage, MetadataWrite, RetryPolicy, StorageOptions, open_checkpoint, unique_state_name},
};
use millrace_testkit::services::minio::Minio;
use tokio::sync::Barrier;

const JOB: JobId = JobId(0xbeef);

fn options(minio: &Minio) -> StorageOptions {
    StorageOptions {
        s3_endpoint: Some(minio.endpoint()),
        s3_access_key: Some(minio.access_key().to_string()),
        s3_secret_key: Some(minio.secret_key().into()),
        ..StorageOptions::default()
    }
}

fn bucket(name: &str) -> CheckpointStorage {
    let minio = Minio::shared();
    minio.create_bucket(name).unwrap();
    CheckpointStorage::open(&format!("s3://{name}/some/prefix"), &options(minio)).unwrap()
}

fn metadata(checkpoint: u64, generation: u64) -> CheckpointMetadata {
    CheckpointMetadata {
        job: JOB,
        checkpoint: CheckpointId(checkpoint),
        generation: Generation(generation),
        attempt: Attempt(0),
        created_at_ms: 1,
        mode: CheckpointingMode::ExactlyOnce,
        max_parallelism: 128,
        is_final: false,
        operators: Vec::new(),
    }
}

async fn record(storage: &CheckpointStorage, checkpoint: u64) -> CheckpointRecord {
    match storage.write_metadata(&metadata(checkpoint, 1), false).await.unwrap() {
        MetadataWrite::Written(record) => record,
        MetadataWrite::Conflict => panic!("conflict"),
    }
}

#[tokio::test]
async fn the_probe_passes() {
    bucket("probe").probe().await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_and_a_missing_bucket_are_told_apart() {
    let minio = Minio::shared();
    minio.create_bucket("guarded").unwrap();
    let probe = async |uri: &str, options: StorageOptions| {
        let error = CheckpointStorage::open(uri, &options).unwrap().probe().await.unwrap_err();
        assert!(!error.retryable && error.message.contains(uri), "{error}");
        assert!(!error.message.contains(minio.secret_key()) && !error.message.contains('<'), "{error}");
        error.message
    };
    let right = || options(minio);
    assert!(probe("s3://absent/x", right()).await.contains("the bucket does not exist"));
    let wrong_secret = StorageOptions { s3_secret_key: Some("wrong-secret".into()), ..right() };
    assert!(probe("s3://guarded/x", wrong_secret).await.contains("does not belong to the access key"));
    let wrong_key = StorageOptions { s3_access_key: Some("nobody".to_string()), ..right() };
    assert!(probe("s3://guarded/x", wrong_key).await.contains("does not know the access key"));
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_trusted_where_it_is_named() {
    let (minio, certificate) = Minio::start_with_tls().unwrap();
    minio.create_bucket("secured").unwrap();
    let probe = |s3_ca_bundle| async {
        let options = StorageOptions { s3_ca_bundle, ..options(&minio) };
        CheckpointStorage::open("s3://secured/x", &options).unwrap().probe().await
    };
    let error = probe(None).await.unwrap_err();
    assert!(error.message.contains("s3.ssl.ca-bundle") && !error.retryable, "{error}");
    probe(Some(certificate)).await.unwrap();
}

#[tokio::test]
async fn nobody_listening_is_an_error_that_may_pass() {
    let endpoint = format!("http://127.0.0.1:{}", millrace_testkit::services::ports::free_port());
    let options = StorageOptions { s3_endpoint: Some(endpoint), request_retries: 0, ..options(Minio::shared()) };
    let error = CheckpointStorage::open("s3://bucket", &options).unwrap().probe().await.unwrap_err();
    assert!(error.retryable, "{error}");
}

/// Two jobmanagers claim the same job at the same moment, again and again: exactly one of them may go on, and each
/// number of the log has one writer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_contenders_exactly_one_writes_each_entry() {
    const ROUNDS: u64 = 10;
    let storage = bucket("contended");
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

#[tokio::test]
async fn metadata_is_created_once_and_read_back() {
    let storage = bucket("metadata");
    let written = storage.write_metadata(&metadata(1, 1), true).await.unwrap();
    let MetadataWrite::Written(record) = &written else { panic!("{written:?}") };
    assert_eq!(storage.write_metadata(&metadata(1, 1), true).await.unwrap(), written);
    assert_eq!(storage.write_metadata(&metadata(1, 2), true).await.unwrap(), MetadataWrite::Conflict);
    assert_eq!(storage.read_metadata(JOB, record).await.unwrap(), metadata(1, 1));
    let uri = storage.checkpoint_uri(JOB, CheckpointId(1));
    assert_eq!(open_checkpoint(&uri, &options(Minio::shared())).await.unwrap(), metadata(1, 1));
}

#[tokio::test]
async fn states_small_and_in_parts_are_written_read_and_deleted() {
    let storage = bucket("states");
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

/// Deleting many files takes S3's bulk request.
#[tokio::test]
async fn a_job_is_deleted_whole() {
    let storage = bucket("deleted");
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
