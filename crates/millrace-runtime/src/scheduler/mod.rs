//! The scheduler: a job's life as a pure state machine. It is told what happened and answers with what to do; it knows
//! no clock and no network.

pub mod adoption;
mod leaving;
pub mod restart;
mod result;
pub mod slots;

pub use result::JobResult;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millrace_core::{
    Error,
    ids::{Attempt, TaskId, TaskManagerId},
    rest::JobStatus,
    restart::RestartStrategy,
};

use self::{
    leaving::Departure,
    restart::{RestartBackoff, RestartDecision},
    slots::assign_slots,
};
use crate::graph::JobGraph;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The tasks of an attempt run already, and are adopted. Comes first, before any taskmanager is registered.
    Adopted {
        /// The attempt.
        attempt: Attempt,
        /// Where each task runs.
        assignment: BTreeMap<TaskId, TaskManagerId>,
        /// The tasks that have read all their input.
        ended: BTreeSet<TaskId>,
    },
    /// A taskmanager offers slots.
    TaskManagerRegistered {
        /// The process.
        id: TaskManagerId,
        /// How many.
        slots: u32,
    },
    /// A taskmanager is gone. Every way to notice it ends here.
    TaskManagerLost {
        /// The process.
        id: TaskManagerId,
        /// How it was noticed.
        error: Error,
    },
    /// A taskmanager was told to end, and asks to be let go.
    TaskManagerLeaving(TaskManagerId),
    /// The checkpoint of [`Effect::HandOver`] is complete.
    HandedOver(Attempt),
    /// The restore point and the splits of an attempt are at hand.
    Prepared(Attempt),
    /// A task's state is restored and its inputs are registered.
    TaskDeployed(Attempt, TaskId),
    /// A task has read all its input.
    TaskEndOfInput(Attempt, TaskId),
    /// A task has ended as it should.
    TaskFinished(Attempt, TaskId),
    /// A task has ended because it was told to.
    TaskCanceled(Attempt, TaskId),
    /// A task has failed and ended.
    TaskFailed(Attempt, TaskId, Error),
    /// Something that belongs to the attempt as a whole failed: its preparation, a source's discovery, or too many
    /// checkpoints.
    AttemptFailed(Attempt, Error),
    /// A checkpoint is complete.
    CheckpointCompleted {
        /// Whether it is the final one of this attempt.
        is_final: bool,
    },
    /// The time of [`Effect::RestartAfter`] has passed.
    RestartTimer(Attempt),
    /// A user cancels the job.
    Cancel,
    /// A user stops the job with a final checkpoint.
    Stop,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read the newest completed checkpoint and find the sources' splits, then answer [`Event::Prepared`].
    Prepare(Attempt),
    /// Deploy every task of the prepared attempt to its taskmanager.
    Deploy(Attempt, BTreeMap<TaskId, TaskManagerId>),
    /// All tasks are deployed: start them and their checkpoints.
    Start(Attempt),
    /// The tasks no longer run: no checkpoint of this attempt can complete.
    Stopped(Attempt),
    /// End all tasks of the attempt on these taskmanagers.
    CancelTasks(Attempt, BTreeSet<TaskManagerId>),
    /// Tell the sources to stop reading.
    DrainSources(Attempt),
    /// All input is read: take the final checkpoint.
    TriggerFinalCheckpoint(Attempt),
    /// Tell all tasks to finish.
    FinishTasks(Attempt),
    /// Take a checkpoint at which the sources stop, then answer [`Event::HandedOver`].
    HandOver(Attempt),
    /// The taskmanager may end.
    Release(TaskManagerId),
    /// Answer [`Event::RestartTimer`] after this time.
    RestartAfter(Attempt, Duration),
    /// Show this failure to a person.
    Report(Error, Option<TaskId>),
    /// The job has ended.
    End(JobResult),
}

/// The part of the job graph that scheduling needs.
#[derive(Clone, Debug)]
pub struct Plan {
    tasks: Vec<TaskId>,
    slots_needed: u32,
    checkpoints: bool,
}

impl Plan {
    /// The plan of a graph whose job takes checkpoints or does not.
    pub fn new(graph: &JobGraph, checkpoints: bool) -> Self {
        let tasks_of = |vertex: &crate::graph::JobVertex| {
            let id = vertex.id;
            (0..vertex.parallelism).map(move |subtask| TaskId { vertex: id, subtask })
        };
        let tasks = graph.vertices.iter().flat_map(tasks_of).collect();
        Self { tasks, slots_needed: graph.slots_needed(), checkpoints }
    }

    /// All tasks.
    pub fn tasks(&self) -> &[TaskId] {
        &self.tasks
    }
}

