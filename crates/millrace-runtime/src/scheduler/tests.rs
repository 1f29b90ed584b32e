use millrace_core::ids::VertexId;

use super::*;

const NOW: Duration = Duration::ZERO;

fn task(vertex: u32, subtask: u32) -> TaskId {
    TaskId { vertex: VertexId(vertex), subtask }
}

fn tm(name: &str) -> TaskManagerId {
    TaskManagerId(name.to_string())
}

/// Two vertices of two subtasks each.
fn plan(checkpoints: bool) -> Plan {
    let tasks = vec![task(0, 0), task(0, 1), task(1, 0), task(1, 1)];
    Plan { regions: vec![tasks.iter().copied().collect()], tasks, slots_needed: 2, checkpoints }
}

fn registered(name: &str, slots: u32) -> Event {
    Event::TaskManagerRegistered { id: tm(name), resource_id: name.to_string(), slots }
}

fn lost(name: &str) -> Event {
    Event::TaskManagerLost { id: tm(name), error: Error::external(format!("taskmanager {name} is gone")) }
}

/// A job that runs on taskmanagers `a` and `b`, with a spare `c`.
fn running(checkpoints: bool) -> JobScheduler {
    let mut job = JobScheduler::new(plan(checkpoints), RestartStrategy::exponential_delay());
    assert!(job.on(NOW, registered("a", 1)).is_empty());
    assert_eq!(job.waiting_for_slots(), Some((1, 2)));
    assert_eq!(job.on(NOW, registered("b", 1)), [Effect::Prepare(Attempt(1))]);
    job.on(NOW, registered("c", 1));
    start(&mut job, Attempt(1));
    job
}

fn start(job: &mut JobScheduler, attempt: Attempt) {
    assert!(matches!(job.on(NOW, Event::Prepared(attempt))[..], [Effect::Deploy(..)]));
    let tasks = plan(true).tasks;
    for id in &tasks[1..] {
        assert!(job.on(NOW, Event::TaskDeployed(attempt, *id)).is_empty());
    }
    assert_eq!(job.on(NOW, Event::TaskDeployed(attempt, tasks[0])), [Effect::Start(attempt)]);
    assert_eq!(job.status(), JobStatus::Running);
}

fn tasks_on(job: &JobScheduler, name: &str) -> Vec<TaskId> {
    job.assignment().unwrap().iter().filter(|(_, place)| **place == tm(name)).map(|(id, _)| *id).collect()
}

#[test]
fn a_lost_taskmanager_is_replaced_by_the_spare_one_and_survivors_keep_their_slots() {
    let mut job = running(true);
    let survivors = tasks_on(&job, "b");
    let effects = job.on(NOW, lost("a"));
    assert_eq!(effects[1], Effect::Stopped(Attempt(1)));
    assert_eq!(effects[2], Effect::CancelTasks(survivors.iter().map(|task| (*task, tm("b"))).collect()));
    assert_eq!(job.status(), JobStatus::Restarting);
    assert!(job.on(NOW, Event::TaskCanceled(Attempt(1), survivors[0])).is_empty());
    let last = job.on(NOW, Event::TaskFailed(Attempt(1), survivors[1], Error::external("connection lost")));
    assert_eq!(last, [Effect::Prepare(Attempt(2))], "the first restart is immediate");
    assert_eq!(tasks_on(&job, "b"), survivors);
    assert_eq!(tasks_on(&job, "c").len(), 2);
    start(&mut job, Attempt(2));
    assert_eq!(job.restarts(), 1);
}

/// All of them may live on, cut off, and be taken for the job by the next jobmanager.
#[test]
fn where_all_tasks_may_run_on_unseen_nothing_is_deployed_before_that_is_marked() {
    let mut job = running(true);
    job.on(NOW, registered("d", 1));
    job.on(NOW, lost("a"));
    let effects = job.on(NOW, lost("b"));
    assert_eq!(effects, [Effect::Prepare(Attempt(2))]);
    assert!(job.must_be_marked());
    assert!(job.on(NOW, Event::Prepared(Attempt(2))).is_empty());
    assert!(job.on(NOW, Event::Marked(Attempt(1))).is_empty(), "an old answer");
    assert!(matches!(job.on(NOW, Event::Marked(Attempt(2)))[..], [Effect::Deploy(..)]));

    // The other way round, and after a first try that failed.
    let mut job = JobScheduler::new(plan(true), RestartStrategy::exponential_delay()).taken_over();
    job.on(NOW, registered("a", 2));
    let effects = job.on(NOW, Event::AttemptFailed(Attempt(1), Error::external("the log is away")));
    assert!(effects.contains(&Effect::Prepare(Attempt(2))), "{effects:?}");
    assert!(job.must_be_marked() && job.on(NOW, Event::Marked(Attempt(2))).is_empty());
    assert!(!job.must_be_marked(), "and so no later attempt before this one is deployed");
    start(&mut job, Attempt(2));
}

