use millrace_core::ids::VertexId;

use super::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const SETTINGS: AdaptiveSettings = AdaptiveSettings {
    submission_wait: None,
    submission_stabilization: seconds(10),
    executing_stabilization: seconds(60),
    cooldown_after_rescaling: seconds(30),
};

fn tm(name: &str) -> TaskManagerId {
    TaskManagerId(name.to_string())
}

/// A source in two subtasks before an operator in three.
fn job(checkpoints: bool) -> JobScheduler {
    let tasks_of =
        |(vertex, parallelism)| (0..parallelism).map(move |subtask| TaskId { vertex: VertexId(vertex), subtask });
    let tasks: Vec<_> = [(0, 2), (1, 3)].into_iter().flat_map(tasks_of).collect();
    let regions = vec![tasks.iter().copied().collect()];
    let plan = Plan { tasks, regions, slots_needed: 3, checkpoints };
    JobScheduler::new(plan, RestartStrategy::exponential_delay()).adaptive(SETTINGS)
}

/// The same, which waits no longer than this for slots.
fn impatient(wait: Duration) -> JobScheduler {
    job(true).adaptive(AdaptiveSettings { submission_wait: Some(wait), ..SETTINGS })
}

fn register(job: &mut JobScheduler, at: Duration, name: &str) -> Vec<Effect> {
    job.on(at, Event::TaskManagerRegistered { id: tm(name), resource_id: name.to_string(), slots: 1 })
}

/// Runs the attempt that is being prepared.
fn start(job: &mut JobScheduler, at: Duration) -> usize {
    let attempt = job.attempt();
    job.on(at, Event::Prepared(attempt));
    let tasks: Vec<_> = job.assignment().unwrap().keys().copied().collect();
    for task in &tasks {
        job.on(at, Event::TaskDeployed(attempt, *task));
    }
    assert_eq!(job.status(), JobStatus::Running);
    tasks.len()
}

fn lose(job: &mut JobScheduler, at: Duration, name: &str) -> Vec<Effect> {
    let attempt = job.attempt();
    let survivors: Vec<_> = job.assignment().unwrap().iter().filter(|(_, place)| **place != tm(name)).collect();
    let survivors: Vec<_> = survivors.into_iter().map(|(task, _)| *task).collect();
    job.on(at, Event::TaskManagerLost { id: tm(name), error: Error::external("gone") });
    survivors.into_iter().flat_map(|task| job.on(at, Event::TaskCanceled(attempt, task))).collect()
}

fn hand_over(job: &mut JobScheduler, at: Duration) -> Vec<Effect> {
    let attempt = job.attempt();
    let tasks: Vec<_> = job.assignment().unwrap().keys().copied().collect();
    job.on(at, Event::HandedOver(attempt));
    tasks.into_iter().flat_map(|task| job.on(at, Event::TaskCanceled(attempt, task))).collect()
}

#[test]
fn all_slots_are_used_at_once_and_fewer_after_a_while() {
    let mut job = job(true);
    assert_eq!(register(&mut job, seconds(1), "a"), [Effect::LookAfter(seconds(10))]);
    assert!(register(&mut job, seconds(2), "b").is_empty(), "it is looked at already");
    assert!(job.on(seconds(5), Event::LookTimer).contains(&Effect::LookAfter(seconds(6))), "too early");
    assert_eq!(job.on(seconds(11), Event::LookTimer), [Effect::Prepare(Attempt(1))]);
    assert_eq!((start(&mut job, seconds(11)), job.slots_used()), (4, 2), "two subtasks of each vertex");

    let mut job = self::job(true);
    register(&mut job, seconds(1), "a");
    register(&mut job, seconds(2), "b");
    assert_eq!(register(&mut job, seconds(3), "c"), [Effect::Prepare(Attempt(1))]);
    assert_eq!((start(&mut job, seconds(3)), job.slots_used()), (5, 3));
}

