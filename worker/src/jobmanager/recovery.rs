//! How long a recovery took, phase by phase: from the failure, or the start of the jobmanager's process, to the first
//! new output. `docs/recovery.md` says what each phase is.

use std::{collections::BTreeSet, time::Duration};

use millrace_core::{
    ids::{CheckpointId, TaskId},
    rest::{RecoveryDetails, RecoveryPhase},
};
use millrace_runtime::task::RestoreMetrics;

use super::progress::RecordCounts;

/// A recovery is told without its last phases where its job has put nothing out for so long since its tasks run: its
/// sources may have nothing to read.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// The phases of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    TakeOver,
    Adopt,
    Detect,
    Cancel,
    Allocate,
    Fetch,
    Restore,
    Replay,
    FirstOutput,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::TakeOver => "take-over",
            Self::Adopt => "adopt",
            Self::Detect => "detect",
            Self::Cancel => "cancel",
            Self::Allocate => "allocate",
            Self::Fetch => "fetch",
            Self::Restore => "restore",
            Self::Replay => "replay",
            Self::FirstOutput => "first-output",
        }
    }
}

/// Measures recoveries. All moments are times since the jobmanager started.
#[derive(Default)]
pub struct RecoveryClock {
    under_way: Option<UnderWay>,
}

struct UnderWay {
    began: Duration,
    cause: String,
    taskmanager: Option<String>,
    /// The phases that are over, in order, and when each ended. Each begins with the end of the one before.
    over: Vec<(Phase, Duration)>,
    /// Of all tasks that were deployed since the last failure.
    restore: RestoreMetrics,
    restored_checkpoint: Option<CheckpointId>,
    replayed: u64,
    /// The sources that are not where the failure found them.
    behind: BTreeSet<TaskId>,
    span: tracing::Span,
}

impl UnderWay {
    fn new(began: Duration, cause: &str, taskmanager: Option<String>, first: (Phase, Duration)) -> Self {
        let span = tracing::info_span!("recovery", cause, taskmanager);
        let mut new = Self {
            began,
            cause: cause.to_string(),
            taskmanager,
            over: Vec::new(),
            restore: RestoreMetrics::default(),
            restored_checkpoint: None,
            replayed: 0,
            behind: BTreeSet::new(),
            span,
        };
        new.end(first.0, first.1);
        new
    }

    fn has_ended(&self, phase: Phase) -> bool {
        self.over.iter().any(|(over, _)| *over == phase)
    }

    fn last(&self) -> Duration {
        self.over.last().map_or(self.began, |(_, end)| *end)
    }

    fn end(&mut self, phase: Phase, at: Duration) {
        if self.has_ended(phase) {
            return;
        }
        let (from, at) = (self.last(), at.max(self.last()));
        self.over.push((phase, at));
        tracing::debug!(parent: &self.span, phase = phase.name(), duration = ?(at - from), "phase of the recovery");
    }

    fn details(&self, process_started_ms: u64) -> RecoveryDetails {
        let millis = |duration: Duration| duration.as_millis() as u64;
        let mut from = self.began;
        let phases = self.over.iter().map(|(phase, end)| {
            let (began, name) = (std::mem::replace(&mut from, *end), phase.name().to_string());
            // Differences of whole milliseconds, so that the phases add up.
            RecoveryPhase { name, duration: millis(*end - self.began) - millis(began - self.began) }
        });
        RecoveryDetails {
            timestamp: process_started_ms + millis(self.began),
            phases: phases.collect(),
            duration: millis(self.last() - self.began),
            restored_checkpoint: self.restored_checkpoint.map(|id| id.0),
            cause: self.cause.clone(),
            taskmanager: self.taskmanager.clone(),
            fetched_bytes: self.restore.fetched_bytes,
            local_bytes: self.restore.local_bytes,
            replayed_records: self.replayed,
        }
    }
}

impl RecoveryClock {
    /// A failure was noticed, which had happened at `since`; `taskmanager` is the one that was lost. A failure before
    /// all tasks run prolongs the recovery that is under way. Returns one that is over by that.
    pub fn failed(&mut self, now: Duration, since: Duration, cause: &str, lost: Option<String>) -> Option<Finished> {
        match &mut self.under_way {
            Some(under_way) if !under_way.has_ended(Phase::Restore) => {
                under_way.over.truncate(1);
                under_way.restore = RestoreMetrics::default();
                None
            }
            _ => {
                let new = UnderWay::new(since.min(now), cause, lost, (Phase::Detect, now));
                self.under_way.replace(new).map(Finished)
            }
        }
    }

    /// This jobmanager goes on with the job of an earlier one.
    pub fn took_over(&mut self, now: Duration, cause: &str) {
        self.under_way = Some(UnderWay::new(Duration::ZERO, cause, None, (Phase::TakeOver, now)));
    }