#[test]
fn an_attempt_of_which_a_task_has_ended_needs_no_mark_after_it() {
    let ends: [fn(TaskId) -> Event; 2] = [
        |task| Event::TaskCanceled(Attempt(1), task),
        |task| Event::TaskFailed(Attempt(1), task, Error::external("failed")),
    ];
    for end in ends {
        let mut job = running(true);
        let survivors = tasks_on(&job, "b");
        job.on(NOW, lost("a"));
        job.on(NOW, end(survivors[0]));
        let effects = job.on(NOW, lost("b"));
        assert!(effects.is_empty() && job.waiting_for_slots().is_some(), "{effects:?}");
        assert_eq!(job.on(NOW, registered("d", 1)), [Effect::Prepare(Attempt(2))]);
        assert!(!job.must_be_marked());
        start(&mut job, Attempt(2));
    }
}

#[test]
fn without_a_spare_slot_the_job_waits_for_a_taskmanager() {
    let mut job = running(true);
    job.on(NOW, lost("c"));
    let survivors = tasks_on(&job, "b");
    job.on(NOW, lost("a"));
    for id in survivors {
        job.on(NOW, Event::TaskCanceled(Attempt(1), id));
    }
    assert_eq!(job.waiting_for_slots(), Some((1, 2)));
    assert_eq!(job.on(NOW, registered("d", 2)), [Effect::Prepare(Attempt(2))]);
}

#[test]
fn losing_a_spare_taskmanager_disturbs_nothing() {
    let mut job = running(true);
    assert!(job.on(NOW, lost("c")).is_empty());
    assert_eq!(job.status(), JobStatus::Running);
    assert!(job.on(NOW, lost("c")).is_empty(), "it is noticed once");
}

#[test]
fn news_of_an_old_attempt_changes_nothing() {
    let mut job = running(true);
    job.on(NOW, lost("a"));
    for id in plan(true).tasks {
        job.on(NOW, Event::TaskCanceled(Attempt(1), id));
    }
    start(&mut job, Attempt(2));
    for event in [
        Event::Prepared(Attempt(1)),
        Event::TaskFailed(Attempt(1), task(0, 0), Error::internal("old")),
        Event::TaskFinished(Attempt(1), task(0, 0)),
        Event::TaskEndOfInput(Attempt(1), task(0, 0)),
        Event::RestartTimer(Attempt(1)),
        Event::AttemptFailed(Attempt(1), Error::internal("old")),
    ] {
        assert!(job.on(NOW, event).is_empty());
    }
    assert_eq!(job.status(), JobStatus::Running);
}

#[test]
fn a_bounded_job_ends_after_its_final_checkpoint() {
    let mut job = running(true);
    for id in [task(0, 0), task(0, 1), task(1, 0)] {
        assert!(job.on(NOW, Event::TaskEndOfInput(Attempt(1), id)).is_empty());
    }
    let last = job.on(NOW, Event::TaskEndOfInput(Attempt(1), task(1, 1)));
    assert_eq!(last, [Effect::TriggerFinalCheckpoint(Attempt(1))]);
    assert!(job.on(NOW, Event::CheckpointCompleted { is_final: false }).is_empty());
    assert_eq!(job.on(NOW, Event::CheckpointCompleted { is_final: true }), [Effect::FinishTasks(Attempt(1))]);
    let ends: Vec<_> =
        plan(true).tasks.into_iter().flat_map(|id| job.on(NOW, Event::TaskFinished(Attempt(1), id))).collect();
    assert_eq!(ends, [Effect::Stopped(Attempt(1)), Effect::End(JobResult::Finished)]);
    assert_eq!(job.status(), JobStatus::Finished);
}

