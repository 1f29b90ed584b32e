//! The jobmanager can be asked before its store can be reached, and tells what it waits for; a real object store that is
//! started late, and one that goes away before a job is deleted.

use std::path::PathBuf;

use millrace_core::rest::JobStatus;
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, Result},
    services::minio::Minio,
};
use tempfile::TempDir;

const BUCKET: &str = "jobs";

/// A job that counts words from a directory, its checkpoints in a bucket.
fn job(minio: &Minio, input: &TempDir) -> ClusterSpec {
    std::fs::write(input.path().join("words"), "a\nb\nc\n").expect("the file can be written");
    ClusterSpec::new(PathBuf::from(env!("CARGO_BIN_EXE_misbehaving_job")))
        .args(["--files", &input.path().display().to_string(), "--checkpoints", "100"])
        .set("state.checkpoints.dir", format!("s3://{BUCKET}/checkpoints"))
        .set("s3.endpoint", minio.endpoint())
        .set("s3.access-key", minio.access_key())
        .set("s3.secret-key", minio.secret_key())
        .set("execution.shutdown-on-application-finish", "false")
}

#[test]
fn a_job_whose_store_comes_late_waits_for_it_and_then_runs() -> Result<()> {
    let mut minio = Minio::start()?;
    minio.create_bucket(BUCKET)?;
    minio.kill()?;
    let input = tempfile::tempdir().expect("a directory can be made");
    let mut cluster = JobCluster::start(job(&minio, &input))?;
    let state = cluster.wait_until("job that says what it waits for", |state| {
        let waiting = state.job.waiting_for.as_deref().unwrap_or_default();
        waiting.starts_with(&format!("checkpoint storage s3://{BUCKET}/checkpoints: "))
    })?;
    assert_eq!((state.job.state, state.taskmanagers.len()), (JobStatus::Initializing, 0), "{state}");
    minio.restart()?;
    let state = cluster.wait_until_running()?;
    assert_eq!(state.job.waiting_for, None, "{state}");
    cluster.wait_for_new_checkpoint()?;

    cluster.delete()?;
    let state = cluster.wait_until("end", |state| state.job.state == JobStatus::Canceled)?;
    assert_eq!(state.job.left_behind, None);
    assert_eq!(minio.objects(BUCKET)?, Vec::<String>::new(), "nothing is left in the bucket");
    Ok(())
}

#[test]
fn what_cannot_be_deleted_is_named() -> Result<()> {
    let mut minio = Minio::start()?;
    minio.create_bucket(BUCKET)?;
    let input = tempfile::tempdir().expect("a directory can be made");
    let mut cluster = JobCluster::start(job(&minio, &input))?;
    cluster.wait_until_running()?;
    cluster.wait_for_new_checkpoint()?;
    minio.kill()?;
    cluster.delete()?;
    let state = cluster.wait_until("end", |state| state.job.state == JobStatus::Canceled)?;
    let left = state.job.left_behind.expect("what is left is named");
    assert!(left.starts_with(&format!("s3://{BUCKET}/checkpoints/{}: ", cluster.job())), "{left}");

    // Once the store is back, it can be asked for again.
    minio.restart()?;
    cluster.delete()?;
    let state = cluster
        .wait_until("deleted job", |state| state.job.state == JobStatus::Canceled && state.job.left_behind.is_none())?;
    assert_eq!(minio.objects(BUCKET)?, Vec::<String>::new(), "{state}");
    Ok(())
}
