use std::{collections::BTreeSet, time::Duration};

use millrace_core::{
    checkpoint::CheckpointConfig,
    ids::{OperatorUid, VertexId},
    key::KeyGroupRange,
};
use millrace_state::KeyedStateHandle;

use super::*;
use crate::task::SubtaskCheckpointMetrics;

const GENERATION: Generation = Generation(3);
const RECEIPT: MetadataReceipt = MetadataReceipt { size: 100, crc32: 7, commits: false };

fn config() -> CheckpointConfig {
    CheckpointConfig { interval: Some(Duration::from_secs(1)), timeout: Duration::from_secs(60), ..Default::default() }
}

fn task(subtask: u32) -> TaskId {
    TaskId { vertex: VertexId(0), subtask }
}

fn id(id: u64) -> CheckpointId {
    CheckpointId(id)
}

fn file(name: &str) -> Vec<OperatorSubtaskState> {
    let data = StateHandle::File { directory: String::new(), name: name.to_string(), size: 10, crc32: 0 };
    let keyed = Some(KeyedStateHandle { range: KeyGroupRange::all(128), data });
    vec![OperatorSubtaskState {
        uid: OperatorUid("op".to_string()),
        keyed,
        lists: Vec::new(),
        in_flight: None,
        ahead: Vec::new(),
    }]
}

/// The file that a task wrote for a checkpoint.
fn part(checkpoint: u64, subtask: u32) -> Vec<OperatorSubtaskState> {
    file(&format!("{checkpoint}-{subtask}"))
}

/// A coordinator of a job with two running tasks, and its clock.
struct Job {
    coordinator: CheckpointCoordinator,
    now_ms: u64,
    attempt: Attempt,
}

impl Job {
    fn new(config: CheckpointConfig, history: &[u64]) -> Self {
        let history = history.iter().copied().map(CheckpointId).collect();
        let coordinator = CheckpointCoordinator::recovered(config, GENERATION, history, id(1));
        let mut job = Self { coordinator, now_ms: 0, attempt: Attempt(0) };
        assert_eq!(job.start(), []);
        job
    }

    fn start(&mut self) -> Vec<Effect> {
        self.attempt = self.attempt.next();
        let restored = self.coordinator.retained().last().copied();
        let tasks = BTreeSet::from([task(0), task(1)]);
        self.on(CoordinatorEvent::TasksRunning { attempt: self.attempt, tasks, restored })
    }

    fn on(&mut self, event: CoordinatorEvent) -> Vec<Effect> {
        self.coordinator.on(self.now_ms, event)
    }

    fn at(&mut self, now_ms: u64) -> Vec<Effect> {
        self.now_ms = now_ms;
        self.on(CoordinatorEvent::Tick)
    }

    fn trigger(&mut self, reason: TriggerReason) -> Vec<Effect> {
        self.on(CoordinatorEvent::Trigger(reason))
    }

    fn answer(&self, checkpoint: u64, subtask: u32, outcome: Result<TaskPart, Error>) -> TaskAnswer {
        TaskAnswer {
            generation: GENERATION,
            attempt: self.attempt,
            task: task(subtask),
            checkpoint: id(checkpoint),
            outcome,
        }
    }

    fn ack(&mut self, checkpoint: u64, subtask: u32) -> Vec<Effect> {
        let metrics = SubtaskCheckpointMetrics { state_bytes: 10, ..Default::default() };
        let outcome = Ok(TaskPart { state: part(checkpoint, subtask), metrics });
        let answer = self.answer(checkpoint, subtask, outcome);
        self.on(CoordinatorEvent::Answered(answer))
    }

    fn ack_all(&mut self, checkpoint: u64) -> Vec<Effect> {
        assert_eq!(self.ack(checkpoint, 0), []);
        self.ack(checkpoint, 1)
    }

    fn decline(&mut self, checkpoint: u64, subtask: u32) -> Vec<Effect> {
        let answer = self.answer(checkpoint, subtask, Err(Error::external("disk full")));
        self.on(CoordinatorEvent::Answered(answer))
    }

    fn metadata(&mut self, checkpoint: u64, outcome: MetadataOutcome) -> Vec<Effect> {
        self.on(CoordinatorEvent::MetadataWritten { checkpoint: id(checkpoint), outcome })
    }

