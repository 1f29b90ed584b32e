//! Whether a new jobmanager goes on with the tasks that run already: pure.
//!
//! The tasks must be all of the job's, of one attempt of it, and what they hold must continue the newest checkpoint of the
//! log: it is theirs, or they were restored from it, or an earlier jobmanager adopted them at it. Tasks of any other
//! line of history are ended: what they do next was done otherwise by somebody else.
//!
//! A region that starts again by itself begins an attempt of the job of which the tasks that run on become a part. Each of
//! their taskmanagers has answered that it knows, before any task of the region is deployed; and until the region runs,
//! these tasks say that they wait for it. So tasks that a jobmanager has lost, and whose successors it has begun beside tasks
//! that ran on, never make up an attempt again: at least one of those is of a later one.
//!
//! Where no task ran on, the log has to tell of a later attempt: if all tasks of the one before live on as zombies,
//! they could be adopted, though the sinks of the later one have removed what they had in progress. So before any task
//! of the whole job is deployed while all of an earlier attempt may live on, the log holds a
//! [mark](super::JobScheduler::must_be_marked), and tasks of an attempt before the newest mark are refused. An attempt
//! of which one task is known to have ended needs none after it: it never reports itself whole.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::ids::{Attempt, CheckpointId, Generation, TaskId, TaskManagerId};
use serde::{Deserialize, Serialize};

/// A task that runs, as its taskmanager reports it to a new jobmanager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptableTask {
    /// The subtask.
    pub task: TaskId,
    /// The jobmanager that deployed it, or adopted it last.
    pub generation: Generation,
    /// The attempt in which it was deployed.
    pub attempt: Attempt,
    /// The attempt of the job that it is a part of: a later one, where tasks beside it have started again.
    pub job_attempt: Attempt,
    /// The checkpoint that it was restored from, that tasks beside it were restored from, or at which it was adopted.
    pub continues: Option<CheckpointId>,
    /// The highest checkpoint that it was told to take; sources know it.
    pub triggered: Option<CheckpointId>,
    /// Why it does not simply go on running, if so.
    pub unsteady: Option<String>,
    /// It has read all its input.
    pub ended: bool,
    /// The splits that it was given, by their ids.
    pub splits: Vec<String>,
}

/// The newest checkpoint of the log, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestCheckpoint {
    /// Which one.
    pub id: CheckpointId,
    /// The jobmanager that completed it.
    pub generation: Generation,
    /// The attempt of the job whose tasks took it.
    pub attempt: Attempt,
    /// When it was triggered.
    pub triggered_at_ms: u64,
}

/// The tasks of an attempt of the job that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningAttempt {
    /// Its number.
    pub attempt: Attempt,
    /// The attempt in which each task was deployed.
    pub attempts: BTreeMap<TaskId, Attempt>,
    /// Where each task runs.
    pub assignment: BTreeMap<TaskId, TaskManagerId>,
    /// The tasks that have read all their input.
    pub ended: BTreeSet<TaskId>,
    /// The splits that each task was given, by their ids.
    pub splits: BTreeMap<TaskId, Vec<String>>,
    /// The highest checkpoint that was triggered.
    pub triggered: Option<CheckpointId>,
}

/// What follows from the reports so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptionVerdict {
    /// Tasks are missing that may still be reported.
    Wait,
    /// Go on with these tasks.
    Adopt(RunningAttempt),
    /// End what runs and start the job anew, for this reason.
    Restart(String),
}

/// Which rules hold; tests leave one out to show that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdoptionChecks {
    /// The tasks must continue the newest checkpoint.
    pub agreement: bool,
    /// The tasks must be of one attempt of the job.
    pub one_attempt: bool,
    /// The log must hold no mark of a later attempt of the whole job.
    pub no_later: bool,
}

impl Default for AdoptionChecks {
    fn default() -> Self {
        Self { agreement: true, one_attempt: true, no_later: true }
    }
}

/// The reports that a new jobmanager gathers.
#[derive(Clone, Debug)]
pub struct Adoption {
    tasks: Vec<TaskId>,
    newest: NewestCheckpoint,
    marked: Option<(Generation, Attempt)>,
    checks: AdoptionChecks,
    reports: BTreeMap<TaskId, (TaskManagerId, AdoptableTask)>,
    refused: Option<String>,
}

