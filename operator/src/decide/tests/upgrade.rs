//! Changed specs: stop all, then start all; with the state, or without.

use super::*;

fn image(spec: &mut StreamJobSpec) {
    spec.image = "jobs:2".to_owned();
}

fn stateless(spec: &mut StreamJobSpec) {
    image(spec);
    spec.upgrade_mode = UpgradeMode::Stateless;
}

#[test]
fn an_upgrade_stops_all_then_records_then_starts_all() {
    let facts = running().wanting(image);
    let decision = decide(&facts, now());
    assert_eq!((decision.step, decision.situation), (Step::Stop(both()), Situation::Upgrading));
    let facts = facts.leaving();
    assert_eq!(step(&facts), Step::Wait);
    let mut pods_left = facts.clone();
    (pods_left.job_manager, pods_left.task_manager) = (None, None);
    assert_eq!(step(&pods_left), Step::Wait, "as long as a pod is left");
    let facts = facts.without_sets();
    let record = record_of(step(&facts));
    assert_eq!((record.deployment.number, record.job_id), (2, "a".repeat(32)));
    assert_eq!(record.deployment.spec.image, "jobs:2");
    let facts = recording(facts);
    assert_eq!(step(&facts), Step::Apply(both()));
}

#[test]
fn restarts_are_carried_into_the_next_deployment() {
    let mut facts = running().wanting(image).without_sets();
    facts.job.status.as_mut().unwrap().restarts = 7;
    assert_eq!(record_of(step(&facts)).deployment.restarts_before, 7);
}

#[test]
fn a_job_that_is_failing_or_has_never_run_is_upgraded_the_same_way() {
    let crashing = starting().troubled(Component::JobManager, "CrashLoopBackOff", "exit code 1");
    let no_image = starting().troubled(Component::JobManager, "ImagePullBackOff", "no such image");
    let restarting = running().saying(JobStatus::Restarting).in_phase(Phase::Restarting);
    let silent = {
        let mut facts = running();
        facts.engine = Engine::Unreachable("no answer within 2 s".to_owned());
        facts
    };
    for facts in [crashing, no_image, restarting, silent] {
        let facts = facts.wanting(image);
        assert_eq!(step(&facts), Step::Stop(both()));
        let record = record_of(step(&facts.without_sets()));
        assert_eq!((record.deployment.number, record.job_id), (2, "a".repeat(32)), "the same job goes on");
    }
}

#[test]
fn a_failed_job_goes_on_with_a_changed_spec_from_its_checkpoint() {
    let failed = running().saying(JobStatus::Failed).in_phase(Phase::Failed);
    for change in [image as fn(&mut StreamJobSpec), |spec| spec.restart_nonce = Some(1)] {
        let facts = failed.clone().wanting(change);
        assert_eq!(step(&facts), Step::Stop(both()));
        let record = record_of(step(&facts.without_sets()));
        assert_eq!((record.deployment.number, record.job_id), (2, "a".repeat(32)));
    }
}

#[test]
fn a_finished_job_starts_anew_with_a_changed_spec() {
    let facts = running().saying(JobStatus::Finished).in_phase(Phase::Finished).wanting(image);
    // What is left of the old one goes first: nobody will ask for it again.
    assert_eq!(record_of(step(&facts)).deployment.discarded_at, Some(Time(now())));
    let mut facts = recording(facts);
    assert_eq!(step(&facts), Step::Discard);
    facts.discard_asked = true;
    let facts = facts.saying(JobStatus::Canceled);
    assert_eq!(step(&facts), Step::Stop(both()));
    let record = record_of(step(&facts.without_sets()));
    assert_eq!((record.deployment.number, record.job_id), (2, "f".repeat(32)));
}

#[test]
fn a_job_that_ends_while_its_spec_changes_has_ended_first() {
    let facts = running().saying(JobStatus::Finished).wanting(image);
    let decision = decide(&facts, now());
    assert_eq!((decision.step, decision.situation), (Step::Wait, Situation::Deployed));
    let facts = recording(facts.in_phase(Phase::Finished).without_sets());
    assert_eq!(record_of(step(&facts)).job_id, "f".repeat(32));
}