    fn appended(&mut self, checkpoint: u64, outcome: AppendOutcome) -> Vec<Effect> {
        self.on(CoordinatorEvent::Appended { checkpoint: id(checkpoint), outcome })
    }

    fn leader(&mut self, checkpoint: u64, outcome: LeaderOutcome) -> Vec<Effect> {
        self.on(CoordinatorEvent::StillLeader { checkpoint: id(checkpoint), outcome })
    }

    /// Lets the store do what a fully acknowledged checkpoint needs, and returns what follows from the last answer.
    fn commit(&mut self, checkpoint: u64) -> Vec<Effect> {
        self.metadata(checkpoint, MetadataOutcome::Written(RECEIPT));
        self.appended(checkpoint, AppendOutcome::Appended);
        self.leader(checkpoint, LeaderOutcome::Yes)
    }

    /// A whole checkpoint, from its time on.
    fn complete(&mut self, checkpoint: u64) -> Vec<Effect> {
        let due = self.coordinator.next_wakeup().unwrap();
        let triggered = self.at(due);
        assert_eq!(triggered, [trigger(checkpoint, due)]);
        self.ack_all(checkpoint);
        self.commit(checkpoint)
    }
}

fn trigger(checkpoint: u64, triggered_at_ms: u64) -> Effect {
    Effect::Trigger(CheckpointBarrier { id: id(checkpoint), triggered_at_ms })
}

fn announce(checkpoint: u64, reason: TriggerReason) -> Effect {
    Effect::Announce { checkpoint: id(checkpoint), reason }
}

fn discarded(states: &[Vec<OperatorSubtaskState>]) -> Effect {
    Effect::DiscardState(states.concat())
}

mod completion {
    use super::*;

    #[test]
    fn a_checkpoint_goes_through_its_steps_in_order() {
        let mut job = Job::new(config(), &[]);
        assert_eq!(job.at(999), []);
        assert_eq!(job.at(1000), [trigger(1, 1000)]);
        assert_eq!(job.ack(1, 0), []);
        let [Effect::WriteMetadata { checkpoint, states }] = &job.ack(1, 1)[..] else { panic!("no metadata") };
        assert_eq!((*checkpoint, states[&task(1)].clone()), (id(1), part(1, 1)));
        let append = Effect::AppendLog { checkpoint: id(1), triggered_at_ms: 1000, metadata: RECEIPT };
        assert_eq!(job.metadata(1, MetadataOutcome::Written(RECEIPT)), [append]);
        assert_eq!(job.appended(1, AppendOutcome::Appended), [Effect::Relist { checkpoint: id(1) }]);
        assert_eq!(job.coordinator.restore_point(), RestorePoint::Undecided);
        assert_eq!(job.leader(1, LeaderOutcome::Yes), [announce(1, TriggerReason::Periodic)]);
        assert_eq!(job.coordinator.restore_point(), RestorePoint::Checkpoint(id(1)));
    }

    #[test]
    fn a_fenced_coordinator_does_nothing_any_more() {
        let fence: [fn(&mut Job) -> Vec<Effect>; 2] = [
            |job| job.appended(1, AppendOutcome::Fenced),
            |job| {
                job.appended(1, AppendOutcome::Appended);
                job.leader(1, LeaderOutcome::No)
            },
        ];
        for fence in fence {
            let mut job = Job::new(config(), &[]);
            job.at(1000);
            job.ack_all(1);
            job.metadata(1, MetadataOutcome::Written(RECEIPT));
            assert_eq!(fence(&mut job), [Effect::Stop]);
            assert_eq!(job.leader(1, LeaderOutcome::Yes), []);
            assert_eq!(job.at(100_000), []);
            assert_eq!(job.trigger(TriggerReason::User), []);
            assert_eq!(job.ack(9, 0), [], "not even garbage is discarded");
            assert_eq!(job.coordinator.next_wakeup(), None);
        }
    }

