//! The checkpoint store and the log against a real S3 server.

mod store_suite;

use millrace_state::storage::{CheckpointStorage, StorageOptions};
use millrace_testkit::services::minio::Minio;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_contenders_exactly_one_writes_each_entry() {
    store_suite::of_two_contenders_exactly_one_writes_each_entry(bucket("contended")).await;
}

#[tokio::test]
async fn metadata_is_created_once_and_read_back() {
    store_suite::metadata_is_created_once_and_read_back(bucket("metadata"), &options(Minio::shared())).await;
}

#[tokio::test]
async fn states_small_and_in_parts_are_written_read_and_deleted() {
    store_suite::states_small_and_in_parts_are_written_read_and_deleted(bucket("states")).await;
}

/// Deleting many files takes S3's bulk request.
#[tokio::test]
async fn a_job_is_deleted_whole() {
    store_suite::a_job_is_deleted_whole(bucket("deleted")).await;
}
