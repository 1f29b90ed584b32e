//! Taskmanagers that were told to end: their tasks are handed over at a checkpoint, so that nothing is read twice.

use std::time::Duration;

use millrace_core::ids::{Attempt, TaskManagerId};

use super::{AfterEnding, Effect, JobScheduler, Phase};

/// How far the departure of a taskmanager is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// It holds tasks, or may.
    Asked,
    /// It was told that it may end.
    Released,
}

impl JobScheduler {
    /// A taskmanager was told to end: its slots are used no more.
    pub(super) fn leaves(&mut self, id: TaskManagerId) {
        if let Some(slots) = self.slots.get_mut(&id) {
            *slots = 0;
        }
        self.leaving.entry(id).or_insert(Departure::Asked);
    }

    /// The sources stand still at a checkpoint that is complete: the attempt ends, and the next one begins there.
    pub(super) fn handed_over(&mut self, now: Duration, attempt: Attempt, effects: &mut Vec<Effect>) {
        let is_due = attempt == self.attempt && self.handing_over == Some(attempt);
        if is_due && matches!(self.phase, Phase::Running { .. }) {
            self.end_tasks(now, AfterEnding::Restart(Duration::ZERO), effects);
        }
    }

    /// Releases the taskmanagers that hold no tasks any more, and asks for the checkpoint at which the others can.
    pub(super) fn let_go(&mut self, effects: &mut Vec<Effect>) {
        let asked = self.leaving.iter().filter(|(_, departure)| **departure == Departure::Asked);
        let asked: Vec<_> = asked.map(|(id, _)| id.clone()).collect();
        let (used, free): (Vec<_>, Vec<_>) = asked.into_iter().partition(|id| self.holds_tasks(id));
        // Without checkpoints there is nothing that could be handed over.
        let runs = matches!(self.phase, Phase::Running { .. });
        let lost = if runs && !self.plan.checkpoints { used.clone() } else { Vec::new() };
        for id in free.into_iter().chain(lost) {
            self.leaving.insert(id.clone(), Departure::Released);
            effects.push(Effect::Release(id));
        }
        if runs && self.plan.checkpoints && !used.is_empty() && self.handing_over != Some(self.attempt) {
            self.handing_over = Some(self.attempt);
            effects.push(Effect::HandOver(self.attempt));
        }
    }

    fn holds_tasks(&self, id: &TaskManagerId) -> bool {
        if self.kept.assignment.values().any(|place| place == id) {
            return true;
        }
        match &self.phase {
            Phase::Ending { running, .. } => running.values().any(|place| place == id),
            Phase::Finishing { assignment, running } => running.iter().any(|task| assignment.get(task) == Some(id)),
            _ => self.assignment().is_some_and(|assignment| assignment.values().any(|place| place == id)),
        }
    }
}