#[test]
fn without_checkpoints_a_bounded_job_finishes_at_once_and_a_failure_ends_it() {
    let mut job = running(false);
    let effects: Vec<_> =
        plan(false).tasks.into_iter().flat_map(|id| job.on(NOW, Event::TaskEndOfInput(Attempt(1), id))).collect();
    assert_eq!(effects, [Effect::FinishTasks(Attempt(1))]);

    let mut job = JobScheduler::new(plan(false), RestartStrategy::None);
    job.on(NOW, registered("a", 2));
    start(&mut job, Attempt(1));
    job.on(NOW, Event::TaskFailed(Attempt(1), task(0, 0), Error::user("bad record")));
    assert_eq!(job.status(), JobStatus::Failing);
    let ends: Vec<_> =
        plan(false).tasks[1..].iter().flat_map(|id| job.on(NOW, Event::TaskCanceled(Attempt(1), *id))).collect();
    assert!(matches!(&ends[..], [Effect::End(JobResult::Failed(error))] if error.message.contains("bad record")));
}

#[test]
fn a_loss_while_finishing_goes_back_to_the_final_checkpoint() {
    let mut job = running(true);
    for id in plan(true).tasks {
        job.on(NOW, Event::TaskEndOfInput(Attempt(1), id));
    }
    job.on(NOW, Event::CheckpointCompleted { is_final: true });
    let survivors = tasks_on(&job, "b");
    job.on(NOW, lost("a"));
    let effects: Vec<_> =
        survivors.into_iter().flat_map(|id| job.on(NOW, Event::TaskFinished(Attempt(1), id))).collect();
    assert_eq!(effects, [Effect::Prepare(Attempt(2))]);
}

#[test]
fn a_user_cancels_in_any_phase() {
    let mut job = JobScheduler::new(plan(true), RestartStrategy::None);
    assert!(job.on(NOW, Event::Cancel).contains(&Effect::End(JobResult::Canceled)));

    let mut job = running(true);
    job.on(NOW, lost("a"));
    assert!(job.on(NOW, Event::Cancel).is_empty(), "tasks are being ended already");
    assert_eq!(job.status(), JobStatus::Cancelling);
    let left = plan(true).tasks;
    let effects: Vec<_> = left.into_iter().flat_map(|id| job.on(NOW, Event::TaskCanceled(Attempt(1), id))).collect();
    assert_eq!(effects, [Effect::End(JobResult::Canceled)]);
    assert!(job.on(NOW, registered("e", 4)).is_empty(), "nothing starts again");
}

#[test]
fn a_stop_drains_the_sources_and_keeps_its_result_across_a_failure() {
    let mut job = running(true);
    assert_eq!(job.on(NOW, Event::Stop), [Effect::DrainSources(Attempt(1))]);
    job.on(NOW, lost("a"));
    for id in plan(true).tasks {
        job.on(NOW, Event::TaskCanceled(Attempt(1), id));
    }
    job.on(NOW, Event::Prepared(Attempt(2)));
    let effects: Vec<_> =
        plan(true).tasks.into_iter().flat_map(|id| job.on(NOW, Event::TaskDeployed(Attempt(2), id))).collect();
    assert_eq!(effects, [Effect::Start(Attempt(2)), Effect::DrainSources(Attempt(2))]);
}

#[test]
fn a_failed_preparation_is_tried_again_by_the_strategy() {
    let mut job =
        JobScheduler::new(plan(true), RestartStrategy::FixedDelay { attempts: 1, delay: Duration::from_secs(5) });
    job.on(NOW, registered("a", 2));
    let effects = job.on(NOW, Event::AttemptFailed(Attempt(1), Error::external("no broker")));
    assert!(effects.contains(&Effect::RestartAfter(Attempt(1), Duration::from_secs(5))));
    assert_eq!(job.on(NOW, Event::RestartTimer(Attempt(1))), [Effect::Prepare(Attempt(2))]);
    let effects = job.on(NOW, Event::AttemptFailed(Attempt(2), Error::external("no broker")));
    assert!(matches!(effects.last(), Some(Effect::End(JobResult::Failed(_)))));
}

fn leaving(name: &str) -> Event {
    Event::TaskManagerLeaving(tm(name))
}