impl Adoption {
    /// Nothing is reported yet of these tasks, all of the job's. `marked` is the newest attempt of the whole job whose
    /// beginning is marked in the log.
    pub fn new(
        tasks: Vec<TaskId>,
        newest: NewestCheckpoint,
        marked: Option<(Generation, Attempt)>,
        checks: AdoptionChecks,
    ) -> Self {
        Self { tasks, newest, marked, checks, reports: BTreeMap::new(), refused: None }
    }

    /// The checkpoint that the tasks have to continue.
    pub fn newest(&self) -> NewestCheckpoint {
        self.newest
    }

    /// Whether any task was reported.
    pub fn any(&self) -> bool {
        !self.reports.is_empty()
    }

    /// A taskmanager reports its tasks.
    pub fn reported(&mut self, from: &TaskManagerId, reports: Vec<AdoptableTask>) {
        for report in reports {
            self.refuse(self.judge(&report));
            let task = report.task;
            if let Some((other, _)) = self.reports.insert(task, (from.clone(), report)) {
                self.refuse(Some(format!("task {task} runs on {other} and on {from}")));
            }
        }
    }

    /// A task has read all its input.
    pub fn ended(&mut self, task: TaskId) {
        if let Some((_, report)) = self.reports.get_mut(&task) {
            report.ended = true;
        }
    }

    /// A task that was reported has ended.
    pub fn gone(&mut self, task: TaskId, how: &str) {
        if self.reports.contains_key(&task) {
            self.refuse(Some(format!("task {task} {how}")));
        }
    }

    /// A taskmanager is gone, and its tasks with it.
    pub fn lost(&mut self, id: &TaskManagerId) {
        if self.reports.values().any(|(at, _)| at == id) {
            self.refuse(Some(format!("taskmanager {id}, which ran tasks, is gone")));
        }
    }

    /// What follows from the reports so far.
    pub fn verdict(&self) -> AdoptionVerdict {
        if let Some(why) = &self.refused {
            return AdoptionVerdict::Restart(why.clone());
        }
        if !self.tasks.iter().all(|task| self.reports.contains_key(task)) {
            return AdoptionVerdict::Wait;
        }
        let Some(attempt) = self.reports.values().map(|(_, report)| report.job_attempt).max() else {
            return AdoptionVerdict::Wait;
        };
        let of_tasks = self.reports.iter();
        AdoptionVerdict::Adopt(RunningAttempt {
            attempt,
            attempts: of_tasks.clone().map(|(task, (_, report))| (*task, report.attempt)).collect(),
            assignment: of_tasks.clone().map(|(task, (at, _))| (*task, at.clone())).collect(),
            ended: of_tasks.clone().filter(|(_, (_, report))| report.ended).map(|(task, _)| *task).collect(),
            splits: of_tasks.clone().map(|(task, (_, report))| (*task, report.splits.clone())).collect(),
            triggered: of_tasks.filter_map(|(_, (_, report))| report.triggered).max(),
        })
    }

    /// No more reports are waited for: what is missing will not come.
    pub fn give_up(&mut self) {
        let missing = self.tasks.iter().filter(|task| !self.reports.contains_key(task)).count();
        if missing > 0 {
            self.refuse(Some(format!("{missing} of its {} tasks were not reported", self.tasks.len())));
        }
    }

    fn refuse(&mut self, why: Option<String>) {
        if self.refused.is_none() {
            self.refused = why;
        }
    }