    #[test]
    fn an_append_without_answer_is_repeated_and_never_given_up() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        job.ack_all(1);
        job.metadata(1, MetadataOutcome::Written(RECEIPT));
        let append = Effect::AppendLog { checkpoint: id(1), triggered_at_ms: 1000, metadata: RECEIPT };
        for wait in [100, 200, 400] {
            assert_eq!(job.appended(1, AppendOutcome::Unknown(Error::external("timed out"))), []);
            assert!(job.coordinator.stalled_by().is_some());
            let due = job.now_ms + wait;
            assert_eq!(job.coordinator.next_wakeup(), Some(due));
            assert_eq!(job.at(due - 1), []);
            assert_eq!(job.at(due), std::slice::from_ref(&append));
        }
        assert_eq!(job.at(100_000_000), [], "beyond the timeout, and the answer is awaited");
        assert_eq!(job.on(CoordinatorEvent::TasksStopped), []);
        assert_eq!(job.coordinator.restore_point(), RestorePoint::Undecided);
        job.appended(1, AppendOutcome::Appended);
        assert_eq!(job.leader(1, LeaderOutcome::Unknown(Error::external("timed out"))), []);
        assert_eq!(job.at(100_000_100), [Effect::Relist { checkpoint: id(1) }]);
        assert_eq!(job.leader(1, LeaderOutcome::Yes), [], "nobody is there to be told");
        assert_eq!(job.coordinator.restore_point(), RestorePoint::Checkpoint(id(1)));
    }

    #[test]
    fn answers_that_nothing_waits_for_are_ignored() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        job.ack_all(1);
        assert_eq!(job.appended(1, AppendOutcome::Fenced), []);
        assert_eq!(job.leader(1, LeaderOutcome::No), []);
        assert_eq!(job.metadata(2, MetadataOutcome::Written(RECEIPT)), []);
        assert_eq!(job.commit(1), [announce(1, TriggerReason::Periodic)]);
        assert_eq!(job.commit(1), []);
    }

    #[test]
    fn checkpoints_beyond_the_retained_number_are_deleted_oldest_first() {
        let mut job = Job::new(CheckpointConfig { num_retained: 2, ..config() }, &[3, 4, 7]);
        let deleted = Effect::DeleteCheckpoints(vec![id(3), id(4)]);
        assert_eq!(job.complete(8), [announce(8, TriggerReason::Periodic), deleted]);
        let deleted = Effect::DeleteCheckpoints(vec![id(7)]);
        assert_eq!(job.complete(9), [announce(9, TriggerReason::Periodic), deleted]);
        assert_eq!(job.coordinator.retained(), [id(8), id(9)]);
    }

    #[test]
    fn a_conflict_goes_on_above_all_that_was_seen_and_is_no_failure() {
        let mut job = Job::new(CheckpointConfig { tolerable_failed: Some(0), ..config() }, &[]);
        job.at(1000);
        job.ack_all(1);
        let effects = job.metadata(1, MetadataOutcome::Conflict { highest: id(5) });
        assert_eq!(effects, [Effect::Abort(id(1)), discarded(&[part(1, 0), part(1, 1)])]);
        assert_eq!(job.complete(6), [announce(6, TriggerReason::Periodic)]);
    }

    #[test]
    fn failed_metadata_fails_the_checkpoint() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        job.ack_all(1);
        let effects = job.metadata(1, MetadataOutcome::Failed(Error::external("access denied")));
        assert_eq!(effects, [Effect::Abort(id(1)), discarded(&[part(1, 0), part(1, 1)])]);
        let failed = job.coordinator.statistics().latest.failed.clone().unwrap();
        assert_eq!(failed.failure_message.unwrap(), "writing the metadata of checkpoint 1: access denied");
        assert_eq!(job.coordinator.restore_point(), RestorePoint::Empty);
    }

    #[test]
    fn a_completed_checkpoint_supersedes_older_ones() {
        let mut job = Job::new(CheckpointConfig { max_concurrent: 3, ..config() }, &[]);
        for checkpoint in 1..=3 {
            assert_eq!(job.at(checkpoint * 1000), [trigger(checkpoint, checkpoint * 1000)]);
        }
        job.ack(1, 0);
        job.ack_all(2);
        assert_eq!(
            job.commit(2),
            [announce(2, TriggerReason::Periodic), Effect::Abort(id(1)), discarded(&[part(1, 0)])]
        );
        assert_eq!(job.ack(1, 1), [discarded(&[part(1, 1)])], "too late");
        job.ack_all(3);
        assert_eq!(job.commit(3), [announce(3, TriggerReason::Periodic)]);
    }

    #[test]
    fn checkpoints_are_completed_one_at_a_time_and_the_newest_first() {
        let mut job = Job::new(CheckpointConfig { max_concurrent: 3, ..config() }, &[]);
        (1..=3).for_each(|checkpoint| drop(job.at(checkpoint * 1000)));
        job.ack_all(1);
        assert_eq!(job.ack_all(2), []);
        assert_eq!(job.ack_all(3), []);
        let effects = job.commit(1);
        assert!(matches!(
            &effects[..],
            [Effect::Announce { .. }, Effect::WriteMetadata { checkpoint: CheckpointId(3), .. }]
        ));
        let expected =
            [announce(3, TriggerReason::Periodic), Effect::Abort(id(2)), discarded(&[part(2, 0), part(2, 1)])];
        assert_eq!(job.commit(3), expected);
    }
}

