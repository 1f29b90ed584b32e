use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use millrace_core::rest::JobStatus;

use super::*;
use crate::{build::Component, observe::Engine};

#[test]
fn ready_says_what_the_job_does_or_what_is_in_its_way() {
    let waiting = {
        let mut facts = starting().saying(JobStatus::Created);
        facts.engine_mut().waiting_for = Some("2 more slots".to_owned());
        facts
    };
    let failing = {
        let mut facts = running().saying(JobStatus::Restarting);
        facts.engine_mut().failure = Some("attempt to divide by zero".to_owned());
        facts
    };
    let failed = {
        let mut facts = running().saying(JobStatus::Failed);
        facts.engine_mut().failure = Some("attempt to divide by zero".to_owned());
        facts
    };
    let refused = {
        let mut facts = starting();
        facts.refused = Some("apply statefulset orders-jobmanager: exceeded quota".to_owned());
        facts
    };
    let silent = {
        let mut facts = running();
        facts.engine = Engine::Unreachable("no answer within 2 s".to_owned());
        facts
    };
    let crashing = starting().troubled(Component::JobManager, "CrashLoopBackOff", "bucket b does not exist");
    let no_image = starting().troubled(Component::TaskManager, "ErrImagePull", "no such image");
    let no_pod = "waits for the jobmanager's pod; if it does not come, kubectl describe statefulset orders-jobmanager \
                  tells why";
    let crash = "pod orders-jobmanager-0: bucket b does not exist";
    let cases = [
        (running(), ("True", "Running", "all tasks run")),
        (starting(), ("False", "Deploying", "waits for the jobmanager's pod to start")),
        (recorded(), ("False", "Deploying", no_pod)),
        (waiting, ("False", "Deploying", "waits for 2 more slots")),
        (failing, ("False", "Restarting", "the last failure: attempt to divide by zero")),
        (failed, ("False", "Failed", "attempt to divide by zero")),
        (refused, ("False", "ApplyFailed", "apply statefulset orders-jobmanager: exceeded quota")),
        (silent, ("Unknown", "JobManagerUnreachable", "the jobmanager does not answer: no answer within 2 s")),
        (crashing, ("False", "CrashLoopBackOff", crash)),
        (no_image, ("False", "ErrImagePull", "pod orders-taskmanager-0: no such image")),
        (created().invalid("x is unknown"), ("False", "SpecInvalid", "x is unknown")),
        (suspended(), ("False", "Suspended", "the job is stopped; its checkpoints are kept")),
        (running().saying(JobStatus::Finished), ("False", "Finished", "the job has read all its input")),
        (running().saying(JobStatus::Canceled), ("False", "Canceled", "the job was cancelled at its jobmanager")),
        (running().deleted(1), ("False", "Deleting", "the job is being deleted")),
    ];
    for (facts, expected) in cases {
        assert_eq!(ready(&told(&facts)), expected);
    }
}

#[test]
fn what_a_failed_job_said_is_kept_when_its_jobmanager_is_gone() {
    let mut failed = running().saying(JobStatus::Failed);
    failed.engine_mut().failure = Some("attempt to divide by zero".to_owned());
    let gone = written(failed).without_sets();
    assert_eq!(ready(&told(&gone)), ("False", "Failed", "attempt to divide by zero"));
    let canceled = written(running().saying(JobStatus::Canceled)).without_sets();
    assert_eq!(ready(&told(&canceled)).1, "Canceled");
}

#[test]
fn a_running_job_says_also_that_its_newest_spec_is_invalid() {
    let status = told(&running().wanting(|spec| spec.image = String::new()).invalid("image is empty"));
    assert_eq!(ready(&status).0, "True");
    assert_eq!(condition(&status, "Valid"), ("False", "SpecInvalid", "image is empty"));
    assert_eq!(status.observed_generation, Some(2));
}

#[test]
fn the_jobmanager_is_ready_when_it_answers() {
    assert_eq!(condition(&told(&running()), "JobManagerReady").0, "True");
    let crashing = starting().troubled(Component::JobManager, "CrashLoopBackOff", "exit code 1");
    let said = condition(&told(&crashing), "JobManagerReady").1.to_owned();
    assert_eq!(said, "CrashLoopBackOff");
    assert_eq!(condition(&told(&suspended()), "JobManagerReady").1, "Stopped");
}

#[test]
fn checkpointing_is_true_from_the_first_and_false_from_a_failed_to_the_next_completed_one() {
    let facts = written(running());
    let verdict = |facts: &Facts| condition(&facts.status(), "Checkpointing").0.to_owned();
    assert_eq!(verdict(&facts), "Unknown");
    let mut facts = facts;
    facts.engine_mut().latest = Some(latest(1));
    let mut facts = written(facts);
    assert_eq!(verdict(&facts), "True");
    facts.engine_mut().failed = 1;
    facts.engine_mut().checkpoint_failure = Some("timed out".to_owned());
    let mut facts = written(facts);
    assert_eq!(condition(&facts.status(), "Checkpointing"), ("False", "CheckpointFailed", "timed out"));
    facts = written(facts);
    assert_eq!(verdict(&facts), "False", "until one is completed");
    facts.engine_mut().latest = Some(latest(3));
    assert_eq!(verdict(&written(facts)), "True");
}

fn latest(id: u64) -> millrace_core::rest::CheckpointStatistics {
    serde_json::from_value(serde_json::json!({
        "id": id, "status": "COMPLETED", "is_savepoint": false, "trigger_timestamp": 1000, "latest_ack_timestamp": 1,
        "checkpointed_size": 1, "state_size": 1, "end_to_end_duration": 1, "num_subtasks": 1,
        "num_acknowledged_subtasks": 1,
    }))
    .unwrap()
}

#[test]
fn a_condition_keeps_the_time_of_its_last_transition() {
    let mut facts = running();
    facts.job.status = Some(told(&facts));
    for condition in &mut facts.job.status.as_mut().unwrap().conditions {
        condition.last_transition_time = Time(ago(50));
    }
    let time = |status: &StreamJobStatus| status.conditions[0].last_transition_time.clone();
    assert_eq!(time(&told(&facts)), Time(ago(50)));
    assert_eq!(time(&told(&facts.saying(JobStatus::Restarting))), Time(now()));
}

#[test]
fn a_reason_is_a_word_whatever_a_container_runtime_calls_it() {
    let facts = starting().troubled(Component::JobManager, "failed: no such file", "exec");
    assert_eq!(ready(&told(&facts)).1, "failednosuchfile");
}