#[derive(Clone, Debug)]
enum Phase {
    WaitingForSlots,
    Preparing { assignment: BTreeMap<TaskId, TaskManagerId> },
    Deploying { assignment: BTreeMap<TaskId, TaskManagerId>, missing: BTreeSet<TaskId> },
    Running { assignment: BTreeMap<TaskId, TaskManagerId>, reading: BTreeSet<TaskId> },
    Finishing { assignment: BTreeMap<TaskId, TaskManagerId>, running: BTreeSet<TaskId> },
    Ending { running: BTreeMap<TaskId, TaskManagerId>, next: AfterEnding },
    WaitingToRestart,
    Ended(JobResult),
}

#[derive(Clone, Debug)]
enum AfterEnding {
    Restart(Duration),
    End(JobResult),
}

/// A job's life.
#[derive(Clone, Debug)]
pub struct JobScheduler {
    plan: Plan,
    backoff: RestartBackoff,
    phase: Phase,
    attempt: Attempt,
    slots: BTreeMap<TaskManagerId, u32>,
    previous: Vec<TaskManagerId>,
    stopping: bool,
    restarts: u32,
    leaving: BTreeMap<TaskManagerId, Departure>,
    /// The attempt whose tasks are being handed over.
    handing_over: Option<Attempt>,
}

impl JobScheduler {
    /// A job that waits for its first taskmanager.
    pub fn new(plan: Plan, strategy: RestartStrategy) -> Self {
        Self {
            plan,
            backoff: RestartBackoff::new(strategy),
            phase: Phase::WaitingForSlots,
            attempt: Attempt(1),
            slots: BTreeMap::new(),
            previous: Vec::new(),
            stopping: false,
            restarts: 0,
            leaving: BTreeMap::new(),
            handing_over: None,
        }
    }

    /// Where the job stands.
    pub fn status(&self) -> JobStatus {
        match &self.phase {
            Phase::Ended(result) => result.status(),
            Phase::Running { .. } | Phase::Finishing { .. } => JobStatus::Running,
            Phase::Ending { next: AfterEnding::End(JobResult::Failed(_)), .. } => JobStatus::Failing,
            Phase::Ending { next: AfterEnding::End(_), .. } => JobStatus::Cancelling,
            Phase::Ending { next: AfterEnding::Restart(_), .. } | Phase::WaitingToRestart => JobStatus::Restarting,
            _ if self.restarts > 0 => JobStatus::Restarting,
            _ => JobStatus::Created,
        }
    }

    /// The current attempt.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// How often the job was started again.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// How many slots are there and how many the job waits for, while it waits.
    pub fn waiting_for_slots(&self) -> Option<(u32, u32)> {
        let waiting = matches!(self.phase, Phase::WaitingForSlots);
        waiting.then(|| (self.slots.values().sum(), self.plan.slots_needed))
    }

    /// Where each task of the current attempt runs.
    pub fn assignment(&self) -> Option<&BTreeMap<TaskId, TaskManagerId>> {
        match &self.phase {
            Phase::Preparing { assignment }
            | Phase::Deploying { assignment, .. }
            | Phase::Running { assignment, .. }
            | Phase::Finishing { assignment, .. } => Some(assignment),
            _ => None,
        }
    }

    /// Where a task's slot is, or was last.
    pub fn last_place(&self, task: TaskId) -> Option<&TaskManagerId> {
        self.previous.get(task.subtask as usize)
    }

