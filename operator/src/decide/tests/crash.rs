//! An operator that is killed between any two steps, or sees the cluster as it was.

use super::*;

/// Carries a decision out on the facts, as the cluster would.
fn done(mut facts: Facts, step: Step) -> Facts {
    match step {
        Step::Wait => facts.without_sets(),
        Step::AddFinalizer => {
            facts.job.metadata.finalizers = Some(vec![crate::observe::FINALIZER.to_owned()]);
            facts
        }
        Step::Record(_) => recording(facts),
        Step::Apply(components) => {
            for component in components {
                facts = facts.with_set(component);
            }
            facts.with_pods(true).saying(JobStatus::Running).in_phase(Phase::Running)
        }
        Step::Stop(_) => facts.leaving(),
        Step::Discard => {
            facts.discard_asked = true;
            facts.saying(JobStatus::Canceled)
        }
        Step::ForceDelete(_) | Step::RemoveFinalizer => panic!("not on this way"),
    }
}

/// From anywhere on the way of an upgrade, with and without state, an operator that knows only what can be seen ends at
/// the new deployment, and never has two jobs run or one start twice.
#[test]
fn every_way_through_an_upgrade_ends_at_one_new_deployment() {
    for (mode, id) in [(UpgradeMode::LastState, "a".repeat(32)), (UpgradeMode::Stateless, "f".repeat(32))] {
        let mut facts = running().wanting(|spec| {
            spec.image = "jobs:2".to_owned();
            spec.upgrade_mode = mode;
        });
        let mut applied = 0;
        for _ in 0..12 {
            // What this process remembers is lost at any moment.
            let mut restarted = facts.clone();
            restarted.discard_asked = false;
            let again = decide(&restarted, now()).step;
            assert!(!matches!(again, Step::Apply(_)) || restarted.deployment().unwrap().number == 2);
            let step = decide(&facts, now()).step;
            if matches!(step, Step::Apply(_)) {
                applied += 1;
                let deployed = facts.deployment().unwrap();
                assert_eq!((deployed.number, facts.job_id()), (2, Some(id.as_str())));
                if applied == 2 {
                    break;
                }
            }
            facts = done(facts, step);
        }
        assert_eq!(applied, 2, "{mode:?}: it is started, and then stays as it is");
    }
}

#[test]
fn after_the_record_the_deployment_is_not_recorded_again() {
    let facts = recording(running().wanting(|spec| spec.image = "jobs:2".to_owned()).without_sets());
    assert_eq!(step(&facts), Step::Apply(both()));
    // Half of it was applied.
    assert_eq!(step(&facts.clone().with_set(Component::JobManager)), Step::Apply(both()));
}

#[test]
fn a_set_of_an_older_deployment_never_runs_beside_the_new_one() {
    // Seen in a cache that lags behind, or brought back by somebody.
    let mut facts = running();
    facts.deployed_mut().number = 2;
    assert_eq!(step(&facts), Step::Stop(both()));
    let mut facts = recording(running().wanting(|spec| spec.image = "jobs:2".to_owned()).without_sets());
    let mut old = running();
    facts.task_manager = old.task_manager.take();
    assert_eq!(step(&facts), Step::Stop(vec![Component::TaskManager]));
}

#[test]
fn a_discard_whose_answer_was_lost_is_asked_again() {
    let facts = recording(running().wanting(|spec| {
        spec.image = "jobs:2".to_owned();
        spec.upgrade_mode = UpgradeMode::Stateless;
    }));
    for state in [JobStatus::Cancelling, JobStatus::Canceled, JobStatus::Failed] {
        assert_eq!(step(&facts.clone().saying(state)), Step::Discard, "{state}");
    }
    let mut failed_meanwhile = facts.saying(JobStatus::Failed);
    failed_meanwhile.discard_asked = true;
    assert_eq!(step(&failed_meanwhile), Step::Discard, "the job ended before it heard");
}

#[test]
fn a_changed_spec_that_is_taken_back_while_all_stops_starts_what_was_deployed() {
    let facts = running().wanting(|spec| spec.image = "jobs:2".to_owned()).leaving();
    let facts = facts.wanting(|spec| spec.image = "jobs:1".to_owned());
    assert_eq!(step(&facts), Step::Wait);
    let facts = facts.without_sets();
    assert_eq!(step(&facts), Step::Apply(both()));
    assert_eq!(facts.deployment().unwrap().number, 1);
}