    fn judge(&self, report: &AdoptableTask) -> Option<String> {
        let AdoptableTask { task, generation, job_attempt: attempt, continues, unsteady, .. } = report;
        if let Some(why) = unsteady {
            return Some(format!("task {task} {why}"));
        }
        if !self.tasks.contains(task) {
            return Some(format!("task {task} is none of the job's"));
        }
        let first = self.reports.values().next().map_or(report, |(_, first)| first);
        if self.checks.one_attempt && (first.generation, first.job_attempt) != (*generation, *attempt) {
            return Some(format!(
                "tasks {} and {task} are of attempts {} and {attempt} of the job, of generations {} and {generation}",
                first.task, first.job_attempt, first.generation
            ));
        }
        let own = (*generation, *attempt);
        if let Some(marked) = self.marked.filter(|marked| self.checks.no_later && own < *marked) {
            return Some(format!(
                "task {task} is of attempt {attempt} of the job, of generation {generation}, and attempt {} of \
                 generation {} has begun since",
                marked.1, marked.0
            ));
        }
        let newest = self.newest;
        let of_newest = (newest.generation, newest.attempt);
        // One from before it may have begun from another job's checkpoint of that number.
        let continues_it = own > of_newest && *continues == Some(newest.id);
        if self.checks.agreement && own != of_newest && !continues_it {
            let from = continues.map_or("nothing".to_string(), |id| format!("checkpoint {id}"));
            return Some(format!(
                "task {task}, of attempt {attempt} of generation {generation}, continues {from}, and the newest \
                 checkpoint is {}, of attempt {} of generation {}",
                newest.id, newest.attempt, newest.generation
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::VertexId;

    use super::*;

    const TASKS: [TaskId; 2] = [TaskId { vertex: VertexId(0), subtask: 0 }, TaskId { vertex: VertexId(1), subtask: 0 }];
    /// Attempt 3 of generation 1 has taken it.
    const NEWEST: NewestCheckpoint =
        NewestCheckpoint { id: CheckpointId(8), generation: Generation(1), attempt: Attempt(3), triggered_at_ms: 5 };

    fn tm(name: &str) -> TaskManagerId {
        TaskManagerId(name.to_string())
    }

    fn report(task: usize) -> AdoptableTask {
        AdoptableTask {
            task: TASKS[task],
            generation: Generation(1),
            attempt: Attempt(3 - task as u32),
            job_attempt: Attempt(3),
            continues: Some(CheckpointId(5)),
            triggered: Some(CheckpointId(9)),
            unsteady: None,
            ended: task == 0,
            splits: vec![format!("split {task}")],
        }
    }

    fn adoption() -> Adoption {
        marked(None)
    }

    fn marked(attempt: Option<(Generation, Attempt)>) -> Adoption {
        Adoption::new(TASKS.to_vec(), NEWEST, attempt, AdoptionChecks::default())
    }

    /// Both tasks, each on a taskmanager of its own, after a change.
    fn verdict(change: impl Fn(usize, &mut AdoptableTask)) -> AdoptionVerdict {
        let mut adoption = adoption();
        for (task, name) in [(0, "a"), (1, "b")] {
            let mut report = report(task);
            change(task, &mut report);
            adoption.reported(&tm(name), vec![report]);
        }
        adoption.verdict()
    }

    fn is_adopted(verdict: &AdoptionVerdict) -> bool {
        matches!(verdict, AdoptionVerdict::Adopt(_))
    }

    #[test]
    fn all_tasks_of_the_attempt_whose_checkpoint_is_the_newest_are_adopted() {
        let AdoptionVerdict::Adopt(running) = verdict(|_, _| {}) else { panic!("they agree with the log") };
        assert_eq!(running.attempt, Attempt(3));
        assert_eq!(running.attempts, [(TASKS[0], Attempt(3)), (TASKS[1], Attempt(2))].into(), "one has run on");
        assert_eq!(running.assignment, [(TASKS[0], tm("a")), (TASKS[1], tm("b"))].into());
        assert_eq!(running.ended, [TASKS[0]].into());
        assert_eq!(running.splits[&TASKS[1]], ["split 1"]);
        assert_eq!(running.triggered, Some(CheckpointId(9)));
    }

    #[test]
    fn tasks_that_were_restored_from_the_newest_checkpoint_are_adopted() {
        let restored = |_: usize, report: &mut AdoptableTask| {
            (report.job_attempt, report.continues) = (Attempt(4), Some(NEWEST.id));
        };
        assert!(is_adopted(&verdict(restored)));
    }

    #[test]
    fn tasks_are_waited_for_and_given_up() {
        let mut adoption = adoption();
        assert!(!adoption.any());
        adoption.reported(&tm("a"), vec![report(0)]);
        assert_eq!(adoption.verdict(), AdoptionVerdict::Wait);
        adoption.give_up();
        assert_eq!(adoption.verdict(), AdoptionVerdict::Restart("1 of its 2 tasks were not reported".to_string()));
    }

    #[test]
    fn what_does_not_agree_is_refused() {
        type Change = fn(usize, &mut AdoptableTask);
        let cases: [(&str, Change); 5] = [
            ("continues checkpoint 5", |_, report| report.job_attempt = Attempt(4)),
            ("continues checkpoint 5", |_, report| report.generation = Generation(2)),
            ("continues nothing", |_, report| (report.job_attempt, report.continues) = (Attempt(4), None)),
            ("are of attempts 3 and 4 of the job", |task, report| {
                (report.job_attempt, report.continues) = (Attempt(3 + task as u32), Some(NEWEST.id));
            }),
            ("is not started", |_, report| report.unsteady = Some("is not started".into())),
        ];
        for (part, change) in cases {
            match verdict(change) {
                AdoptionVerdict::Restart(why) => assert!(why.contains(part), "{part}: {why}"),
                other => panic!("{part}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_ends_before_all_are_there_is_not_adopted() {
        type Happens = fn(&mut Adoption);
        let cases: [(&str, Happens); 3] = [
            ("failed", |adoption| adoption.gone(TASKS[0], "failed")),
            ("is gone", |adoption| adoption.lost(&tm("a"))),
            ("runs on a and on c", |adoption| adoption.reported(&tm("c"), vec![report(0)])),
        ];
        for (part, happens) in cases {
            let mut adoption = adoption();
            adoption.reported(&tm("a"), vec![report(0)]);
            happens(&mut adoption);
            adoption.reported(&tm("b"), vec![report(1)]);
            assert!(matches!(adoption.verdict(), AdoptionVerdict::Restart(why) if why.contains(part)), "{part}");
        }
        let mut adoption = adoption();
        adoption.lost(&tm("spare"));
        assert_eq!(adoption.verdict(), AdoptionVerdict::Wait, "it ran no task");
    }

    /// One was cut off and has a successor, which is not reported; the other was told that it begins.
    #[test]
    fn a_task_whose_successor_was_begun_is_not_adopted_with_those_that_ran_on() {
        let zombie = |task: usize, report: &mut AdoptableTask| {
            (report.attempt, report.continues) = (Attempt(3), Some(NEWEST.id));
            report.job_attempt = Attempt(if task == 0 { 3 } else { 4 });
        };
        assert!(matches!(verdict(zombie), AdoptionVerdict::Restart(why) if why.contains("are of attempts")));
        let waits = |task: usize, report: &mut AdoptableTask| {
            zombie(task, report);
            report.unsteady = (task == 1).then(|| "waits".to_string());
        };
        assert!(matches!(verdict(waits), AdoptionVerdict::Restart(_)));
    }

    /// They continue the newest checkpoint, and agree with each other.
    #[test]
    fn tasks_of_an_attempt_before_the_newest_that_has_begun_are_not_adopted() {
        let verdict = |marked: Option<_>, of: (u64, u32)| {
            let mut adoption =
                self::marked(marked.map(|(generation, attempt)| (Generation(generation), Attempt(attempt))));
            let (generation, job_attempt) = (Generation(of.0), Attempt(of.1));
            let of_it = |task| AdoptableTask { generation, job_attempt, continues: Some(NEWEST.id), ..report(task) };
            adoption.reported(&tm("a"), vec![of_it(0), of_it(1)]);
            adoption.verdict()
        };
        for (marked, of, adopted) in [
            (Some((1, 3)), (1, 3), true),
            (Some((1, 4)), (1, 3), false),
            (Some((1, 4)), (1, 5), true),
            (Some((2, 1)), (1, 5), false),
            (Some((2, 1)), (2, 1), true),
            (None, (1, 4), true),
        ] {
            let verdict = verdict(marked, of);
            let refused = matches!(&verdict, AdoptionVerdict::Restart(why) if why.contains("has begun since"));
            assert_eq!((is_adopted(&verdict), refused), (adopted, !adopted), "{marked:?}, {of:?}: {verdict:?}");
        }
        // The newest checkpoint is attempt 3's; that of another job which these began from had the same number.
        assert!(matches!(verdict(None, (1, 2)), AdoptionVerdict::Restart(why) if why.contains("of attempt 2")));
    }

    #[test]
    fn without_the_check_another_line_of_history_would_be_adopted() {
        let checks = AdoptionChecks { agreement: false, ..AdoptionChecks::default() };
        let mut adoption = Adoption::new(TASKS.to_vec(), NEWEST, None, checks);
        let strange = |task| AdoptableTask { generation: Generation(2), ..report(task) };
        adoption.reported(&tm("a"), vec![strange(0), strange(1)]);
        assert!(is_adopted(&adoption.verdict()));
    }
}
