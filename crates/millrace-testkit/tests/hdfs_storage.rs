//! The checkpoint store and the log against a real NameNode and DataNode.

mod store_suite;

use bytes::Bytes;
use hdfs_native::{Client, ClientBuilder};
use millrace_core::ids::{CheckpointId, JobId};
use millrace_state::storage::{CheckpointStorage, StorageOptions, unique_state_name};
use millrace_testkit::services::hdfs::Hdfs;

fn directory(name: &str) -> CheckpointStorage {
    let uri = Hdfs::shared().uri(&format!("{name}/some/directory"));
    CheckpointStorage::open(&uri, &StorageOptions::default()).unwrap()
}

fn client() -> Client {
    ClientBuilder::new().with_url(Hdfs::shared().uri("")).build().unwrap()
}

async fn names(path: &str) -> Vec<String> {
    let listed = client().list_status(path, true).await.unwrap();
    listed.into_iter().map(|status| status.path).collect()
}

#[tokio::test]
async fn the_probe_passes_and_leaves_nothing_but_the_directory() {
    directory("probe").probe().await.unwrap();
    assert_eq!(names("/probe").await, ["/probe/some", "/probe/some/directory"]);
}

#[tokio::test]
async fn nobody_listening_is_an_error_that_may_pass() {
    let uri = format!("hdfs://127.0.0.1:{}/x", millrace_testkit::services::ports::free_port());
    let error = CheckpointStorage::open(&uri, &StorageOptions::default()).unwrap().probe().await.unwrap_err();
    assert!(error.retryable && error.message.contains(&uri), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_contenders_exactly_one_writes_each_entry() {
    store_suite::of_two_contenders_exactly_one_writes_each_entry(directory("contended")).await;
    let left: Vec<_> = names("/contended").await.into_iter().filter(|name| name.ends_with(".tmp")).collect();
    assert_eq!(left, Vec::<String>::new(), "who loses leaves nothing behind");
}

#[tokio::test]
async fn metadata_is_created_once_and_read_back() {
    store_suite::metadata_is_created_once_and_read_back(directory("metadata"), &StorageOptions::default()).await;
}

#[tokio::test]
async fn states_small_and_in_parts_are_written_read_and_deleted() {
    store_suite::states_small_and_in_parts_are_written_read_and_deleted(directory("states")).await;
    assert_eq!(
        names("/states").await,
        ["/states/some", "/states/some/directory"],
        "no directory is left of a checkpoint"
    );
}

#[tokio::test]
async fn a_job_is_deleted_whole() {
    store_suite::a_job_is_deleted_whole(directory("deleted")).await;
}

#[tokio::test]
async fn what_was_written_is_there_when_the_namenode_comes_back() {
    let mut hdfs = Hdfs::start().unwrap();
    let storage = CheckpointStorage::open(&hdfs.uri("restarted"), &StorageOptions::default()).unwrap();
    let bytes = Bytes::from_static(b"a snapshot");
    let (job, checkpoint) = (JobId(1), CheckpointId(1));
    let written = storage.write_state(job, checkpoint, &unique_state_name("s"), bytes.clone()).await.unwrap();
    hdfs.restart_namenode().unwrap();
    assert_eq!(storage.read_state(&written).await.unwrap(), bytes);
}
