//! Checkpoint stores that can't be used, from the start or suddenly.

use std::{fs, path::Path, time::Duration};

use millrace_core::rest::JobStatus;
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, PATIENCE, Result, program},
    faults::{StoreFault, StoreProxy},
    services::{minio::Minio, ports::free_port},
};
use millrace_tests::process::unique;

use crate::{Words, another_goes_on, assert_calm, assert_says, failed, job_over, refused, wait_for_count};

fn with_store(words: &Words, uri: &str) -> ClusterSpec {
    job_over(words).args(["--checkpoints", "100", "--checkpoint-dir", uri])
}

/// Root writes wherever permissions are all that forbids it, so these are places that nobody can write to.
#[test]
fn a_directory_that_cannot_be_written_is_named_at_the_start() {
    let words = Words::new();
    let file = words.path().join(".a-file");
    fs::write(&file, "").expect("the file can be written");
    for uri in [format!("file://{}/checkpoints", file.display()), "file:///proc".to_owned()] {
        let text = refused(with_store(&words, &uri));
        assert_says(&text, &[&uri, "can't be created", "state.checkpoints.dir"]);
    }
}

#[test]
fn a_directory_that_vanishes_under_a_running_job_costs_checkpoints_and_nothing_else() -> Result<()> {
    let place = tempfile::tempdir().expect("a directory can be made");
    let (directory, away) = (place.path().join("checkpoints"), place.path().join("away"));
    let mut words = Words::new();
    let spec = with_store(&words, &format!("file://{}", directory.display()));
    let mut cluster = JobCluster::start(spec.set("execution.checkpointing.data-inline-threshold", "0 b"))?;
    words.write_many(10, 1);
    wait_for_count(&mut cluster, 10)?;
    cluster.wait_for_new_checkpoint()?;

    fs::rename(&directory, &away).expect("the directory can be renamed");
    goes_on_without_checkpoints(&mut cluster, &mut words)?;
    fs::write(&directory, "a file where the directory was").expect("the file can be written");
    goes_on_without_checkpoints(&mut cluster, &mut words)?;
    fs::remove_file(&directory).expect("the file can be removed");
    fs::rename(&away, &directory).expect("the directory can be renamed");

    let state = cluster.wait_for_new_checkpoint()?;
    assert_eq!((state.job.restarts, state.job.state), (0, JobStatus::Running), "{state}");
    another_goes_on(cluster, &mut words)
}

fn goes_on_without_checkpoints(cluster: &mut JobCluster, words: &mut Words) -> Result<()> {
    let failed = cluster.state()?.checkpoints.counts.failed;
    let state = cluster.wait_until("more failed checkpoints", |state| state.checkpoints.counts.failed >= failed + 2)?;
    let newest = state.checkpoints.latest.failed.as_ref().expect("a failed checkpoint is shown");
    let message = newest.failure_message.as_deref().unwrap_or_default();
    assert!(message.contains("checkpoints"), "the message names the directory: {message}");
    words.write_many(10, 1);
    wait_for_count(cluster, words.written)?;
    let state = cluster.state()?;
    assert_eq!((state.job.restarts, state.job.state), (0, JobStatus::Running), "{state}");
    Ok(())
}

fn with_minio(words: &Words, uri: &str, endpoint: &str, secret_key: &str) -> ClusterSpec {
    with_store(words, uri)
        .set("s3.endpoint", endpoint)
        .set("s3.access-key", Minio::shared().access_key())
        .set("s3.secret-key", secret_key)
}

#[test]
fn what_is_wrong_with_an_object_store_is_told_at_the_start() {
    let words = Words::new();
    let minio = Minio::shared();
    let bucket = unique("bucket");
    minio.create_bucket(&bucket).expect("a bucket can be made");
    let uri = format!("s3://{bucket}/checkpoints");

    let wrong = "a-secret-that-is-not-it";
    let text = refused(with_minio(&words, &uri, &minio.endpoint(), wrong));
    assert_says(&text, &[&uri, "wrong credentials", "s3.secret-key"]);
    assert!(!text.contains(wrong), "secrets stay out of messages: {text}");

    let absent = format!("s3://{bucket}-not/checkpoints");
    let text = refused(with_minio(&words, &absent, &minio.endpoint(), minio.secret_key()));
    assert_says(&text, &[&absent, "the bucket does not exist", "state.checkpoints.dir"]);
}

