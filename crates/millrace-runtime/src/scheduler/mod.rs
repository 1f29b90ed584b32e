//! The scheduler: a job's life as a pure state machine. It is told what happened and answers with what to do; it knows
//! no clock and no network.

mod adaptive;
pub mod adoption;
mod leaving;
mod mark;
mod messages;
mod plan;
mod regions;
pub mod restart;
mod result;
pub mod slots;

pub use adaptive::AdaptiveSettings;
pub use messages::{Effect, Event};
pub use plan::Plan;
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
    adaptive::Adaptive,
    leaving::Departure,
    regions::Kept,
    restart::{BEYOND_CURE, RestartBackoff, RestartDecision},
    slots::assign_slots,
};

#[derive(Clone, Debug)]
enum Phase {
    WaitingForSlots,
    Preparing {
        assignment: BTreeMap<TaskId, TaskManagerId>,
        prepared: bool,
        /// Where tasks run on that have not joined the attempt.
        joining: BTreeSet<TaskManagerId>,
    },
    Deploying {
        assignment: BTreeMap<TaskId, TaskManagerId>,
        missing: BTreeSet<TaskId>,
    },
    Running {
        assignment: BTreeMap<TaskId, TaskManagerId>,
        reading: BTreeSet<TaskId>,
    },
    Finishing {
        assignment: BTreeMap<TaskId, TaskManagerId>,
        running: BTreeSet<TaskId>,
    },
    Ending {
        running: BTreeMap<TaskId, TaskManagerId>,
        next: AfterEnding,
    },
    /// For so long.
    WaitingToRestart(Duration),
    Ended(JobResult),
}

#[derive(Clone, Debug)]
enum AfterEnding {
    Restart(Duration),
    End(JobResult),
}

/// The job fails by this error, since it is not restarted.
fn given_up(error: Error, why: &str) -> AfterEnding {
    let error = Error { message: format!("{} (the job is not restarted: {why})", error.message), ..error };
    AfterEnding::End(JobResult::Failed(error))
}

