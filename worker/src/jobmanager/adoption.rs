//! A new jobmanager finds tasks that run already: it goes on with them, or ends them and starts the job anew.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use millrace_core::{
    Error,
    ids::{Attempt, CheckpointId, Generation, TaskId, TaskManagerId},
    rest::ExecutionState,
};
use millrace_runtime::{
    STEP,
    coordinator::CoordinatorEvent,
    scheduler::{
        Event as SchedulerEvent, Plan,
        adoption::{AdoptableTask, Adoption, AdoptionChecks, AdoptionVerdict, NewestCheckpoint, RunningAttempt},
    },
    task::{TaskCommand, TaskEvent},
};

use super::{AttemptState, Event, JobManager, TaskManager, TaskState, splits::Enumerators};
use crate::{config::Role, rpc::ToTaskManager};

/// Taskmanagers that run tasks come at once: they look for the jobmanager all the time. Where none has come after so
/// long, none will.
const FIRST_REPORT: Duration = Duration::from_secs(1);
/// So many checkpoints can be under way at most, as far as tasks are told that they are abandoned.
const MOST_ABANDONED: usize = 128;

impl JobManager {
    /// Waits for tasks that run under an earlier jobmanager, where there may be some that can be adopted: `newest` is the
    /// checkpoint that they must continue, `marked` an attempt of the job that they must not be before.
    pub(super) fn look_for_tasks(&mut self, newest: Option<NewestCheckpoint>, marked: Option<(Generation, Attempt)>) {
        let timeout = self.settings.jobmanager.adoption_timeout;
        // The tasks of a local run end with its process.
        let may_run = self.settings.role == Role::JobManager && self.checkpoints.is_enabled() && !timeout.is_zero();
        let Some(newest) = newest.filter(|_| may_run) else { return };
        let tasks = Plan::new(&self.graph, true).tasks().to_vec();
        self.adoption = Some(Adoption::new(tasks, newest, marked, AdoptionChecks::default()));
        let events = self.events.clone();
        tokio::spawn(async move {
            let first = timeout.min(FIRST_REPORT);
            tokio::time::sleep(first).await;
            let _ = events.send(Event::AdoptionTimer { last: false });
            tokio::time::sleep(timeout.saturating_sub(first)).await;
            let _ = events.send(Event::AdoptionTimer { last: true });
        });
    }

    /// A taskmanager belongs to the job now. Its slots count once no tasks of an earlier jobmanager are in them.
    pub(super) fn registered(&mut self, id: TaskManagerId) {
        let runs_tasks = self.taskmanagers.get(&id).is_some_and(|taskmanager| taskmanager.running);
        if self.adoption.is_none() && !runs_tasks {
            self.offer_slots(id);
        }
    }

    fn offer_slots(&mut self, id: TaskManagerId) {
        if let Some(TaskManager { resource_id, slots, .. }) = self.taskmanagers.get(&id) {
            let (resource_id, slots) = (resource_id.clone(), *slots);
            self.schedule(SchedulerEvent::TaskManagerRegistered { id, resource_id, slots });
        }
    }

    /// A taskmanager reports the tasks that it runs.
    pub(super) fn tasks_reported(&mut self, id: &TaskManagerId, reports: Vec<AdoptableTask>) {
        match &mut self.adoption {
            Some(adoption) => {
                adoption.reported(id, reports);
                self.decide_on_tasks();
            }
            // The job has been started without them.
            None => self.send_away(id),
        }
    }

    /// What happens to tasks before it is decided what becomes of them.
    pub(super) fn while_adopting(&mut self, task: TaskId, event: &TaskEvent) {
        let Some(adoption) = &mut self.adoption else { return };
        match event {
            TaskEvent::EndOfInput => adoption.ended(task),
            TaskEvent::Failed(failure) => adoption.gone(task, &format!("has failed: {}", failure.error.message)),
            TaskEvent::Finished | TaskEvent::Canceled => adoption.gone(task, "has ended"),
            _ => {}
        }
        self.decide_on_tasks();
    }

    pub(super) fn lost_while_adopting(&mut self, id: &TaskManagerId) {
        if let Some(adoption) = &mut self.adoption {
            adoption.lost(id);
            self.decide_on_tasks();
        }
    }

    pub(super) fn adoption_timer(&mut self, last: bool) {
        if let Some(adoption) = self.adoption.as_mut().filter(|adoption| last || !adoption.any()) {
            adoption.give_up();
            self.decide_on_tasks();
        }
    }

