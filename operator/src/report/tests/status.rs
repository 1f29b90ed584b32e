use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use millrace_api::UpgradeMode;
use millrace_core::rest::{CheckpointStatistics, CheckpointStatus, JobStatus, RecoveryDetails, RecoveryPhase};

use super::*;
use crate::{build::Component, observe::Engine};

fn phase_of(facts: Facts) -> Phase {
    told(&facts).phase.unwrap()
}

#[test]
fn the_phase_follows_the_engine_the_pods_and_what_was_before() {
    let unreachable = |mut facts: Facts| {
        facts.engine = Engine::Unreachable("no answer within 2 s".to_owned());
        facts
    };
    let cases = [
        (created().invalid("wrong"), Phase::Created),
        (recorded(), Phase::Deploying),
        (starting(), Phase::Deploying),
        (starting().saying(JobStatus::Created), Phase::Deploying),
        (starting().saying(JobStatus::Running), Phase::Running),
        (running(), Phase::Running),
        (running().saying(JobStatus::Restarting), Phase::Restarting),
        (running().saying(JobStatus::Restarting).in_phase(Phase::Restarting), Phase::Restarting),
        (running().in_phase(Phase::Restarting), Phase::Running),
        // The jobmanager's pod is gone.
        (running().troubled(Component::JobManager, "ContainerFailed", "killed"), Phase::Restarting),
        (unreachable(running()), Phase::Running),
        (unreachable(starting()), Phase::Deploying),
        (running().saying(JobStatus::Finished), Phase::Finished),
        (running().saying(JobStatus::Canceled), Phase::Finished),
        (running().saying(JobStatus::Failed), Phase::Failed),
        // An end stays the end, whatever a jobmanager that was kept for its logs does.
        (running().saying(JobStatus::Created).in_phase(Phase::Failed), Phase::Failed),
        (running().without_sets().in_phase(Phase::Finished), Phase::Finished),
        (running().wanting(|spec| spec.image = "jobs:2".to_owned()), Phase::Deploying),
        // What an upgrade starts from depends on the end, so it is not forgotten on the way.
        (running().in_phase(Phase::Finished).wanting(|spec| spec.image = "jobs:2".to_owned()), Phase::Finished),
        (suspended(), Phase::Suspended),
        (running().deleted(1), Phase::Deleting),
    ];
    for (index, (facts, phase)) in cases.into_iter().enumerate() {
        assert_eq!(phase_of(facts), phase, "case {index}");
    }
}

#[test]
fn the_time_of_a_phase_begins_with_it() {
    let deploying = written(starting());
    assert_eq!(deploying.status().phase_since, Some(Time(now())));
    let later = ago(-60);
    let still = status(&deploying, &decide(&deploying, later), later);
    assert_eq!(still.phase_since, Some(Time(now())));
    let running = deploying.saying(JobStatus::Running);
    let moved = status(&running, &decide(&running, later), later);
    assert_eq!((moved.phase, moved.phase_since), (Some(Phase::Running), Some(Time(later))));
}

#[test]
fn a_status_that_was_written_is_not_written_again_while_nothing_happens() {
    for facts in [created(), recorded(), starting(), running(), suspended(), running().deleted(1)] {
        let facts = written(written(facts));
        assert_eq!(told(&facts), facts.status());
    }
}

#[test]
fn pods_and_slots_are_counted() {
    let mut facts = running();
    facts.pods[2].ready = false;
    let status = told(&facts);
    assert_eq!(status.task_managers_ready.as_deref(), Some("1/2"));
    assert_eq!((status.replicas, status.parallelism), (Some(2), Some(2)));
    assert_eq!(status.slots.unwrap().total, 2);
    assert_eq!(status.selector.as_deref(), Some("app.kubernetes.io/component=taskmanager,millrace.dev/job=orders"));
    assert_eq!(told(&suspended()).task_managers_ready.as_deref(), Some("0/0"));
}

#[test]
fn a_record_of_another_job_has_no_past_and_one_of_the_same_keeps_it() {
    let mut facts = running().wanting(|spec| spec.image = "jobs:2".to_owned()).without_sets();
    facts.job.status.as_mut().unwrap().restarts = 3;
    let same = told(&facts);
    assert_eq!((same.restarts, same.generation, same.phase), (3, None, Some(Phase::Deploying)));
    assert_eq!(same.start_time, facts.status().start_time);
    let other = told(&facts.wanting(|spec| spec.upgrade_mode = UpgradeMode::Stateless));
    // It is given up first.
    assert!(other.deployment.as_ref().unwrap().discarded_at.is_some());
    let mut facts = running().without_sets();
    facts.job.status = Some(other);
    let facts = facts.wanting(|spec| spec.image = "jobs:2".to_owned());
    let fresh = told(&facts);
    assert_eq!(fresh.job_id.as_deref(), Some("f".repeat(32).as_str()));
    assert_eq!((fresh.restarts, fresh.start_time, fresh.checkpoints), (0, None, None));
}