    /// The tasks that run are this jobmanager's now. Returns its taking over, which is over.
    pub fn adopted(&mut self, now: Duration) -> Option<Finished> {
        self.end(Phase::Adopt, now);
        self.under_way.take().map(Finished)
    }

    /// A taskmanager with tasks was lost at `since`. What its neighbours noticed of that may have been the first sign.
    pub fn lost(&mut self, since: Duration, taskmanager: &str) {
        let of_tasks = |under_way: &&mut UnderWay| under_way.has_ended(Phase::Detect);
        if let Some(under_way) = self.under_way.as_mut().filter(of_tasks) {
            under_way.taskmanager.get_or_insert_with(|| taskmanager.to_string());
            if !under_way.has_ended(Phase::Cancel) {
                under_way.began = under_way.began.min(since);
            }
        }
    }

    /// The tasks that were left have ended.
    pub fn canceled(&mut self, now: Duration) {
        self.end(Phase::Cancel, now);
    }

    /// The tasks have their slots.
    pub fn allocated(&mut self, now: Duration) {
        self.end(Phase::Cancel, now);
        self.end(Phase::Allocate, now);
    }

    /// The checkpoint's metadata and the splits are at hand.
    pub fn prepared(&mut self, now: Duration) {
        self.end(Phase::Fetch, now);
    }

    /// A task has its state.
    pub fn deployed(&mut self, metrics: &RestoreMetrics) {
        if let Some(under_way) = &mut self.under_way {
            under_way.restore.add(metrics);
        }
    }

    /// All tasks run; `again` is what the sources have to read again.
    pub fn running(&mut self, now: Duration, restored: Option<CheckpointId>, again: &RecordCounts) {
        let Some(under_way) = &mut self.under_way else { return };
        // The tasks fetch side by side: the one that took longest tells how long that was.
        if let Some((Phase::Fetch, end)) = under_way.over.last_mut() {
            *end = now.min(*end + under_way.restore.fetch);
        }
        under_way.end(Phase::Restore, now);
        under_way.restored_checkpoint = restored;
        under_way.replayed = again.values().sum();
        under_way.behind = again.keys().copied().collect();
        if again.is_empty() {
            self.end(Phase::Replay, now);
        }
    }

    /// A source is where the failure found it. Returns whether all are now.
    pub fn caught_up(&mut self, now: Duration, task: TaskId) -> bool {
        let Some(under_way) = &mut self.under_way else { return false };
        let last = under_way.behind.remove(&task) && under_way.behind.is_empty();
        if last {
            self.end(Phase::Replay, now);
        }
        last
    }

    /// Whether all sources are where the failure found them, and nothing new was put out yet.
    pub fn awaits_output(&self) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.has_ended(Phase::Replay))
    }

    /// Something new was put out. Returns the recovery, which is over.
    pub fn first_output(&mut self, now: Duration) -> Option<Finished> {
        if !self.awaits_output() {
            return None;
        }
        self.end(Phase::FirstOutput, now);
        self.under_way.take().map(Finished)
    }

    /// Returns the recovery where nothing was put out for so long that nothing may be to come.
    pub fn give_up(&mut self, now: Duration) -> Option<Finished> {
        let runs = |under_way: &mut UnderWay| under_way.has_ended(Phase::Restore);
        self.under_way.take_if(|under_way| runs(under_way) && now > under_way.last() + LONGEST_SILENCE).map(Finished)
    }

    /// What is to be shown of the recovery under way, once its tasks run.
    pub fn details(&self, process_started_ms: u64) -> Option<RecoveryDetails> {
        let runs = |under_way: &&UnderWay| under_way.has_ended(Phase::Restore);
        self.under_way.as_ref().filter(runs).map(|under_way| under_way.details(process_started_ms))
    }

    fn end(&mut self, phase: Phase, at: Duration) {
        if let Some(under_way) = &mut self.under_way {
            under_way.end(phase, at);
        }
    }
}

/// A recovery that is over.
pub struct Finished(UnderWay);