#[test]
fn a_taskmanager_that_leaves_hands_its_tasks_over_at_a_checkpoint() {
    let mut job = running(true);
    assert_eq!(job.on(NOW, leaving("a")), [Effect::HandOver(Attempt(1))]);
    assert!(job.on(NOW, leaving("a")).is_empty(), "it was asked for");
    let both = job.assignment().unwrap().clone();
    let effects = job.on(NOW, Event::HandedOver(Attempt(1)));
    assert_eq!(effects, [Effect::Stopped(Attempt(1)), Effect::CancelTasks(both)]);
    let all = plan(true).tasks;
    let (its, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|task| task.subtask == 0);
    for id in &its {
        job.on(NOW, Event::TaskCanceled(Attempt(1), *id));
    }
    job.on(NOW, Event::TaskCanceled(Attempt(1), others[0]));
    let effects = job.on(NOW, Event::TaskCanceled(Attempt(1), others[1]));
    assert!(effects.contains(&Effect::Prepare(Attempt(2))), "{effects:?}");
    start(&mut job, Attempt(2));
    assert!(tasks_on(&job, "a").is_empty(), "its slots are used no more");
    assert!(job.on(NOW, lost("a")).is_empty());
    assert_eq!(job.status(), JobStatus::Running);
}

#[test]
fn a_taskmanager_is_released_once_it_holds_no_tasks() {
    let mut job = running(true);
    assert_eq!(job.on(NOW, leaving("c")), [Effect::Release(tm("c"))], "the spare one");
    assert!(job.on(NOW, Event::CheckpointCompleted { is_final: false }).is_empty(), "once");
    job.on(NOW, leaving("a"));
    let mut effects = job.on(NOW, Event::HandedOver(Attempt(1)));
    for id in plan(true).tasks {
        effects.extend(job.on(NOW, Event::TaskCanceled(Attempt(1), id)));
    }
    assert_eq!(effects.iter().filter(|effect| **effect == Effect::Release(tm("a"))).count(), 1, "{effects:?}");
    assert_eq!(job.waiting_for_slots(), Some((1, 2)), "the spare one has left");
}

#[test]
fn a_taskmanager_that_leaves_while_tasks_are_deployed_hands_over_when_they_run() {
    let mut job = JobScheduler::new(plan(true), RestartStrategy::exponential_delay());
    job.on(NOW, registered("a", 2));
    assert!(job.on(NOW, leaving("a")).is_empty());
    job.on(NOW, Event::Prepared(Attempt(1)));
    let effects: Vec<_> =
        plan(true).tasks.into_iter().flat_map(|id| job.on(NOW, Event::TaskDeployed(Attempt(1), id))).collect();
    assert_eq!(effects, [Effect::Start(Attempt(1)), Effect::HandOver(Attempt(1))]);
}

#[test]
fn without_checkpoints_a_taskmanager_that_leaves_is_released_at_once() {
    assert_eq!(running(false).on(NOW, leaving("a")), [Effect::Release(tm("a"))]);
}

#[test]
fn tasks_that_run_are_adopted_and_restart_where_they_were() {
    let mut job = JobScheduler::new(plan(true), RestartStrategy::exponential_delay());
    let place = |task: &TaskId| (*task, tm(if task.subtask == 0 { "b" } else { "a" }));
    let assignment: BTreeMap<_, _> = plan(true).tasks.iter().map(place).collect();
    let adopted = Event::Adopted {
        attempt: Attempt(7),
        attempts: assignment.keys().map(|task| (*task, Attempt(6))).collect(),
        assignment: assignment.clone(),
        ended: BTreeSet::new(),
    };
    assert!(job.on(NOW, adopted.clone()).is_empty());
    assert_eq!((job.status(), job.attempt(), job.assignment()), (JobStatus::Running, Attempt(7), Some(&assignment)));
    for name in ["a", "b", "c"] {
        assert!(job.on(NOW, registered(name, 1)).is_empty());
    }
    assert!(job.on(NOW, adopted).is_empty(), "once");
    let survivors = tasks_on(&job, "b");
    job.on(NOW, lost("a"));
    let effects: Vec<_> = survivors.iter().flat_map(|id| job.on(NOW, Event::TaskCanceled(Attempt(6), *id))).collect();
    assert_eq!(effects, [Effect::Prepare(Attempt(8))]);
    assert_eq!(tasks_on(&job, "b"), survivors, "survivors keep their slots");
}

#[test]
fn adopted_tasks_that_have_read_everything_take_the_final_checkpoint() {
    let mut job = JobScheduler::new(plan(true), RestartStrategy::exponential_delay());
    let tasks = plan(true).tasks;
    let assignment = tasks.iter().map(|task| (*task, tm("a"))).collect();
    let attempts = tasks.iter().map(|task| (*task, Attempt(2))).collect();
    let adopted = Event::Adopted { attempt: Attempt(2), attempts, assignment, ended: tasks.into_iter().collect() };
    assert_eq!(job.on(NOW, adopted), [Effect::TriggerFinalCheckpoint(Attempt(2))]);
}
