//! Functions of the user's that fail.

use millrace_core::rest::JobStatus;
use millrace_testkit::cluster::{ClusterSpec, JobCluster, Result};

use crate::{
    Words, assert_calm, assert_says, cancel, counts, failed, job_over, restarting, wait_for_count, wait_for_exception,
};

/// Two restarts, each after long enough a time for REST to be asked in between.
fn two_restarts(spec: ClusterSpec) -> ClusterSpec {
    spec.args(["--checkpoints", "100"])
        .set("restart-strategy.type", "fixed-delay")
        .set("restart-strategy.fixed-delay.attempts", "2")
        .set("restart-strategy.fixed-delay.delay", "1 s")
}

/// Runs a job whose function fails on the word `poison` each time, and sees it restart and give up.
fn fails_on_poison(flag: &str, message: &str) -> Result<JobCluster> {
    let mut words = Words::new();
    words.write(["a", "b", "poison", "c"]);
    let mut cluster = JobCluster::start(two_restarts(job_over(&words).args([flag, "poison"])))?;
    let exception = wait_for_exception(&mut cluster, message)?;
    let position = exception.position.as_deref().expect("the record's position is told");
    assert!(position.starts_with("part-0.txt@"), "{position}");
    assert_eq!((exception.exception_name.as_str(), exception.retryable), ("user", true), "{exception:?}");
    assert_says(&exception.task_name.expect("the task is told"), &["Count"]);
    let state = cluster.wait_until("restart", |state| state.job.restarts > 0)?;
    assert!(matches!(state.job.state, JobStatus::Restarting | JobStatus::Running), "{state}");

    let error = failed(&mut cluster)?;
    assert_says(&error, &[message, "Count", "all 2 restarts of fixed-delay are used up"]);
    assert_says(&cluster.jobmanager_log(), &[message, "part-0.txt@"]);
    assert_eq!(cluster.log(0).matches("registered job=").count(), 1, "the taskmanager outlived its tasks");
    Ok(cluster)
}

#[test]
fn an_error_is_shown_with_its_record_restarts_the_job_and_ends_it_after_the_last_restart() -> Result<()> {
    let cluster = fails_on_poison("--fails-on", "\"poison\" is not to my taste")?;
    assert_calm(&cluster);
    Ok(())
}

#[test]
fn a_panic_is_shown_with_its_record_restarts_the_job_and_ends_it_after_the_last_restart() -> Result<()> {
    let cluster = fails_on_poison("--panics-on", "\"poison\" frightens me")?;
    assert!(!cluster.jobmanager_log().contains("thread '"), "only the task panicked");
    Ok(())
}

#[test]
fn after_a_failure_that_passes_every_word_is_counted_once() -> Result<()> {
    let mut words = Words::new();
    let marker = words.path().join(".made-by-the-function");
    let spec = job_over(&words).args(["--fails-without".to_owned(), marker.display().to_string()]);
    let mut cluster = JobCluster::start(restarting(spec.args(["--checkpoints", "100"]), "0 ms"))?;
    cluster.wait_until_running()?;
    words.write_many(100, 1);
    let exception = wait_for_exception(&mut cluster, "was not there")?;
    assert_says(exception.position.as_deref().unwrap_or_default(), &["part-0.txt@"]);
    wait_for_count(&mut cluster, 100)?;
    let state = cluster.wait_until_running()?;
    assert_eq!(state.job.restarts, 1, "{state}");
    cancel(&mut cluster)?;
    assert_eq!(counts(&cluster.stdout(0)), (1..=100).collect::<Vec<_>>());
    assert_calm(&cluster);
    Ok(())
}
