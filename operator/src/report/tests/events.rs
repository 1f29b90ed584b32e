use millrace_core::rest::{JobStatus, RecoveryDetails, RecoveryPhase};

use super::*;
use crate::{observe::Engine, report::events};

/// The events of the way from one look to the next.
fn events_of(before: &Facts, after: &Facts) -> Vec<(&'static str, String)> {
    let mut after = after.clone();
    let (spec, metadata) = (after.job.spec.clone(), after.job.metadata.clone());
    after.job = before.job.clone();
    (after.job.spec, after.job.metadata) = (spec, metadata);
    let found = events::between(&before.status(), &told(&after), &after);
    found.into_iter().map(|event| (event.reason, event.note)).collect()
}

fn reasons(before: &Facts, after: &Facts) -> Vec<&'static str> {
    events_of(before, after).into_iter().map(|(reason, _)| reason).collect()
}

fn recovery(facts: &mut Facts, at: u64, lost: Option<&str>) {
    facts.engine_mut().last_recovery = Some(RecoveryDetails {
        timestamp: at,
        duration: 2_345,
        restored_checkpoint: Some(9),
        cause: "taskmanager t closed its connection".to_owned(),
        taskmanager: lost.map(str::to_owned),
        ..RecoveryDetails::default()
    });
}

#[test]
fn transitions_are_told_once() {
    let running_told = written(running());
    let spec_changed = running_told.clone().wanting(|spec| spec.image = "jobs:2".to_owned());
    let upgrading = written(spec_changed.clone());
    let suspending = {
        let facts = running_told.clone().wanting(|spec| spec.state = millrace_api::JobState::Suspended);
        written(written(facts))
    };
    let resumed = suspended().wanting(|spec| spec.state = millrace_api::JobState::Running);
    let cases: Vec<(&str, Facts, Facts, Vec<&str>)> = vec![
        ("nothing", running_told.clone(), running_told.clone(), vec![]),
        ("first deployment", with_finalizer(created()), with_finalizer(created()), vec!["Deployed"]),
        ("it runs", starting(), starting().saying(JobStatus::Running), vec!["Running"]),
        ("upgrade begins", running_told.clone(), spec_changed.clone(), vec!["Upgrading"]),
        ("upgrade goes on", upgrading.clone(), upgrading.clone().leaving(), vec![]),
        ("upgrade starts", upgrading.clone(), upgrading.clone().without_sets(), vec!["Deployed"]),
        ("suspending", suspending.clone(), suspending.clone().leaving(), vec![]),
        ("suspended", suspending.clone(), suspending.without_sets(), vec!["Suspended"]),
        ("resumed", suspended(), resumed, vec!["Resumed", "Deployed"]),
        ("invalid", running_told.clone(), running_told.clone().invalid("x is unknown"), vec!["SpecInvalid"]),
        ("finished", running_told.clone(), running().saying(JobStatus::Finished), vec!["Finished"]),
        ("failed", running_told.clone(), running().saying(JobStatus::Failed), vec!["Failed"]),
        ("recovering", running_told.clone(), running().saying(JobStatus::Restarting), vec!["Recovering"]),
        ("deleted", running_told.clone(), running().deleted(1), vec![]),
    ];
    for (name, before, after, expected) in cases {
        assert_eq!(reasons(&before, &after), expected, "{name}");
    }
}

fn with_finalizer(mut facts: Facts) -> Facts {
    facts.job.metadata.finalizers = Some(vec![crate::observe::FINALIZER.to_owned()]);
    facts
}

#[test]
fn an_invalid_spec_is_told_again_only_when_it_is_wrong_in_another_way() {
    let facts = written(running().invalid("x is unknown"));
    assert_eq!(reasons(&facts, &facts), Vec::<&str>::new());
    assert_eq!(reasons(&facts, &facts.clone().invalid("y is unknown")), ["SpecInvalid"]);
}

#[test]
fn a_recovery_is_told_with_what_was_lost_and_how_long_it_took() {
    let mut recovered = running();
    recovery(&mut recovered, 990_000_000, Some("orders-taskmanager-1"));
    let before = written(running().saying(JobStatus::Restarting));
    assert_eq!(before.phase(), Phase::Restarting);
    let told = events_of(&before, &recovered);
    let expected = [
        (
            "TaskManagerLost",
            "taskmanager orders-taskmanager-1 was lost: taskmanager t closed its connection".to_owned(),
        ),
        ("Recovered", "recovered in 2.3 s from checkpoint 9".to_owned()),
    ];
    assert_eq!(told, expected);
    // One that was over before anybody looked.
    let quick = reasons(&written(running()), &recovered);
    assert_eq!(quick, ["TaskManagerLost", "Recovering", "Recovered"]);
    let known = {
        let mut facts = written(running());
        facts.job.status.as_mut().unwrap().last_recovery = written(recovered.clone()).status().last_recovery;
        facts
    };
    assert_eq!(reasons(&known, &recovered), Vec::<&str>::new());
}

#[test]
fn a_new_jobmanager_that_went_on_with_the_tasks_restored_nothing() {
    let mut adopted = running();
    recovery(&mut adopted, 990_000_000, None);
    let details = adopted.engine_mut().last_recovery.as_mut().unwrap();
    details.restored_checkpoint = None;
    details.phases = vec![RecoveryPhase { name: "adopt".to_owned(), duration: 5 }];
    let told = events_of(&written(running().saying(JobStatus::Restarting)), &adopted);
    assert_eq!(told, [("Recovered", "recovered in 2.3 s with the tasks that ran on".to_owned())]);
}

#[test]
fn starting_again_with_another_spec_is_no_recovery() {
    let before = written(starting());
    let mut after = starting().saying(JobStatus::Running);
    recovery(&mut after, 990_000_000, None);
    assert_eq!(reasons(&before, &after), ["Running"]);
}

#[test]
fn failed_checkpoints_are_told_once_until_one_is_completed() {
    let before = written(running());
    let mut failed = running();
    failed.engine_mut().failed = 1;
    failed.engine_mut().checkpoint_failure = Some("timed out".to_owned());
    assert_eq!(events_of(&before, &failed), [("CheckpointFailed", "timed out".to_owned())]);
    let before = written(failed.clone());
    failed.engine_mut().failed = 2;
    assert_eq!(reasons(&before, &failed), Vec::<&str>::new());
}

#[test]
fn a_jobmanager_that_is_silent_for_a_moment_is_no_event() {
    let before = written(running());
    let mut silent = running();
    silent.engine = Engine::Unreachable("no answer within 2 s".to_owned());
    assert_eq!(reasons(&before, &silent), Vec::<&str>::new());
}

#[test]
fn a_note_is_no_longer_than_the_api_takes() {
    let event = events::Event::cleanup_failed(&"ü".repeat(2_000));
    assert!(event.note.len() <= 1024 && event.note.ends_with('…'), "{}", event.note.len());
}