    /// Takes an event that happened at `now` (time since any fixed moment) and says what to do.
    pub fn on(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Adopted { attempt, assignment, ended } => self.adopt(attempt, assignment, &ended, &mut effects),
            Event::TaskManagerRegistered { id, slots } => {
                let leaves = self.leaving.contains_key(&id);
                self.slots.insert(id, if leaves { 0 } else { slots });
                self.allocate(&mut effects);
            }
            Event::TaskManagerLost { id, error } => self.taskmanager_lost(now, &id, error, &mut effects),
            Event::TaskManagerLeaving(id) => self.leaves(id),
            Event::HandedOver(attempt) => self.handed_over(attempt, &mut effects),
            Event::Prepared(attempt) if attempt == self.attempt => self.deploy(&mut effects),
            Event::TaskDeployed(attempt, task) if attempt == self.attempt => self.deployed(task, &mut effects),
            Event::TaskEndOfInput(attempt, task) if attempt == self.attempt => self.end_of_input(task, &mut effects),
            Event::TaskFinished(attempt, task) if attempt == self.attempt => self.task_ended(now, task, &mut effects),
            Event::TaskCanceled(attempt, task) if attempt == self.attempt => self.task_ended(now, task, &mut effects),
            Event::TaskFailed(attempt, task, error) if attempt == self.attempt => {
                self.forget_task(task);
                self.fail(now, error, Some(task), &mut effects);
            }
            Event::AttemptFailed(attempt, error) if attempt == self.attempt => {
                self.fail(now, error, None, &mut effects);
            }
            Event::CheckpointCompleted { is_final } => {
                self.backoff.checkpoint_completed();
                if is_final {
                    self.finish(&mut effects);
                }
            }
            Event::RestartTimer(attempt) if attempt == self.attempt => {
                if matches!(self.phase, Phase::WaitingToRestart) {
                    self.next_attempt(&mut effects);
                }
            }
            Event::Cancel => self.end_tasks(AfterEnding::End(JobResult::Canceled), &mut effects),
            Event::Stop => self.stop(&mut effects),
            // of an attempt that is over
            Event::Prepared(_)
            | Event::TaskDeployed(..)
            | Event::TaskEndOfInput(..)
            | Event::TaskFinished(..)
            | Event::TaskCanceled(..)
            | Event::TaskFailed(..)
            | Event::AttemptFailed(..)
            | Event::RestartTimer(_) => {}
        }
        self.let_go(&mut effects);
        effects
    }

    fn adopt(
        &mut self,
        attempt: Attempt,
        assignment: BTreeMap<TaskId, TaskManagerId>,
        ended: &BTreeSet<TaskId>,
        effects: &mut Vec<Effect>,
    ) {
        if !matches!(self.phase, Phase::WaitingForSlots) || !self.slots.is_empty() {
            return;
        }
        self.attempt = attempt;
        let by_slot: BTreeMap<_, _> = assignment.iter().map(|(task, place)| (task.subtask, place.clone())).collect();
        self.previous = by_slot.into_values().collect();
        let reading = assignment.keys().filter(|task| !ended.contains(task)).copied().collect();
        self.phase = Phase::Running { assignment, reading };
        self.all_ended(effects);
    }

    fn next_attempt(&mut self, effects: &mut Vec<Effect>) {
        self.attempt = self.attempt.next();
        self.phase = Phase::WaitingForSlots;
        self.allocate(effects);
    }

    fn allocate(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::WaitingForSlots) {
            return;
        }
        let Some(by_slot) = assign_slots(self.plan.slots_needed, &self.slots, &self.previous) else { return };
        let place = |task: &TaskId| (*task, by_slot[task.subtask as usize].clone());
        let assignment = self.plan.tasks.iter().map(place).collect();
        self.previous = by_slot;
        self.phase = Phase::Preparing { assignment };
        effects.push(Effect::Prepare(self.attempt));
    }

    fn deploy(&mut self, effects: &mut Vec<Effect>) {
        if let Phase::Preparing { assignment } = &self.phase {
            let assignment = assignment.clone();
            effects.push(Effect::Deploy(self.attempt, assignment.clone()));
            self.phase = Phase::Deploying { missing: assignment.keys().copied().collect(), assignment };
        }
    }

    fn deployed(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let Phase::Deploying { assignment, missing } = &mut self.phase else { return };
        missing.remove(&task);
        if missing.is_empty() {
            let assignment = std::mem::take(assignment);
            self.phase = Phase::Running { reading: assignment.keys().copied().collect(), assignment };
            effects.push(Effect::Start(self.attempt));
            if self.stopping {
                effects.push(Effect::DrainSources(self.attempt));
            }
        }
    }

    fn end_of_input(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let Phase::Running { reading, .. } = &mut self.phase else { return };
        reading.remove(&task);
        self.all_ended(effects);
    }

    /// The final checkpoint, or the end, where all input has been read.
    fn all_ended(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(&self.phase, Phase::Running { reading, .. } if reading.is_empty()) {
            return;
        }
        if self.plan.checkpoints {
            effects.push(Effect::TriggerFinalCheckpoint(self.attempt));
        } else {
            self.finish(effects);
        }
    }

    fn finish(&mut self, effects: &mut Vec<Effect>) {
        let Phase::Running { assignment, .. } = &mut self.phase else { return };
        let assignment = std::mem::take(assignment);
        self.phase = Phase::Finishing { running: assignment.keys().copied().collect(), assignment };
        effects.push(Effect::FinishTasks(self.attempt));
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.stopping = true;
        match &self.phase {
            Phase::Running { .. } => effects.push(Effect::DrainSources(self.attempt)),
            // nothing runs, and what is to be kept is in the last checkpoint
            Phase::WaitingForSlots | Phase::WaitingToRestart | Phase::Preparing { .. } => {
                self.end_tasks(AfterEnding::End(JobResult::Stopped), effects);
            }
            _ => {}
        }
    }

    fn task_ended(&mut self, now: Duration, task: TaskId, effects: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Finishing { running, .. } => {
                running.remove(&task);
                if running.is_empty() {
                    let result = if self.stopping { JobResult::Stopped } else { JobResult::Finished };
                    effects.push(Effect::Stopped(self.attempt));
                    self.end(result, effects);
                }
            }
            Phase::Ending { .. } => {
                self.forget_task(task);
                self.after_ending(effects);
            }
            _ => {
                let error = Error::internal(format!("task {task} ended before it was told to"));
                self.forget_task(task);
                self.fail(now, error, Some(task), effects);
            }
        }
    }

    fn taskmanager_lost(&mut self, now: Duration, id: &TaskManagerId, error: Error, effects: &mut Vec<Effect>) {
        self.leaving.remove(id);
        if self.slots.remove(id).is_none() {
            return;
        }
        match &mut self.phase {
            Phase::Ending { running, .. } => {
                running.retain(|_, place| place != id);
                self.after_ending(effects);
            }
            // Without checkpoints all results are out already, and there is nothing to go back to. With them the job
            // goes back to the final one, so that whoever commits with it does.
            Phase::Finishing { assignment, running } if !self.plan.checkpoints => {
                let lost: Vec<_> = running.iter().filter(|task| assignment[*task] == *id).copied().collect();
                for task in lost {
                    self.task_ended(now, task, effects);
                }
            }
            _ => {
                let used = self.assignment().is_some_and(|assignment| assignment.values().any(|place| place == id));
                if used {
                    self.fail(now, error, None, effects);
                }
            }
        }
    }

    fn forget_task(&mut self, task: TaskId) {
        match &mut self.phase {
            Phase::Preparing { assignment }
            | Phase::Deploying { assignment, .. }
            | Phase::Running { assignment, .. }
            | Phase::Finishing { assignment, .. } => {
                assignment.remove(&task);
            }
            Phase::Ending { running, .. } => {
                running.remove(&task);
            }
            _ => {}
        }
    }

    fn fail(&mut self, now: Duration, error: Error, task: Option<TaskId>, effects: &mut Vec<Effect>) {
        match &self.phase {
            // What fails while everything is being ended is a consequence.
            Phase::Ending { .. } => return self.after_ending(effects),
            Phase::Ended(_) => return,
            _ => {}
        }
        effects.push(Effect::Report(error.clone(), task));
        let next = match self.backoff.on_failure(now, &error) {
            RestartDecision::After(delay) => AfterEnding::Restart(delay),
            RestartDecision::GiveUp(why) => {
                let error = Error { message: format!("{} (the job is not restarted: {why})", error.message), ..error };
                AfterEnding::End(JobResult::Failed(error))
            }
        };
        self.end_tasks(next, effects);
    }

    fn end_tasks(&mut self, next: AfterEnding, effects: &mut Vec<Effect>) {
        let running = match &mut self.phase {
            Phase::Ended(_) => return,
            Phase::Ending { next: planned, .. } => {
                // A user's word replaces a planned restart; nothing replaces an end.
                if matches!(planned, AfterEnding::Restart(_)) {
                    *planned = next;
                }
                return;
            }
            Phase::WaitingForSlots | Phase::WaitingToRestart | Phase::Preparing { .. } => BTreeMap::new(),
            Phase::Deploying { assignment, .. } | Phase::Running { assignment, .. } => std::mem::take(assignment),
            Phase::Finishing { assignment, running } => {
                assignment.retain(|task, _| running.contains(task));
                std::mem::take(assignment)
            }
        };
        let running: BTreeMap<_, _> = running.into_iter().filter(|(_, place)| self.slots.contains_key(place)).collect();
        let places: BTreeSet<_> = running.values().cloned().collect();
        effects.push(Effect::Stopped(self.attempt));
        if !places.is_empty() {
            effects.push(Effect::CancelTasks(self.attempt, places));
        }
        self.phase = Phase::Ending { running, next };
        self.after_ending(effects);
    }

    fn after_ending(&mut self, effects: &mut Vec<Effect>) {
        let Phase::Ending { running, next } = &self.phase else { return };
        if !running.is_empty() {
            return;
        }
        match next.clone() {
            AfterEnding::End(result) => self.end(result, effects),
            AfterEnding::Restart(delay) => {
                self.restarts += 1;
                if delay.is_zero() {
                    self.next_attempt(effects);
                } else {
                    self.phase = Phase::WaitingToRestart;
                    effects.push(Effect::RestartAfter(self.attempt, delay));
                }
            }
        }
    }

    fn end(&mut self, result: JobResult, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ended(result.clone());
        effects.push(Effect::End(result));
    }
}

#[cfg(test)]
mod tests;
