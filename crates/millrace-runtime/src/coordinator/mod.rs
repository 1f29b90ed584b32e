//! The checkpoint coordinator: when checkpoints are taken, what becomes of the tasks' answers, and the steps after
//! which a checkpoint is complete.
//!
//! It is pure: [`CheckpointCoordinator::on`] takes an event with the present time and returns effects, which a thin
//! shell runs in their order. A jobmanager's crash is the coordinator's being dropped; the next incarnation makes its
//! own from the log.
//!
//! A checkpoint is triggered, acknowledged by all tasks, and then completed one step after the other:
//! [`Effect::WriteMetadata`], [`Effect::AppendLog`], [`Effect::Relist`]. Only when the second look at the log shows that
//! this jobmanager still is the leader, the checkpoint is announced, older ones under way are superseded, and completed
//! ones beyond the retained number are deleted. The second look is not redundant: a create that was delayed until a
//! later generation had trimmed the log succeeds in the gap, and is void.
//!
//! A jobmanager that dies between log entry and announcement leaves a checkpoint that nobody was told of: who restores
//! it has to commit what it holds.
//!
//! What must never happen, and where it is prevented:
//! - a jobmanager that sees a higher generation does nothing any more ([`Effect::Stop`]);
//! - the append of a checkpoint is never given up, because its entry may be there already: the job restarts from it or
//!   waits ([`RestorePoint::Undecided`]);
//! - a snapshot is discarded only while its checkpoint is not in the log and cannot get there any more: the copy of an
//!   acknowledgement that arrives after completion is ignored.

mod commit;
mod event;
mod pending;
mod schedule;
mod statistics;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::{
    Error,
    checkpoint::{CheckpointBarrier, CheckpointConfig},
    ids::{Attempt, CheckpointId, Generation, TaskId},
};
use millrace_state::{OperatorSubtaskState, StateHandle};

pub use event::{
    AppendOutcome, CoordinatorEvent, Effect, LeaderOutcome, MetadataOutcome, MetadataReceipt, TaskAnswer, TaskPart,
    TaskStates, TriggerReason,
};
pub use statistics::{
    CheckpointCounts, CheckpointEntry, CheckpointStatistics, CheckpointStatus, HISTORY, LatestCheckpoints,
    RestoredCheckpoint, SubtaskEntry,
};

use commit::{Commit, Step};
use pending::PendingCheckpoint;
use schedule::{Schedule, millis};

/// Where a restart of the job's tasks begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestorePoint {
    /// A checkpoint is just being completed: ask again after the next event.
    Undecided,
    /// There is no checkpoint.
    Empty,
    /// From this checkpoint.
    Checkpoint(CheckpointId),
}

/// The checkpoint coordinator of one incarnation of a job's jobmanager.
#[derive(Clone, Debug)]
pub struct CheckpointCoordinator {
    config: CheckpointConfig,
    generation: Generation,
    running: Option<Running>,
    next_id: CheckpointId,
    schedule: Schedule,
    pending: BTreeMap<CheckpointId, PendingCheckpoint>,
    commit: Option<Commit>,
    /// Completed and not deleted, oldest first.
    retained: Vec<CheckpointId>,
    /// How many failed in a row.
    failures: u32,
    /// A higher generation was seen.
    fenced: bool,
    statistics: CheckpointStatistics,
}

#[derive(Clone, Debug)]
struct Running {
    attempt: Attempt,
    tasks: BTreeSet<TaskId>,
}

impl CheckpointCoordinator {
    /// The coordinator of a new incarnation. `history` are the completed checkpoints in the log, oldest first;
    /// `next_id` must be above every id in the log and in the store.
    pub fn recovered(
        config: CheckpointConfig,
        generation: Generation,
        history: Vec<CheckpointId>,
        next_id: CheckpointId,
    ) -> Self {
        let above = history.iter().max().map_or(next_id, |newest| newest.next());
        Self {
            config,
            generation,
            running: None,
            next_id: next_id.max(above),
            schedule: Schedule::default(),
            pending: BTreeMap::new(),
            commit: None,
            retained: history,
            failures: 0,
            fenced: false,
            statistics: CheckpointStatistics::default(),
        }
    }