mod answers {
    use super::*;

    #[test]
    fn repeated_acknowledgements_never_discard_what_is_in_use() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        job.ack(1, 0);
        assert_eq!(job.ack(1, 0), [], "pending");
        job.ack(1, 1);
        assert_eq!(job.ack(1, 0), [], "being completed");
        job.commit(1);
        assert_eq!(job.ack(1, 0), [], "complete");
        job.on(CoordinatorEvent::TasksStopped);
        assert_eq!(job.ack(1, 0), [], "complete, and of an attempt that has ended");
    }

    #[test]
    fn stale_acknowledgements_count_for_nothing_and_their_state_is_discarded() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        let late = job.answer(1, 0, Ok(TaskPart { state: file("late"), metrics: Default::default() }));
        let of = |answer: TaskAnswer| CoordinatorEvent::Answered(answer);
        let expected = [discarded(&[file("late")])];
        assert_eq!(job.on(of(TaskAnswer { generation: Generation(2), ..late.clone() })), expected);
        assert_eq!(job.on(of(TaskAnswer { attempt: Attempt(0), ..late.clone() })), expected);
        assert_eq!(job.on(of(TaskAnswer { checkpoint: id(99), ..late.clone() })), expected);
        assert_eq!(job.on(of(TaskAnswer { task: task(9), ..late.clone() })), expected);
        assert_eq!(job.on(of(TaskAnswer { generation: Generation(4), ..late })), [], "not ours to judge");
        assert_eq!(job.coordinator.statistics().history[0].num_acknowledged_subtasks, 0);
    }

    #[test]
    fn the_state_of_a_restored_checkpoint_is_never_discarded() {
        let mut job = Job::new(config(), &[4]);
        let mut copy = job.answer(4, 0, Ok(TaskPart { state: part(4, 0), metrics: Default::default() }));
        copy.generation = Generation(2);
        assert_eq!(job.on(CoordinatorEvent::Answered(copy)), []);
    }

    #[test]
    fn a_declined_checkpoint_is_aborted_and_its_state_discarded() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        job.ack(1, 0);
        assert_eq!(job.decline(1, 1), [Effect::Abort(id(1)), discarded(&[part(1, 0)])]);
        assert_eq!(job.decline(1, 1), []);
        let failed = job.coordinator.statistics().latest.failed.clone().unwrap();
        assert_eq!(failed.failure_message.unwrap(), "task 0/1 declined checkpoint 1: disk full");
    }

    #[test]
    fn a_checkpoint_without_all_answers_expires_and_says_whose() {
        let mut job = Job::new(CheckpointConfig { interval: Some(Duration::from_secs(3600)), ..config() }, &[]);
        job.trigger(TriggerReason::User);
        job.ack(1, 0);
        assert_eq!(job.coordinator.next_wakeup(), Some(60_000));
        assert_eq!(job.at(60_000), [Effect::Abort(id(1)), discarded(&[part(1, 0)])]);
        let failed = job.coordinator.statistics().latest.failed.clone().unwrap();
        assert_eq!(failed.failure_message.unwrap(), "checkpoint 1 expired after 60s: no answer from task 0/1");
    }

    #[test]
    fn too_many_failures_in_a_row_fail_the_job() {
        let mut job = Job::new(CheckpointConfig { tolerable_failed: Some(1), ..config() }, &[]);
        job.at(1000);
        assert_eq!(job.decline(1, 0), [Effect::Abort(id(1))]);
        job.complete(2);
        job.at(3000);
        assert_eq!(job.decline(3, 0), [Effect::Abort(id(3))], "a completed one lies between");
        job.at(4000);
        let effects = job.decline(4, 0);
        let [Effect::Abort(_), Effect::FailJob(error)] = &effects[..] else { panic!("{effects:?}") };
        assert!(error.message.contains("2 checkpoints failed in a row"), "{error}");
        assert!(error.message.contains("disk full"), "{error}");
        assert_eq!(job.at(100_000), [], "until the tasks have been restarted");
        job.on(CoordinatorEvent::TasksStopped);
        job.start();
        assert_eq!(job.at(101_000), [trigger(5, 101_000)]);
    }

    #[test]
    fn any_number_of_failures_is_borne_by_default() {
        let mut job = Job::new(config(), &[]);
        for checkpoint in 1..=100 {
            job.at(checkpoint * 1000);
            assert_eq!(job.decline(checkpoint, 0), [Effect::Abort(id(checkpoint))]);
        }
    }

    #[test]
    fn giving_up_an_older_checkpoint_for_a_newer_is_no_failure() {
        let mut job = Job::new(CheckpointConfig { max_concurrent: 2, tolerable_failed: Some(0), ..config() }, &[]);
        job.at(1000);
        job.at(2000);
        assert_eq!(job.decline(1, 0), [Effect::Abort(id(1))]);
        let effects = job.decline(2, 0);
        assert!(matches!(effects[..], [Effect::Abort(_), Effect::FailJob(_)]), "{effects:?}");
    }
}