#[test]
fn a_job_without_any_slot_fails_when_it_has_waited_for_long_enough() {
    let mut job = impatient(seconds(100));
    assert!(job.must_begin_to_wait());
    assert_eq!(job.on(seconds(5), Event::LookTimer), [Effect::LookAfter(seconds(100))], "it begins to wait");
    assert!(!job.must_begin_to_wait());
    assert!(job.on(seconds(104), Event::LookTimer).contains(&Effect::LookAfter(seconds(1))));
    // One that comes and goes is none.
    register(&mut job, seconds(104), "a");
    job.on(seconds(105), Event::TaskManagerLost { id: tm("a"), error: Error::external("gone") });
    let effects = job.on(seconds(105), Event::LookTimer);
    let Some(Effect::End(JobResult::Failed(error))) = effects.last() else { panic!("{effects:?}") };
    assert!(error.message.contains("resource-wait-timeout"), "{error}");
    assert_eq!(job.status(), JobStatus::Failed);
    assert!(register(&mut job, seconds(106), "b").is_empty());
}

#[test]
fn a_job_with_some_slots_runs_when_it_has_waited_for_long_enough() {
    let mut job = impatient(seconds(4));
    job.on(seconds(0), Event::LookTimer);
    assert!(register(&mut job, seconds(1), "a").is_empty());
    assert_eq!(job.on(seconds(4), Event::LookTimer), [Effect::Prepare(Attempt(1))]);
    start(&mut job, seconds(4));
    // After a failure it waits anew.
    lose(&mut job, seconds(60), "a");
    job.on(seconds(61), Event::RestartTimer(Attempt(1)));
    assert_eq!(job.on(seconds(63), Event::LookTimer).len(), 1, "it is looked at again");
    assert_ne!(job.status(), JobStatus::Failed);
    assert!(job.on(seconds(66), Event::LookTimer).iter().any(|effect| matches!(effect, Effect::End(_))));
}

/// Runs on `a` and `b` from second 11 on.
fn two_of_three(checkpoints: bool) -> JobScheduler {
    let mut job = job(checkpoints);
    register(&mut job, seconds(1), "a");
    register(&mut job, seconds(1), "b");
    job.on(seconds(11), Event::LookTimer);
    start(&mut job, seconds(11));
    job
}

#[test]
fn without_a_slot_to_spare_the_job_goes_on_with_fewer() {
    let mut job = two_of_three(true);
    assert_eq!(lose(&mut job, seconds(20), "a"), [Effect::LookAfter(seconds(10))]);
    assert_eq!(job.on(seconds(30), Event::LookTimer), [Effect::Prepare(Attempt(2))]);
    assert_eq!((start(&mut job, seconds(30)), job.slots_used()), (2, 1));
    // Without any slot it waits for one.
    assert!(lose(&mut job, seconds(40), "b").is_empty());
    assert!(job.on(seconds(41), Event::RestartTimer(Attempt(2))).is_empty());
    assert_eq!(job.waiting_for_slots(), Some((0, 3)));
}

#[test]
fn the_last_slots_are_taken_after_the_cooldown_and_nothing_is_read_again() {
    let mut job = two_of_three(true);
    assert_eq!(register(&mut job, seconds(20), "c"), [Effect::LookAfter(seconds(21))]);
    assert_eq!(job.on(seconds(41), Event::LookTimer), [Effect::HandOver(Attempt(1))]);
    assert!(job.on(seconds(42), Event::LookTimer).is_empty(), "once");
    assert_eq!(hand_over(&mut job, seconds(43)).last(), Some(&Effect::Prepare(Attempt(2))));
    assert_eq!((start(&mut job, seconds(43)), job.slots_used()), (5, 3));
}

#[test]
fn some_more_slots_are_taken_when_the_others_do_not_come() {
    let mut job = two_of_three(true);
    lose(&mut job, seconds(100), "a");
    job.on(seconds(110), Event::LookTimer);
    start(&mut job, seconds(110));
    assert_eq!(register(&mut job, seconds(200), "d"), [Effect::LookAfter(seconds(60))]);
    assert_eq!(job.on(seconds(260), Event::LookTimer), [Effect::HandOver(Attempt(2))]);
    // The one that had come is gone before the tasks are handed over: those that are left are enough.
    job.on(seconds(261), Event::TaskManagerLost { id: tm("d"), error: Error::external("gone") });
    assert_eq!(hand_over(&mut job, seconds(262)).last(), Some(&Effect::Prepare(Attempt(3))));
    assert_eq!(job.slots_used(), 1);
}

#[test]
fn a_job_without_checkpoints_or_that_ends_keeps_its_slots() {
    let mut without = two_of_three(false);
    assert!(register(&mut without, seconds(100), "c").is_empty());
    let mut stopping = two_of_three(true);
    stopping.on(seconds(50), Event::Stop);
    assert!(register(&mut stopping, seconds(100), "c").is_empty());
}