#[test]
fn an_object_store_that_cannot_be_reached_is_waited_for_and_shown() -> Result<()> {
    let words = Words::new();
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let spec = with_minio(&words, "s3://bucket/checkpoints", &endpoint, Minio::shared().secret_key());
    let mut cluster = JobCluster::start(spec.taskmanagers(0))?;
    let state = cluster.wait_until("job that waits for its store, with the reason", |state| {
        let waiting = state.job.waiting_for.as_deref().unwrap_or_default();
        waiting.starts_with("checkpoint storage s3://bucket/checkpoints: ") && waiting.contains(&endpoint)
    })?;
    assert_eq!(state.job.state, JobStatus::Initializing);
    let refused = cluster.cancel().expect_err("it has nothing to cancel yet").to_string();
    assert_says(&refused, &["503", "still waits for checkpoint storage s3://bucket/checkpoints", "try again"]);
    Ok(())
}

/// Whatever the store does, the job does its work; what the store can't take is a checkpoint less.
#[test]
fn a_store_that_is_slow_read_only_acts_late_or_answers_503_costs_checkpoints_and_nothing_else() -> Result<()> {
    let mut words = Words::new();
    let minio = Minio::shared();
    let bucket = unique("bucket");
    minio.create_bucket(&bucket)?;
    let proxy = StoreProxy::start(minio.address())?;
    let uri = format!("s3://{bucket}/checkpoints");
    let spec = with_minio(&words, &uri, &proxy.endpoint(), minio.secret_key());
    let mut cluster = JobCluster::start(spec.set("execution.checkpointing.data-inline-threshold", "0 b"))?;
    let late = Duration::from_millis(300);
    let silent = [StoreFault::LosesAnswers, StoreFault::ActsLate(late)];
    for fault in [StoreFault::Refuses, StoreFault::ReadOnly, StoreFault::Slow(late)].into_iter().chain(silent) {
        words.write_many(10, 1);
        wait_for_count(&mut cluster, words.written)?;
        let before = cluster.wait_for_new_checkpoint()?.checkpoints.counts.completed;
        proxy.set(fault);
        let awaited = format!("requests that go wrong: {fault:?}");
        cluster.wait_for(&awaited, PATIENCE, |_| {
            let struck = proxy.struck();
            ((struck >= 3).then_some(()), format!("{struck} requests"))
        })?;
        words.write_many(10, 1);
        wait_for_count(&mut cluster, words.written)?;
        if let StoreFault::Slow(time) = fault {
            let state = cluster.wait_until("checkpoint that was slow", |state| {
                state.completed().is_some_and(|newest| u128::from(newest.end_to_end_duration) >= time.as_millis())
            })?;
            assert!(state.checkpoints.counts.completed > before, "{state}");
        }
        proxy.set(StoreFault::None);
        let state = cluster.wait_for_new_checkpoint()?;
        assert_eq!((state.job.restarts, state.job.state), (0, JobStatus::Running), "{fault:?}: {state}");
    }
    another_goes_on(cluster, &mut words)
}

/// The files below a directory.
pub fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_job_that_ends_with_state_too_large_for_its_backend_fails_and_says_what_to_do() -> Result<()> {
    let spec = ClusterSpec::new(program("keyed_count")?)
        .args(["--records", "2000", "--keys", "1000", "--checkpoint-interval", "100ms", "--state-backend", "memory"])
        .set("state.backend.memory.max-state-size", "1kb");
    let mut cluster = JobCluster::start(spec)?;
    let error = failed(&mut cluster)?;
    assert_says(&error, &["\"count\"", "1024 bytes", "state.backend.memory.max-state-size", "a restart can't cure it"]);
    assert_calm(&cluster);
    Ok(())
}