mod triggers {
    use super::*;

    #[test]
    fn adopted_tasks_keep_their_interval() {
        // The newest was triggered a while ago, longer ago than the interval, and in the future of this clock.
        for (newest_at_ms, due) in [(99_600, 100_600), (50_000, 100_001), (200_000, 101_000)] {
            let mut coordinator = CheckpointCoordinator::recovered(config(), GENERATION, vec![id(4)], id(5));
            let (attempt, tasks) = (Attempt(2), BTreeSet::from([task(0), task(1)]));
            let adopted = CoordinatorEvent::TasksAdopted { attempt, tasks, triggered: Some(id(6)), newest_at_ms };
            assert_eq!(coordinator.on(100_000, adopted), [], "they are told of the adoption first");
            assert_eq!(coordinator.next_wakeup(), Some(due));
            assert_eq!(coordinator.on(due, CoordinatorEvent::Tick), [trigger(7, due)]);
        }
    }

    #[test]
    fn no_more_than_max_concurrent_and_then_at_once() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        assert_eq!(job.at(5000), []);
        job.ack_all(1);
        assert_eq!(job.at(6000), [], "being completed still counts");
        assert_eq!(job.commit(1), [announce(1, TriggerReason::Periodic), trigger(2, 6000)]);
    }

    #[test]
    fn the_least_pause_is_kept_after_success_and_failure() {
        let mut job = Job::new(CheckpointConfig { min_pause: Duration::from_millis(700), ..config() }, &[]);
        job.at(1000);
        job.now_ms = 1900;
        job.ack_all(1);
        assert_eq!(job.commit(1), [announce(1, TriggerReason::Periodic)]);
        assert_eq!(job.coordinator.next_wakeup(), Some(2600));
        assert_eq!(job.at(2600), [trigger(2, 2600)]);
        job.now_ms = 3500;
        job.decline(2, 0);
        assert_eq!(job.coordinator.next_wakeup(), Some(4200));
    }

    #[test]
    fn a_request_does_not_wait_and_is_repeated_until_complete() {
        let mut job = Job::new(config(), &[]);
        assert_eq!(job.trigger(TriggerReason::Initial), [trigger(1, 0)]);
        assert_eq!(job.trigger(TriggerReason::User), [], "granted by the one under way");
        job.decline(1, 0);
        assert_eq!(job.coordinator.next_wakeup(), Some(100));
        assert_eq!(job.at(100), [trigger(2, 100)]);
        job.ack_all(2);
        assert_eq!(job.commit(2), [announce(2, TriggerReason::Initial)]);
        assert_eq!(job.coordinator.next_wakeup(), Some(1100), "periodic ones go on");
    }

    #[test]
    fn nothing_follows_the_final_checkpoint() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        assert_eq!(job.trigger(TriggerReason::Final), [trigger(2, 1000)], "beside the one under way");
        job.ack_all(2);
        assert_eq!(job.commit(2), [announce(2, TriggerReason::Final), Effect::Abort(id(1))]);
        assert_eq!(job.at(100_000), []);
        assert_eq!(job.coordinator.next_wakeup(), None);
    }

    #[test]
    fn a_stronger_request_takes_a_checkpoint_of_its_own() {
        let mut job = Job::new(config(), &[]);
        assert_eq!(job.trigger(TriggerReason::User), [trigger(1, 0)]);
        assert_eq!(job.trigger(TriggerReason::Final), [trigger(2, 0)]);
        job.ack_all(1);
        assert_eq!(job.commit(1), [announce(1, TriggerReason::User)]);
        job.ack_all(2);
        assert_eq!(job.commit(2), [announce(2, TriggerReason::Final)]);
    }

    #[test]
    fn nothing_is_triggered_while_no_tasks_run() {
        let mut job = Job::new(config(), &[]);
        job.at(1000);
        assert_eq!(job.on(CoordinatorEvent::TasksStopped), []);
        assert_eq!(job.trigger(TriggerReason::User), []);
        assert_eq!(job.at(10_000), []);
        assert_eq!(job.coordinator.next_wakeup(), None);
        assert_eq!(job.start(), []);
        assert_eq!(job.at(11_000), [trigger(2, 11_000)]);
    }

    #[test]
    fn without_an_interval_only_requests_trigger() {
        let mut job = Job::new(CheckpointConfig { interval: None, ..config() }, &[]);
        assert_eq!(job.coordinator.next_wakeup(), None);
        assert_eq!(job.trigger(TriggerReason::User), [trigger(1, 0)]);
        job.ack_all(1);
        job.commit(1);
        assert_eq!(job.at(100_000), []);
    }

    #[test]
    fn ids_are_above_the_log_and_the_store() {
        let recovered = |history: &[u64], next| {
            let history = history.iter().copied().map(CheckpointId).collect();
            let mut coordinator = CheckpointCoordinator::recovered(config(), GENERATION, history, id(next));
            let tasks = BTreeSet::from([task(0)]);
            coordinator.on(0, CoordinatorEvent::TasksRunning { attempt: Attempt(1), tasks, restored: None });
            coordinator.on(0, CoordinatorEvent::Trigger(TriggerReason::User))
        };
        assert_eq!(recovered(&[2, 9], 5), [trigger(10, 0)]);
        assert_eq!(recovered(&[2, 9], 20), [trigger(20, 0)]);
    }
}