#[test]
fn restarts_add_up_over_jobmanagers() {
    let mut facts = written(running());
    facts.engine_mut().restarts = 2;
    facts.engine_mut().failure = Some("taskmanager orders-taskmanager-1 closed its connection".to_owned());
    let facts = written(facts);
    assert_eq!((facts.status().restarts, facts.status().generation), (2, Some(1)));
    let reason = facts.status().last_restart_reason;
    assert_eq!(reason.as_deref(), Some("taskmanager orders-taskmanager-1 closed its connection"));

    // One that is starting has no generation yet: it changes nothing.
    let mut facts = facts.saying(JobStatus::Initializing);
    facts.engine_mut().generation = 0;
    let mut facts = written(facts).saying(JobStatus::Running);
    assert_eq!((facts.status().restarts, facts.status().generation), (2, Some(1)));

    facts.engine_mut().generation = 2;
    facts.engine_mut().last_recovery =
        Some(RecoveryDetails { cause: "the jobmanager was started again".to_owned(), ..RecoveryDetails::default() });
    let mut facts = written(facts);
    assert_eq!((facts.status().restarts, facts.status().generation), (3, Some(2)));
    assert_eq!(facts.status().last_restart_reason.as_deref(), Some("the jobmanager was started again"));
    facts.engine_mut().restarts = 1;
    let facts = written(facts);
    assert_eq!(facts.status().restarts, 4);

    // The operator starts it again with another spec: no failure.
    let facts = written(facts.wanting(|spec| spec.image = "jobs:2".to_owned()).without_sets());
    let facts = facts.with_set(Component::JobManager).with_set(Component::TaskManager).with_pods(true);
    let mut facts = facts.saying(JobStatus::Running);
    facts.engine_mut().generation = 3;
    let facts = written(facts);
    assert_eq!((facts.status().restarts, facts.status().generation), (4, Some(3)));
}

#[test]
fn a_jobmanager_of_an_older_generation_is_not_believed() {
    let mut facts = running();
    facts.job.status.as_mut().unwrap().generation = Some(5);
    facts.engine_mut().generation = 4;
    facts.engine_mut().restarts = 99;
    let status = told(&facts);
    assert_eq!((status.generation, status.restarts), (Some(5), 0));
    assert_eq!(status.phase, Some(Phase::Restarting));
}

fn checkpoint(id: u64) -> CheckpointStatistics {
    CheckpointStatistics {
        id,
        status: CheckpointStatus::Completed,
        is_savepoint: false,
        trigger_timestamp: 950_000_100,
        latest_ack_timestamp: 950_000_900,
        checkpointed_size: 10,
        state_size: 77,
        end_to_end_duration: 2_000,
        processed_data: 0,
        persisted_data: 0,
        num_subtasks: 2,
        num_acknowledged_subtasks: 2,
        external_path: Some(format!("s3://bucket/jobs/a/chk-{id}")),
        discarded: None,
        failure_timestamp: None,
        failure_message: None,
    }
}

#[test]
fn checkpoints_and_recoveries_are_shown_as_the_engine_has_them() {
    let mut facts = running();
    let job = facts.engine_mut();
    (job.completed, job.failed, job.latest) = (12, 1, Some(checkpoint(12)));
    job.checkpoint_failure = Some("timed out".to_owned());
    job.last_recovery = Some(RecoveryDetails {
        timestamp: 940_000_000,
        duration: 1_234,
        phases: vec![RecoveryPhase { name: "restore".to_owned(), duration: 1_000 }],
        restored_checkpoint: Some(11),
        cause: "killed".to_owned(),
        taskmanager: None,
        ..RecoveryDetails::default()
    });
    let facts = written(facts);
    let checkpoints = facts.status().checkpoints.unwrap();
    assert_eq!((checkpoints.completed, checkpoints.failed), (12, 1));
    assert_eq!(checkpoints.last_failure.as_deref(), Some("timed out"));
    let latest = checkpoints.latest.unwrap();
    assert_eq!((latest.id, latest.size_bytes, latest.duration_ms), (12, 77, 2_000));
    assert_eq!(latest.path.as_deref(), Some("s3://bucket/jobs/a/chk-12"));
    assert_eq!(latest.completed_at, Time(Timestamp::from_second(950_002).unwrap()));
    let recovery = facts.status().last_recovery.unwrap();
    assert_eq!((recovery.duration_ms, recovery.restored_checkpoint), (Some(1_234), Some(11)));
    assert_eq!((recovery.phases[0].name.as_str(), recovery.phases[0].duration_ms), ("restore", 1_000));

    // A jobmanager that has no checkpoint of its own yet does not hide the one that is there.
    let status = told(&facts.saying(JobStatus::Running));
    assert_eq!(status.checkpoints.unwrap().latest.unwrap().id, 12);
    assert!(status.last_recovery.is_some());
}

#[test]
fn texts_from_outside_are_cut_to_what_the_api_takes() {
    let mut facts = running();
    facts.engine_mut().checkpoint_failure = Some("x".repeat(10_000));
    facts.engine_mut().failed = 1;
    let status = told(&facts);
    assert!(status.checkpoints.as_ref().unwrap().last_failure.as_ref().unwrap().len() <= 4096);
    assert!(condition(&status, "Checkpointing").2.len() <= 4096);
}
