//! From a first deployment to an end, with what goes wrong between.

use super::*;

#[test]
fn a_first_deployment_has_its_finalizer_then_its_id_before_its_pods() {
    let facts = created();
    assert_eq!(step(&facts), Step::AddFinalizer);
    let mut facts = facts;
    facts.job.metadata.finalizers = Some(vec![crate::observe::FINALIZER.to_owned()]);
    let record = record_of(step(&facts));
    assert_eq!(record.job_id, "f".repeat(32));
    assert_eq!((record.deployment.number, record.deployment.hash.as_str()), (1, deployment_hash(&spec()).as_str()));
    assert_eq!(record.deployment.spec, spec());
    let facts = recording(facts);
    assert_eq!(step(&facts), Step::Apply(both()));
}

#[test]
fn a_spec_that_is_invalid_from_the_start_touches_nothing() {
    let facts = created().invalid("podTemplate.spec.container is unknown");
    let decision = decide(&facts, now());
    assert_eq!((decision.step, decision.situation), (Step::Wait, Situation::NotDeployed));
}

#[test]
fn a_job_that_starts_suspended_is_not_deployed_before_it_is_resumed() {
    let facts = created().wanting(|spec| spec.state = JobState::Suspended);
    let decision = decide(&facts, now());
    assert_eq!((decision.step, decision.situation), (Step::Wait, Situation::Suspended));
    let facts = facts.wanting(|spec| spec.state = JobState::Running);
    assert_eq!(step(&facts), Step::AddFinalizer);
}

#[test]
fn a_running_job_is_looked_at_at_the_poll_interval_and_one_that_moves_more_often() {
    let pace = |facts: Facts| decide(&facts, now()).pace;
    assert_eq!(pace(running()), Pace::Steady);
    assert_eq!(pace(running().saying(JobStatus::Restarting)), Pace::Fast);
    assert_eq!(pace(starting()), Pace::Idle, "pods are watched");
    let mut unreachable = running();
    unreachable.engine = Engine::Unreachable("connection refused".to_owned());
    assert_eq!(pace(unreachable), Pace::Fast);
}

#[test]
fn an_end_is_written_down_before_its_pods_are_deleted() {
    for state in [JobStatus::Finished, JobStatus::Failed, JobStatus::Canceled] {
        let decision = decide(&running().saying(state), now());
        assert_eq!((decision.step, decision.situation), (Step::Wait, Situation::Deployed), "{state}");
    }
}

#[test]
fn a_job_that_has_ended_keeps_its_jobmanager_which_tells_how() {
    for (state, phase) in [(JobStatus::Failed, Phase::Failed), (JobStatus::Finished, Phase::Finished)] {
        let mut ended = running().saying(state).in_phase(phase);
        assert_eq!(step(&ended), Step::Stop(vec![Component::TaskManager]));
        ended.task_manager = None;
        let decision = decide(&ended, now());
        assert_eq!((decision.step, decision.situation), (Step::Wait, Situation::Ended));
    }
}

#[test]
fn a_failed_job_stays_so_whatever_its_jobmanager_says_when_it_starts_again() {
    let mut failed = running().saying(JobStatus::Created).in_phase(Phase::Failed);
    failed.task_manager = None;
    assert_eq!(step(&failed), Step::Wait);
}

#[test]
fn what_somebody_deleted_comes_back() {
    let mut facts = running();
    facts.task_manager = None;
    facts.pods.retain(|pod| pod.component == Component::JobManager);
    assert_eq!(step(&facts), Step::Apply(both()));
}

#[test]
fn nothing_takes_the_place_of_what_is_still_on_its_way_out() {
    // Somebody deletes a set with its pods, in the foreground or in the background.
    let mut foreground = running();
    foreground.task_manager.as_mut().unwrap().deleting = true;
    assert_eq!(step(&foreground), Step::Wait);
    let mut background = running();
    background.task_manager = None;
    background.pods[1].deleted_until = Some(ago(-20));
    assert_eq!(step(&background), Step::Wait);
}

#[test]
fn pods_of_a_set_that_is_gone_are_waited_for() {
    // Kubernetes deletes them too, a moment later.
    let mut facts = running();
    facts.task_manager = None;
    assert_eq!(step(&facts), Step::Wait);
}

#[test]
fn what_a_job_that_had_the_name_before_has_left_is_stopped_first() {
    let mut facts = recorded().with_set(Component::JobManager).with_set(Component::TaskManager);
    facts.job_manager.as_mut().unwrap().foreign = true;
    assert_eq!(step(&facts), Step::Stop(vec![Component::JobManager]));
    facts.job_manager.as_mut().unwrap().deleting = true;
    assert_eq!(step(&facts), Step::Wait);
}

#[test]
fn a_pod_that_does_not_end_is_deleted_by_force_10_s_after_its_deadline() {
    let mut facts = running();
    facts.pods[2].deleted_until = Some(ago(9));
    let decision = decide(&facts, now());
    assert_eq!(decision.step, Step::Apply(both()));
    facts.pods[2].deleted_until = Some(ago(10));
    assert_eq!(step(&facts), Step::ForceDelete(vec!["orders-taskmanager-1".to_owned()]));
}

#[test]
fn the_time_at_which_a_pod_counts_as_stuck_is_looked_at() {
    let mut facts = running().wanting(|spec| spec.image = "jobs:2".to_owned()).leaving();
    facts.pods[1].deleted_until = Some(ago(-25));
    let decision = decide(&facts, now());
    assert_eq!((decision.step, decision.pace), (Step::Wait, Pace::After(Duration::from_secs(35))));
    facts.pods[1].deleted_until = Some(ago(11));
    assert_eq!(step(&facts), Step::ForceDelete(vec!["orders-taskmanager-0".to_owned()]));
}