mod statistics_are_kept {
    use super::*;

    #[test]
    fn with_counts_sizes_and_the_subtasks_measures() {
        let mut job = Job::new(config(), &[5]);
        job.at(1000);
        job.now_ms = 1200;
        job.ack(6, 0);
        job.ack(6, 0);
        let running = &job.coordinator.statistics().history[0];
        assert_eq!((running.status, running.num_acknowledged_subtasks), (CheckpointStatus::InProgress, 1));
        assert_eq!((running.state_size, running.latest_ack_timestamp), (10, Some(1200)));
        job.ack(6, 1);
        job.now_ms = 1300;
        job.commit(6);
        job.at(2000);
        job.decline(7, 0);
        job.at(3000);
        let statistics = job.coordinator.statistics();
        let CheckpointCounts { restored, total, in_progress, completed, failed } = statistics.counts;
        assert_eq!((restored, total, in_progress, completed, failed), (1, 3, 1, 1, 1));
        assert_eq!(statistics.history.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [8, 7, 6]);
        let latest = statistics.latest.completed.as_ref().unwrap();
        assert_eq!((latest.id, latest.end_to_end_duration, latest.state_size), (id(6), 300, 20));
        assert_eq!(latest.tasks[&VertexId(0)][&1].end_to_end_duration, 200);
        assert_eq!(statistics.latest.restored, Some(RestoredCheckpoint { id: id(5), restore_timestamp: 0 }));
    }

    #[test]
    fn the_history_is_bounded() {
        let mut job = Job::new(config(), &[]);
        (1..=25).for_each(|checkpoint| drop(job.complete(checkpoint)));
        let statistics = job.coordinator.statistics();
        assert_eq!(statistics.history.len(), HISTORY);
        assert_eq!(statistics.history[0].id, id(25));
        assert_eq!(statistics.counts.completed, 25);
    }
}