#[test]
fn replicas_without_a_parallelism_are_an_upgrade_and_with_one_only_more_pods() {
    let more = |spec: &mut StreamJobSpec| spec.task_manager.replicas = 3;
    assert_eq!(step(&running().wanting(more)), Step::Stop(both()));

    let fixed = |spec: &mut StreamJobSpec| spec.parallelism = Some(2);
    let mut facts = running().wanting(fixed);
    facts.deployed_mut().spec = facts.job.spec.clone();
    facts.deployed_mut().hash = deployment_hash(&facts.job.spec);
    assert_eq!(step(&facts), Step::Apply(both()));
    let facts = facts.wanting(more);
    let record = record_of(step(&facts));
    assert_eq!((record.deployment.number, record.deployment.spec.task_manager.replicas), (1, 3));
    assert_eq!(step(&recording(facts)), Step::Apply(both()));
}

#[test]
fn changes_that_need_no_restart_cause_none() {
    let changes: [fn(&mut StreamJobSpec); 3] = [
        |spec| spec.checkpointing.retained = Some(5),
        |spec| spec.checkpointing.retain_on_cancellation = Some(true),
        |spec| spec.upgrade_mode = UpgradeMode::Stateless,
    ];
    for change in changes {
        let facts = running().wanting(change);
        let record = record_of(step(&facts));
        assert_eq!(record.deployment.number, 1);
        let facts = recording(facts);
        assert_eq!(step(&facts), Step::Apply(both()));
    }
    let mut labelled = running();
    labelled.job.metadata.labels = Some([("team".to_owned(), "x".to_owned())].into());
    assert_eq!(step(&labelled), Step::Apply(both()));
}

#[test]
fn an_invalid_spec_never_touches_the_running_job() {
    let facts = running().wanting(image).invalid("configuration key job.id is the operator's");
    let decision = decide(&facts, now());
    assert_eq!((decision.step, decision.situation), (Step::Apply(both()), Situation::Deployed));
    let suspended = suspended().wanting(|spec| spec.state = JobState::Running).invalid("wrong");
    assert_eq!(decide(&suspended, now()).situation, Situation::Suspended, "nor does it resume a suspended one");
}

#[test]
fn suspending_is_recorded_then_stops_all() {
    let facts = running().wanting(|spec| spec.state = JobState::Suspended);
    let record = record_of(step(&facts));
    assert!(record.deployment.spec.is_suspended());
    let facts = recording(facts);
    let decision = decide(&facts, now());
    assert_eq!((decision.step, decision.situation), (Step::Stop(both()), Situation::Suspending));
    let decision = decide(&facts.without_sets(), now());
    assert_eq!((decision.step, decision.situation), (Step::Wait, Situation::Suspended));
}

#[test]
fn a_job_that_is_being_deployed_can_be_suspended() {
    let facts = starting().wanting(|spec| spec.state = JobState::Suspended);
    assert_eq!(step(&recording(facts)), Step::Stop(both()));
    // Also before anything of it stands.
    let facts = recorded().wanting(|spec| spec.state = JobState::Suspended);
    assert_eq!(decide(&recording(facts), now()).situation, Situation::Suspended);
}

#[test]
fn resuming_is_a_deployment_of_the_same_job_also_with_another_spec() {
    for change in [(|_| {}) as fn(&mut StreamJobSpec), image] {
        let facts = suspended().wanting(|spec| spec.state = JobState::Running).wanting(change);
        let record = record_of(step(&facts));
        assert_eq!((record.deployment.number, record.job_id), (2, "a".repeat(32)));
        assert_eq!(step(&recording(facts)), Step::Apply(both()));
    }
}