    /// Takes an event and returns what has to be done, in this order. `now_ms` is milliseconds since the epoch by a
    /// clock that never goes back.
    pub fn on(&mut self, now_ms: u64, event: CoordinatorEvent) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.fenced {
            return effects;
        }
        self.handle(now_ms, event, &mut effects);
        if !self.fenced {
            self.expire(now_ms, &mut effects);
            self.go_on_completing(now_ms, &mut effects);
            self.trigger_if_due(now_ms, &mut effects);
        }
        effects
    }

    /// When [`CoordinatorEvent::Tick`] is due, if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<u64> {
        if self.fenced {
            return None;
        }
        let retry = self.commit.as_ref().and_then(Commit::retry_at_ms);
        let expiry = self.pending.values().filter(|pending| !pending.is_acknowledged()).map(|p| self.expiry_ms(p));
        let trigger = self.trigger_due().map(|(at, _)| at);
        retry.into_iter().chain(expiry).chain(trigger).min()
    }

    /// Where a restart begins. The tasks must have been stopped.
    pub fn restore_point(&self) -> RestorePoint {
        match (&self.commit, self.retained.last()) {
            (Some(_), _) => RestorePoint::Undecided,
            (None, None) => RestorePoint::Empty,
            (None, Some(newest)) => RestorePoint::Checkpoint(*newest),
        }
    }

    /// The completed checkpoints that were not deleted, oldest first.
    pub fn retained(&self) -> &[CheckpointId] {
        &self.retained
    }

    /// Counts and history.
    pub fn statistics(&self) -> &CheckpointStatistics {
        &self.statistics
    }

    /// Why the step that completes a checkpoint does not get on, while the store does not answer.
    pub fn stalled_by(&self) -> Option<&Error> {
        self.commit.as_ref().and_then(|commit| commit.last_error.as_ref())
    }

    fn handle(&mut self, now_ms: u64, event: CoordinatorEvent, effects: &mut Vec<Effect>) {
        match event {
            CoordinatorEvent::TasksRunning { attempt, tasks, restored } => {
                self.abort_all(now_ms, effects);
                if let Some(id) = restored {
                    self.statistics.restored(now_ms, id);
                }
                self.running = Some(Running { attempt, tasks });
                self.schedule.start(now_ms, &self.config);
            }
            CoordinatorEvent::TasksAdopted { attempt, tasks, triggered, newest_at_ms } => {
                self.next_id = self.next_id.max(triggered.map_or(CheckpointId(0), CheckpointId::next));
                self.running = Some(Running { attempt, tasks });
                self.schedule.go_on(now_ms, newest_at_ms, &self.config);
            }
            CoordinatorEvent::TasksStopped => {
                self.running = None;
                self.abort_all(now_ms, effects);
            }
            CoordinatorEvent::Tick => {}
            CoordinatorEvent::Trigger(reason) if self.running.is_some() => self.schedule.request(now_ms, reason),
            CoordinatorEvent::Trigger(_) => {}
            CoordinatorEvent::Answered(answer) => self.on_answer(now_ms, answer, effects),
            CoordinatorEvent::MetadataWritten { checkpoint, outcome } => {
                self.on_metadata(now_ms, checkpoint, outcome, effects);
            }
            CoordinatorEvent::Appended { checkpoint, outcome } => {
                self.on_appended(now_ms, checkpoint, outcome, effects);
            }
            CoordinatorEvent::StillLeader { checkpoint, outcome } => {
                self.on_leader(now_ms, checkpoint, outcome, effects);
            }
        }
    }

    fn trigger_due(&self) -> Option<(u64, TriggerReason)> {
        self.running.as_ref()?;
        self.schedule.due(&self.config, self.pending.len() + usize::from(self.commit.is_some()))
    }

    fn trigger_if_due(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some((_, reason)) = self.trigger_due().filter(|(at, _)| *at <= now_ms) else { return };
        let Some(running) = &self.running else { return };
        let barrier = CheckpointBarrier { id: self.next_id, triggered_at_ms: now_ms };
        self.next_id = self.next_id.next();
        self.schedule.triggered(now_ms, barrier.id, &self.config);
        self.statistics.triggered(now_ms, barrier.id, reason, &running.tasks);
        let pending = PendingCheckpoint::new(barrier, reason, running.attempt, running.tasks.clone());
        self.pending.insert(barrier.id, pending);
        effects.push(Effect::Trigger(barrier));
    }

    fn on_answer(&mut self, now_ms: u64, answer: TaskAnswer, effects: &mut Vec<Effect>) {
        let TaskAnswer { generation, attempt, task, checkpoint, outcome } = answer;
        let current = generation == self.generation && self.running.as_ref().is_some_and(|r| r.attempt == attempt);
        // A task of a later generation is not ours to judge.
        let void = generation <= self.generation && !self.is_kept(checkpoint);
        let pending = self.pending.get_mut(&checkpoint).filter(|_| current);
        match (pending, outcome) {
            (Some(pending), Ok(part)) => match pending.acknowledge(task, part.state) {
                Ok(()) => self.statistics.acknowledged(now_ms, checkpoint, task, part.metrics),
                Err(state) => discard(state, effects),
            },
            (Some(_), Err(reason)) => {
                let reason = reason.context(format!("task {task} declined checkpoint {checkpoint}"));
                // A task that has given up an older checkpoint for a newer one has not failed.
                let superseded = self.pending.range(checkpoint.next()..).next().is_some();
                self.fail(now_ms, checkpoint, reason, !superseded, effects);
            }
            (None, Ok(part)) if void => discard(part.state, effects),
            (None, _) => {}
        }
    }

    /// Whether the checkpoint is in the log, or may get there.
    fn is_kept(&self, id: CheckpointId) -> bool {
        self.retained.contains(&id) || self.commit.as_ref().is_some_and(|commit| commit.checkpoint == id)
    }

    /// Begins with the newest checkpoint that all tasks have acknowledged, or repeats a step that had no answer.
    fn go_on_completing(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if let Some(commit) = &mut self.commit {
            effects.extend(commit.retry(now_ms));
            return;
        }
        let ready = self.pending.iter().rev().find(|(_, pending)| pending.is_acknowledged()).map(|(&id, _)| id);
        if let Some(pending) = ready.and_then(|id| self.pending.remove(&id)) {
            let commit = Commit::new(pending);
            effects.push(commit.effect());
            self.commit = Some(commit);
        }
    }

    fn on_metadata(&mut self, now_ms: u64, id: CheckpointId, outcome: MetadataOutcome, effects: &mut Vec<Effect>) {
        let Some(mut commit) = self.commit.take_if(|commit| commit.awaits(id, |step| step == Step::Metadata)) else {
            return;
        };
        let (error, counts) = match outcome {
            MetadataOutcome::Written(receipt) => {
                effects.push(commit.advance(Step::Append(receipt)));
                self.commit = Some(commit);
                return;
            }
            MetadataOutcome::Conflict { highest } => {
                self.next_id = self.next_id.max(highest.next());
                (Error::external(format!("checkpoint {id} has the metadata of another jobmanager")), false)
            }
            MetadataOutcome::Failed(error) => (error.context(format!("writing the metadata of checkpoint {id}")), true),
        };
        effects.push(Effect::Abort(id));
        discard(commit.states.values().flatten().cloned().collect(), effects);
        self.record_failure(now_ms, id, error, counts, effects);
    }

    fn on_appended(&mut self, now_ms: u64, id: CheckpointId, outcome: AppendOutcome, effects: &mut Vec<Effect>) {
        let waiting = |commit: &&mut Commit| commit.awaits(id, |step| matches!(step, Step::Append(_)));
        let Some(commit) = self.commit.as_mut().filter(waiting) else { return };
        match outcome {
            AppendOutcome::Appended => effects.push(commit.advance(Step::Relist)),
            AppendOutcome::Fenced => self.stop(effects),
            AppendOutcome::Unknown(error) => commit.retry_later(now_ms, error),
        }
    }

    fn on_leader(&mut self, now_ms: u64, id: CheckpointId, outcome: LeaderOutcome, effects: &mut Vec<Effect>) {
        let waiting = |commit: &&mut Commit| commit.awaits(id, |step| step == Step::Relist);
        let Some(commit) = self.commit.as_mut().filter(waiting) else { return };
        match outcome {
            LeaderOutcome::Yes => self.complete(now_ms, effects),
            LeaderOutcome::No => self.stop(effects),
            LeaderOutcome::Unknown(error) => commit.retry_later(now_ms, error),
        }
    }

    fn complete(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let Some(Commit { checkpoint, reason, attempt, .. }) = self.commit.take() else { return };
        self.retained.push(checkpoint);
        self.failures = 0;
        self.schedule.completed(now_ms, checkpoint);
        self.statistics.completed(now_ms, checkpoint);
        // If the tasks have been stopped meanwhile, they restart from it, and there is nobody to tell.
        if self.running.as_ref().is_some_and(|running| running.attempt == attempt) {
            effects.push(Effect::Announce { checkpoint, reason });
        }
        let older: Vec<_> = self.pending.range(..checkpoint).map(|(&id, _)| id).collect();
        for id in older {
            let error = Error::internal(format!("checkpoint {id} was superseded by checkpoint {checkpoint}"));
            self.fail(now_ms, id, error, false, effects);
        }
        let excess = self.retained.len().saturating_sub(self.config.num_retained.max(1) as usize);
        if excess > 0 {
            effects.push(Effect::DeleteCheckpoints(self.retained.drain(..excess).collect()));
        }
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        self.fenced = true;
        effects.push(Effect::Stop);
    }

    fn expiry_ms(&self, pending: &PendingCheckpoint) -> u64 {
        pending.barrier.triggered_at_ms.saturating_add(millis(self.config.timeout))
    }

    fn expire(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let late = |pending: &PendingCheckpoint| !pending.is_acknowledged() && self.expiry_ms(pending) <= now_ms;
        let expired: Vec<_> = self.pending.iter().filter(|(_, pending)| late(pending)).map(|(&id, _)| id).collect();
        for id in expired {
            let waiting: Vec<_> = self.pending[&id].waiting().map(ToString::to_string).collect();
            let (shown, more) = waiting.split_at(waiting.len().min(5));
            let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
            let error = Error::external(format!(
                "checkpoint {id} expired after {:?}: no answer from task {}{more}",
                self.config.timeout,
                shown.join(", "),
            ));
            self.fail(now_ms, id, error, true, effects);
        }
    }

    fn abort_all(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let ids: Vec<_> = self.pending.keys().copied().collect();
        for id in ids {
            self.fail(now_ms, id, Error::external("the job's tasks were stopped"), false, effects);
        }
    }

    /// A pending checkpoint will not complete. `counts`: as a failure that may fail the job.
    fn fail(&mut self, now_ms: u64, id: CheckpointId, error: Error, counts: bool, effects: &mut Vec<Effect>) {
        let Some(pending) = self.pending.remove(&id) else { return };
        if self.running.is_some() {
            effects.push(Effect::Abort(id));
        }
        discard(pending.into_states().into_values().flatten().collect(), effects);
        self.record_failure(now_ms, id, error, counts, effects);
    }

    fn record_failure(&mut self, now_ms: u64, id: CheckpointId, error: Error, counts: bool, effects: &mut Vec<Effect>) {
        self.schedule.failed(now_ms, id);
        self.statistics.failed(now_ms, id, error.message.clone());
        if !counts {
            return;
        }
        self.failures += 1;
        if let Some(tolerable) = self.config.tolerable_failed.filter(|&tolerable| self.failures > tolerable) {
            let failed = std::mem::take(&mut self.failures);
            // The tasks are about to be stopped.
            self.running = None;
            effects.push(Effect::FailJob(error.context(format!(
                "{failed} checkpoints failed in a row and execution.checkpointing.tolerable-failed-checkpoints is \
                 {tolerable}; the last one"
            ))));
        }
    }
}

/// Discards what lies in files; the rest vanishes by itself.
fn discard(mut state: Vec<OperatorSubtaskState>, effects: &mut Vec<Effect>) {
    let in_file = |data: &StateHandle| !matches!(data, StateHandle::Inline(_));
    state.retain(|part| part.keyed.iter().map(|keyed| &keyed.data).chain(&part.in_flight).any(in_file));
    if !state.is_empty() {
        effects.push(Effect::DiscardState(state));
    }
}