/// A job's life.
#[derive(Clone, Debug)]
pub struct JobScheduler {
    plan: Plan,
    backoff: RestartBackoff,
    phase: Phase,
    attempt: Attempt,
    slots: BTreeMap<TaskManagerId, u32>,
    /// The resource ids of the taskmanagers that are there and of those that had the slots of the last attempt.
    resources: BTreeMap<TaskManagerId, String>,
    /// The taskmanager of each slot of the last attempt.
    previous: Vec<TaskManagerId>,
    stopping: bool,
    restarts: u32,
    leaving: BTreeMap<TaskManagerId, Departure>,
    /// The attempt whose tasks are being handed over.
    handing_over: Option<Attempt>,
    /// `None`: it runs with all its slots or not at all.
    adaptive: Option<Adaptive>,
    /// The tasks that run on while others start again; empty when all run.
    kept: Kept,
    /// The attempt of each task that was deployed.
    attempts: BTreeMap<TaskId, Attempt>,
    /// The attempt in which all tasks were started, or adopted: each has the splits that it was dealt then.
    began: Attempt,
    /// A checkpoint has completed since.
    has_checkpoint: bool,
    /// For all that is known, all tasks of an earlier attempt run on, and the log holds no later one's mark.
    may_run_on: bool,
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
            resources: BTreeMap::new(),
            previous: Vec::new(),
            stopping: false,
            restarts: 0,
            leaving: BTreeMap::new(),
            handing_over: None,
            adaptive: None,
            kept: Kept::default(),
            attempts: BTreeMap::new(),
            began: Attempt(1),
            has_checkpoint: false,
            may_run_on: false,
        }
    }

    /// Where the job stands.
    pub fn status(&self) -> JobStatus {
        match &self.phase {
            Phase::Ended(result) => result.status(),
            Phase::Running { .. } | Phase::Finishing { .. } => JobStatus::Running,
            Phase::Ending { next: AfterEnding::End(JobResult::Failed(_)), .. } => JobStatus::Failing,
            Phase::Ending { next: AfterEnding::End(_), .. } => JobStatus::Cancelling,
            Phase::Ending { next: AfterEnding::Restart(_), .. } | Phase::WaitingToRestart(_) => JobStatus::Restarting,
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
            Phase::Preparing { assignment, .. }
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
            Event::Adopted { attempt, attempts, assignment, ended } => {
                self.adopt(now, (attempt, attempts), assignment, &ended, &mut effects);
            }
            Event::TaskManagerRegistered { id, resource_id, slots } => {
                self.registered(id, resource_id, slots);
                self.allocate(now, &mut effects);
            }
            Event::TaskManagerLost { id, error } => self.taskmanager_lost(now, &id, error, &mut effects),
            Event::TaskManagerLeaving(id) => self.leaves(id),
            Event::HandedOver(attempt) => self.handed_over(now, attempt, &mut effects),
            Event::Prepared(attempt) if attempt == self.attempt => {
                if let Phase::Preparing { prepared, .. } = &mut self.phase {
                    *prepared = true;
                }
                self.deploy(&mut effects);
            }
            Event::Marked(attempt) => self.marked(attempt, &mut effects),
            Event::Joined(attempt, id) if attempt == self.attempt => {
                if let Phase::Preparing { joining, .. } = &mut self.phase {
                    joining.remove(&id);
                }
                self.deploy(&mut effects);
            }
            Event::TaskDeployed(attempt, task) if self.is_current(attempt, task) => {
                self.deployed(now, task, &mut effects)
            }
            Event::TaskEndOfInput(attempt, task) if self.is_current(attempt, task) => {
                self.end_of_input(task, &mut effects)
            }
            Event::TaskFinished(attempt, task) | Event::TaskCanceled(attempt, task)
                if self.is_current(attempt, task) =>
            {
                self.may_run_on = false;
                self.task_ended(now, task, &mut effects)
            }
            Event::TaskFailed(attempt, task, error) if self.is_current(attempt, task) => {
                self.may_run_on = false;
                self.task_failed(now, task, error, &mut effects);
            }
            Event::AttemptFailed(attempt, error) if attempt == self.attempt => {
                self.fail(now, error, None, &BTreeSet::new(), &mut effects);
            }
            Event::CheckpointCompleted { is_final } => {
                self.has_checkpoint = true;
                self.backoff.checkpoint_completed();
                if is_final {
                    self.finish(&mut effects);
                }
            }
            Event::RestartTimer(attempt) if attempt == self.attempt => {
                if matches!(self.phase, Phase::WaitingToRestart(_)) {
                    self.next_attempt(now, &mut effects);
                }
            }
            Event::LookTimer => self.look(now, &mut effects),
            Event::Cancel => self.end_tasks(now, AfterEnding::End(JobResult::Canceled), &mut effects),
            Event::Stop => self.stop(now, &mut effects),
            // of an attempt that is over
            Event::Prepared(_)
            | Event::Joined(..)
            | Event::TaskDeployed(..)
            | Event::TaskEndOfInput(..)
            | Event::TaskFinished(..)
            | Event::TaskCanceled(..)
            | Event::TaskFailed(..)
            | Event::AttemptFailed(..)
            | Event::RestartTimer(_) => {}
        }
        self.let_go(&mut effects);
        self.rescale(now, &mut effects);
        effects
    }

    fn registered(&mut self, id: TaskManagerId, resource_id: String, slots: u32) {
        let Self { slots: there, previous, .. } = self;
        self.resources.retain(|known, _| there.contains_key(known) || previous.contains(known));
        self.resources.insert(id.clone(), resource_id);
        let leaves = self.leaving.contains_key(&id);
        self.slots.insert(id, if leaves { 0 } else { slots });
    }

    fn adopt(
        &mut self,
        now: Duration,
        (attempt, attempts): (Attempt, BTreeMap<TaskId, Attempt>),
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
        self.attempts = attempts;
        // They continue one, of which it is not known whether it was taken of these splits.
        (self.began, self.has_checkpoint, self.may_run_on) = (attempt, false, true);
        self.phase = Phase::Running { assignment, reading };
        self.runs_since(now);
        self.all_ended(effects);
    }

    fn next_attempt(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.attempt = self.attempt.next();
        self.phase = Phase::WaitingForSlots;
        self.allocate(now, effects);
    }

    fn allocate(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::WaitingForSlots) {
            return;
        }
        let Some(slots) = self.slots_to_use(now, effects) else { return };
        let Some(by_slot) = assign_slots(slots, &self.slots, &self.previous, &self.resources) else { return };
        // With fewer slots there are fewer subtasks of every vertex.
        let place = |task: &TaskId| Some((*task, by_slot.get(task.subtask as usize)?.clone()));
        let assignment = self.plan.tasks.iter().filter_map(place).collect();
        if !self.kept_stay(&assignment) {
            // One of them is where the job has no slots any more.
            return self.end_tasks(now, AfterEnding::Restart(Duration::ZERO), effects);
        }
        self.previous = by_slot;
        let joining: BTreeSet<_> = self.kept.assignment.values().cloned().collect();
        self.phase = Phase::Preparing { assignment, prepared: false, joining: joining.clone() };
        effects.push(Effect::Prepare(self.attempt));
        if !joining.is_empty() {
            effects.push(Effect::Join(self.attempt, joining));
        }
    }

    fn deploy(&mut self, effects: &mut Vec<Effect>) {
        if let Phase::Preparing { assignment, prepared: true, joining } = &self.phase
            && joining.is_empty()
            && !self.must_be_marked()
        {
            let assignment = assignment.clone();
            effects.push(Effect::Deploy(self.attempt, assignment.clone()));
            let missing: BTreeSet<_> = assignment.keys().filter(|task| !self.runs_on(**task)).copied().collect();
            self.attempts.extend(missing.iter().map(|task| (*task, self.attempt)));
            if missing.len() == assignment.len() {
                (self.began, self.has_checkpoint) = (self.attempt, false);
            }
            self.may_run_on = true;
            self.phase = Phase::Deploying { missing, assignment };
        }
    }

    fn deployed(&mut self, now: Duration, task: TaskId, effects: &mut Vec<Effect>) {
        let Phase::Deploying { assignment, missing } = &mut self.phase else { return };
        missing.remove(&task);
        if missing.is_empty() {
            let assignment = std::mem::take(assignment);
            let kept = std::mem::take(&mut self.kept);
            let starts = |task: &&TaskId| !kept.assignment.contains_key(task);
            let reading = assignment.keys().filter(starts).copied().chain(kept.reading.iter().copied()).collect();
            self.phase = Phase::Running { assignment, reading };
            self.runs_since(now);
            effects.push(Effect::Start(self.attempt));
            if self.stopping {
                effects.push(Effect::DrainSources(self.attempt));
            }
        }
    }

    fn end_of_input(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        self.kept.reading.remove(&task);
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

    fn stop(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.stopping = true;
        match &self.phase {
            Phase::Running { .. } => effects.push(Effect::DrainSources(self.attempt)),
            // Nothing runs that could take a final checkpoint: what is to be kept is in the last one.
            Phase::WaitingForSlots | Phase::WaitingToRestart(_) | Phase::Preparing { .. } => {
                self.end_tasks(now, AfterEnding::End(JobResult::Stopped), effects);
            }
            _ => {}
        }
    }

    fn task_failed(&mut self, now: Duration, task: TaskId, error: Error, effects: &mut Vec<Effect>) {
        self.forget_task(task);
        let ran_on = self.kept.assignment.remove(&task).is_some();
        if ran_on && self.extend_region(&BTreeSet::from([task]), effects) {
            effects.push(Effect::Report(error.clone(), Some(task)));
            if !error.retryable {
                // It may not show itself a second time: a source's positions that are gone, for example.
                self.end_tasks(now, given_up(error, BEYOND_CURE), effects);
            }
            return self.after_ending(now, effects);
        }
        self.fail(now, error, Some(task), &BTreeSet::from([task]), effects);
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
            Phase::Ending { running, .. } if running.contains_key(&task) => {
                self.forget_task(task);
                self.after_ending(now, effects);
            }
            _ => {
                let error = Error::internal(format!("task {task} ended before it was told to"));
                self.task_failed(now, task, error, effects);
            }
        }
    }

    fn taskmanager_lost(&mut self, now: Duration, id: &TaskManagerId, error: Error, effects: &mut Vec<Effect>) {
        self.leaving.remove(id);
        if self.slots.remove(id).is_none() {
            return;
        }
        let some_run_on = !self.kept.assignment.is_empty();
        let kept_or_assigned = self.kept.assignment.iter().chain(self.assignment().into_iter().flatten());
        let lost: BTreeSet<_> = kept_or_assigned.filter(|(_, place)| *place == id).map(|(task, _)| *task).collect();
        self.kept.assignment.retain(|_, place| place != id);
        if some_run_on && !lost.is_empty() && self.extend_region(&lost, effects) {
            effects.push(Effect::Report(error.clone(), None));
        }
        match &mut self.phase {
            Phase::Ending { running, .. } => {
                running.retain(|_, place| place != id);
                self.after_ending(now, effects);
            }
            // Without checkpoints all results are out already, and there is nothing to go back to. With them the job
            // goes back to the final one, so that whoever commits with it does.
            Phase::Finishing { assignment, running } if !self.plan.checkpoints => {
                let gone: Vec<_> = running.iter().filter(|task| assignment[*task] == *id).copied().collect();
                for task in gone {
                    self.task_ended(now, task, effects);
                }
            }
            _ if lost.is_empty() => {}
            _ => self.fail(now, error, None, &lost, effects),
        }
    }

    fn forget_task(&mut self, task: TaskId) {
        match &mut self.phase {
            Phase::Preparing { assignment, .. }
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

    /// These tasks have failed, or the attempt as a whole.
    fn fail(
        &mut self,
        now: Duration,
        error: Error,
        task: Option<TaskId>,
        failed: &BTreeSet<TaskId>,
        effects: &mut Vec<Effect>,
    ) {
        match &self.phase {
            // What fails while everything is being ended is a consequence.
            Phase::Ending { .. } => return self.after_ending(now, effects),
            Phase::Ended(_) => return,
            _ => {}
        }
        effects.push(Effect::Report(error.clone(), task));
        let next = match self.backoff.on_failure(now, &error) {
            RestartDecision::After(delay) if self.restart_region(now, failed, delay, effects) => return,
            RestartDecision::After(delay) => AfterEnding::Restart(delay),
            RestartDecision::GiveUp(why) => given_up(error, &why),
        };
        self.end_tasks(now, next, effects);
    }

    fn end_tasks(&mut self, now: Duration, next: AfterEnding, effects: &mut Vec<Effect>) {
        let running = match &mut self.phase {
            Phase::Ended(_) => return,
            Phase::Ending { next: planned, .. } => {
                // A user's word replaces a planned restart; nothing replaces an end.
                if matches!(planned, AfterEnding::Restart(_)) {
                    *planned = next;
                }
                return self.give_up_kept(effects);
            }
            Phase::WaitingForSlots | Phase::WaitingToRestart(_) | Phase::Preparing { .. } => {
                std::mem::take(&mut self.kept).assignment
            }
            Phase::Deploying { assignment, .. } | Phase::Running { assignment, .. } => std::mem::take(assignment),
            Phase::Finishing { assignment, running } => {
                assignment.retain(|task, _| running.contains(task));
                std::mem::take(assignment)
            }
        };
        self.kept = Kept::default();
        let running = self.that_run(running);
        effects.push(Effect::Stopped(self.attempt));
        if !running.is_empty() {
            effects.push(Effect::CancelTasks(running.clone()));
        }
        self.phase = Phase::Ending { running, next };
        self.after_ending(now, effects);
    }

    fn after_ending(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let Phase::Ending { running, next } = &self.phase else { return };
        if !running.is_empty() {
            return;
        }
        // What those say that have ended is of no interest any more.
        let kept = &self.kept.assignment;
        self.attempts.retain(|task, _| kept.contains_key(task));
        match next.clone() {
            AfterEnding::End(result) => self.end(result, effects),
            AfterEnding::Restart(delay) => {
                self.restarts += 1;
                if delay.is_zero() {
                    self.next_attempt(now, effects);
                } else {
                    self.phase = Phase::WaitingToRestart(delay);
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
mod adaptive_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
