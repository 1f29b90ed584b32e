//! The adaptive scheduler: a job with too few slots goes on with those that there are, and with all when they come.

use millrace_core::rest::JobStatus;
use millrace_testkit::cluster::{JobCluster, JobState, Result};

use crate::recovery::{Counting, recovered, wait_for_all};

/// How many subtasks each vertex has, where all have the same and all run.
fn parallelism(state: &JobState) -> Option<u32> {
    let first = state.job.vertices.first()?;
    let same = state.job.vertices.iter().all(|vertex| {
        let tasks: u32 = vertex.tasks.values().sum();
        (vertex.parallelism, tasks) == (first.parallelism, first.parallelism)
    });
    (same && state.is_running()).then_some(first.parallelism)
}

#[test]
fn without_a_spare_slot_a_job_goes_on_with_fewer_and_takes_more_when_they_come() -> Result<()> {
    let counting = Counting::new("adaptive")?;
    let spec = counting
        .job()?
        .taskmanagers(2)
        .set("jobmanager.scheduler", "adaptive")
        .set("jobmanager.adaptive-scheduler.submission.resource-stabilization-timeout", "500 ms")
        .set("jobmanager.adaptive-scheduler.executing.cooldown-after-rescaling", "1 s");
    let mut cluster = JobCluster::start(spec)?;
    let feed = counting.feed(23);
    cluster.wait_until("two subtasks", |state| parallelism(state) == Some(2))?;
    for round in 0..2 {
        let before = cluster.wait_for_new_checkpoint()?;
        let newest = before.completed().map(|checkpoint| checkpoint.id);
        let victim = cluster.busy_taskmanagers(&before)[0];
        cluster.kill_taskmanager(victim)?;
        let state = cluster.wait_until("one subtask", |state| parallelism(state) == Some(1))?;
        assert_eq!(state.taskmanagers.len(), 1, "the one that was killed is gone: {state}");
        assert!(state.recovered_from() >= newest && newest.is_some(), "{state}");
        assert_eq!(state.job.restarts, before.job.restarts + 1, "{state}");
        // It works: what it counts now goes into a checkpoint of its own.
        cluster.wait_for_new_checkpoint()?;
        if round == 1 {
            // And with no slot at all it waits for one.
            let last = cluster.busy_taskmanagers(&cluster.state()?)[0];
            cluster.kill_taskmanager(last)?;
            cluster.wait_until("job that waits", |state| state.job.waiting_for.is_some())?;
            cluster.start_taskmanager()?;
            cluster.wait_until("one subtask", |state| parallelism(state) == Some(1))?;
        }
        cluster.start_taskmanager()?;
        let state = cluster.wait_until("two subtasks", |state| {
            let more = recovered(state).is_some_and(|recovery| recovery.cause.contains("more slots"));
            parallelism(state) == Some(2) && more
        })?;
        let recovery = recovered(&state).expect("it was waited for");
        assert_eq!(recovery.replayed_records, 0, "nothing is read twice for it: {recovery:?}");
    }
    wait_for_all(&mut cluster, &feed.finish())?;
    Ok(())
}

#[test]
fn a_job_that_waits_for_a_first_slot_for_too_long_fails_and_says_so() -> Result<()> {
    let wait = "jobmanager.adaptive-scheduler.submission.resource-wait-timeout";
    let counting = Counting::new("resource-wait")?;
    let spec = counting.job()?.taskmanagers(1).set("jobmanager.scheduler", "adaptive").set(wait, "3 s");
    // Where one is there in time, the job runs on it, though it wants two.
    let mut cluster = JobCluster::start(spec.clone())?;
    cluster.wait_until("one subtask", |state| parallelism(state) == Some(1))?;
    cluster.cancel()?;
    cluster.wait_end()?;
    let end = JobCluster::start(spec.taskmanagers(0))?.wait_end()?;
    assert_eq!(end.state, JobStatus::Failed, "{end:?}");
    let error = end.error.unwrap_or_default();
    assert!(error.contains("no taskmanager has offered a slot for 3s") && error.contains(wait), "{error}");
    Ok(())
}