impl Finished {
    /// Writes it down, in one line, and returns what is to be shown of it.
    pub fn tell(&self, process_started_ms: u64) -> RecoveryDetails {
        let details = self.0.details(process_started_ms);
        let phases: Vec<_> =
            details.phases.iter().map(|phase| format!("{} {} ms", phase.name, phase.duration)).collect();
        tracing::info!(
            parent: &self.0.span,
            duration_ms = details.duration,
            phases = phases.join(", "),
            restored_checkpoint = details.restored_checkpoint,
            replayed_records = details.replayed_records,
            fetched_bytes = details.fetched_bytes,
            local_bytes = details.local_bytes,
            "recovered"
        );
        details
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::VertexId;

    use super::*;

    const TASK: TaskId = TaskId { vertex: VertexId(0), subtask: 0 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn phases(details: &RecoveryDetails) -> Vec<(&str, u64)> {
        details.phases.iter().map(|phase| (phase.name.as_str(), phase.duration)).collect()
    }

    /// A lost taskmanager at 100 ms, noticed at 110 ms; its tasks run again at 200 ms.
    fn running(again: &[(TaskId, u64)]) -> RecoveryClock {
        let mut clock = RecoveryClock::default();
        assert!(clock.failed(ms(110), ms(100), "lost", Some("tm".into())).is_none());
        clock.canceled(ms(115));
        clock.allocated(ms(130));
        clock.prepared(ms(140));
        clock.deployed(&RestoreMetrics { fetch: ms(5), fetched_bytes: 10, local_bytes: 0 });
        clock.deployed(&RestoreMetrics { fetch: ms(20), fetched_bytes: 1, local_bytes: 7 });
        clock.running(ms(200), Some(CheckpointId(4)), &again.iter().copied().collect());
        clock
    }

    #[test]
    fn phases_follow_one_another_and_add_up() {
        let mut clock = running(&[(TASK, 9)]);
        assert!(!clock.awaits_output() && clock.first_output(ms(201)).is_none());
        assert!(clock.caught_up(ms(240), TASK));
        let details = clock.first_output(ms(250)).unwrap().tell(1_000);
        let expected = [
            ("detect", 10),
            ("cancel", 5),
            ("allocate", 15),
            ("fetch", 30),
            ("restore", 40),
            ("replay", 40),
            ("first-output", 10),
        ];
        assert_eq!(phases(&details), expected);
        assert_eq!((details.timestamp, details.duration), (1_100, 150));
        assert_eq!((details.fetched_bytes, details.local_bytes, details.replayed_records), (11, 7, 9));
        assert_eq!((details.restored_checkpoint, details.taskmanager.as_deref()), (Some(4), Some("tm")));
        assert!(clock.details(0).is_none(), "it is over");
    }

    #[test]
    fn with_nothing_to_read_again_the_next_output_is_new() {
        let mut clock = running(&[]);
        assert!(clock.awaits_output());
        assert_eq!(phases(&clock.details(0).unwrap()).last(), Some(&("replay", 0)));
        assert!(clock.first_output(ms(203)).is_some());
    }

    #[test]
    fn a_failure_before_all_tasks_run_prolongs_the_recovery() {
        let mut clock = RecoveryClock::default();
        clock.failed(ms(100), ms(100), "first", None);
        clock.allocated(ms(120));
        clock.prepared(ms(130));
        assert!(clock.failed(ms(150), ms(150), "second", None).is_none());
        clock.allocated(ms(180));
        clock.prepared(ms(190));
        clock.running(ms(200), None, &RecordCounts::new());
        let details = clock.details(0).unwrap();
        assert_eq!(details.cause, "first");
        assert_eq!(phases(&details)[..3], [("detect", 0), ("cancel", 80), ("allocate", 0)]);
        assert_eq!(details.duration, 100);
    }

    #[test]
    fn a_failure_of_running_tasks_is_a_recovery_of_its_own() {
        let mut clock = running(&[(TASK, 9)]);
        let first = clock.failed(ms(300), ms(300), "second", None).unwrap().tell(0);
        assert_eq!((first.cause.as_str(), first.phases.last().unwrap().name.as_str()), ("lost", "restore"));
        assert!(clock.details(0).is_none(), "its tasks don't run yet");
    }

    #[test]
    fn what_a_neighbour_noticed_first_is_the_lost_taskmanagers_failure() {
        let mut clock = RecoveryClock::default();
        clock.failed(ms(100), ms(100), "a connection was closed", None);
        clock.lost(ms(95), "tm");
        clock.allocated(ms(110));
        clock.prepared(ms(110));
        clock.running(ms(120), None, &RecordCounts::new());
        let details = clock.details(0).unwrap();
        assert_eq!((details.taskmanager.as_deref(), phases(&details)[0]), (Some("tm"), ("detect", 5)));
    }

    #[test]
    fn a_take_over_begins_with_the_process() {
        let mut clock = RecoveryClock::default();
        clock.took_over(ms(70), "restarted");
        clock.allocated(ms(100));
        clock.prepared(ms(130));
        clock.running(ms(150), None, &RecordCounts::new());
        let details = clock.details(5).unwrap();
        assert_eq!(phases(&details)[0], ("take-over", 70));
        assert_eq!((details.timestamp, details.duration), (5, 150));
    }

    #[test]
    fn tasks_that_run_are_adopted_and_nothing_else() {
        let mut clock = RecoveryClock::default();
        clock.took_over(ms(70), "restarted");
        let details = clock.adopted(ms(90)).unwrap().tell(0);
        assert_eq!((phases(&details), details.restored_checkpoint), (vec![("take-over", 70), ("adopt", 20)], None));
    }

    #[test]
    fn a_job_that_puts_nothing_out_is_told_of_after_a_while() {
        let mut clock = running(&[]);
        assert!(clock.give_up(ms(200) + LONGEST_SILENCE).is_none());
        assert!(clock.give_up(ms(201) + LONGEST_SILENCE).is_some());
    }
}