    fn decide_on_tasks(&mut self) {
        let Some(adoption) = &self.adoption else { return };
        let newest = adoption.newest();
        match adoption.verdict() {
            AdoptionVerdict::Wait => {}
            AdoptionVerdict::Adopt(running) => {
                self.adoption = None;
                self.adopt(newest, running);
            }
            AdoptionVerdict::Restart(why) => {
                let any = adoption.any();
                self.adoption = None;
                if any {
                    tracing::info!("the tasks that run are not adopted: {why}");
                }
                let ids: Vec<_> = self.taskmanagers.keys().cloned().collect();
                let (with_tasks, free): (Vec<_>, Vec<_>) =
                    ids.into_iter().partition(|id| self.taskmanagers[id].running);
                with_tasks.iter().for_each(|id| self.send_away(id));
                free.into_iter().for_each(|id| self.offer_slots(id));
            }
        }
    }

    /// Goes on with tasks that run: nothing is restored, and nothing is read again.
    fn adopt(&mut self, newest: NewestCheckpoint, running: RunningAttempt) {
        let NewestCheckpoint { id: newest, triggered_at_ms: newest_at_ms, .. } = newest;
        let RunningAttempt { attempt, attempts, assignment, ended, splits, triggered } = running;
        tracing::info!(%attempt, tasks = assignment.len(), checkpoint = %newest, "adopted the tasks that run");
        tracing::debug!(target: STEP, step = "adopt", %attempt);
        let tasks: BTreeSet<_> = assignment.keys().copied().collect();
        self.attempt = AttemptState {
            started: true,
            tasks: tasks.iter().map(|task| (*task, TaskState::new(ExecutionState::Running))).collect(),
            ..AttemptState::default()
        };
        self.has_run = true;
        let now_ms = self.clock.now_ms();
        self.view.vertices.iter_mut().for_each(|vertex| vertex.start_time = Some(now_ms));
        let places: BTreeSet<_> = assignment.values().cloned().collect();
        // It runs tasks that are none of these, and has not told of them yet.
        let strays = self.taskmanagers.iter().filter(|(id, tm)| tm.running && !places.contains(id));
        let strays: Vec<_> = strays.map(|(id, _)| id.clone()).collect();
        strays.iter().for_each(|id| self.send_away(id));
        places.iter().for_each(|id| self.send(id, &ToTaskManager::Adopt(attempt, newest)));
        self.coordinate(CoordinatorEvent::TasksAdopted { attempt, tasks, triggered, newest_at_ms });
        // The announcement may have been lost with the jobmanager, and what was under way is abandoned.
        let abandoned = newest.0 + 1..=triggered.map_or(newest.0, |id| id.0);
        let abandoned = abandoned.take(MOST_ABANDONED).map(|id| TaskCommand::NotifyAborted(CheckpointId(id)));
        let news: Vec<_> = std::iter::once(TaskCommand::NotifyComplete(newest)).chain(abandoned).collect();
        for deployed in attempts.values().copied().collect::<BTreeSet<_>>() {
            news.iter().for_each(|news| self.tell_attempt(deployed, news));
        }
        self.schedule(SchedulerEvent::Adopted { attempt, attempts, assignment, ended });
        self.taskmanagers.values_mut().for_each(|taskmanager| taskmanager.running = false);
        let ids: Vec<_> = self.taskmanagers.keys().cloned().collect();
        ids.into_iter().for_each(|id| self.offer_slots(id));
        let finished = self.recovery.adopted(self.clock.elapsed());
        self.tell_recovery(finished);
        let events = self.events.clone();
        let report = move |found| {
            let _ = events.send(Event::Splits(found));
        };
        self.splits = splits.clone();
        match Enumerators::go_on(Arc::clone(&self.graph), attempt, splits, None, report) {
            Ok(enumerators) => self.attempt.enumerators = Some(enumerators),
            Err(error) => {
                let error = Error::external(format!("no thread for the sources' enumerators: {error}"));
                self.schedule(SchedulerEvent::AttemptFailed(attempt, error));
            }
        }
    }

    /// Has a taskmanager end its tasks and come again without them.
    fn send_away(&mut self, id: &TaskManagerId) {
        self.send(id, &ToTaskManager::ComeAnew);
        self.taskmanagers.remove(id);
    }
}
