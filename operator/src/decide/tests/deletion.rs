//! Deletion: in whatever state the job is, it ends within 30 s, and what stays is named.

use super::*;

fn left(facts: &Facts) -> Option<String> {
    let decision = decide(facts, now());
    assert_eq!(decision.step, Step::RemoveFinalizer);
    decision.left_behind
}

fn path() -> String {
    format!("s3://bucket/jobs/{}", "a".repeat(32))
}

#[test]
fn a_running_job_is_deleted_by_its_jobmanager_first() {
    let mut facts = running().deleted(1);
    assert_eq!(step(&facts), Step::Discard);
    facts.discard_asked = true;
    let decision = decide(&facts.clone().saying(JobStatus::Cancelling), now());
    assert_eq!((decision.step, decision.situation, decision.pace), (Step::Wait, Situation::Deleting, Pace::Fast));
    assert_eq!(left(&facts.saying(JobStatus::Canceled)), None);
}

#[test]
fn what_the_jobmanager_could_not_delete_is_named() {
    let mut facts = running().deleted(5).saying(JobStatus::Canceled);
    facts.discard_asked = true;
    facts.engine_mut().left_behind = Some("s3://bucket/jobs/a: access denied".to_owned());
    assert_eq!(left(&facts).as_deref(), Some("s3://bucket/jobs/a: access denied"));
}

#[test]
fn a_job_that_was_never_deployed_goes_at_once() {
    assert_eq!(step(&created().deleted(0)), Step::Wait, "it has no finalizer");
    let mut facts = created().deleted(0);
    facts.job.metadata.finalizers = Some(vec![crate::observe::FINALIZER.to_owned()]);
    assert_eq!(left(&facts), None);
    // Also with a status that was never written.
    facts.job.status = None;
    assert_eq!(left(&facts), None);
}

#[test]
fn a_job_without_storage_or_that_keeps_its_checkpoints_goes_at_once() {
    let mut ephemeral = running().deleted(0);
    ephemeral.deployed_mut().spec.checkpointing.storage = None;
    ephemeral.deployed_mut().spec.checkpointing.ephemeral = Some(true);
    assert_eq!(left(&ephemeral), None);
    let mut retained = running().deleted(0);
    retained.deployed_mut().spec.checkpointing.retain_on_cancellation = Some(true);
    assert_eq!(left(&retained), None);
}

#[test]
fn one_that_is_stopped_gets_a_jobmanager_for_its_deletion() {
    let finished = running().in_phase(Phase::Finished).without_sets();
    for facts in [suspended(), finished, recorded()] {
        let facts = facts.deleted(2).in_phase(Phase::Deleting);
        let decision = decide(&facts, now());
        assert_eq!(decision.step, Step::Apply(vec![Component::JobManager]));
        assert_eq!(decision.pace, Pace::After(Duration::from_secs(28)));
        let facts = facts.with_set(Component::JobManager).with_pods(true).saying(JobStatus::Created);
        assert_eq!(step(&facts), Step::Discard);
    }
    let failed = running().saying(JobStatus::Failed).in_phase(Phase::Failed).deleted(2);
    assert_eq!(step(&failed), Step::Discard, "the jobmanager of a failed one is there");
}

#[test]
fn one_that_is_being_stopped_is_waited_for_before_its_jobmanager_starts_again() {
    let facts = running().leaving().deleted(3);
    assert_eq!(step(&facts), Step::Wait);
    assert_eq!(step(&facts.without_sets()), Step::Apply(vec![Component::JobManager]));
}

#[test]
fn after_30_s_it_goes_whatever_is_in_the_way_and_says_what_was() {
    let mut waiting = running().deleted(30).saying(JobStatus::Initializing);
    waiting.engine_mut().waiting_for = Some("checkpoint storage s3://bucket/jobs".to_owned());
    assert_eq!(step(&waiting.clone().deleted(29)), Step::Discard);
    let waits = "the jobmanager did not delete it within 30 s: it waits for checkpoint storage s3://bucket/jobs";
    assert_eq!(left(&waiting).unwrap(), format!("{}: {waits}", path()));

    let mut silent = running().deleted(30);
    silent.engine = Engine::Unreachable("connection refused".to_owned());
    assert_eq!(step(&silent.clone().deleted(29)), Step::Wait);
    assert_eq!(left(&silent).unwrap(), format!("{}: the jobmanager does not answer: connection refused", path()));

    let crashing = running().troubled(Component::JobManager, "CrashLoopBackOff", "bucket does not exist");
    assert_eq!(step(&crashing.clone().deleted(29)), Step::Apply(vec![Component::JobManager]));
    let said = format!("{}: no jobmanager runs that could delete it: bucket does not exist", path());
    assert_eq!(left(&crashing.deleted(30)).unwrap(), said);
}

#[test]
fn a_job_whose_image_was_never_there_has_nothing_to_delete() {
    let facts = starting().troubled(Component::JobManager, "ImagePullBackOff", "no such image").deleted(1);
    assert_eq!(left(&facts), None);
    let has_run = running().troubled(Component::JobManager, "ImagePullBackOff", "no such image").deleted(1);
    assert_eq!(step(&has_run), Step::Apply(vec![Component::JobManager]));
}

#[test]
fn in_a_dying_namespace_no_jobmanager_is_waited_for_that_cannot_come() {
    let mut facts = running().without_sets().deleted(1);
    facts.namespace_terminating = true;
    assert_eq!(left(&facts).unwrap(), format!("{}: the jobmanager is being deleted as well", path()));
    let mut reachable = running().deleted(1);
    reachable.namespace_terminating = true;
    assert_eq!(step(&reachable), Step::Discard, "one that still answers is asked");
}

#[test]
fn a_deletion_in_the_foreground_takes_the_jobmanager_first() {
    let mut facts = running().without_sets().deleted(1);
    facts.job.metadata.finalizers.as_mut().unwrap().push("foregroundDeletion".to_owned());
    assert!(left(&facts).is_some());
}

#[test]
fn a_pod_that_does_not_end_does_not_keep_the_next_jobmanager_from_starting() {
    let mut facts = running().leaving().deleted(15);
    facts.pods.iter_mut().for_each(|pod| pod.deleted_until = Some(ago(12)));
    assert!(matches!(step(&facts), Step::ForceDelete(pods) if pods.len() == 3));
}

#[test]
fn an_invalid_spec_does_not_hold_a_deletion_up() {
    let facts = running().invalid("wrong").deleted(1);
    assert_eq!(step(&facts), Step::Discard);
}

#[test]
fn an_upgrade_does_not_begin_in_a_job_that_is_being_deleted() {
    let facts = running().wanting(|spec| spec.image = "jobs:2".to_owned()).deleted(1);
    assert_eq!(step(&facts), Step::Discard);
}

#[test]
fn in_a_dying_namespace_the_finalizer_goes_before_the_job_itself_is_deleted() {
    let mut facts = running();
    facts.namespace_terminating = true;
    assert_eq!(step(&facts), Step::Discard);
    facts.engine = Engine::Absent;
    assert_eq!(left(&facts).unwrap(), format!("{}: the namespace is being deleted", path()));
    facts.job.metadata.finalizers = None;
    assert_eq!(step(&facts), Step::Wait, "and nothing is built that is torn down");
}