#[test]
fn resuming_in_the_midst_of_suspending_waits_until_all_is_stopped() {
    let facts = running().wanting(|spec| spec.state = JobState::Suspended);
    let facts = recording(facts).leaving().wanting(|spec| spec.state = JobState::Running);
    assert_eq!(step(&facts), Step::Wait);
    assert_eq!(record_of(step(&facts.without_sets())).deployment.number, 2);
}

#[test]
fn a_finished_job_stays_finished_when_it_is_suspended_and_resumed() {
    let finished = running().in_phase(Phase::Finished).without_sets();
    let facts = finished.wanting(|spec| spec.state = JobState::Suspended);
    assert_eq!(decide(&facts, now()).situation, Situation::Ended);
    let facts = facts.wanting(|spec| spec.state = JobState::Running);
    assert_eq!(decide(&facts, now()).situation, Situation::Ended);
}

#[test]
fn an_upgrade_without_state_deletes_the_old_jobs_checkpoints_and_starts_another_job() {
    let facts = running().wanting(stateless);
    let record = record_of(step(&facts));
    assert_eq!(record.deployment.discarded_at, Some(Time(now())));
    assert_eq!((record.deployment.number, record.job_id.as_str()), (1, "a".repeat(32).as_str()));
    let mut facts = recording(facts);
    assert_eq!(step(&facts), Step::Discard);
    facts.discard_asked = true;
    for state in [JobStatus::Running, JobStatus::Cancelling] {
        assert_eq!(step(&facts.clone().saying(state)), Step::Wait);
    }
    let facts = facts.saying(JobStatus::Canceled);
    let decision = decide(&facts, now());
    assert_eq!((decision.step, decision.left_behind), (Step::Stop(both()), None));
    let record = record_of(step(&facts.without_sets()));
    assert_eq!((record.deployment.number, record.job_id), (2, "f".repeat(32)));
    assert_eq!((record.deployment.discarded_at, record.deployment.restarts_before), (None, 0));
}

#[test]
fn what_an_upgrade_without_state_cannot_delete_is_named_and_does_not_hold_it_up() {
    let mut left = recording(running().wanting(stateless)).saying(JobStatus::Canceled);
    left.discard_asked = true;
    left.engine_mut().left_behind = Some("s3://bucket/jobs/a: denied".to_owned());
    let decision = decide(&left, now());
    assert_eq!(decision.step, Step::Stop(both()));
    assert_eq!(decision.left_behind.as_deref(), Some("s3://bucket/jobs/a: denied"));

    let mut late = recording(running().wanting(stateless));
    late.deployed_mut().discarded_at = Some(Time(ago(30)));
    late.discard_asked = true;
    let decision = decide(&late, now());
    assert_eq!(decision.step, Step::Stop(both()));
    let path = format!("s3://bucket/jobs/{}: ", "a".repeat(32));
    assert!(decision.left_behind.unwrap().starts_with(&path));

    let crashing = starting().troubled(Component::JobManager, "CrashLoopBackOff", "exit code 1");
    let crashing = recording(crashing.wanting(stateless));
    let decision = decide(&crashing, now());
    assert_eq!(decision.step, Step::Stop(both()), "a jobmanager that does not run is not waited for");
    assert!(decision.left_behind.is_some());
}

#[test]
fn a_job_that_was_given_up_never_runs_again_even_if_its_spec_comes_back() {
    let facts = recording(running().wanting(stateless)).wanting(|spec| *spec = crate::fixture::spec());
    let record = record_of(step(&facts.without_sets()));
    assert_eq!((record.deployment.number, record.job_id), (2, "f".repeat(32)));
}

#[test]
fn kept_checkpoints_are_not_deleted_by_an_upgrade_without_state() {
    let mut facts = running();
    facts.deployed_mut().spec.checkpointing.retain_on_cancellation = Some(true);
    let facts = facts.wanting(stateless);
    assert_eq!(step(&facts), Step::Stop(both()));
    assert_eq!(record_of(step(&facts.without_sets())).job_id, "f".repeat(32));
}
